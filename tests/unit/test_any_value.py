"""The promises hold for any value: in rows, in results, in responses; and each costs what it says."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import InternalServerError, ServiceError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from hypothesis import given
from hypothesis import strategies as st

from idempotency import Body, Completion, Operation, Policy, Request, Row, Rows, Settings, principal, progress
from idempotency.record import Record, Status
from idempotency.response import StoredResponse, Verdict
from idempotency.store import Store
from tests.clocks import SetClock
from tests.events import Context, proxy_event
from tests.record import RECORD
from tests.unit.route import Route
from tests.unit.service import SERVER, Api

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from tests.unit.route import Run

pytestmark = pytest.mark.thorough

NewRoute = Callable[..., Route]


@pytest.fixture
def route(dynamodb: DynamoDBClient, clock: SetClock) -> NewRoute:
    """Makes a route on the stack's tables."""

    def make(run: Run, **choices: Any) -> Route:
        return Route(dynamodb, clock, run, **choices)

    return make


@pytest.fixture
def rows(dynamodb: DynamoDBClient) -> Rows:
    return Rows(dynamodb, "ResourcesTable")


class TestRow:
    NOT_KEPT = (
        float("nan"),
        float("inf"),
        -float("inf"),
        1e300,
        5e-324,
        1e126,
        2**127,
        Decimal("NaN"),
        Decimal("0." + "1" * 39),
        "\ud800",
        {"\udfff": 1},
        {1, 2},
        object(),
    )

    @pytest.mark.parametrize("value", NOT_KEPT, ids=lambda value: ascii(value)[:20])
    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["plain", "nested"])
    def test_that_would_not_come_out_as_it_was_is_refused_before_the_first_effect(
        self, route: NewRoute, rows: Rows, value: Any, wrap: Callable[[Any], Any]
    ) -> None:
        done: list[str] = []

        def run(operation: Operation) -> Response[Any]:
            row = rows.row({"id": "a", "value": wrap(value)})
            operation.step("page", lambda _: done.append("page"))
            return Completion(201, {}, rows=[row])

        things = route(run)
        first, second = things.post(), things.post()

        assert (first.status, first.problem, second.replayed, done) == (500, "response-not-stored", True, [])

    def test_that_is_described_too_late_undoes_what_was_done(self, route: NewRoute) -> None:
        undone: list[int] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: 1, undo=undone.append)
            return Completion(201, {}, rows=[Row("ResourcesTable", {"id": "a", "value": float("nan")})])

        things = route(run)
        first, second = things.post(), things.post()

        assert (first.problem, second.replayed, undone) == ("response-not-stored", True, [1])


class Measure(Body):
    """A number, however it is written."""

    value: float


class TestNumberInARequest:
    SPELLINGS = (
        ("10", "10.0", "1e1", "1.0E+1", "100e-1"),
        ("0", "-0", "0.0", "-0.0"),
        ("1e16", "1.0E+16", "10000000000000000.0"),
        ("1e22", "10e21"),
    )

    @pytest.mark.parametrize("spellings", SPELLINGS, ids=lambda spellings: spellings[0])
    @pytest.mark.parametrize("body", [Measure, bytes])
    @pytest.mark.parametrize("recoverable", [True, False])
    def test_reads_the_same_however_it_is_written(
        self, route: NewRoute, spellings: tuple[str, ...], body: type[Body | bytes], recoverable: bool
    ) -> None:
        seen = set()

        def run(operation: Operation) -> Response[Any]:
            seen.add((repr(things.body), operation.request.body))
            return Completion(201, {})

        things = route(run, body=body, recoverable=recoverable)
        for number, spelling in enumerate(spellings):
            assert things.post(key=f"key-{number}", body=f'{{"value": {spelling}}}').status == 201
        for spelling in spellings:
            assert things.post(key="key-0", body=f'{{ "value" :{spelling}}}').replayed

        assert things.runs == len(spellings)
        assert len(seen) == 1

    @given(st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False))
    def test_keeps_its_value(self, value: float) -> None:
        event = proxy_event(
            "POST", "/v1/things", headers=[("Content-Type", "application/json")], body=json.dumps(value)
        )
        request = Request.from_event(APIGatewayProxyEvent(event))

        again = Request.unpack(request.normal.pack())

        assert request.json == value
        assert repr(again.json) == repr(request.json)
        assert again.fingerprint == request.fingerprint


@dataclass
class Price:
    """What business logic computes with."""

    amount: Decimal
    currency: str


class TestResponse:
    @pytest.mark.parametrize(
        ("body", "sent"),
        [
            ({"price": Decimal("1.50")}, {"price": "1.50"}),
            ({"prices": [Price(Decimal("1.5"), "EUR")]}, {"prices": [{"amount": "1.5", "currency": "EUR"}]}),
            ({"text": "NaN, Infinity"}, {"text": "NaN, Infinity"}),
            ([1e300, 10.0, 10**40], [1e300, 10.0, 10**40]),
        ],
        ids=["Decimal", "dataclass", "text", "numbers"],
    )
    def test_is_what_powertools_makes_of_it(self, route: NewRoute, body: Any, sent: Any) -> None:
        things = route(lambda _: Completion(201, body))
        plain = APIGatewayRestResolver()
        plain.post("/v1/things")(lambda: Response(201, "application/json", body))

        first, second = things.post(), things.post()
        reference = plain.resolve(proxy_event("POST", "/v1/things"), Context())

        assert first.json == sent
        assert first.body == second.body == reference["body"].encode()

    def test_goes_through_the_resolvers_own_serializer(self, route: NewRoute) -> None:
        app = APIGatewayRestResolver(serializer=lambda body: json.dumps(body, default=lambda value: f"<{value}>"))
        things = route(lambda _: Completion(201, {"price": Decimal("1.50")}), app=app)

        assert things.post().body == things.post().body == b'{"price": "<1.50>"}'

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), Decimal("NaN")], ids=repr)
    @pytest.mark.parametrize("own", [True, False], ids=["own serializer", "Powertools'"])
    def test_never_holds_what_is_no_number_in_json(self, route: NewRoute, value: Any, own: bool) -> None:
        app = APIGatewayRestResolver(serializer=(lambda body: json.dumps(body, default=float)) if own else None)
        things = route(lambda _: Completion(201, {"deep": [{"value": value}]}), app=app)

        first, second = things.post(), things.post()

        assert (first.status, first.problem) == (500, "response-not-stored")
        assert (second.replayed, things.runs) == (True, 1)

    @pytest.mark.parametrize("error", [TypeError, ValueError, RecursionError, AttributeError, KeyError, OverflowError])
    def test_that_no_serializer_can_write_is_final(self, route: NewRoute, error: type[Exception]) -> None:
        def serialize(_: Any) -> str:
            raise error("no")

        things = route(lambda _: Completion(201, {}), app=APIGatewayRestResolver(serializer=serialize))

        assert (things.post().problem, things.post().replayed, things.runs) == ("response-not-stored", True, 1)

    def test_may_have_a_header_that_is_a_number(self, route: NewRoute) -> None:
        things = route(lambda _: Completion(201, {}, headers={"ETag": 7}))  # type: ignore[dict-item]

        assert [things.post().headers["etag"], things.post().headers["etag"]] == [["7"], ["7"]]


class TestStatus:
    """What a client is shown of an operation that has ended."""

    SIZES = (0, 1, 511, 512, 3_000, 3_001, 5_000, 20_000)

    @given(
        st.integers(200, 499),
        st.sampled_from(["application/json", "application/problem+json", "text/plain", "image/png"]),
        st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 9), st.sampled_from(SIZES))
        | st.builds(lambda seed, size: Random(seed).randbytes(size).hex(), st.integers(0, 9), st.sampled_from(SIZES))
        | st.builds(json.dumps, st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
        | st.builds(json.dumps, st.dictionaries(st.text(), st.floats()))
        | st.text(),
    )
    def test_is_shown_whatever_the_answer_is(self, status: int, content_type: str, body: str | bytes) -> None:
        client = Mock(batch_write_item=Mock(return_value={}))
        answer = Verdict.of(Response(status, content_type, body), Policy()).response
        completed = Store(client, "T").complete(RECORD, answer, expires_at_seconds=1)
        shown = json.loads(progress.status(completed, 0).body, parse_constant=pytest.fail)

        assert shown["state"] == ("succeeded" if answer.status < 400 else "failed")
        assert shown["response"]["status"] == answer.status


class TestLargestBody:
    def test_fits_what_the_routes_take_and_no_more(self, service: Api) -> None:
        text = json.dumps(SERVER)

        fits, too_large = (
            service.post(text + " " * (size - len(text)), key=f"{size}") for size in (16 * 1024, 16 * 1024 + 1)
        )

        assert fits.status == 201
        assert (too_large.status, too_large.problem) == (413, "body-too-large")
        assert too_large.json["detail"] == "A body has at most 16384 bytes here."
        assert len(service.records) == 1


class TestCache:
    HEADERS: tuple[dict[str, list[str]], ...] = (
        {},
        {"Content-Type": ["application/json"], "Location": ["/dev/v1/servers/srv-1"]},
        {f"Link-{number}": [f"<{number}>"] * 3 for number in range(11)},
    )

    @pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: f"{len(headers)} headers")
    @pytest.mark.parametrize("size", [0, 200, 5_000])
    def test_holds_no_more_memory_than_it_may(self, route: NewRoute, headers: dict[str, list[str]], size: int) -> None:
        limit = 1_000_000
        lifecycle = route(lambda _: Completion(201), settings=Settings(cache_bytes=limit)).lifecycle
        random = Random(1)

        # When more is remembered than it may hold, of records that still have the results of their steps
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1_500):
            record = Record(
                id=random.randbytes(32).hex(),
                status=Status.COMPLETED,
                owner=random.randbytes(18).hex(),
                lease_until=number + 10**12,
                expires_at=number + 10**9,
                claimed_at=number + 10**12,
                created_at=number + 10**12,
                fingerprint=random.randbytes(33).hex(),
                operation_id=random.randbytes(18).hex(),
                steps={"page": random.randbytes(8_000).hex()},
                request=random.randbytes(8_000),
            )
            kept = {name: [str(value) for value in values] for name, values in headers.items()}
            lifecycle._remember(record, StoredResponse(201, kept, random.randbytes(size)))
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()

        assert limit / 4 < held < limit


class TestPrincipal:
    def of(self, authorizer: Any = None, **identity: Any) -> str:
        event = proxy_event("POST", "/v1/things", authorizer=authorizer)
        event["requestContext"]["identity"].update(identity)
        return principal(APIGatewayProxyEvent(event))

    def test_of_one_kind_is_never_one_of_another(self) -> None:
        name = "7d9c"
        principals = [
            self.of({"claims": {"sub": name}}),
            self.of({"principalId": name}),
            self.of(cognitoIdentityId=name),
            self.of(caller=name),
        ]

        assert len({*principals}) == 4
        for said in principals:  # whatever a Lambda authorizer chooses to say
            assert self.of({"principalId": said}) not in principals

    def test_of_an_identity_pool_is_its_user_and_not_the_role_that_all_share(self) -> None:
        shared = {"caller": "AROADBQP57FF2AEXAMPLE:CognitoIdentityCredentials", "accessKey": "ASIA"}

        users = [self.of(**shared, cognitoIdentityId=f"eu-west-1:{number}") for number in (1, 2)]

        assert users == ["identity:eu-west-1:1", "identity:eu-west-1:2"]

    @pytest.mark.parametrize(
        "authorizer",
        [{"claims": None}, {"claims": {}}, {"claims": "sub"}, {"principalId": ""}, {"principalId": None}, {}],
    )
    def test_is_nobody_if_nothing_says_who(self, authorizer: Any) -> None:
        assert self.of(authorizer, caller=None, cognitoIdentityId=None) == ""


class TestRetryAfter:
    """Every 500 and 503 says when to come back."""

    @pytest.mark.parametrize("error", [RuntimeError("x"), ServiceError(503, "x"), InternalServerError("x"), KeyError()])
    def test_is_there_whatever_fails(self, route: NewRoute, error: Exception) -> None:
        def run(_: Operation) -> Response[Any]:
            raise error

        things = route(run)
        things.app.get("/v1/things")(lambda: run(None))  # type: ignore[arg-type]
        answers = [things.post(), things.send(proxy_event("GET", "/v1/things"))]

        assert {answer.status for answer in answers} <= {500, 503}
        assert [answer.headers["retry-after"] for answer in answers] == [["1"], ["1"]]


class TestTimeThatIsShort:
    @pytest.mark.parametrize("cache_bytes", [0, 1_000_000], ids=["from the table", "from the cache"])
    def test_is_enough_to_replay(self, route: NewRoute, cache_bytes: int) -> None:
        things = route(lambda _: Completion(201, {}), settings=Settings(cache_bytes=cache_bytes))
        things.post()

        assert things.post(seconds=0.5).replayed
        assert things.post(seconds=0.5, body={"other": 1}).problem == "key-reused"
        assert things.post(seconds=0.5, key="another").problem == "unavailable"
