"""The sparse index of unfinished operations, and recoveries at the same time as another recovery or the client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from idempotency.errors import Problem, Retry
from idempotency.lifecycle import Reply
from idempotency.policy import Policy, Settings
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.request import Request
from idempotency.response import StoredResponse
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.concurrency import at_once
from tests.integration.conftest import NewWorker
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.test_late import raising
from tests.integration.worker import DEADLINE_SECONDS, LEASE_SECONDS, Worker, created, killed

RECOVERABLE = Policy(recoverable=True)


def abandon(worker: Worker, key: str = "key", policy: Policy = RECOVERABLE) -> str:
    """Begin an operation, and be killed; return the id of its record."""
    with suppress(Killed):
        worker.run(killed, key=key, policy=policy)
    return worker.record(key).id


def resume(worker: Worker, id_: str) -> Record | None:
    """Claim an operation as recovery does."""
    return worker.lifecycle.resume(id_, RECOVERABLE, worker.clock.now() + DEADLINE_SECONDS * 1000)


def ids(worker: Worker) -> set[str]:
    """Ids of what is due."""
    return {due.id for due in worker.store.due(worker.clock.now())}


class TestDue:
    def test_is_every_operation_whose_lease_has_lapsed(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        early = {abandon(one, f"early {number}") for number in range(40)}  # enough for every shard to have some
        clock.advance(10)
        late = {abandon(one, f"late {number}") for number in range(5)}

        clock.advance(LEASE_SECONDS - 10 + 0.001)
        assert ids(one) == early
        clock.advance(10)
        assert ids(one) == early | late

    def test_is_no_operation_that_is_finished_or_not_recoverable(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(policy=RECOVERABLE, key="finished")
        abandon(one, "not recoverable", Policy())
        clock.advance(LEASE_SECONDS + 0.001)

        assert list(one.store.due(PARKED_UNTIL + 1)) == []

    def test_is_a_released_operation_once_its_pause_is_over(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(raising(Retry("later", retry_after=60)), policy=RECOVERABLE)

        clock.advance(60)
        assert list(one.store.due(clock.now())) == []
        clock.advance(0.001)
        assert ids(one) == {one.record().id}

    def test_begins_with_a_different_shard_each_minute(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        ids = {abandon(one, f"key {number}") for number in range(40)}
        clock.advance(LEASE_SECONDS + 0.001)

        first = []
        for _ in range(16):
            first.append(next(one.store.due(clock.now())).id[0])
            clock.advance(60)

        assert set(first) == {id_[0] for id_ in ids}


class TestTakeOver:
    """By a client, under another policy than the attempt before: the route's choices have changed."""

    def test_under_a_recoverable_policy_hands_the_operation_to_recovery(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        one = worker()
        abandon(one, policy=Policy())
        clock.advance(LEASE_SECONDS + 0.001)

        id_ = abandon(one)
        clock.advance(LEASE_SECONDS + 0.001)

        record = one.record()
        assert (ids(one), record.attempt, record.principal) == ({id_}, 2, "alice")
        assert Request.unpack(record.request or b"").route == "/v1/things"

    def test_under_any_other_does_not(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        abandon(one, policy=Policy())
        clock.advance(LEASE_SECONDS + 0.001)

        abandon(one, policy=Policy())
        clock.advance(LEASE_SECONDS + 0.001)

        assert (ids(one), one.record().attempt, one.record().request) == (set(), 2, None)


class TestResume:
    def test_by_many_recoveries_at_once_succeeds_for_one(self, worker: NewWorker, clock: SetClock) -> None:
        id_ = abandon(worker())
        clock.advance(LEASE_SECONDS + 0.001)

        found = at_once([partial(resume, worker(), id_) for _ in range(8)])

        [record] = [record for record in found if isinstance(record, Record)]
        assert (record.attempt, record.recoveries) == (2, 1)
        assert found.count(None) == 7

    def test_at_the_same_time_as_the_client_succeeds_for_one_of_them(self, worker: NewWorker, clock: SetClock) -> None:
        for number in range(5):
            key = f"key {number}"
            id_ = abandon(worker(), key)
            clock.advance(LEASE_SECONDS + 0.001)
            runs = [partial(worker().run, created, key=key, policy=RECOVERABLE) for _ in range(4)]
            contenders: list[Callable[[], Reply | Record | None]] = [
                *runs,
                *(partial(resume, worker(), id_) for _ in runs),
            ]

            found = at_once(contenders)

            recovered = [record for record in found if isinstance(record, Record)]
            ran = [reply for reply in found if isinstance(reply, Reply) and not reply.replayed]
            assert len(recovered) + len(ran) == 1
            refused = {problem.slug for problem in found if isinstance(problem, Problem)}
            assert refused <= {"in-progress"}

    @pytest.mark.parametrize("times", [1, SDK_ATTEMPTS - 1])
    def test_whose_answer_was_lost_is_recognised(self, worker: NewWorker, clock: SetClock, times: int) -> None:
        id_ = abandon(worker())
        clock.advance(LEASE_SECONDS + 0.001)
        one = worker()
        faults.lose_answers(one, "UpdateItem", times)

        record = resume(one, id_)

        assert record is not None
        assert (record.attempt, record.recoveries) == (2, 1)

    def test_does_not_claim_what_its_late_owner_completes_in_the_middle(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        late, recovery = worker(), worker()
        id_ = abandon(late)
        record = late.record()
        clock.advance(LEASE_SECONDS + 0.001)

        faults.meanwhile(recovery, "UpdateItem", lambda: late.complete(record, StoredResponse(201)))

        assert resume(recovery, id_) is None

    def test_finds_nothing_if_the_record_is_gone(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        id_ = abandon(one)
        clock.advance(LEASE_SECONDS + 0.001)
        one.client.delete_item(TableName=one.table, Key={"id": {"S": id_}})

        assert resume(one, id_) is None

    def test_does_not_claim_an_expired_record(self, worker: NewWorker, clock: SetClock) -> None:
        id_ = abandon(worker())
        clock.advance(Settings().unfinished_ttl + 1)

        assert resume(worker(), id_) is None


class TestUnpark:
    def test_makes_a_released_operation_due(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(raising(Retry("later", retry_after=300)), policy=RECOVERABLE)

        assert one.store.unpark(one.record().id, clock.now())

        record = one.record()
        assert (record.status, record.lease_until, record.recoveries) == (Status.RELEASED, clock.now(), 0)

    @pytest.mark.parametrize("state", ["none", "running", "completed", "not recoverable"])
    def test_does_nothing_to_any_other(self, worker: NewWorker, clock: SetClock, state: str) -> None:
        one = worker()
        if state == "running":
            abandon(one)
        elif state == "completed":
            one.run(policy=RECOVERABLE)
        elif state == "not recoverable":
            one.run(raising(Retry("later")))
        before = one.scan()
        id_ = one.record().id if before else "0" * 64

        assert not one.store.unpark(id_, clock.now())

        assert one.scan() == before
