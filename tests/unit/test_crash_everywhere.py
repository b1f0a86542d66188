"""`idempotency.testing`: the project's own operations survive every crash, and those that do not are found."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import StringIO
from math import inf
from time import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools.event_handler import Response
from botocore.exceptions import EndpointConnectionError

import api
from idempotency import Completion, Operation, Rejected, Retry, Settings
from idempotency.clock import Clock
from idempotency.errors import Unavailable
from idempotency.response import StoredResponse
from idempotency.testing import Story, crash_everywhere
from tests.clocks import SetClock
from tests.events import Context
from tests.sample import NAME, NEVER, PATH, SAMPLE, Samples
from tests.unit.route import Route, Run
from tests.unit.service import SERVER, Api, empty, request, stories

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.thorough

FOR_GOOD = 100
NO_CACHE = Settings(cache_bytes=0)

Shown = Callable[[], list[str]]


class TestOperationsOfTheProject:
    def test_a_server_is_provisioned_once(self, service: Api, clock: SetClock) -> None:
        for story in stories(service, clock, "/v1/servers/provision", SERVER):
            assert story.status == 201
            [row] = service.rows
            assert row["resource"] == story.json

    def test_a_sample_is_created_once(self, samples: Samples, clock: SetClock) -> None:
        names = []
        for story in stories(samples.api, clock, PATH, SAMPLE, samples.empty):
            names.append(story.name)
            [part] = samples.service.parts.values()
            assert (story.status, story.json["part_id"]) == (201, part)
            assert samples.service.labels == {part: NAME}
            assert [row["id"] for row in samples.api.rows if row["id"].startswith("sample#")] == [
                f"sample#{story.json['id']}"
            ]
        # A reservation is one write, with no call before it.
        assert "checkpoint 'name' ⚡ crash before; then recovery carries on" in names
        assert not [name for name in names if name.startswith("step 'name'")]

    @pytest.mark.slow
    def test_a_sample_that_is_released_on_the_way_is_created_once(self, samples: Samples, clock: SetClock) -> None:
        def begin() -> None:
            samples.empty()
            samples.service.fails("label")

        names = []
        for story in stories(samples.api, clock, PATH, SAMPLE, begin):
            names.append(story.name)
            assert story.status == 201
            assert samples.labels == [NAME]
        assert "release ⚡ crash after; then the client asks again" in names
        assert "step 'label' (2) ⚡ crash after; then the client asks again" in names
        assert "resume ⚡ crash after; then recovery carries on" in names

    @pytest.mark.slow
    def test_a_sample_whose_label_is_rejected_leaves_nothing(self, samples: Samples, clock: SetClock) -> None:
        def begin() -> None:
            samples.empty()
            samples.service.fails("label", NEVER, times=inf)

        names = []
        for story in stories(samples.api, clock, PATH, SAMPLE, begin):
            names.append(story.name)
            assert (story.status, story.json["title"]) == (422, "The label was rejected")
            assert samples.nothing_is_left()
        assert "undo 'part' ⚡ crash after; then recovery carries on" in names
        assert "checkpoint 'undo part' ⚡ answer lost; then recovery carries on" in names


class Things:
    """``POST /v1/things``, which does what a test says, and the things that it makes."""

    def __init__(self, dynamodb: DynamoDBClient, clock: SetClock) -> None:
        self.dynamodb = dynamodb
        self.clock = clock
        self.made: list[str] = []

    def stories(self, run: Run, settings: Settings = NO_CACHE, *, recoverable: bool = False) -> Iterator[Story]:
        route = Route(self.dynamodb, self.clock, run, settings=settings, recoverable=recoverable)

        def recover() -> None:
            route.recover()

        return crash_everywhere(
            post=lambda: route.app.resolve(request(path="/v1/things"), Context()),
            recover=recover if recoverable else None,
            client=self.dynamodb,
            begin=self.empty,
            clock=self.clock,
        )

    def empty(self) -> None:
        self.made.clear()
        empty("IdempotencyTable")
        empty("ResourcesTable")

    def make(self, key: str) -> str:
        """Make a thing, once for each key."""
        if key not in self.made:
            self.made.append(key)
        return key

    def make_once(self, operation: Operation) -> Response[Any]:
        """An operation without mistakes."""
        operation.step("thing", self.make)
        return Completion(201)


@pytest.fixture
def things(dynamodb: DynamoDBClient, clock: SetClock) -> Things:
    return Things(dynamodb, clock)


class TestBrokenOperations:
    """Each works as long as nothing goes wrong; its timeline shows what its mistake is."""

    @pytest.fixture
    def shown(self, capsys: pytest.CaptureFixture[str]) -> Shown:
        """The timeline, except claims: how many writes a claim takes is the store's business."""
        return lambda: [line for line in capsys.readouterr().err.splitlines() if "  claim " not in line]

    @staticmethod
    def fails(things: Things, run: Run, status: int = 201, made: int = 1) -> None:
        with pytest.raises(AssertionError, match=rf"\d things, not {made}"):  # noqa: PT012 - it is the loop that fails
            for story in things.stories(run):
                assert story.status == status
                assert len(things.made) == made, f"{len(things.made)} things, not {made}"

    def test_a_step_that_does_not_use_its_key(self, things: Things, shown: Shown) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("thing", lambda _: things.make(str(uuid4())))
            return Completion(201)

        self.fails(things, run)

        assert shown() == [
            "",
            "step 'thing' ⚡ crash after; then the client asks again",
            "       ms",
            "        1  client 1     step 'thing' ⚡ crash after",
            "   30,002  client 2     step 'thing' ✓",
            "   30,002  client 2     checkpoint 'thing' ✓",
            "   30,002  client 2     complete ✓",
            "   30,002  client 2     → 201",
            "   30,003  client 3     → 201 replayed",
        ]

    def test_an_effect_outside_of_every_step(self, things: Things, shown: Shown) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("other", lambda _: None)
            things.make(str(uuid4()))
            return Completion(201)

        self.fails(things, run)

        assert shown() == [
            "",
            "complete ⚡ crash before; then the client asks again",
            "       ms",
            "        1  client 1     step 'other' ✓",
            "        1  client 1     checkpoint 'other' ✓",
            "        1  client 1     complete ⚡ crash before",
            "   30,002  client 2     complete ✓",
            "   30,002  client 2     → 201",
            "   30,003  client 3     → 201 replayed",
        ]

    def test_an_undo_that_only_knows_what_its_own_attempt_did(self, things: Things, shown: Shown) -> None:
        def run(operation: Operation) -> Response[Any]:
            mine: list[str] = []

            def undo(_: object) -> None:
                for thing in mine:
                    things.made.remove(thing)

            operation.step("thing", lambda key: mine.append(things.make(key)), undo=undo)
            raise Rejected("no", "No.", status=422)

        self.fails(things, run, status=422, made=0)

        assert shown() == [
            "",
            "checkpoint 'thing' ⚡ crash after; then the client asks again",
            "       ms",
            "        1  client 1     step 'thing' ✓",
            "        1  client 1     checkpoint 'thing' ⚡ crash after",
            "   30,002  client 2     fail ✓",
            "   30,002  client 2     undo 'thing' ✓",
            "   30,002  client 2     checkpoint 'undo thing' ✓",
            "   30,002  client 2     complete ✓",
            "   30,002  client 2     → 422",
            "   30,003  client 3     → 422 replayed",
        ]


class TestWhatItFindsItself:
    @staticmethod
    def found(stories: Iterator[Story]) -> tuple[str, str]:
        """Its message, with the timeline."""
        with pytest.raises(AssertionError) as failure:
            deque(stories, maxlen=0)
        [timeline] = failure.value.__notes__
        return str(failure.value), timeline

    def test_an_operation_that_never_ends(self, things: Things) -> None:
        def run(_: Operation) -> Response[Any]:
            raise Retry("Not today.")

        message, timeline = self.found(things.stories(run))

        assert message == "the operation does not end; its last error: Retry: Not today."
        assert timeline.count("→ 503") == 20

    def test_an_operation_that_recovery_parks(self, things: Things) -> None:
        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 1:
                raise Retry("Not today.")
            return Completion(201)

        message, timeline = self.found(things.stories(run, Settings(cache_bytes=0, max_recoveries=0), recoverable=True))

        assert message == "recovery gave up; its last error: Retry: Not today."
        assert timeline.startswith("\nundisturbed; then recovery carries on\n")

    def test_an_operation_that_takes_a_different_way_each_time(self, things: Things) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step(f"step {uuid4()}", things.make)
            return Completion(201)

        message, timeline = self.found(things.stories(run))

        assert message == "the operation took another way than in its first run, and did not come to this point"
        assert timeline.startswith("\nstep 'step ")

    def test_an_answer_that_is_forgotten(self, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("idempotency.lifecycle.Record.expired", lambda record, _: record.completed)

        assert self.found(things.stories(things.make_once))[0] == (
            "the operation has ended, but its answer is no replay"
        )

    def test_an_answer_that_changes(self, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
        other = StoredResponse(201, body=b"other")
        monkeypatch.setattr("idempotency.lifecycle.Store.response", lambda *_: other)

        message, _ = self.found(things.stories(things.make_once))

        assert message.startswith("the replay is another answer than the first: {")

    def test_a_header_that_changes(self, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
        other = StoredResponse(201, {"Location": ["/elsewhere"]}, b"")
        monkeypatch.setattr("idempotency.lifecycle.Store.response", lambda *_: other)

        message, _ = self.found(things.stories(things.make_once))

        assert message.startswith("the replay is another answer than the first: {")

    def test_another_client(self, service: Api, clock: SetClock) -> None:
        client = boto3.client("dynamodb")
        stories = crash_everywhere(
            post=lambda: api.handler(request(), Context()), client=client, begin=service.empty, clock=clock
        )

        assert self.found(stories)[0] == "the handlers do not write through this client"
        client.close()

    def test_another_clock(self, things: Things) -> None:
        route = Route(things.dynamodb, things.clock, things.make_once)

        stories = crash_everywhere(
            post=lambda: route.app.resolve(request(path="/v1/things"), Context()),
            client=things.dynamodb,
            begin=things.empty,
        )

        assert self.found(stories)[0] == "the handlers are on another clock: hand it over"

    def test_a_request_that_claims_nothing(self, service: Api) -> None:
        stories = crash_everywhere(
            post=lambda: api.handler(request({}), Context()),
            client=api.dynamodb,
            begin=service.empty,
        )

        message, _ = self.found(stories)

        assert message.startswith("no key was claimed: [{'statusCode': 400")

    def test_an_error_of_the_tests_own(self, things: Things) -> None:
        def post() -> dict[str, Any]:
            raise KeyError

        stories = crash_everywhere(post=post, client=things.dynamodb, begin=things.empty, clock=things.clock)

        with pytest.raises(KeyError) as failure:
            next(stories)

        assert failure.value.__notes__ == ["\nundisturbed; then the client asks again\n       ms"]


class TestStories:
    def test_are_one_for_each_fault_at_each_point(self, things: Things) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("thing", things.made.append)
            return Completion(201)

        told = {}
        for story in things.stories(run, recoverable=True):
            told[story.name] = len(things.made), [answer["statusCode"] for answer in story.answers]

        again = "; then the client asks again"
        recovered = "; then recovery carries on"
        assert told == {
            f"undisturbed{again}": (1, [201, 201]),
            f"claim ⚡ crash before{again}": (1, [201, 201]),
            f"claim ⚡ crash after{again}": (1, [201, 201]),
            f"claim ⚡ answer lost{again}": (1, [503, 201, 201]),
            f"claim ⚡ first answer lost{again}": (1, [201, 201]),
            f"step 'thing' ⚡ crash before{again}": (1, [201, 201]),
            f"step 'thing' ⚡ crash after{again}": (2, [201, 201]),
            f"step 'thing' ⚡ answer lost{again}": (2, [500, 201, 201]),
            f"checkpoint 'thing' ⚡ crash before{again}": (2, [201, 201]),
            f"checkpoint 'thing' ⚡ crash after{again}": (1, [201, 201]),
            f"checkpoint 'thing' ⚡ answer lost{again}": (1, [503, 201, 201]),
            f"checkpoint 'thing' ⚡ first answer lost{again}": (1, [201, 201]),
            f"complete ⚡ crash before{again}": (1, [201, 201]),
            f"complete ⚡ crash after{again}": (1, [201]),
            f"complete ⚡ answer lost{again}": (1, [201, 201]),
            f"complete ⚡ first answer lost{again}": (1, [201, 201]),
            f"claim ⚡ crash after{recovered}": (1, [201]),
            f"claim ⚡ answer lost{recovered}": (1, [503, 201]),
            f"step 'thing' ⚡ crash before{recovered}": (1, [201]),
            f"step 'thing' ⚡ crash after{recovered}": (2, [201]),
            f"step 'thing' ⚡ answer lost{recovered}": (2, [500, 201]),
            f"checkpoint 'thing' ⚡ crash before{recovered}": (2, [201]),
            f"checkpoint 'thing' ⚡ crash after{recovered}": (1, [201]),
            f"checkpoint 'thing' ⚡ answer lost{recovered}": (1, [503, 201]),
            f"complete ⚡ crash before{recovered}": (1, [201]),
        }

    def test_lose_as_many_answers_as_the_sdk_makes_attempts(self, things: Things) -> None:
        sent: list[str] = []

        def note(event_name: str, **_: object) -> None:
            operation = event_name.rpartition(".")[2]
            if operation in {"PutItem", "UpdateItem"}:
                sent.append(operation)

        things.dynamodb.meta.events.register("before-send.dynamodb.*", note)
        counts = {}
        for story in things.stories(lambda _: Completion(201)):
            counts[story.name.partition(";")[0]] = len(sent)
            sent.clear()
        things.dynamodb.meta.events.unregister("before-send.dynamodb.*", note)

        assert counts["claim ⚡ first answer lost"] == counts["undisturbed"] + 1
        assert counts["claim ⚡ answer lost"] == counts["claim ⚡ crash after"] + 2
        assert counts["complete ⚡ first answer lost"] == counts["undisturbed"] + 1
        # The release, too, meets the completed record.
        assert counts["complete ⚡ answer lost"] == counts["complete ⚡ crash after"] + 2 + 1

    @pytest.mark.parametrize("how", ["write", "read", "step"])
    def test_let_nobody_clean_up_after_a_crash(self, things: Things, how: str) -> None:
        cleaned: list[int] = []

        def clean_up(operation: Operation) -> None:
            item: Any = {"id": {"S": "some"}}
            match how:
                case "write":
                    things.dynamodb.put_item(TableName="ResourcesTable", Item=item)
                case "read":
                    things.dynamodb.get_item(TableName="ResourcesTable", Key=item)
                case "step":
                    operation.step("clean up", lambda _: cleaned.append(operation.attempt))
                    return
            cleaned.append(operation.attempt)

        def run(operation: Operation) -> Response[Any]:
            try:
                operation.step("thing", things.make)
            finally:
                clean_up(operation)
            return Completion(201)

        told = {}
        for story in things.stories(run):
            told[story.name.partition(";")[0]] = cleaned.copy()
            cleaned.clear()

        assert told["undisturbed"] == [1]
        assert told["step 'thing' ⚡ crash before"] == told["step 'thing' ⚡ crash after"] == [2]
        assert told["checkpoint 'thing' ⚡ crash before"] == told["checkpoint 'thing' ⚡ crash after"] == [2]
        # A read changes nothing, and is no point.
        assert any(name.startswith("PutItem") for name in told) == (how == "write")
        assert not any(name.startswith("GetItem") for name in told)

    def test_without_recovery_are_the_clients_alone(self, things: Things) -> None:
        route = Route(things.dynamodb, things.clock, things.make_once, recoverable=False)

        for story in crash_everywhere(
            post=lambda: route.app.resolve(request(path="/v1/things"), Context()),
            recover=lambda: None,
            client=things.dynamodb,
            begin=things.empty,
            clock=things.clock,
        ):
            assert story.name.endswith("; then the client asks again")

    def test_lose_an_answer_as_a_network_does(self, things: Things) -> None:
        errors: list[type[Exception]] = []

        def run(operation: Operation) -> Response[Any]:
            try:
                operation.step("thing", things.make)
            except Exception as error:
                errors.append(type(error))
                raise
            return Completion(201)

        told = {}
        for story in things.stories(run):
            told[story.name.partition(";")[0]] = errors.copy()
            errors.clear()

        assert {name: raised for name, raised in told.items() if raised} == {
            "step 'thing' ⚡ answer lost": [TimeoutError],
            "checkpoint 'thing' ⚡ answer lost": [Unavailable],
        }

    def test_tell_what_became_of_each_attempt_of_the_sdk(self, things: Things) -> None:
        events, unreachable = things.dynamodb.meta.events, [1]

        def fail(request: Any, event_name: str, **_: object) -> None:
            if unreachable and event_name.endswith(("PutItem", "UpdateItem")):
                raise EndpointConnectionError(endpoint_url=f"{request.url}{unreachable.pop()}")

        events.register_first("before-send.dynamodb.*", fail)
        story = next(things.stories(lambda _: Completion(201)))
        events.unregister("before-send.dynamodb.*", fail)

        assert re.findall("[✓✗].*", str(story)) == ["✗ no answer", "✓", "✓", "✗ ConditionalCheckFailedException"]

    def test_have_no_answer_of_an_attempt_that_swallows_its_crash(self, things: Things) -> None:
        def swallow(_: Operation) -> Response[Any]:
            return Completion(201)

        route = Route(things.dynamodb, things.clock, swallow)

        def post() -> dict[str, Any]:
            with suppress(BaseException):
                return route.app.resolve(request(path="/v1/things"), Context())
            return {"statusCode": 200, "body": "It went well.", "multiValueHeaders": {}}

        crashed = []
        for story in crash_everywhere(post=post, client=things.dynamodb, begin=things.empty, clock=things.clock):
            assert 200 not in [answer["statusCode"] for answer in story.answers]
            crashed += ["client 1     →" not in str(story)] * ("crash" in story.name)
        assert crashed == [True] * 4

    def test_go_on_one_clock_by_default(self, things: Things) -> None:
        route = Route(things.dynamodb, Clock(), things.make_once)
        started = time()

        for story in crash_everywhere(
            post=lambda: route.app.resolve(request(path="/v1/things"), Context()),
            client=things.dynamodb,
            begin=things.empty,
        ):
            assert len(things.made) == 1
            assert "step 'thing' ⚡ crash after" not in story.name or "   30,002  client 2" in str(story)

        assert 0 <= Clock().now() / 1000 - started < 60

    def test_end_when_the_loop_is_left(self, things: Things, capsys: pytest.CaptureFixture[str]) -> None:
        for story in things.stories(things.make_once):
            if story.name.startswith("claim ⚡ crash before"):
                break

        assert capsys.readouterr().err.startswith("\nclaim ⚡ crash before; then the client asks again\n")
        assert Route(things.dynamodb, things.clock, things.make_once).post(key="another").status == 201

    def test_are_counted_on_a_terminal(self, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", terminal)

        stories = list(things.stories(lambda _: Completion(201)))

        lines = terminal.getvalue().split("\r\x1b[K")
        assert lines == ["", *(f"{number}: {story.name}\r" for number, story in enumerate(stories, start=1)), ""]
