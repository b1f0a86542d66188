"""Routes with choices and responses of their own, behind the decorator."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from unittest.mock import Mock

import pytest
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import BadRequestError
from aws_lambda_powertools.shared.cookies import Cookie

from idempotency.body import Body
from idempotency.errors import NotStorable, Problem, Rejected, Retry
from idempotency.idempotent import DeclarationError, Idempotent
from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from idempotency.response import Completion
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import KEY
from tests.telemetry import RecordedTelemetry
from tests.unit.route import Route, Run
from tests.unit.service import scan
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NewRoute = Callable[..., Route]


def answering(*responses: Response[Any] | BaseException) -> Run:
    """Answer with these, or raise them, one after the other; the last one repeats for ever."""
    rest = list(responses)

    def run(_: Operation) -> Response[Any]:
        response = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(response, BaseException):
            raise response
        return response

    return run


@pytest.fixture
def route(dynamodb: "DynamoDBClient", clock: SetClock) -> NewRoute:
    """Function that makes a route on the stack's table."""

    def make(*responses: Response[Any] | BaseException, **settings: Any) -> Route:
        return Route(dynamodb, clock, answering(*(responses or (Completion(201, {"n": 1}),))), **settings)

    return make


def without_replay_mark(answer: Answer) -> Answer:
    headers = {name: values for name, values in answer.headers.items() if name != "idempotent-replayed"}
    return Answer(answer.status, answer.body, headers)


def taking(takes: dict[str, Any]) -> Any:
    """A function with such parameters."""

    def business(*_: Any) -> Any:
        raise AssertionError

    one = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, one, annotation=each) for name, each in takes.items()]
    business.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect looks for it
    return business


class TestDeclaration:
    """What is declared wrongly is refused at import."""

    @pytest.fixture
    def idempotent(self) -> Idempotent:
        """An application's decorator."""
        return Idempotent(APIGatewayRestResolver(), RecordedTelemetry(), Mock())

    @pytest.mark.parametrize(
        "takes",
        [
            {},
            {"body": bytes},
            {"body": bytes, "operation": str},
            {"operation": Operation, "body": bytes},
            {"body": bytes, "id_": str, "operation": Operation},
        ],
        ids=lambda takes: ", ".join(takes) or "nothing",
    )
    def test_is_of_a_body_and_an_operation(self, idempotent: Idempotent, takes: dict[str, Any]) -> None:
        with pytest.raises(
            DeclarationError, match=r"business must take a body and an operation first: \(body: …, oper"
        ):
            idempotent(Policy())(taking(takes))

    @pytest.mark.parametrize("body", [str, dict[str, Any], int, int | None, Operation, inspect.Parameter.empty])
    def test_is_of_a_body_that_can_be_read(self, idempotent: Idempotent, body: Any) -> None:
        with pytest.raises(
            DeclarationError, match=r"^the body of .*business must be a subclass of Body, or bytes, not "
        ):
            idempotent(Policy())(taking({"body": body, "operation": Operation}))

    def test_names_only_what_the_path_fills_in(self, idempotent: Idempotent) -> None:
        route = idempotent(Policy())(taking({"body": bytes, "operation": Operation, "id_": "OnlyForTypeCheckers"}))

        assert (route.__name__, [*inspect.signature(route).parameters]) == ("business", ["id_"])

    def test_that_lacks_the_decorator_is_found_at_the_start(self, idempotent: Idempotent) -> None:
        idempotent._app.post("/v1/things")(taking({"body": bytes, "operation": Operation}))

        with pytest.raises(
            DeclarationError, match=r"^business takes an operation: write @idempotent\(…\) directly above"
        ):
            idempotent.start()

    def test_of_bytes_has_nothing_to_make_before_a_snapshot(self, idempotent: Idempotent) -> None:
        idempotent(Policy())(taking({"body": bytes, "operation": Operation}))

        idempotent.prime()

    def test_that_takes_no_operation_needs_no_decorator(self, idempotent: Idempotent) -> None:
        idempotent._app.get("/v1/things")(lambda: None)
        idempotent._app.get("/v1/things/<id_>")(lambda id_: id_)

        idempotent.start()


class TestReplayOf:
    PNG = b"\x89PNG\r\n\x1a\n\x00\xff" * 100

    @pytest.mark.parametrize("cache_bytes", [0, 1_000_000], ids=["from the table", "from the cache"])
    @pytest.mark.parametrize(
        ("response", "status", "body"),
        [
            (Response(200, "image/png", PNG), 200, PNG),
            (Response(200, "image/png", b""), 200, b""),
            (Response(204), 204, b""),
            (Response(201, "application/json", ""), 201, b""),
            (Response(303, None, None, {"Location": "/v1/things/1"}), 303, b""),
            (Response(200, "text/plain; charset=utf-8", "naïve 😀"), 200, "naïve 😀".encode()),
            (Completion(200, {"é": [None, 1.5]}), 200, b'{"\\u00e9":[null,1.5]}'),
            (Completion(200, [1, 2], headers={"Link": ["<a>", "<b>"]}), 200, b"[1,2]"),
            (Response(410, "text/plain", "gone"), 410, b"gone"),
        ],
        ids=["binary", "empty binary", "204", "empty", "redirect", "non-ASCII", "JSON", "two values", "4xx"],
    )
    def test_anything_is_exact(
        self, route: NewRoute, response: Response[Any], status: int, body: bytes, cache_bytes: int
    ) -> None:
        things = route(response, settings=Settings(cache_bytes=cache_bytes))

        first, second = things.post(), things.post()

        assert (first.status, first.body) == (status, body)
        assert second.replayed
        assert without_replay_mark(second) == first
        assert things.runs == 1

    def test_a_header_with_several_values_has_them_all(self, route: NewRoute) -> None:
        things = route(Completion(200, {}, headers={"Link": ["<a>", "<b>"]}))

        assert [things.post().headers["link"], things.post().headers["link"]] == 2 * [["<a>", "<b>"]]

    def test_headers_beyond_the_allow_list_does_not_happen(self, route: NewRoute) -> None:
        headers: dict[str, str | list[str]] = {"X-Trace": "1", "Set-Cookie": "a=secret", "ETag": '"7"'}
        things = route(Response(200, "text/plain", "x", headers, cookies=[Cookie("b", "secret")]))

        first, second = things.post(), things.post()

        assert first.headers["x-trace"] == ["1"]
        assert {value.partition("=")[0] for value in first.headers["set-cookie"]} == {"a", "b"}
        assert second.headers.keys() == {"content-type", "etag", "idempotent-replayed"}

    def test_cookies_is_impossible_since_they_are_not_stored(self, route: NewRoute, dynamodb: "DynamoDBClient") -> None:
        route(Response(200, "text/plain", "x", {"Set-Cookie": "a=secret"}, cookies=[Cookie("b", "secret")])).post()

        assert "secret" not in str(scan(dynamodb, "IdempotencyTable"))

    def test_another_attempt_has_nothing_of_the_late_one(
        self, dynamodb: "DynamoDBClient", route: NewRoute, clock: SetClock
    ) -> None:
        # Given an attempt that goes on past its lease, while another completes the operation
        elsewhere = route()

        def late(_: Operation) -> Response[Any]:
            clock.advance(31)
            elsewhere.post()
            return Completion(201, {"late": True}, headers={"Set-Cookie": "a=late", "X-Trace": "late"})

        answer = Route(dynamodb, clock, late).post()

        assert answer.replayed
        assert answer.json == {"n": 1}
        assert not {"set-cookie", "x-trace"} & answer.headers.keys()

    @pytest.mark.parametrize(
        "response",
        [
            Completion(201, {"at": object()}, headers={"X-Trace": "1"}),
            Response(200, "text/plain", "x" * 6 * 1024 * 1024, {"X-Trace": "1"}),
        ],
        ids=["not JSON", "too large"],
    )
    def test_what_cannot_be_stored_is_a_clear_answer_without_a_second_run(
        self, route: NewRoute, response: Response[Any]
    ) -> None:
        things = route(response)

        first, second = things.post(), things.post()

        assert (first.status, first.problem) == (500, "response-not-stored")
        assert first.json["detail"].startswith("The request was carried out, but ")
        assert second.replayed
        assert without_replay_mark(second) == first
        assert things.runs == 1


class TestOutcome:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
    def test_for_now_is_released_and_not_stored(self, route: NewRoute, clock: SetClock, status: int) -> None:
        things = route(Response(status, "text/plain", "no"), Completion(201, {}))

        first = things.post()
        clock.advance(1)
        second, third = things.post(), things.post()

        assert [answer.status for answer in (first, second, third)] == [status, 201, 201]
        assert first.headers["retry-after"] == ["1"]
        assert [answer.replayed for answer in (first, second, third)] == [False, False, True]
        assert things.telemetry.outcomes == [
            Outcome.RELEASED,
            Outcome.TAKEN_OVER,
            Outcome.EXECUTED,
            Outcome.REPLAYED_FROM_TABLE,
        ]

    @pytest.mark.parametrize("asked", ["17", "Fri, 31 Dec 2027 23:59:59 GMT"])
    @pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
    def test_for_now_passes_on_the_operations_own_retry_after(self, route: NewRoute, name: str, asked: str) -> None:
        answer = route(Response(503, "text/plain", "no", {name: asked})).post()

        assert (answer.status, answer.headers["retry-after"]) == (503, [asked])

    @pytest.mark.parametrize(
        ("error", "status"),
        [(Retry("later"), 503), (RuntimeError(), 500), (TimeoutError(), 500), (Problem("x", "", status=429), 429)],
    )
    def test_for_now_may_be_raised(self, route: NewRoute, error: Exception, status: int) -> None:
        things = route(error, Completion(201, {}))

        first, second = things.post(), things.post()

        assert (first.status, first.headers["retry-after"]) == (status, ["1"])
        assert (second.status, second.replayed) == (201, False)

    def test_of_a_step_that_cannot_be_kept_is_logged(self, dynamodb: "DynamoDBClient", clock: SetClock) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: object())
            raise AssertionError

        things = Route(dynamodb, clock, run)

        assert things.post().problem == "response-not-stored"
        assert isinstance(things.telemetry.errors[0], NotStorable)

    @pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 403, 404, 409, 410, 422, 451])
    def test_for_good_is_stored(self, route: NewRoute, status: int) -> None:
        things = route(Response(status, "text/plain", "yes"))

        assert things.post().status == status
        assert things.post().replayed
        assert things.telemetry.outcomes == [Outcome.EXECUTED, Outcome.REPLAYED_FROM_TABLE]

    @pytest.mark.parametrize("error", [BadRequestError("no"), Rejected("gone", "", status=410)])
    def test_for_good_may_be_raised(self, route: NewRoute, error: Exception) -> None:
        things = route(error)

        first, second = things.post(), things.post()

        assert 400 <= first.status < 500
        assert second.replayed
        assert without_replay_mark(second) == first
        assert things.runs == 1

    @pytest.mark.parametrize("response", [Response(500, "text/plain", "no"), RuntimeError("bug")])
    def test_of_500_is_stored_where_the_route_says_so(
        self, route: NewRoute, response: Response[Any] | Exception
    ) -> None:
        things = route(response, store_5xx=True)

        assert things.post().status == 500
        assert things.post().replayed
        assert things.runs == 1

    @pytest.mark.parametrize("outcome", [Response(429, "text/plain", "no"), Retry("later")])
    def test_that_is_retryable_is_released_even_there(
        self, route: NewRoute, outcome: Response[Any] | Exception
    ) -> None:
        things = route(outcome, Completion(201, {}), store_5xx=True)

        assert things.post().headers["retry-after"] == ["1"]
        assert (things.post().status, things.runs) == (201, 2)

    def test_that_is_unexpected_is_logged_and_hidden(self, route: NewRoute) -> None:
        error = RuntimeError("secret detail")
        things = route(error)

        assert b"secret" not in things.post().body
        assert things.telemetry.errors == [error]

    @pytest.mark.parametrize("error", [Retry("later"), Rejected("gone", "", status=410)])
    def test_that_the_operation_chose_is_not_logged_as_an_error(self, route: NewRoute, error: Exception) -> None:
        things = route(error)

        things.post()

        assert things.telemetry.errors == []

    @pytest.mark.parametrize(("status", "undone"), [(399, []), (400, [1]), (499, [1]), (500, [])])
    def test_is_undone_if_it_is_a_failure_for_good(
        self, dynamodb: "DynamoDBClient", clock: SetClock, status: int, undone: list[int]
    ) -> None:
        calls: list[int] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("s", lambda _: 1, undo=calls.append)
            return Response(status, "text/plain", "x")

        Route(dynamodb, clock, run).post()
        assert calls == undone

    def test_for_good_stands_whatever_a_later_attempt_does(self, dynamodb: "DynamoDBClient", clock: SetClock) -> None:
        # Given an operation that has failed for good, and cannot be undone yet
        tried: list[int] = []

        def undo(result: int) -> None:
            tried.append(result)
            if len(tried) == 1:
                raise Retry("later")

        def run(operation: Operation) -> Response[Any]:
            operation.step("s", lambda _: 1, undo=undo)
            if operation.attempt == 1:
                raise Rejected("gone", "", status=410)
            return Completion(201, {})

        things = Route(dynamodb, clock, run)

        assert [things.post().status, things.post().status, things.post().status] == [503, 410, 410]
        assert (len(tried), things.runs) == (2, 2)

    def test_that_cannot_be_stored_undoes_nothing_since_all_was_done(
        self, dynamodb: "DynamoDBClient", clock: SetClock
    ) -> None:
        undone: list[int] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("s", lambda _: 1, undo=undone.append)
            return Completion(201, {"at": object()})

        assert Route(dynamodb, clock, run).post().problem == "response-not-stored"
        assert undone == []


class TestTimeLeft:
    @pytest.mark.parametrize(("seconds", "status", "runs"), [(4, 201, 1), (3.999, 503, 0)])
    def test_decides_whether_an_attempt_begins(
        self, route: NewRoute, dynamodb: "DynamoDBClient", seconds: float, status: int, runs: int
    ) -> None:
        things = route(settings=Settings(cache_bytes=0, time_for_a_step=4))

        assert (things.post(seconds=seconds).status, things.runs) == (status, runs)
        assert len(scan(dynamodb, "IdempotencyTable")) == runs


class Thing(Body):
    name: str
    of: Any = None

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "of": {"type": "object", "required": ["x"], "properties": {}}},
    }


class TestBody:
    def test_reaches_the_route_as_its_type(self, dynamodb: "DynamoDBClient", clock: SetClock) -> None:
        seen = []

        def run(operation: Operation) -> Response[Any]:
            seen.append(things.body)
            return Completion(201, {})

        things = Route(dynamodb, clock, run, body=Thing)
        things.post(body={"name": "é"})

        assert seen == [Thing("é")]

    def test_of_a_nested_field_is_pointed_at(self, route: NewRoute) -> None:
        answer = route(body=Thing).post(body={"name": "a", "of": {}})

        assert answer.json["errors"] == [{"pointer": "#/of/x", "detail": "is required"}]

    def test_of_any_type_is_accepted_by_a_route_that_reads_bytes(self, route: NewRoute) -> None:
        things = route()

        first, same, other = (
            things.post(body=body, content_type="application/octet-stream") for body in (b"\x00", b"\x00", b"\x01")
        )

        assert (first.status, same.replayed, other.problem) == (201, True, "key-reused")

    @pytest.mark.parametrize(("size", "status"), [(100, 201), (101, 413)])
    def test_may_be_as_large_as_the_route_allows(self, route: NewRoute, size: int, status: int) -> None:
        assert route(max_body=100).post(body=b"x" * size, content_type="image/png").status == status

    def test_that_is_bad_is_found_before_the_key_is_used(self, route: NewRoute, dynamodb: "DynamoDBClient") -> None:
        things = route(body=Thing)

        assert things.post(body={}).status == 400
        assert scan(dynamodb, "IdempotencyTable") == []
        assert things.post(body={"name": "a"}).status == 201


class TestKey:
    def test_may_be_optional(self, route: NewRoute) -> None:
        things = route(key_required=False)

        answers = [things.post(key=None), things.post(key=None), things.post(), things.post()]

        assert [answer.replayed for answer in answers] == [False, False, False, True]
        assert things.runs == 3

    def test_that_is_optional_must_still_be_valid(self, route: NewRoute) -> None:
        assert route(key_required=False).post(key="a b").problem == "key-invalid"

    def test_may_have_to_be_a_uuid(self, route: NewRoute) -> None:
        things = route(key_format="uuid")

        assert (things.post(key="order-17").problem, things.post(key=KEY).status) == ("key-invalid", 201)


class TestPrincipal:
    def test_is_required(self, route: NewRoute) -> None:
        things = route()

        assert things.post(principal=None).problem == "unauthorized"
        assert things.runs == 0

    def test_may_be_missing_where_the_route_says_so(self, route: NewRoute) -> None:
        things = route(anonymous=True)

        assert [things.post(principal=None).replayed, things.post(principal=None).replayed] == [False, True]
        assert not things.post(principal="alice").replayed


class TestTimeToLive:
    def test_is_the_routes_own(self, route: NewRoute, clock: SetClock) -> None:
        things = route(ttl=60)
        things.post()

        clock.advance(59)
        assert things.post().replayed
        clock.advance(1)
        assert not things.post().replayed
        assert things.telemetry.outcomes[-2:] == [Outcome.EXPIRED, Outcome.EXECUTED]

    def test_of_an_operation_that_never_completed_is_longer(self, route: NewRoute, clock: SetClock) -> None:
        operations = []

        def run(operation: Operation) -> Response[Any]:
            operations.append(operation.id)
            raise Retry("later")

        things = Route(route().lifecycle.store._client, clock, run, ttl=60)
        for _ in range(3):
            things.post()
            clock.advance(3 * 24 * 3600)
        clock.advance(7 * 24 * 3600)
        things.post()

        # Each attempt restarts the seven days; after them, the key is free for a new operation.
        assert len(set(operations[:3])) == 1
        assert operations[3] != operations[2]


class TestCache:
    def test_replays_without_dynamodb(self, route: NewRoute, monkeypatch: pytest.MonkeyPatch) -> None:
        things = route(settings=Settings(cache_bytes=100_000))
        first = things.post()
        monkeypatch.setattr(things.lifecycle, "store", None)

        assert without_replay_mark(things.post()) == first
        assert things.telemetry.outcomes[-1] is Outcome.REPLAYED_FROM_CACHE

    def test_replays_without_reading_the_body(self, route: NewRoute, monkeypatch: pytest.MonkeyPatch) -> None:
        things = route(body=Thing, settings=Settings(cache_bytes=100_000))
        things.post(body={"name": "a"})
        monkeypatch.setattr(Thing, "read", Mock(side_effect=AssertionError))

        assert things.post(body={"name": "a"}).replayed

    def test_learns_from_a_replay_too(self, route: NewRoute, monkeypatch: pytest.MonkeyPatch) -> None:
        route().post()
        elsewhere = route(settings=Settings(cache_bytes=100_000))

        outcomes = [elsewhere.post(), elsewhere.post()] and elsewhere.telemetry.outcomes
        assert outcomes == [Outcome.REPLAYED_FROM_TABLE, Outcome.REPLAYED_FROM_CACHE]

    def test_refuses_another_request(self, route: NewRoute) -> None:
        things = route(settings=Settings(cache_bytes=100_000))
        things.post(body={"a": 1})

        assert things.post(body={"a": 2}).problem == "key-reused"

    def test_belongs_to_one_principal(self, route: NewRoute) -> None:
        things = route(settings=Settings(cache_bytes=100_000))
        things.post()

        assert not things.post(principal="bob").replayed

    def test_honours_the_time_to_live(self, route: NewRoute, clock: SetClock) -> None:
        things = route(settings=Settings(cache_bytes=100_000), ttl=60)
        things.post()
        clock.advance(60)

        assert not things.post().replayed
        assert things.runs == 2

    def test_gives_way_to_a_new_operation_of_the_key_after_expiry(self, route: NewRoute, clock: SetClock) -> None:
        here, elsewhere = (
            route(Completion(201, {"by": where}), settings=Settings(cache_bytes=100_000))
            for where in ("here", "elsewhere")
        )
        here.post()
        clock.advance(24 * 3600)
        elsewhere.post()

        assert here.post().json == {"by": "elsewhere"}
        assert here.telemetry.outcomes[-1] is Outcome.REPLAYED_FROM_TABLE

    def test_can_be_turned_off(self, route: NewRoute) -> None:
        things = route(settings=Settings(cache_bytes=0))

        assert [things.post(), things.post()][1].replayed
        assert things.telemetry.outcomes == [Outcome.EXECUTED, Outcome.REPLAYED_FROM_TABLE]

    def test_is_bounded(self, route: NewRoute) -> None:
        # Given room for two bodies
        things = route(Response(200, "text/plain", "x" * 4_000), settings=Settings(cache_bytes=13_000))
        for key in ("a", "b", "c"):
            things.post(key=key)

        # When the three requests are sent again, the latest first
        del things.telemetry.outcomes[:]
        for key in ("c", "b", "a"):
            things.post(key=key)

        # Then the least recently used one is gone
        assert things.telemetry.outcomes == [
            Outcome.REPLAYED_FROM_CACHE,
            Outcome.REPLAYED_FROM_CACHE,
            Outcome.REPLAYED_FROM_TABLE,
        ]

    def test_leaves_out_what_is_larger_than_itself(self, route: NewRoute) -> None:
        things = route(Response(200, "text/plain", "x" * 4_000), settings=Settings(cache_bytes=3_000))

        assert [things.post(), things.post()][1].replayed
        assert things.telemetry.outcomes == [Outcome.EXECUTED, Outcome.REPLAYED_FROM_TABLE]


class TestPrefer:
    @pytest.fixture
    def running(self, route: NewRoute) -> NewRoute:
        """A route whose key was claimed by a worker that was killed."""

        def make(**settings: Any) -> Route:
            things = route(Killed(), Completion(201, {}), **settings)
            with pytest.raises(Killed):
                things.post()
            return things

        return make

    @pytest.mark.parametrize(
        ("prefer", "seconds"),
        [
            ("wait=2", 2),
            ("respond-async, wait=2", 2),
            ("respond-async; wait=2", 2),
            ('WAIT = "2"', 2),
            ("wait=2, wait=5", 2),
            ("wait=0", 0),
            ("wait", 0),
            ("wait=soon", 0),
            ("wait=-1", 0),
            ("await=2", 0),
            ("handling=strict", 0),
        ],
    )
    def test_wait_is_how_long_a_duplicate_waits(
        self, running: NewRoute, clock: SetClock, prefer: str, seconds: int
    ) -> None:
        assert running().post(headers=[("Prefer", prefer)]).problem == "in-progress"
        assert sum(clock.sleeps) == seconds * 1000

    def test_without_it_a_duplicate_waits_as_long_as_the_route_says(self, running: NewRoute, clock: SetClock) -> None:
        things = running(wait_by_default=3)

        assert things.post().status == 409
        assert sum(clock.sleeps) == 3_000
        assert things.telemetry.outcomes == [Outcome.WAITED, Outcome.IN_PROGRESS]
        assert things.telemetry.waited == [3_000]

    @pytest.mark.parametrize(
        ("prefer", "applied"),
        [
            ([("Prefer", "wait=20")], ["wait=20"]),
            ([("Prefer", "respond-async, wait=20")], ["wait=20"]),
            ([("Prefer", "handling=strict")], None),
            ([], None),
        ],
    )
    def test_is_said_to_be_applied_to_a_replay_that_was_waited_for(
        self,
        running: NewRoute,
        route: NewRoute,
        clock: SetClock,
        prefer: list[tuple[str, str]],
        applied: list[str] | None,
    ) -> None:
        # Given another worker that takes the operation over and completes it after a while
        things, elsewhere = running(wait_by_default=20), route()

        def complete() -> None:
            clock.while_asleep = lambda: None
            clock.advance(31)
            elsewhere.post()

        clock.while_asleep = complete

        # When a duplicate waits meanwhile
        answer = things.post(headers=prefer)

        # Then it gets the replay
        assert (answer.status, answer.replayed) == (201, True)
        assert answer.headers.get("preference-applied") == applied
        assert things.telemetry.outcomes == [Outcome.WAITED, Outcome.REPLAYED_FROM_TABLE]

    def test_is_for_no_answer_that_has_expired_by_then(
        self, running: NewRoute, route: NewRoute, clock: SetClock
    ) -> None:
        things, elsewhere = running(wait_by_default=20), route(ttl=60)

        def complete() -> None:
            clock.while_asleep = lambda: None
            clock.advance(31)
            elsewhere.post()
            clock.advance(60)

        clock.while_asleep = complete

        answer = things.post()

        assert (answer.status, answer.replayed) == (503, False)  # too little time is left to run it anew

    def test_is_not_applied_to_a_request_that_did_not_wait(self, route: NewRoute) -> None:
        things = route()
        wait = [("Prefer", "wait=5")]

        answers = things.post(headers=wait), things.post(headers=wait)

        assert all("preference-applied" not in answer.headers for answer in answers)
