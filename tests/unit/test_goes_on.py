"""Operations go on without their client: at once, after a pause, or as soon as what they wait for has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError

from idempotency import Completion, Lifecycle, Operation, Outcome, Rejected, Retry, Settings
from idempotency.record import PARKED_UNTIL
from idempotency.store import Store
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import KEY, Context, proxy_event
from tests.messages import MAX_RECOVERIES
from tests.telemetry import RecordedTelemetry
from tests.unit.route import Route
from tests.unit.service import empty
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from idempotency.record import Record

ASYNC = [("Prefer", "respond-async")]
EVERY, AT_MOST = 10, 60
SKEW = Settings().clock_skew


class World:
    """A route whose operation takes long, and what it looks at.

    Attributes:
        came: what the operation waits for.
        calls: the steps that were called, in order.
    """

    def __init__(self, dynamodb: DynamoDBClient, clock: SetClock) -> None:
        self._dynamodb = dynamodb
        self.clock = clock
        self.came: Any = None
        self.looks: list[int] = []
        self.calls: list[str] = []
        self.routes: list[Route] = []

    def route(self, run: Callable[[Operation], Completion] | None = None, **policy: Any) -> Route:
        """The route, in a function that has just started."""
        route = Route(self._dynamodb, self.clock, run or self.wait, recoverable=True, **policy)
        if self.routes:
            route.messages.waiting = self.routes[-1].messages.waiting
        self.routes.append(route)
        return route

    def look(self) -> Any:
        self.looks.append(self.clock.now())
        if isinstance(self.came, BaseException):
            raise self.came
        return self.came

    def wait(self, operation: Operation) -> Completion:
        """A step, then a wait."""
        operation.step("server", lambda _: self.calls.append("server"), undo=lambda: self.calls.append("undo server"))
        found = operation.wait("running", self.look, every=EVERY, at_most=AT_MOST)
        return Completion(201, {"found": found})

    def steps(self, number: int, seconds: float) -> Callable[[Operation], Completion]:
        """So many steps, each of so many seconds."""

        def step(name: str, _: str) -> str:
            self.calls.append(name)
            self.clock.advance(seconds)
            return name

        def run(operation: Operation) -> Completion:
            return Completion(201, [operation.step(f"step {each}", partial(step, str(each))) for each in range(number)])

        return run

    @property
    def record(self) -> Record:
        """The only record."""
        store = self.routes[0].lifecycle.store
        [item] = [item for item in self._dynamodb.scan(TableName=store.table)["Items"] if "status" in item]
        record = store.get(item["id"]["S"])
        assert record is not None
        return record


@pytest.fixture
def world(dynamodb: DynamoDBClient, clock: SetClock) -> World:
    return World(dynamodb, clock)


def due(route: Route, clock: SetClock) -> list[float]:
    """In how many seconds each message comes."""
    return [(at - clock.now()) / 1000 for at, _ in route.messages.waiting]


@contextmanager
def calls_of(client: DynamoDBClient) -> Iterator[list[str]]:
    """The calls that a client makes."""
    calls: list[str] = []
    note = lambda model, **_: calls.append(model.name)  # noqa: E731
    client.meta.events.register("before-call.dynamodb.*", note)
    try:
        yield calls
    finally:
        client.meta.events.unregister("before-call.dynamodb.*", note)


class TestRelease:
    def test_sends_a_message_that_comes_when_the_pause_is_over(self, world: World, clock: SetClock) -> None:
        answers: Iterator[Retry | Completion] = iter([Retry("later", retry_after=2), Completion(201, {})])

        def run(_: Operation) -> Completion:
            if isinstance(answer := next(answers), Retry):
                raise answer
            return answer

        route = world.route(run)
        assert route.post().status == 503

        assert due(route, clock) == [2]
        clock.advance(2)
        assert route.work() == [Outcome.EXECUTED]
        assert route.post().replayed

    @pytest.mark.parametrize(("pause", "messages"), [(899, [899]), (900, [900]), (901, []), (5_000, [])])
    def test_leaves_a_pause_to_the_sweep_that_no_message_can_have(
        self, world: World, clock: SetClock, pause: int, messages: list[float]
    ) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("later", retry_after=pause)

        route = world.route(run)
        route.post()

        assert due(route, clock) == messages
        route.messages.waiting.clear()
        clock.advance(pause + 0.001)
        assert route.lifecycle.sweep(clock.now() + 28_000) == 1

    @pytest.mark.parametrize(
        ("asked", "pause"),
        [("60", 60), ("999999999", 999_999_999), ("1000000000", 1), ("Fri, 31 Dec 2027 23:59:59 GMT", 1)],
    )
    def test_lasts_as_long_as_the_response_asks_for(
        self, world: World, clock: SetClock, asked: str, pause: int
    ) -> None:
        world.route(lambda _: Completion(503, {}, headers={"Retry-After": asked})).post()

        assert world.record.lease_until == clock.now() + pause * 1000
        assert world.record.last_error == "HTTP 503"

    def test_is_not_disturbed_by_a_queue_that_cannot_be_reached(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            if operation.attempt == 1:
                raise Retry("later", retry_after=5)
            return Completion(201, {})

        route = world.route(run)
        route.messages.down = EndpointConnectionError(endpoint_url="https://sqs.example")
        assert route.post().status == 503
        assert route.telemetry.errors == [route.messages.down]
        route.messages.down = None

        clock.advance(5.001)
        assert route.recover() == [Outcome.EXECUTED]

    def test_of_what_is_not_recoverable_sends_nothing(self, dynamodb: DynamoDBClient, clock: SetClock) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("later")

        route = Route(dynamodb, clock, run)
        route.post()

        assert route.messages.calls == 0


class TestMessage:
    @pytest.mark.parametrize("state", ["gone", "running", "completed", "paused", "parked"])
    def test_that_is_out_of_place_does_nothing(self, world: World, clock: SetClock, state: str) -> None:
        def run(operation: Operation) -> Completion:
            if state == "running":
                raise Killed
            if state == "completed":
                return Completion(201, {})
            raise Retry("later", retry_after=60)

        route = world.route(run)
        if state == "running":
            with pytest.raises(Killed):
                route.post()
        else:
            route.post()
        id_ = world.record.id
        if state == "parked":
            route.lifecycle.store.unpark(id_, PARKED_UNTIL)
        before = world.record
        if state == "gone":
            id_ = f"{'0' * 64}:1"

        assert route.idempotent.resume(id_, _context()) is None

        assert (world.record, route.telemetry.errors) == (before, [])

    def test_that_comes_twice_is_carried_out_once(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route()
        route.post(headers=ASYNC)
        [message] = route.messages.waiting
        route.messages.waiting = [message, message]

        assert route.work() == [Outcome.EXECUTED, None]
        assert world.calls == ["server"]

    def test_that_a_worker_with_a_late_clock_gets_is_not_too_early(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route()
        route.post(headers=ASYNC)

        clock.advance(-SKEW + 0.001)

        assert route.work() == []  # the queue has the right time
        clock.advance(SKEW - 0.001)
        [(_, id_)] = route.messages.waiting
        clock.advance(-SKEW + 0.001)
        assert route.idempotent.resume(id_, _context()) is Outcome.EXECUTED

    @pytest.mark.parametrize(("early", "outcome"), [(0.999, Outcome.EXECUTED), (1, None)])
    def test_may_be_a_second_early(self, world: World, clock: SetClock, early: float, outcome: Outcome | None) -> None:
        def run(operation: Operation) -> Completion:
            if operation.attempt == 1:
                raise Retry("later", retry_after=60)
            return Completion(201, {})

        route = world.route(run)
        route.post()
        clock.advance(60 - early)

        assert route.idempotent.resume(world.record.id, _context()) is outcome

    def test_is_never_early_for_an_attempt_that_may_be_running(self, world: World, clock: SetClock) -> None:
        world.came = Killed()
        route = world.route()
        with pytest.raises(Killed):
            route.post()
        clock.advance(30)

        assert route.idempotent.resume(world.record.id, _context()) is None


@pytest.mark.thorough
class TestOutOfTime:
    def test_after_a_step_more_is_no_failure_and_goes_on_at_once(self, world: World, clock: SetClock) -> None:
        # Given 12 steps of 4 s, under a worker's timeout of 15 s
        route = world.route(world.steps(12, 4))
        route.post(headers=ASYNC)
        began = clock.now()

        # When workers carry it on
        outcomes = []
        while route.messages.waiting:
            assert due(route, clock) == [0]
            outcomes += self.work(route, clock, 15)

        # Then no attempt waits for the next one, none counts as failed, and no step is done twice
        assert outcomes == [Outcome.PENDING] * 3 + [Outcome.EXECUTED]
        assert clock.now() - began == 48_000
        assert world.calls == [str(each) for each in range(12)]
        assert world.record.attempt == 4

    def test_before_any_step_is_a_failure_like_any_other(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            clock.advance(25)
            operation.step("late", lambda _: None)
            return Completion(201, {})

        route = world.route(run)
        route.post()
        for _ in range(MAX_RECOVERIES):
            clock.advance(901)
            route.messages.waiting.clear()
            assert self.recover(route, clock) in ([Outcome.RELEASED], [Outcome.PARKED])

        assert world.record.lease_until == PARKED_UNTIL

    def test_makes_the_count_of_attempts_begin_anew(self, world: World, clock: SetClock) -> None:
        # Given an operation that has failed many times
        broken = [True]
        steps = world.steps(12, 4)

        def run(operation: Operation) -> Completion:
            if broken[0]:
                raise Retry("broken")
            return steps(operation)

        route = world.route(run)
        route.post()
        for _ in range(MAX_RECOVERIES - 1):
            clock.advance(901)
            route.messages.waiting.clear()
            route.recover()
        assert world.record.recoveries == MAX_RECOVERIES - 1

        # When it gets further
        broken[0] = False
        clock.advance(901)
        route.messages.waiting.clear()
        self.recover(route, clock, 15)

        # Then it is far from being parked
        assert (world.record.recoveries, [*world.record.steps]) == (0, ["step 0", "step 1", "step 2"])

    def work(self, route: Route, clock: SetClock, seconds: float) -> list[Any]:
        """Let workers carry on what is in the queue, each with a deadline that comes closer."""
        deadline = clock.now() + round(seconds * 1000)
        context = _context()
        context.get_remaining_time_in_millis = lambda: deadline - clock.now()
        return [route.idempotent.resume(id_, context) for id_ in route.messages.receive()]

    def recover(self, route: Route, clock: SetClock, seconds: float = 28) -> list[Any]:
        route.sweep()
        return self.work(route, clock, seconds)


class TestWait:
    def test_of_a_request_looks_as_often_as_the_time_allows(self, world: World, clock: SetClock) -> None:
        began = clock.now()

        answer = world.route().post()

        # A look is followed by another one if a step has time after it, even if the sleep takes a quarter longer.
        assert [(look - began) / 1000 for look in world.looks] == [0, 10, 20]
        assert (answer.status, answer.headers["retry-after"]) == (503, ["10"])
        assert world.routes[0].telemetry.outcomes == [Outcome.PENDING]

    def test_that_ends_in_time_needs_no_other_attempt(self, world: World, clock: SetClock) -> None:
        clock.while_asleep = lambda: setattr(world, "came", "i-1")

        answer = world.route().post()

        assert (answer.status, answer.json) == (201, {"found": "i-1"})
        assert world.routes[0].messages.calls == 0

    def test_of_a_worker_looks_once_for_each_message(self, world: World, clock: SetClock) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        began = clock.now()

        for _ in range(3):
            assert route.work() == [Outcome.PENDING]
            assert due(route, clock) == [EVERY]
            clock.advance(EVERY)
        world.came = "i-1"

        assert route.work() == [Outcome.EXECUTED]
        assert [(look - began) / 1000 for look in world.looks] == pytest.approx([0, 10, 20, 30], abs=0.01)
        assert world.calls == ["server"]
        assert (world.record.recoveries, world.record.attempt) == (1, 4)
        assert world.record.waits == {}

    def test_is_as_long_as_it_says_in_all_attempts_together(self, world: World, clock: SetClock) -> None:
        # Given a wait of 60 s, of which the first look was in another function
        world.route().post(headers=ASYNC)
        began = clock.now()
        outcomes = []
        while world.routes[-1].messages.waiting:
            outcomes += world.route().work()
            clock.advance(EVERY + 1)

        # Then the last look is when the time is over, and the operation is an operator's
        assert outcomes == [Outcome.PENDING] * 6 + [Outcome.PARKED]
        assert 60 <= (world.looks[-1] - began) / 1000 <= 66
        assert world.record.lease_until == PARKED_UNTIL
        assert world.record.last_error == "WaitOver: 'running' has not come within 60 s."
        assert world.calls == ["server"]

        # And its client's retry looks once more
        world.came = "i-1"
        assert world.route().post().json == {"found": "i-1"}

    def test_is_over_at_its_last_second(self, world: World, clock: SetClock) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        outcomes = route.work()
        clock.advance(AT_MOST)

        assert outcomes + route.work() == [Outcome.PENDING, Outcome.PARKED]

    def test_that_looks_for_what_will_never_come_undoes_the_steps(self, world: World, clock: SetClock) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        route.work()
        world.came = Rejected("gone", "It was terminated.", status=409)
        clock.advance(EVERY + 1)

        assert route.work() == [Outcome.EXECUTED]

        assert world.calls == ["server", "undo server"]
        assert route.post().problem == "gone"
        assert route.telemetry.doubts == []

    def test_is_undone_once_it_has_come(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"

        def run(operation: Operation) -> Completion:
            operation.wait(
                "running",
                world.look,
                every=EVERY,
                at_most=AT_MOST,
                undo=lambda found: world.calls.append(f"undo {found}"),
            )
            raise Rejected("no", "No.", status=422)

        assert world.route(run).post().status == 422

        assert world.calls == ["undo i-1"]

    def test_that_has_not_come_leaves_nothing_to_undo(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            if operation.attempt > 1:
                raise Rejected("no", "No.", status=422)
            operation.wait("running", world.look, every=EVERY, at_most=AT_MOST, undo=lambda: world.calls.append("undo"))
            raise AssertionError

        route = world.route(run)
        route.post()

        assert route.post().status == 422
        assert world.calls == []
        assert route.telemetry.doubts == []

    def test_never_outlives_the_lease(self, world: World, clock: SetClock) -> None:
        # Given a route whose lease is 15 s though its function has 28 s
        route = world.route(lease=15)

        assert route.post().status == 503

        assert clock.now() - world.looks[0] < 15_000
        assert len(world.looks) == 1

    def test_that_is_cut_off_in_a_look_begins_anew(self, world: World, clock: SetClock) -> None:
        world.came = Killed()
        with pytest.raises(Killed):
            world.route().post()
        world.came = None
        clock.advance(31)

        route = world.route()
        assert route.recover() == [Outcome.PENDING]
        assert world.record.waits == {"running": clock.now()}

    def test_may_find_anything_but_nothing(self, world: World) -> None:
        world.came = 0

        assert world.route().post().json == {"found": 0}


@pytest.mark.thorough
class TestAccept:
    def test_answers_before_anything_is_done(self, world: World, clock: SetClock) -> None:
        route = world.route()

        answer = route.post(headers=ASYNC)

        assert answer.status == 202
        assert answer.headers["location"] == [f"/dev/v1/operations/{world.record.id}"]
        assert answer.headers["preference-applied"] == ["respond-async"]
        assert int(answer.headers["retry-after"][0]) == 1
        assert answer.json["state"] == "accepted"
        assert (world.calls, route.runs) == ([], 0)
        assert due(route, clock) == [0]

    def test_costs_one_write_and_one_message(self, world: World, dynamodb: DynamoDBClient) -> None:
        route = world.route()

        with calls_of(dynamodb) as calls:
            route.post(headers=ASYNC)

        assert calls == ["PutItem"]
        assert route.messages.calls == 1

    def test_makes_the_workers_attempt_the_first_one(self, world: World) -> None:
        seen = []

        def run(operation: Operation) -> Completion:
            seen.append(operation.attempt)
            return Completion(201, {})

        route = world.route(run)
        route.post(headers=ASYNC)
        route.work()

        assert seen == [1]
        assert Outcome.TAKEN_OVER not in route.telemetry.outcomes

    def test_is_followed_by_the_replay(self, world: World) -> None:
        world.came = "i-1"
        route = world.route()
        route.post(headers=ASYNC)
        route.work()

        plain, again = route.post(), route.post(headers=ASYNC)

        assert (plain.status, plain.replayed, plain.json) == (201, True, {"found": "i-1"})
        assert (again.status, again.replayed, again.body) == (201, True, plain.body)
        assert "preference-applied" not in again.headers

    def test_remembers_what_has_ended(self, world: World, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
        world.came = "i-1"
        route = world.route(settings=Settings(), ttl=60)
        route.post(headers=ASYNC)
        route.work()

        with monkeypatch.context() as without:
            without.setattr(route.lifecycle, "store", None)
            assert route.post(headers=ASYNC).replayed
            assert route.post(headers=ASYNC, body={"another": 1}).problem == "key-reused"

        clock.advance(61)
        assert route.post(headers=ASYNC).status == 202

    def test_makes_a_second_message_cost_one_read(self, world: World, dynamodb: DynamoDBClient) -> None:
        world.came = "i-1"
        route = world.route()
        route.post(headers=ASYNC)
        route.messages.waiting *= 2

        assert route.idempotent.resume(route.messages.waiting.pop()[1], _context()) is Outcome.EXECUTED
        with calls_of(dynamodb) as calls:
            assert route.work() == [None]
        assert calls == ["GetItem"]

    def test_waits_first_if_it_is_asked_to(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route()

        def work() -> None:
            route.work()

        clock.while_asleep = work

        answer = route.post(headers=[("Prefer", "respond-async, wait=5")])

        assert (answer.status, answer.replayed) == (201, True)
        assert answer.headers["preference-applied"] == ["wait=5"]

    def test_waits_for_no_answer_that_has_expired_by_then(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route(ttl=60)

        def work() -> None:
            route.work()
            clock.advance(60)

        clock.while_asleep = work

        answer = route.post(headers=[("Prefer", "respond-async, wait=5")])

        assert (answer.status, answer.replayed) == (202, False)

    def test_waits_no_longer_than_it_is_asked_to(self, world: World, clock: SetClock) -> None:
        answer = world.route().post(headers=[("Prefer", "respond-async, wait=5")])

        assert answer.status == 202
        assert answer.headers["preference-applied"] == ["respond-async, wait=5"]
        assert sum(clock.sleeps) == 5_000

    def test_reads_while_it_waits(self, world: World, dynamodb: DynamoDBClient) -> None:
        route = world.route()

        with calls_of(dynamodb) as calls:
            route.post(headers=[("Prefer", "respond-async, wait=1")])

        assert calls == ["PutItem"] + ["GetItem"] * 5

    def test_begins_anew_if_the_record_is_gone_meanwhile(self, world: World, clock: SetClock) -> None:
        route = world.route()
        clock.while_asleep = lambda: empty("IdempotencyTable")

        answer = route.post(headers=[("Prefer", "respond-async, wait=1")])

        assert (answer.status, answer.json["state"]) == (202, "accepted")

    def test_of_what_runs_is_202_again(self, world: World) -> None:
        def run(_: Operation) -> Completion:
            raise Killed

        route = world.route(run)
        with pytest.raises(Killed):
            route.post()
        before = world.record

        answer = route.post(headers=ASYNC)

        assert (answer.status, answer.json["state"]) == (202, "running")
        assert (world.record, route.messages.calls) == (before, 0)

    def test_of_what_lapsed_has_it_carried_on_at_once(self, world: World, clock: SetClock) -> None:
        world.came = Killed()
        route = world.route()
        with pytest.raises(Killed):
            route.post()
        world.came = "i-1"
        clock.advance(31)

        assert route.post(headers=ASYNC).json["state"] == "due"
        assert route.work() == [Outcome.EXECUTED]

    def test_of_what_pauses_leaves_it_its_pause(self, world: World, clock: SetClock) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("later", retry_after=60)

        route = world.route(run)
        route.post()
        calls = route.messages.calls

        answer = route.post(headers=ASYNC)

        assert (answer.status, answer.json["state"], answer.headers["retry-after"]) == (202, "waiting", ["60"])
        assert route.messages.calls == calls

    def test_of_what_is_parked_lets_it_go_on(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            if operation.attempt <= MAX_RECOVERIES + 1:
                raise Retry("later")
            return Completion(201, {})

        route = world.route(run)
        route.post()
        for _ in range(MAX_RECOVERIES):
            clock.advance(901)
            route.messages.waiting.clear()
            route.recover()
        assert world.record.parked

        accepted = route.post(headers=ASYNC)

        assert (accepted.json["state"], accepted.headers["retry-after"]) == ("due", ["1"])
        assert route.work() == [Outcome.EXECUTED]

    def test_of_what_was_parked_and_is_gone_just_now_is_told_so_the_next_time(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("later")

        route = self.parked(world, monkeypatch, run, lambda _route, _id: empty("IdempotencyTable"))

        assert [route.post(headers=ASYNC).json["state"] for _ in range(2)] == ["parked", "accepted"]

    def test_of_what_was_parked_until_just_now_is_told_that_it_runs(
        self, world: World, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a parked operation that another client sets going, and a worker takes up, in between
        def run(operation: Operation) -> Completion:
            if operation.attempt > 1:
                raise Killed
            raise Retry("later")

        def set_going(route: Route, id_: str) -> None:
            Store.unpark(route.lifecycle.store, id_, clock.now() - 1)
            with suppress(Killed):
                route.idempotent.resume(id_, _context())

        route = self.parked(world, monkeypatch, run, set_going)

        accepted = route.post(headers=ASYNC)

        assert (accepted.status, accepted.json["state"], accepted.headers["retry-after"]) == (202, "running", ["1"])

    @staticmethod
    def parked(
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        run: Callable[[Operation], Completion],
        happens: Callable[[Route, str], None],
    ) -> Route:
        """A route whose operation is parked; something happens to it just before a client sets it going."""
        route = world.route(run)
        route.post()
        store, unpark = route.lifecycle.store, route.lifecycle.store.unpark
        unpark(world.record.id, PARKED_UNTIL)

        def late(id_: str, now: int) -> bool:
            happens(route, id_)
            return unpark(id_, now)

        monkeypatch.setattr(store, "unpark", late)
        return route

    def test_replaces_what_has_expired(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route(ttl=60)
        first = route.post()
        clock.advance(61)

        assert route.post(headers=ASYNC).status == 202
        assert world.record.operation_id not in first.body.decode()
        route.work()
        assert world.record.cut_off == 0
        assert route.post().replayed

    def test_of_another_request_is_refused(self, world: World) -> None:
        route = world.route()
        route.post(headers=ASYNC)

        assert route.post(headers=ASYNC, body={"another": 1}).problem == "key-reused"

    def test_of_what_an_earlier_version_began_without_recovery_runs_it(
        self, world: World, dynamodb: DynamoDBClient, clock: SetClock
    ) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("later")

        Route(dynamodb, clock, run).post()
        world.came = "i-1"

        assert world.route().post(headers=ASYNC).json == {"found": "i-1"}

    def test_loses_nothing_if_the_queue_cannot_be_reached(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route()
        route.messages.down = EndpointConnectionError(endpoint_url="https://sqs.example")

        assert route.post(headers=ASYNC).status == 202

        route.messages.down = None

        assert route.recover() == [Outcome.EXECUTED]

    @pytest.mark.parametrize(
        ("policy", "headers", "status"),
        [
            ({"respond_async": "always"}, [], 202),
            ({"respond_async": "late"}, [], 202),
            ({"respond_async": "asked"}, [], 503),
            ({"respond_async": "late", "lease": 20}, [], 202),
        ],
    )
    def test_is_what_the_route_says(self, world: World, policy: Any, headers: Any, status: int) -> None:
        answer = world.route(**policy).post(headers=headers)

        assert answer.status == status
        assert ("location" in answer.headers) == (status == 202)
        assert "preference-applied" not in answer.headers

    def test_late_is_no_answer_to_a_failure(self, world: World) -> None:
        def run(_: Operation) -> Completion:
            raise Retry("The service is down.")

        assert world.route(run, respond_async="late").post().status == 503

    def test_late_comes_too_if_the_first_step_does_not_fit(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            clock.advance(25)
            operation.step("late", lambda _: None)
            raise AssertionError

        answer = world.route(run, respond_async="late").post()

        assert (answer.status, answer.json["state"], answer.headers["retry-after"]) == (202, "waiting", ["1"])

    def test_late_is_no_answer_once_the_operation_is_given_up(self, world: World, clock: SetClock) -> None:
        def run(operation: Operation) -> Completion:
            clock.advance(25)
            operation.step("late", lambda _: None)
            raise AssertionError

        route = world.route(run, respond_async="late")
        answers = [route.post()]
        for _ in range(MAX_RECOVERIES):
            clock.advance(901)
            route.recover()
        answers.append(route.post())

        assert [answer.status for answer in answers] == [202, 503]
        assert world.record.parked

    def test_takes_no_notice_of_the_preference_where_recovery_does_not_finish(
        self, dynamodb: DynamoDBClient, clock: SetClock
    ) -> None:
        assert Route(dynamodb, clock, lambda _: Completion(201, {})).post(headers=ASYNC).status == 201

    def test_takes_no_notice_of_an_anonymous_client(self, dynamodb: DynamoDBClient, clock: SetClock) -> None:
        route = Route(dynamodb, clock, lambda _: Completion(201, {}), recoverable=True, anonymous=True)

        assert route.post(headers=ASYNC, principal=None).status == 201


@pytest.mark.thorough
class TestStatus:
    def show(self, route: Route, id_: str, principal: str | None = "alice") -> Answer:
        path = f"/v1/operations/{id_}"
        if not any(each.path == "/v1/operations/<id_>" for each in route.app._dynamic_routes):
            route.app.get("/v1/operations/<id_>")(route.idempotent.status)
        authorizer = principal and {"principalId": principal}
        return route.send(proxy_event("GET", path, resource="/v1/operations/{id_}", authorizer=authorizer or None))

    def test_shows_how_far_an_operation_is(self, world: World, clock: SetClock) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        id_ = world.record.id
        states = [self.show(route, id_)]
        route.work()
        states.append(self.show(route, id_))
        clock.advance(EVERY + 1)
        states.append(self.show(route, id_))
        world.came = "i-1"
        route.work()
        states.append(self.show(route, id_))

        assert [answer.status for answer in states] == [200] * 4
        assert [answer.json["state"] for answer in states] == ["accepted", "waiting", "due", "succeeded"]
        assert [answer.json["attempt"] for answer in states] == [0, 1, 1, 2]
        assert [answer.headers.get("retry-after") for answer in states] == [["1"], ["10"], ["1"], None]
        assert [answer.json.get("steps") for answer in states] == [
            None,
            {"running": "waiting", "server": "done"},
            {"running": "waiting", "server": "done"},
            None,
        ]
        assert states[1].json["due_at"].endswith("Z")
        assert states[3].json["response"] == {"status": 201, "location": None}

    def test_costs_one_read(self, world: World, dynamodb: DynamoDBClient) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        id_ = world.record.id

        with calls_of(dynamodb) as calls:
            self.show(route, id_)

        assert calls == ["GetItem"]

    def test_tells_why_an_operation_failed(self, world: World) -> None:
        world.came = Rejected("gone", "It was terminated.", status=409)
        route = world.route()
        route.post(headers=ASYNC)
        route.work()

        shown = self.show(route, world.record.id).json

        assert (shown["state"], shown["response"]["status"]) == ("failed", 409)
        assert shown["problem"]["detail"] == "It was terminated."

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("It was terminated.", None),
            ("", None),
            (b"\xff", None),
            ('"It was terminated."', None),
            ('{"title":"It was terminated."}', {"title": "It was terminated."}),
            ("[" * 10_000, None),
            ('{"balance":NaN}', None),
            ('{"balance":1e400}', None),
            (Random(1).randbytes(5_000).hex(), None),  # in parts, compressed
            (Random(1).randbytes(5_000), None),  # in parts
        ],
        ids=[
            "no JSON",
            "nothing",
            "no text",
            "text",
            "object",
            "deep",
            "NaN",
            "beyond a double",
            "large",
            "large, no text",
        ],
    )
    def test_tells_what_there_is_to_tell(self, world: World, body: Any, problem: Any) -> None:
        route = world.route(lambda _: Completion(409, body, content_type="application/problem+json"))
        route.post()

        shown = self.show(route, world.record.id)

        assert (shown.status, shown.json["state"], shown.json.get("problem")) == (200, "failed", problem)

    def test_tells_it_while_the_steps_are_undone(self, world: World, clock: SetClock) -> None:
        world.came = Rejected("gone", "It was terminated.", status=409)

        def run(operation: Operation) -> Completion:
            def fail() -> None:
                raise Retry("not now", retry_after=7)

            operation.step("page", lambda _: "page", undo=fail)
            operation.wait("running", world.look, every=EVERY, at_most=AT_MOST)
            raise AssertionError

        route = world.route(run)
        route.post(headers=ASYNC)
        route.work()

        shown = self.show(route, world.record.id).json

        assert (shown["state"], shown["problem"]["status"]) == ("waiting", 409)
        assert shown["steps"] == {"page": "done", "running": "refused"}
        assert "response" not in shown

    def test_of_one_that_is_parked_promises_nothing(self, world: World, clock: SetClock) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        clock.advance(AT_MOST)
        route.work()
        clock.advance(AT_MOST + 1)
        route.work()

        answer = self.show(route, world.record.id)

        assert answer.json["state"] == "parked"
        assert "retry-after" not in answer.headers

    @pytest.mark.parametrize("principal", ["bob", None])
    def test_is_shown_to_nobody_else(self, world: World, principal: str | None) -> None:
        route = world.route()
        route.post(headers=ASYNC)
        missing, foreign = (self.show(route, id_, principal) for id_ in (f"{'0' * 64}:1", world.record.id))

        assert (missing.status, foreign.status) == (404, 404)
        assert foreign.body.replace(world.record.id.encode(), b"") == missing.body.replace(b"0" * 64 + b":1", b"")

    def test_of_an_operation_that_is_not_recoverable_is_shown_to_nobody(
        self, world: World, dynamodb: DynamoDBClient, clock: SetClock
    ) -> None:
        route = Route(dynamodb, clock, lambda _: Completion(201, {}))
        route.post()
        [item] = dynamodb.scan(TableName="IdempotencyTable")["Items"]

        assert [self.show(route, item["id"]["S"], who).status for who in ("alice", None)] == [404, 404]

    def test_is_none_after_the_time_to_live(self, world: World, clock: SetClock) -> None:
        world.came = "i-1"
        route = world.route(ttl=60)
        route.post()
        clock.advance(61)

        assert self.show(route, world.record.id).status == 404

    @pytest.mark.parametrize("id_", ["x", "0" * 64, f"{'0' * 64}:1#owner#0", "é" * 3_000, "%00"])
    def test_of_what_is_no_id_is_none_without_a_call(self, world: World, dynamodb: DynamoDBClient, id_: str) -> None:
        with calls_of(dynamodb) as calls:
            answer = self.show(world.route(), id_)

        assert (answer.status, calls) == (404, [])

    def test_is_json(self, world: World) -> None:
        route = world.route()
        accepted = route.post(headers=ASYNC)

        shown = self.show(route, world.record.id)

        assert json.loads(shown.body) == accepted.json
        assert shown.headers["content-type"] == ["application/json"]


@pytest.mark.thorough
class TestSweep:
    def abandon(self, world: World, number: int) -> Route:
        def run(_: Operation) -> Completion:
            raise Killed

        route = world.route(run)
        for each in range(number):
            with pytest.raises(Killed):
                route.post(key=f"{KEY}-{each}")
        return route

    def test_sends_everything_that_is_due(self, world: World, clock: SetClock) -> None:
        route = self.abandon(world, 25)
        clock.advance(31)

        assert route.lifecycle.sweep(clock.now() + 28_000) == 25
        assert len({id_ for _, id_ in route.messages.waiting}) == 25

    def test_sends_nothing_where_there_is_no_queue(self, world: World, clock: SetClock) -> None:
        store = self.abandon(world, 1).lifecycle.store
        clock.advance(31)

        assert Lifecycle(store, RecordedTelemetry(), Settings(), clock).sweep(clock.now() + 28_000) == 0

    def test_tells_how_long_the_oldest_has_been_due(self, world: World, clock: SetClock) -> None:
        route = self.abandon(world, 1)
        clock.advance(30 + 42)

        route.lifecycle.sweep(clock.now() + 28_000)
        route.messages.waiting.clear()
        assert route.telemetry.backlogs == [42_000]

    def test_tells_so_if_nothing_is_due(self, world: World, clock: SetClock) -> None:
        route = self.abandon(world, 1)

        assert route.lifecycle.sweep(clock.now() + 28_000) == 0
        assert route.telemetry.backlogs == [0]

    def test_stops_when_its_time_is_nearly_up(self, world: World, clock: SetClock) -> None:
        route = self.abandon(world, 25)
        clock.advance(31)
        route.messages.client.meta.events.register_first("before-call.sqs.*", lambda **_: clock.advance(11))

        assert route.lifecycle.sweep(clock.now() + 15_000) == 20

    @pytest.mark.parametrize(("milliseconds", "sent"), [(3_000, 1), (2_999, 0)])
    def test_needs_time_for_a_page_and_a_batch(
        self, world: World, clock: SetClock, milliseconds: int, sent: int
    ) -> None:
        route = self.abandon(world, 1)
        clock.advance(31)

        assert route.lifecycle.sweep(clock.now() + milliseconds) == sent

    def test_tells_even_if_the_queue_cannot_be_reached(self, world: World, clock: SetClock) -> None:
        route = self.abandon(world, 1)
        clock.advance(31)
        route.messages.down = EndpointConnectionError(endpoint_url="https://sqs.example")

        with pytest.raises(EndpointConnectionError):
            route.lifecycle.sweep(clock.now() + 28_000)

        assert route.telemetry.backlogs == [1_000]


def _context() -> Any:
    return Context()
