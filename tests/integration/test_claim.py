"""If many claim a key at the same moment, one gets it."""

from contextlib import suppress
from functools import partial
from itertools import count, product
from threading import Event
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.clock import Clock
from idempotency.errors import Problem, Retry
from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.policy import Settings
from idempotency.record import Record, Status
from idempotency.response import StoredResponse
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.concurrency import at_once
from tests.integration.conftest import NewWorker
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created, killed, same

MANY = 16


class Counted:
    """An operation that counts its runs."""

    def __init__(self, run: Run = created) -> None:
        self._runs = count(1)
        self._run = run
        self.runs = 0

    def __call__(self, operation: Operation) -> Response[Any]:
        self.runs = next(self._runs)
        return self._run(operation)


def replies(results: list[Reply | Problem]) -> list[Reply]:
    """The replies among the results; all others must say that the operation is running."""
    refusals = [result for result in results if isinstance(result, Problem)]
    assert {refusal.slug for refusal in refusals} <= {"in-progress"}
    return [result for result in results if isinstance(result, Reply)]


class TestManyAtOnce:
    def test_one_runs_and_the_others_are_told_that_it_is_running(self, worker: NewWorker) -> None:
        # Given an operation that ends when all others have their answer
        others_answered, workers = Event(), [worker() for _ in range(MANY)]

        def until_others_answered(operation: Operation) -> Response[Any]:
            assert others_answered.wait(10)
            return created(operation)

        operation = Counted(until_others_answered)
        answered = count(1)

        def answer() -> Reply | Problem:
            try:
                return workers.pop().run(operation)
            except Problem as problem:
                if next(answered) == MANY - 1:
                    others_answered.set()
                return problem

        # When many requests with one key come at once
        results = at_once([answer] * MANY)

        # Then one runs it
        assert operation.runs == 1
        [reply] = replies(results)
        assert not reply.replayed

    def test_waiters_get_the_bytes_of_the_one_that_runs(self, worker: NewWorker) -> None:
        operation = Counted()
        workers = [worker(clock=Clock()) for _ in range(MANY)]

        results = at_once([partial(each.run, operation, wait=20) for each in workers])

        answers = replies(results)
        assert operation.runs == 1
        assert len(answers) == MANY
        assert same(answers)
        assert sum(not reply.replayed for reply in answers) == 1

    def test_principals_and_keys_are_independent(self, worker: NewWorker) -> None:
        operation = Counted()
        scopes = product("abcd", "1234")

        results = at_once([partial(worker().run, operation, principal=principal, key=key) for principal, key in scopes])

        assert operation.runs == MANY
        assert len({reply.response.body for reply in replies(results)}) == MANY


class TestTakeOver:
    def test_of_a_lapsed_operation_is_by_one_of_many(self, worker: NewWorker, clock: SetClock) -> None:
        # Given a worker that was killed after a step
        def dies_after_a_step(operation: Operation) -> Response[Any]:
            operation.step("first", lambda _: "done")
            raise Killed

        first = worker()
        try:
            first.run(dies_after_a_step)
        except Killed:
            before = first.record()

        # When many retry past its lease
        clock.advance(LEASE_SECONDS + 0.001)
        operation = Counted()
        workers = [worker() for _ in range(MANY)]
        results = at_once([partial(each.run, operation) for each in workers])

        # Then one takes it over, with the same operation id and steps
        after = first.record()
        assert operation.runs == 1
        assert same(replies(results))
        assert (before.attempt, after.attempt) == (1, 2)
        assert (after.operation_id, before.steps) == (before.operation_id, {"first": '"done"'})
        assert sum(each.telemetry.outcomes.count(Outcome.TAKEN_OVER) for each in workers) == 1

    def test_is_refused_until_the_lease_has_ended(self, worker: NewWorker, clock: SetClock) -> None:
        try:
            worker().run(killed)
        except Killed:
            clock.advance(LEASE_SECONDS)

        assert worker().refused().slug == "in-progress"
        clock.advance(0.001)
        assert worker().run().response.status == 201

    def test_of_a_released_operation_is_by_one_of_many_and_at_once(self, worker: NewWorker, clock: SetClock) -> None:
        def fails(_: Operation) -> Response[Any]:
            raise Retry("later")

        first = worker()
        assert first.run(fails).response.status == 503
        released = first.record()
        clock.advance(0.001)

        operation = Counted()
        results = at_once([lambda: worker().run(operation)] * MANY)

        assert (released.status, operation.runs) == (Status.RELEASED, 1)
        assert same(replies(results))
        assert first.record().operation_id == released.operation_id

    def test_is_given_up_if_the_late_owner_completes_in_the_middle(self, worker: NewWorker, clock: SetClock) -> None:
        late, other = worker(), worker()
        response = StoredResponse(201, body=b"late")
        record = self.lapsed(late, clock)

        faults.meanwhile(other, "UpdateItem", lambda: late.complete(record, response))
        operation = Counted()
        reply = other.run(operation)

        assert (reply.response, reply.replayed, operation.runs) == (response, True, 0)
        assert other.calls == {"PutItem": 1, "UpdateItem": 1}

    def test_claims_anew_if_the_record_is_gone_in_the_middle(self, worker: NewWorker, clock: SetClock) -> None:
        late, other = worker(), worker()
        key = {"id": {"S": self.lapsed(late, clock).id}}

        faults.meanwhile(other, "UpdateItem", lambda: late.client.delete_item(TableName=late.table, Key=key))

        assert other.run().response.status == 201
        assert other.record().attempt == 1

    def test_is_given_up_if_the_late_owner_renews_its_lease_in_the_middle(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        late, other = worker(), worker()
        record = self.lapsed(late, clock)

        faults.meanwhile(other, "UpdateItem", lambda: late.store.checkpoint(record, "step", "1", clock.now() + 10_000))

        assert other.refused().slug == "in-progress"

    @staticmethod
    def lapsed(worker: Worker, clock: SetClock) -> Record:
        """The record of a worker that is late."""
        with suppress(Killed):
            worker.run(killed)
        clock.advance(LEASE_SECONDS + 0.001)
        return worker.record()

    def test_by_another_request_is_impossible(self, worker: NewWorker, clock: SetClock) -> None:
        try:
            worker().run(killed)
        except Killed:
            clock.advance(LEASE_SECONDS + 1)

        assert worker().refused(body=b'{"n":2}').slug == "key-reused"


class TestExpired:
    def test_but_undeleted_record_is_replaced_by_one_of_many(self, worker: NewWorker, clock: SetClock) -> None:
        # Given a completed record past its time to live, which DynamoDB has not deleted yet
        first = worker()
        old_reply, old = first.run(), first.record()
        clock.advance(Settings().ttl)

        # When many use its key again
        operation = Counted()
        workers = [worker() for _ in range(MANY)]
        results = at_once([partial(each.run, operation) for each in workers])

        # Then one runs it, as a new operation
        new = first.record()
        answers = replies(results)
        assert operation.runs == 1
        assert same(answers)
        assert not same([old_reply, answers[0]])
        assert new.operation_id != old.operation_id
        assert (old.attempt, new.attempt) == (1, 2)
        assert new.steps == {}
        assert sum(each.telemetry.outcomes.count(Outcome.EXPIRED) for each in workers) == 1

    def test_record_is_nobodys_answer_when_too_little_time_is_left(self, worker: NewWorker, clock: SetClock) -> None:
        first = worker()
        first.run()
        clock.advance(Settings().ttl)

        with pytest.raises(Retry):
            first.run(seconds=1)

    def test_record_frees_its_key_for_any_request(self, worker: NewWorker, clock: SetClock) -> None:
        first = worker()
        first.run()
        clock.advance(Settings().ttl)

        assert first.run(body=b'{"n":2}').response.status == 201
        assert first.refused(body=b'{"n":1}').slug == "key-reused"

    def test_record_that_never_completed_is_replaced_too(self, worker: NewWorker, clock: SetClock) -> None:
        first = worker()
        try:
            first.run(killed)
        except Killed:
            old = first.record()
        clock.advance(Settings().unfinished_ttl)

        assert first.run().response.status == 201
        assert first.record().operation_id != old.operation_id

    def test_record_that_dynamodb_deletes_in_the_middle_is_claimed_anew(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        # Given an expired record that is deleted between the failed claim and its replacement
        first = worker()
        first.run()
        clock.advance(Settings().ttl)
        second = worker()
        key = {"id": {"S": first.record().id}}

        faults.meanwhile(second, "PutItem", lambda: first.client.delete_item(TableName=first.table, Key=key), nth=2)

        # Then it is claimed nevertheless
        assert not second.run().replayed
        assert second.record().status is Status.COMPLETED

    def test_record_whose_late_owner_commits_in_the_middle_is_replayed(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        # Given an operation that outlives its record, and completes between another's failed claim and its replacement
        late, other = worker(), worker()
        response = StoredResponse(201, body=b"late")
        replies: list[Reply] = []

        def outlives_its_record(operation: Operation) -> Response[Any]:
            clock.advance(Settings().unfinished_ttl)
            faults.meanwhile(other, "PutItem", lambda: late.complete(operation._record, response), nth=2)
            replies.append(other.run())
            raise Killed

        with suppress(Killed):
            late.run(outlives_its_record)

        # Then the other gets the same answer, and the operation ran once
        [reply] = replies
        assert (reply.response, reply.replayed) == (response, True)
