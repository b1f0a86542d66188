"""A duplicate waits: until the first request finishes, its lease lapses, or the client's patience ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Retry
from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration.conftest import NewWorker
from tests.integration.worker import LEASE_SECONDS, Worker, created, killed, same


class Running:
    """A first request that goes on until it is told to end.

    Args:
        worker: the worker that runs it.
    """

    def __init__(self, worker: Worker) -> None:
        self.replies: list[Reply] = []
        self._began, self._may_end = Event(), Event()
        self._thread = Thread(target=lambda: self.replies.append(worker.run(self._until_told)))
        self._thread.start()
        assert self._began.wait(10)

    def _until_told(self, operation: Operation) -> Response[Any]:
        self._began.set()
        assert self._may_end.wait(10)
        return self._ends(operation)

    def _ends(self, operation: Operation) -> Response[Any]:
        return created(operation)

    def end(self) -> None:
        """Let it end, and wait until it has."""
        self._may_end.set()
        self._thread.join()


class Failing(Running):
    """A first request that ends by failing for now."""

    def _ends(self, operation: Operation) -> Response[Any]:
        raise Retry("later")


class Asking(Running):
    """A first request that ends with what the service behind it asks for: a pause of seven seconds."""

    def _ends(self, operation: Operation) -> Response[Any]:
        raise Retry("later", retry_after=7)


@pytest.fixture
def running(worker: NewWorker) -> Iterator[Callable[..., Running]]:
    """Function that begins a first request."""
    begun: list[Running] = []

    def begin(kind: type[Running] = Running) -> Running:
        begun.append(kind(worker()))
        return begun[-1]

    yield begin
    for each in begun:
        each.end()


def at(clock: SetClock, seconds: float, happens: Callable[[], object]) -> None:
    """Let something happen while a worker sleeps, once this many seconds have passed."""
    moment = clock.now() + seconds * 1000

    def watch() -> None:
        if clock.now() >= moment:
            clock.while_asleep = lambda: None
            happens()

    clock.while_asleep = watch


class TestWait:
    def test_until_the_first_request_finishes(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        first, waiter = running(), worker()
        at(clock, 2, first.end)

        reply = waiter.run(wait=20)

        assert same([reply, *first.replies])
        assert reply.replayed
        assert 2_000 <= reply.waited < 3_000
        assert waiter.telemetry.outcomes == [Outcome.WAITED, Outcome.REPLAYED_FROM_TABLE]
        assert waiter.telemetry.waited == [reply.waited]

    def test_no_longer_than_it_asked_for(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        running()
        waiter = worker()

        refusal = waiter.refused(wait=5)

        assert (refusal.slug, refusal.retry_after) == ("in-progress", 5)
        assert sum(clock.sleeps) == 5_000
        assert waiter.telemetry.outcomes == [Outcome.WAITED, Outcome.IN_PROGRESS]
        assert waiter.telemetry.waited == [5_000]

    def test_for_no_time_if_it_did_not_ask(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        running()
        other = worker()

        assert other.refused().slug == "in-progress"
        assert clock.sleeps == []
        assert other.telemetry.outcomes == [Outcome.IN_PROGRESS]

    @pytest.mark.parametrize("kind", [Running, Failing])
    def test_and_takes_over_when_the_lease_lapses(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running], kind: type[Running]
    ) -> None:
        # Given a first request that hangs, near the end of its lease
        first, waiter = running(kind), worker()
        clock.advance(LEASE_SECONDS - 3)

        # When a duplicate waits beyond that
        reply = waiter.run(wait=20)

        # Then it runs the operation itself, at once, and the first request comes too late
        assert not reply.replayed
        assert sum(clock.sleeps) == 3_001
        assert waiter.telemetry.outcomes == [Outcome.WAITED, Outcome.TAKEN_OVER, Outcome.EXECUTED]
        first.end()
        assert same([reply, *first.replies])

    def test_and_resumes_when_the_first_request_fails_for_now(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        first, waiter = running(Failing), worker()
        at(clock, 1, first.end)

        reply = waiter.run(wait=20)

        assert [first.replies[0].response.status, reply.response.status] == [503, 201]
        assert waiter.record().attempt == 2

    def test_and_respects_the_pause_that_the_service_behind_asked_for(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        # Given a first request that fails after a second, and asks for a pause of seven
        first, holder = running(Asking), worker()
        at(clock, 1, first.end)

        # When a duplicate is held
        reply = holder.run(wait=20)

        # Then it takes the operation up no sooner
        assert (reply.response.status, holder.record().attempt) == (201, 2)
        assert 8_000 < sum(clock.sleeps) < 9_000

    def test_and_is_told_of_that_pause_if_it_is_longer_than_it_waits(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        first, holder = running(Asking), worker()
        at(clock, 1, first.end)

        refusal = holder.refused(wait=5)

        assert (refusal.slug, holder.record().attempt) == ("in-progress", 1)
        assert refusal.retry_after in {3, 4}

    def test_but_a_retry_of_the_client_does_not_wait(self, worker: NewWorker, running: Callable[..., Running]) -> None:
        running(Asking).end()

        assert worker().run(wait=20).response.status == 201

    def test_and_claims_when_the_record_is_deleted(self, worker: NewWorker, clock: SetClock) -> None:
        with suppress(Killed):
            worker().run(killed)
        waiter = worker()
        key = {"id": {"S": waiter.record().id}}
        at(clock, 1, lambda: waiter.client.delete_item(TableName=waiter.table, Key=key))

        reply = waiter.run(wait=20)

        assert not reply.replayed
        assert waiter.record().attempt == 1


class TestCost:
    @pytest.mark.parametrize(("seconds", "reads"), [(0.1, 1), (0.5, 3), (2, 6), (5, 9), (19, 23)])
    def test_is_one_small_read_for_each_look(
        self,
        worker: NewWorker,
        clock: SetClock,
        running: Callable[..., Running],
        seconds: float,
        reads: int,
        record_property: Callable[[str, object], None],
    ) -> None:
        first, waiter = running(), worker()
        at(clock, seconds, first.end)

        waiter.run(wait=20)

        record_property("reads of one waiter", waiter.calls["GetItem"])
        assert waiter.calls == {"PutItem": 1, "GetItem": reads}

    def test_is_of_strongly_consistent_reads(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        # DynamoDB Local is always consistent, so look at what is asked for.
        asked: list[bool] = []

        def note(params: dict[str, Any], **_: object) -> None:
            asked.append(params["ConsistentRead"])

        running()
        waiter = worker()
        waiter.client.meta.events.register("provide-client-params.dynamodb.GetItem", note)

        waiter.refused(wait=1)

        assert asked
        assert all(asked)

    def test_pauses_grow_up_to_a_second(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        running()

        worker().refused(wait=5)

        *pauses, last = clock.sleeps
        assert pauses == sorted(pauses)
        assert (pauses[0], max(pauses)) == (100, 1_000)
        assert last <= 1_000


class TestPolicy:
    def test_limits_what_a_client_may_ask_for(
        self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]
    ) -> None:
        running()

        worker().refused(wait=20, policy=Policy(wait_limit=3))

        assert sum(clock.sleeps) == 3_000

    def test_keeps_time_to_answer(self, worker: NewWorker, clock: SetClock, running: Callable[..., Running]) -> None:
        running()

        worker().refused(wait=20, seconds=8)

        assert sum(clock.sleeps) == 7_000

    def test_keeps_time_to_take_over_safely(self, worker: NewWorker, clock: SetClock) -> None:
        # Given a lease that lapses when the waiter has less time left than an attempt needs
        with suppress(Killed):
            worker().run(killed)
        clock.advance(LEASE_SECONDS - 5)
        waiter = worker()

        # When it lapses, then the waiter leaves the operation to the next retry
        refusal = waiter.refused(wait=20, seconds=8)

        assert (refusal.slug, refusal.retry_after) == ("unavailable", 1)
        assert waiter.record().attempt == 1
