"""The promises hold for any deployment: of code that changes between attempts, below any path, behind any gateway."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from idempotency import Body, Completion, Operation, Outcome, Request, Retry, Settings
from idempotency.record import PARKED_UNTIL
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import proxy_event
from tests.messages import MAX_RECOVERIES
from tests.sample import LONGEST_PAUSE, Samples
from tests.unit.route import Route
from tests.unit.service import scan

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from tests.unit.route import Run

pytestmark = pytest.mark.thorough

LEASE_SECONDS = 30
NewRoute = Callable[..., Route]


class Order(Body):
    """What version 1 takes."""

    sku: str
    note: str | None = None


class OrderOfToday(Body):
    """What version 2 takes: one member more is required, and one is not known any more."""

    sku: str
    quantity: int


def created(_: Operation) -> Response[Any]:
    return Completion(201, {"made": True})


def not_now(_: Any) -> None:
    """An undo that fails for now."""
    raise Retry("later")


def killed(_: Operation) -> Response[Any]:
    raise Killed


@pytest.fixture
def version(dynamodb: DynamoDBClient, clock: SetClock) -> NewRoute:
    """Makes a version of the route, on the one table."""

    def make(run: Run = created, **choices: Any) -> Route:
        return Route(dynamodb, clock, run, **choices)

    return make


SENT: dict[str, Any] = {"body": {"sku": "a", "note": "soon"}, "key": "order-17"}
STRICTER: dict[str, dict[str, Any]] = {
    "a member more": {"body": OrderOfToday},
    "a smaller body": {"body": Order, "max_body": 10},
    "keys that are UUIDs": {"body": Order, "key_format": "uuid"},
}


class TestRequestThatIsRefusedByNow:
    """Version 1 took the request; version 2 refuses such requests."""

    @pytest.fixture(params=[*STRICTER])
    def later(self, version: NewRoute, request: pytest.FixtureRequest) -> Route:
        """Version 2."""
        return version(**STRICTER[request.param])

    def test_is_replayed_if_it_completed(self, version: NewRoute, later: Route) -> None:
        first = version(body=Order).post(**SENT)

        answer = later.post(**SENT)

        assert (answer.status, answer.replayed, answer.body) == (201, True, first.body)
        assert later.runs == 0

    def test_is_replayed_whatever_content_type_is_taken_by_now(self, version: NewRoute) -> None:
        version(body=bytes).post(body=b"sku=a", content_type="application/x-www-form-urlencoded")

        answer = version(body=OrderOfToday).post(body=b"sku=a", content_type="application/x-www-form-urlencoded")

        assert (answer.status, answer.replayed) == (201, True)

    def test_is_told_to_wait_while_it_runs_and_to_retry_once_it_was_cut_off(
        self, version: NewRoute, later: Route, clock: SetClock
    ) -> None:
        with pytest.raises(Killed):
            version(killed, body=Order).post(**SENT)

        running = later.post(**SENT)
        clock.advance(LEASE_SECONDS + 0.001)
        cut_off = later.post(**SENT)

        assert (running.status, running.problem, cut_off.status, cut_off.problem) == (
            409, "in-progress", 503, "unavailable",
        )  # fmt: skip
        assert {"retry-after"} <= running.headers.keys() & cut_off.headers.keys()
        assert later.runs == 0

    def test_is_refused_under_another_key_by_another_principal_and_after_its_expiry(
        self, version: NewRoute, later: Route, clock: SetClock
    ) -> None:
        version(body=Order).post(**SENT)

        others = [later.post(**{**SENT, "key": "order-18"}), later.post(**SENT, principal="bob")]
        clock.advance(24 * 3600)
        others.append(later.post(**SENT))

        assert {answer.status for answer in others} <= {400, 413}
        assert len({answer.problem for answer in others}) == 1

    def test_is_refused_for_what_it_is_if_it_is_another_one(self, version: NewRoute, later: Route) -> None:
        version(body=Order).post(**SENT)

        answer = later.post(**{**SENT, "body": {"sku": "b", "note": "soon"}})

        assert answer.problem in {"body-invalid", "body-too-large", "key-invalid"}

    def test_is_refused_for_what_it_is_without_a_call_if_another_one_is_remembered(
        self, version: NewRoute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        today = version(body=OrderOfToday, settings=Settings())
        today.post(key=SENT["key"], body={"sku": "a", "quantity": 1})

        monkeypatch.setattr(today.lifecycle, "store", None)

        assert today.post(**SENT).problem == "body-invalid"

    def test_is_replayed_though_what_is_remembered_under_its_key_has_expired(
        self, version: NewRoute, clock: SetClock
    ) -> None:
        later = version(body=OrderOfToday, settings=Settings())
        version(body=Order).post(**SENT)
        later.post(**SENT)
        clock.advance(24 * 3600)
        version(body=Order).post(**SENT)

        assert later.post(**SENT).replayed

    def test_leaves_no_trace_if_it_was_never_taken(self, later: Route, dynamodb: DynamoDBClient) -> None:
        assert later.post(**SENT).status in {400, 413}
        assert scan(dynamodb, "IdempotencyTable") == []

    @pytest.mark.parametrize("body", ["{", '{"a":1,"a":2}'])
    def test_is_refused_if_nobody_could_ever_have_taken_it(self, version: NewRoute, later: Route, body: str) -> None:
        version(body=Order).post(**SENT)

        assert later.post(key=SENT["key"], body=body).status in {400, 413}


class TestPathParameterWithAnotherName:
    def test_is_the_same_record(self, version: NewRoute) -> None:
        before = version(rule="/v1/things/<thing_id>/parts")
        after = version(rule="/v1/things/<id>/parts")
        path = "/v1/things/7/parts"

        first = before.post(path=path, resource="/v1/things/{thing_id}/parts")
        same = after.post(path=path, resource="/v1/things/{id}/parts")
        other = after.post(path="/v1/things/8/parts", resource="/v1/things/{id}/parts")

        assert (first.status, same.replayed, other.problem, after.runs) == (201, True, "key-reused", 0)

    def test_is_recovered_under_its_new_name(self, version: NewRoute, clock: SetClock) -> None:
        before = version(killed, rule="/v1/things/<thing_id>/parts", recoverable=True)
        after = version(rule="/v1/things/<id>/parts", recoverable=True)
        with pytest.raises(Killed):
            before.post(path="/v1/things/7/parts", resource="/v1/things/{thing_id}/parts")
        clock.advance(LEASE_SECONDS + 0.001)

        assert after.recover() == [Outcome.EXECUTED]

        assert after.path == {"id": "7"}
        assert after.post(path="/v1/things/7/parts", resource="/v1/things/{id}/parts").replayed

    def test_is_not_another_route_that_looks_like_it(self, version: NewRoute) -> None:
        version(rule="/v1/things/<id>/parts").post(path="/v1/things/7/parts", resource="/v1/things/{id}/parts")
        greedy = version(rule="/v1/things/.+")

        assert not greedy.post(path="/v1/things/7", resource="/v1/things/{id+}").replayed


class TestStoredRequest:
    """Version 1 left operations; version 2 can carry some of them on."""

    def test_that_this_version_refuses_is_parked_with_the_reason(
        self, version: NewRoute, clock: SetClock, dynamodb: DynamoDBClient
    ) -> None:
        with pytest.raises(Killed):
            version(killed, body=Order, recoverable=True).post(**SENT)
        later = version(body=OrderOfToday, recoverable=True)

        outcomes = []
        for _ in range(MAX_RECOVERIES + 1):
            clock.advance(LONGEST_PAUSE)
            outcomes += later.recover()

        [record] = scan(dynamodb, "IdempotencyTable")
        assert outcomes == [Outcome.RELEASED] * (MAX_RECOVERIES - 1) + [Outcome.PARKED]
        assert (record["lease_until"], later.runs) == (PARKED_UNTIL, 0)
        assert record["last_error"].startswith(
            "Retry: This version refuses the stored request: The body does not match"
        )
        assert "'#/note'" in record["last_error"]
        assert "'#/quantity'" in record["last_error"]

    def test_that_this_version_refuses_keeps_the_reason_while_its_steps_wait_to_be_undone(
        self, version: NewRoute, clock: SetClock, dynamodb: DynamoDBClient
    ) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: 1, undo=not_now)
            return Completion(409, {})

        version(run, body=Order, recoverable=True).post(**SENT)
        clock.advance(LONGEST_PAUSE)

        assert version(body=OrderOfToday, recoverable=True).recover() == [Outcome.RELEASED]

        [record] = scan(dynamodb, "IdempotencyTable")
        assert "This version refuses the stored request" in record["last_error"]

    def test_that_is_too_large_by_now_keeps_that_as_the_reason(
        self, version: NewRoute, clock: SetClock, dynamodb: DynamoDBClient
    ) -> None:
        with pytest.raises(Killed):
            version(killed, recoverable=True).post(**SENT)
        clock.advance(LONGEST_PAUSE)

        version(max_body=1, recoverable=True).recover()

        [record] = scan(dynamodb, "IdempotencyTable")
        assert record["last_error"].split(": ")[-1].strip() == "A body has at most 1 bytes here."

    def test_that_failed_keeps_its_answer_even_if_nothing_is_left_to_undo(
        self, version: NewRoute, clock: SetClock
    ) -> None:
        def before(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: 1, undo=not_now)
            return Completion(409, {"version": 1})

        def after(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: 1)
            return Completion(409, {"version": 2})

        assert version(before).post().status == 503
        clock.advance(1)

        assert version(after).post().json == {"version": 1}

    def test_that_failed_is_told_of_what_no_attempt_reaches_any_more(self, version: NewRoute, clock: SetClock) -> None:
        def unknown(_: str) -> None:
            raise TimeoutError

        def before(operation: Operation) -> Response[Any]:
            with suppress(TimeoutError):
                operation.step("page", unknown, undo=lambda: None)
            operation.step("route", lambda _: 1, undo=not_now)
            return Completion(409, {})

        def after(operation: Operation) -> Response[Any]:
            operation.step("route", lambda _: 1)
            return Completion(201, {})

        assert version(before).post().status == 503
        clock.advance(1)
        later = version(after)
        later.post()

        assert later.telemetry.doubts == ["step 'page' was begun, and no attempt that failed has reached it since"]

    def test_of_nobody_is_carried_on_where_nobody_is_let_in_by_now(self, version: NewRoute, clock: SetClock) -> None:
        with pytest.raises(Killed):
            version(killed, anonymous=True, recoverable=True).post(principal=None)
        clock.advance(LONGEST_PAUSE)

        assert version(recoverable=True).recover() == [Outcome.EXECUTED]

    def test_is_the_request_as_it_was_stored(
        self, version: NewRoute, clock: SetClock, dynamodb: DynamoDBClient
    ) -> None:
        # Given a request of a version that kept the slash at the end of a path
        rule, path = "/v1/things/<id>/parts", "/v1/things/7/parts"
        with pytest.raises(Killed):
            version(killed, rule=rule, recoverable=True).post(path=path, resource="/v1/things/{id}/parts")
        [record] = scan(dynamodb, "IdempotencyTable")
        stored = json.loads(zlib.decompress(bytes(record["request"])))
        dynamodb.update_item(
            TableName="IdempotencyTable",
            Key={"id": {"S": record["id"]}},
            UpdateExpression="SET #request = :request",
            ExpressionAttributeNames={"#request": "request"},
            ExpressionAttributeValues={
                ":request": {"B": zlib.compress(json.dumps({**stored, "path": f"{path}/"}).encode())}
            },
        )
        seen = []

        def run(operation: Operation) -> Response[Any]:
            seen.append(operation.request.path)
            return Completion(201, {})

        clock.advance(LEASE_SECONDS + 0.001)
        assert version(run, rule=rule, recoverable=True).recover() == [Outcome.EXECUTED]
        assert seen == [f"{path}/"]

    def test_without_a_route_is_left_alone_until_it_is_due(
        self, version: NewRoute, clock: SetClock, dynamodb: DynamoDBClient
    ) -> None:
        with pytest.raises(Killed):
            version(killed, recoverable=True).post(**SENT)
        [before] = scan(dynamodb, "IdempotencyTable")
        later = version(rule="/v1/others", recoverable=True)
        later.messages.waiting.append((clock.now(), before["id"]))

        assert later.work() == [None]

        assert scan(dynamodb, "IdempotencyTable") == [before]

    def test_that_cannot_be_read_stops_no_other_and_says_why(
        self, samples: Samples, dynamodb: DynamoDBClient, clock: SetClock, logs: StringIO
    ) -> None:
        # Given five unfinished operations, of which this version cannot carry four on
        samples.service.fails("make", times=5)
        for number in range(5):
            samples.create({"name": f"{number}"}, key=f"key-{number}")
        records = {self.name_of(record): record for record in samples.api.records}

        def change(number: int, name: str, value: dict[str, Any]) -> None:
            dynamodb.update_item(
                TableName="IdempotencyTable",
                Key={"id": {"S": records[f"{number}"]["id"]}},
                UpdateExpression="SET #name = :value",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues={":value": value},
            )

        def packed(number: int, **changes: Any) -> dict[str, Any]:
            stored = json.loads(zlib.decompress(bytes(records[f"{number}"]["request"])))
            return {"B": zlib.compress(json.dumps({**stored, **changes}).encode())}

        change(0, "request", {"B": b"\x00"})
        change(1, "request", packed(1, priority="high"))
        change(2, "request", packed(2, route="/v1/gone", path="/v1/gone"))
        change(3, "status", {"S": "SUSPENDED"})

        # When recovery runs
        clock.advance(LONGEST_PAUSE)
        samples.api.messages.waiting.clear()
        logs.truncate(0)
        logs.seek(0)
        assert samples.recover() == {"taken_up": 4, "completed": 1}

        # Then the fifth is finished, and of each other the reason is kept
        after = {record["id"]: record for record in samples.api.records}
        reasons = [after[records[f"{number}"]["id"]].get("last_error", "") for number in range(5)]
        assert reasons[0].startswith("This version cannot read the stored request: error(")
        assert "unexpected keyword argument 'priority'" in reasons[1]
        assert reasons[2] == "This version has no idempotent route for POST /v1/gone: HTTP 404"
        assert samples.labels == ["4"]

        # And no line of the log speaks of another operation than its own
        lines = [json.loads(line) for line in logs.getvalue().splitlines()]
        told = {line["record"]: line for line in lines if line["message"] == "recovered"}
        assert {id_: line["operation_id"] for id_, line in told.items()} == {
            id_: after[id_]["operation_id"] for id_ in told
        }
        assert len(told) == 4
        unreadable = [line for line in lines if "SUSPENDED" in str(line.get("exception"))]
        assert unreadable
        assert not any("operation_id" in line for line in unreadable)

    @staticmethod
    def name_of(record: dict[str, Any]) -> str:
        body = Request.unpack(bytes(record["request"])).body
        return str(json.loads(body)["name"])


ID = "/v1/things/{id}/parts"
BASES = ["", "/dev", "/shop/v1", "/v1/things", "/v1/things/7/parts", "/a/b/c-d"]
PATHS = [
    # the resource, its rule, what the client sends, the parameters that the gateway reads, the path
    ("/v1/things", "/v1/things", "/v1/things", None, "/v1/things"),
    (ID, "/v1/things/<id>/parts", "/v1/things/7/parts", {"id": "7"}, "/v1/things/7/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/a%2Fb/parts", {"id": "a/b"}, "/v1/things/a%2Fb/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/%2F/parts", {"id": "/"}, "/v1/things/%2F/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/50%25/parts", {"id": "50%"}, "/v1/things/50%25/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/a%252Fb/parts", {"id": "a%2Fb"}, "/v1/things/a%252Fb/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/%22%3F%23/parts", {"id": '"?#'}, "/v1/things/%22%3F%23/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/%E2%82%AC/parts", {"id": "€"}, "/v1/things/%E2%82%AC/parts"),
    (ID, "/v1/things/<id>/parts", "/v1/things/%C3%A9%20b/parts", {"id": "é b"}, "/v1/things/é b/parts"),
    ("/v1/files/{name+}", "/v1/files/.+", "/v1/files/2027/a.txt", {"name": "2027/a.txt"}, "/v1/files/2027/a.txt"),
    ("/v1/files/{name+}", "/v1/files/.+", "/v1/files/a%2Fb/c%25", {"name": "a/b/c%"}, "/v1/files/a/b/c%25"),
    ("/{proxy+}", "/.+", "/v1/any/thing", {"proxy": "v1/any/thing"}, "/v1/any/thing"),
]  # fmt: skip


class TestPath:
    """It is what the gateway matched: below any base path, with a slash at the end or without."""

    @staticmethod
    def event(resource: str, sent: str, parameters: dict[str, str] | None, base: str = "/dev") -> dict[str, Any]:
        """What the gateway sends."""
        event = proxy_event(
            "POST", "/any", headers=[("Idempotency-Key", "k")], body=b"x", authorizer={"principalId": "alice"}
        )
        event["requestContext"] = {**event["requestContext"], "path": f"{base}{sent}", "resourcePath": resource}
        return {**event, "resource": resource, "path": f"{base}{sent}", "pathParameters": parameters}

    @pytest.mark.parametrize(("resource", "rule", "sent", "parameters", "path"), PATHS, ids=[path[2] for path in PATHS])
    def test_is_the_same_for_location_fingerprint_and_recovery(
        self,
        version: NewRoute,
        clock: SetClock,
        resource: str,
        rule: str,
        sent: str,
        parameters: dict[str, str] | None,
        path: str,
    ) -> None:
        seen: list[Any] = []

        def run(operation: Operation) -> Response[Any]:
            event = things.app.current_event
            assert isinstance(event, APIGatewayProxyEvent)
            seen.append((operation.request.path, operation.request.base_path, things.path, event.path_parameters))
            if len(seen) == 1:
                raise Killed
            return Completion(201, {}, headers={"Location": f"{operation.request.base_path}/made"})

        things = version(run, rule=rule, recoverable=True)

        for base in BASES:
            # Given an attempt that was killed
            seen.clear()
            with pytest.raises(Killed):
                things.send(self.event(resource, sent, parameters, base))
            clock.advance(LEASE_SECONDS + 0.001)

            # When recovery carries it on
            assert things.recover() == [Outcome.EXECUTED]

            # Then it saw the same, and a retry through any base path gets its answer
            assert seen[0] == seen[1]
            assert seen[0][:2] == (path, base)
            assert seen[0][3] == (parameters or {})
            for other in BASES:
                for slash in ("", "/"):
                    answer = things.send(self.event(resource, f"{sent}{slash}", parameters, other))
                    assert (answer.replayed, answer.headers["location"]) == (True, [f"{base}/made"])
            clock.advance(24 * 3600)

    def test_of_different_parameters_is_never_the_same(self, version: NewRoute) -> None:
        things = version(rule="/v1/things/<id>/parts")
        things.send(self.event(ID, "/v1/things/a%2Fb/parts", {"id": "a/b"}))

        for value in ("a%2Fb", "a", "a%252Fb", "A/b"):
            assert things.send(self.event(ID, "/v1/things/x/parts", {"id": value})).problem == "key-reused"

    def test_of_the_root_is_below_its_stage(self) -> None:
        event = self.event("/", "/", None, "/dev")

        request = Request.from_event(APIGatewayProxyEvent(event))

        assert (request.path, request.base_path) == ("/", "/dev")


class TestHeaderInSeveralLines:
    @pytest.fixture
    def running(self, version: NewRoute) -> Route:
        """A route whose key is taken by a worker that was killed."""
        things = version(killed)
        with pytest.raises(Killed):
            things.post()
        return things

    @pytest.mark.parametrize(
        "lines",
        [
            ["respond-async", "wait=2"],
            ["handling=strict", "respond-async, wait=2"],
            ["wait=2", "wait=9"],
            ["", "wait=2"],
            ["priority=5, foo", "bar;x=1", "wait=2"],
        ],
    )
    def test_prefers_what_one_of_them_says(self, running: Route, clock: SetClock, lines: list[str]) -> None:
        assert running.post(headers=[("Prefer", line) for line in lines]).status == 409

        assert sum(clock.sleeps) == 2_000

    @pytest.mark.parametrize("key", ["k,k", "k, k", '"k", "k"', '"k","k"', ",", "k,", ",k"])
    def test_is_no_key_even_if_a_proxy_has_joined_them(self, version: NewRoute, key: str) -> None:
        assert version().post(key=key).problem == "key-invalid"

    def test_is_no_key(self, version: NewRoute) -> None:
        assert (
            version().post(key=None, headers=[("Idempotency-Key", "k"), ("idempotency-key", "k")]).problem
            == "key-invalid"
        )

    def test_is_a_key_with_a_comma_if_it_is_quoted(self, version: NewRoute) -> None:
        things = version()

        assert [things.post(key='"a, b"').status, things.post(key='"a,b"').status] == [400, 201]


class TestWhatAnOperationReadsOfItsRequest:
    """A recoverable one reads in its client's attempt only what recovery will have too."""

    LOST: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("claims", lambda event: event.request_context.authorizer.claims["sub"]),
        ("raw claims", lambda event: event.raw_event["requestContext"]["authorizer"]["claims"]),
        ("source address", lambda event: event.request_context.identity.source_ip),
        ("request id", lambda event: event.request_context.request_id),
        ("user agent", lambda event: event.headers["User-Agent"]),
        ("token", lambda event: event.headers["Authorization"]),
        ("stage", lambda event: event.request_context.stage),
    )

    @staticmethod
    def send(things: Route) -> Any:
        return things.post(
            headers=[("Authorization", "Bearer secret"), ("User-Agent", "tests")],
            path="/v1/things/7",
            resource="/v1/things/{id}",
            query=[("a", "1"), ("a", "2")],
            body={"n": 1},
        )

    @pytest.mark.parametrize("read", [read for _, read in LOST], ids=[name for name, _ in LOST])
    def test_is_not_what_recovery_could_not_read(self, version: NewRoute, read: Callable[[Any], Any]) -> None:
        def run(_: Operation) -> Response[Any]:
            return Completion(201, {"read": str(read(things.app.current_event))})

        things = version(run, rule="/v1/things/<id>", recoverable=True)

        assert self.send(things).status == 500
        assert isinstance(things.telemetry.errors[0], KeyError | TypeError | AttributeError)

    def test_is_the_same_in_recovery(self, version: NewRoute, clock: SetClock) -> None:
        seen: list[Any] = []

        def run(operation: Operation) -> Response[Any]:
            event: Any = things.app.current_event
            seen.append(
                (
                    things.path,
                    things.body,
                    operation.request,
                    operation.principal,
                    event.path,
                    event.path_parameters,
                    event.multi_value_query_string_parameters,
                    event.headers["Content-Type"],
                    event.decoded_body,
                    event.json_body,
                )
            )
            if operation.attempt == 1:
                raise Killed
            return Completion(201, {})

        things = version(run, rule="/v1/things/<id>", recoverable=True)
        with pytest.raises(Killed):
            self.send(things)
        clock.advance(LEASE_SECONDS + 0.001)
        things.recover()

        assert seen[0] == seen[1]
        assert seen[0][0] == {"id": "7"}
        assert seen[0][-1] == {"n": 1}

    def test_is_all_of_it_on_a_route_that_recovery_leaves_alone(self, version: NewRoute) -> None:
        def run(_: Operation) -> Response[Any]:
            event: Any = things.app.current_event
            return Completion(
                201, {"from": event.request_context.identity.source_ip, "agent": event.headers["User-Agent"]}
            )

        things = version(run, rule="/v1/things/<id>")

        assert self.send(things).json == {"from": "192.0.2.1", "agent": "tests"}

    def test_is_whole_again_once_the_operation_has_ended(self, version: NewRoute) -> None:
        things = version(rule="/v1/things/<id>", recoverable=True)

        self.send(things)

        assert things.app.current_event.raw_event["requestContext"]["identity"]["sourceIp"] == "192.0.2.1"
