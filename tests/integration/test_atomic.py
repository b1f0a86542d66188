"""Operations with no effect but their rows: claim, rows and completion are one write."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Rejected, Retry, StepError
from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from idempotency.record import PARKED_UNTIL, Status
from idempotency.request import Request
from idempotency.response import Completion, Row
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.concurrency import at_once
from tests.integration.conftest import NewWorker
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created, inserting, killed, same
from tests.messages import MAX_RECOVERIES

ATOMIC = Policy(atomic=True)
RECOVERABLE = Policy(recoverable=True)
TAKEN = Rejected("name-taken", "Somebody has it.", status=409, title="The name is taken")
CANCELED = "TransactionCanceledException"


def own_row(table: str) -> Run:
    """An operation that inserts a row of its own."""
    return lambda operation: inserting(table, operation.derived_id("row"))(operation)


def raising(error: Exception) -> Run:
    def run(_: Operation) -> Response[Any]:
        raise error

    return run


def large(operation: Operation) -> Response[Any]:
    """Answer with what does not fit into the record."""
    return Completion(200, Random(operation.id).randbytes(600_000).hex(), content_type="text/plain")


class TestOneWrite:
    def test_with_rows_is_a_transaction(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        reply = one.run(inserting(rows, "a"), policy=ATOMIC)

        record = one.record()
        assert (reply.response.status, reply.replayed) == (201, False)
        assert one.scan(rows) == [{"id": "a", "operation_id": record.operation_id}]
        assert (record.status, record.attempt, record.expires_at) == (
            Status.COMPLETED,
            1,
            one.clock.now() // 1000 + Settings().ttl,
        )
        assert one.calls == {"TransactWriteItems": 1, "GetItem": 1, "Scan": 1}  # the latter two are this test's

    def test_keeps_nothing_for_recovery(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        one.run(inserting(rows, "a"), policy=ATOMIC)

        [item] = one.scan()
        assert not {"recovery_shard", "request", "steps"} & item.keys()

    def test_without_rows_is_a_put(self, worker: NewWorker) -> None:
        one = worker()

        assert same([one.run(policy=ATOMIC), worker().run(policy=ATOMIC)])
        assert one.calls == {"PutItem": 1}

    def test_keeps_a_refusal_and_no_rows(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        first = one.run(lambda _: Completion(422, {}, rows=[Row(rows, {"id": "a"})]), policy=ATOMIC)

        assert first.response.status == 422
        assert one.scan(rows) == []
        assert same([first, worker().run(policy=ATOMIC)])

    @pytest.mark.parametrize("error", [Retry("later", 7), ZeroDivisionError()], ids=["retryable", "unexpected"])
    def test_is_none_if_it_fails_for_now(self, worker: NewWorker, error: Exception) -> None:
        one = worker()

        reply = one.run(raising(error), policy=ATOMIC)

        assert reply.response.header("retry-after") == str(getattr(error, "retry_after", 1))
        assert one.telemetry.outcomes == [Outcome.RELEASED]
        assert one.scan() == []

    def test_keeps_the_conflict_if_a_row_is_taken(self, worker: NewWorker, rows: str) -> None:
        worker().run(inserting(rows, "a", by="first"), key="first", policy=ATOMIC)
        one = worker()

        reply = one.run(inserting(rows, "b", "a", conflict=TAKEN), policy=ATOMIC)

        assert reply.response.status == 409
        assert [row["by"] for row in one.scan(rows)] == ["first"]
        assert same([reply, worker().run(policy=ATOMIC)])

    def test_says_so_if_a_row_cannot_be_kept(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        reply = one.run(inserting(rows, "a", text="x" * 500_000), policy=ATOMIC)

        assert (reply.response.status, b"response-not-stored" in reply.response.body) == (500, True)
        assert same([reply, worker().run(policy=ATOMIC)])

    def test_has_the_parts_of_a_large_body_beside_it(self, worker: NewWorker, rows: str) -> None:
        one, duplicate = worker(), worker()

        reply = one.run(large, policy=ATOMIC)

        assert one.record().response == {**(one.record().response or {}), "parts": 2}
        assert same([reply, duplicate.run(large, policy=ATOMIC)])
        assert "BatchWriteItem" not in duplicate.calls

    def test_begins_only_with_time_enough(self, worker: NewWorker) -> None:
        assert worker().refused(policy=ATOMIC, seconds=3.9).slug == "unavailable"
        assert worker().run(policy=ATOMIC, seconds=4).response.status == 201

    @pytest.mark.parametrize("use", ["step", "reserve"])
    def test_has_no_steps(self, worker: NewWorker, rows: str, use: str) -> None:
        one = worker()

        def run(operation: Operation) -> Response[Any]:
            if use == "step":
                operation.step("page", lambda _: None)
            else:
                operation.reserve("name", Row(rows, {"id": "a"}))
            return created(operation)

        assert one.run(run, policy=ATOMIC).response.status == 500
        [error] = one.telemetry.errors
        assert isinstance(error, StepError)
        assert (one.scan(), one.scan(rows)) == ([], [])


class TestDuplicates:
    def test_at_once_commit_once(self, worker: NewWorker, rows: str) -> None:
        results = at_once([partial(worker().run, own_row(rows), policy=ATOMIC) for _ in range(12)])

        replies = [result for result in results if isinstance(result, Reply)]
        assert len(replies) == 12
        assert same(replies)
        assert sum(not reply.replayed for reply in replies) == 1
        assert len(worker().scan(rows)) == 1

    @pytest.mark.parametrize(
        "late",
        [created, raising(Retry("not now")), raising(ZeroDivisionError()), raising(Rejected("no", "", status=422))],
        ids=["success", "retryable", "unexpected", "refusal"],
    )
    def test_whatever_their_own_run_comes_to_get_the_answer(self, worker: NewWorker, rows: str, late: Run) -> None:
        first, two = worker().run(own_row(rows), policy=ATOMIC), worker()

        second = two.run(late, policy=ATOMIC)

        assert same([first, second])
        assert two.telemetry.outcomes == [Outcome.REPLAYED_FROM_TABLE]
        assert len(two.scan(rows)) == 1

    @pytest.mark.parametrize("late", [created, raising(Retry("not now"))], ids=["success", "retryable"])
    def test_of_another_request_are_refused(self, worker: NewWorker, late: Run) -> None:
        worker().run(policy=ATOMIC)

        assert worker().refused(late, body=b'{"n":2}', policy=ATOMIC).slug == "key-reused"

    def test_from_the_cache_run_nothing(self, worker: NewWorker) -> None:
        one = worker(cache_bytes=1_000_000)

        first = one.run(policy=ATOMIC)

        assert same([first, one.run(raising(ZeroDivisionError()), policy=ATOMIC)])
        assert one.calls == {"PutItem": 1}


class TestExpired:
    def test_record_is_replaced_and_attempts_are_counted_on(
        self, worker: NewWorker, rows: str, clock: SetClock
    ) -> None:
        one = worker()
        first = one.run(own_row(rows), policy=ATOMIC)
        before = one.record()
        clock.advance(Settings().ttl)

        second = one.run(own_row(rows), policy=ATOMIC)

        assert not second.replayed
        assert first.response != second.response
        assert (one.record().attempt, len(one.scan(rows))) == (2, 2)
        assert one.record().operation_id != before.operation_id
        assert one.telemetry.outcomes == [Outcome.EXECUTED, Outcome.EXPIRED, Outcome.EXECUTED]
        assert one.calls["TransactWriteItems"] == 3

    def test_record_is_replaced_whatever_the_size_of_the_answer(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(policy=ATOMIC)
        clock.advance(Settings().ttl)

        reply = one.run(large, policy=ATOMIC)

        assert same([reply, worker().run(policy=ATOMIC)])
        assert len(reply.response.body) == 1_200_000

    def test_record_is_no_answer_to_a_request_that_fails_for_now(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(policy=ATOMIC)
        clock.advance(Settings().ttl)

        reply = one.run(raising(Retry("later")), policy=ATOMIC)

        assert (reply.response.status, reply.replayed) == (503, False)

    def test_record_is_replaced_by_one_of_two(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one, two = worker(), worker()
        one.run(own_row(rows), policy=ATOMIC)
        clock.advance(Settings().ttl)
        winners: list[Reply] = []

        def overtaken() -> None:
            faults.meanwhile(one, "TransactWriteItems", lambda: winners.append(two.run(own_row(rows), policy=ATOMIC)))

        # When another one comes between the failed write and the one that replaces the record
        faults.meanwhile(one, "TransactWriteItems", overtaken)
        reply = one.run(own_row(rows), policy=ATOMIC)

        assert same([reply, *winners])
        assert (reply.replayed, len(winners), len(one.scan(rows))) == (True, 1, 2)


class TestLostAnswers:
    @pytest.mark.parametrize("with_rows", [True, False], ids=["transaction", "put"])
    def test_lost_once_is_no_duplicate(self, worker: NewWorker, rows: str, with_rows: bool) -> None:
        one = worker()
        faults.lose_answers(one, "*")

        reply = one.run(own_row(rows) if with_rows else created, policy=ATOMIC)

        assert not reply.replayed
        assert one.telemetry.outcomes == [Outcome.EXECUTED]

    def test_lost_once_is_recognised_by_its_owner_too(self, worker: NewWorker, rows: str) -> None:
        """After ten minutes, DynamoDB has forgotten the token of a transaction."""
        one = worker()
        faults.lose_answers(one, "TransactWriteItems", token="0" * 36)

        reply = one.run(own_row(rows), policy=ATOMIC)

        assert (reply.response.status, reply.replayed) == (201, False)

    def test_lost_for_good_is_looked_up(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.lose_answers(one, "TransactWriteItems", SDK_ATTEMPTS)

        reply = one.run(own_row(rows), policy=ATOMIC)

        assert (reply.response.status, reply.replayed) == (201, False)
        assert same([reply, worker().run(policy=ATOMIC)])

    def test_never_arrived_answers_503_and_leaves_nothing(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.send_nothing(one, "TransactWriteItems")

        reply = one.run(own_row(rows), policy=ATOMIC)

        assert (reply.response.status, reply.response.header("retry-after")) == (503, "1")
        assert (one.scan(), one.scan(rows)) == ([], [])
        assert one.run(own_row(rows), policy=ATOMIC).response.status == 201

    def test_without_dynamodb_answers_503(self, worker: NewWorker) -> None:
        one = worker()
        faults.send_nothing(one, times=2 * SDK_ATTEMPTS)

        assert one.refused(policy=ATOMIC).slug == "unavailable"


class TestUnfinishedBefore:
    """A version of the route that was not atomic has left an operation unfinished."""

    @staticmethod
    def resumed(one: Worker, run: Run) -> Reply | None:
        """What recovery comes to, under the route's present policy."""
        [(id_, _)] = one.store.due(one.clock.now())
        record = one.lifecycle.resume(id_, ATOMIC, one.clock.now() + 28_000)
        if record is None:
            return None
        return one.lifecycle.perform(record, one.invocation(run, Request.unpack(record.request or b""), ATOMIC))

    @staticmethod
    def with_a_step(operation: Operation) -> Response[Any]:
        operation.step("page", lambda _: "made")
        raise Retry("not yet")

    def test_is_running_as_long_as_its_lease(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one, two = worker(), worker()

        def run(operation: Operation) -> Response[Any]:
            assert two.refused(own_row(rows), policy=ATOMIC).slug == "in-progress"
            return created(operation)

        assert same([one.run(run, policy=RECOVERABLE), worker().run(policy=ATOMIC)])
        assert one.scan(rows) == []

    def test_is_taken_over_by_a_retry(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one, two = worker(), worker()
        with suppress(Killed):
            one.run(killed, policy=RECOVERABLE)
        before = one.record()
        clock.advance(LEASE_SECONDS + 0.001)

        reply = two.run(own_row(rows), policy=ATOMIC)

        record = two.record()
        assert (reply.response.status, reply.replayed) == (201, False)
        assert (record.attempt, record.operation_id) == (2, before.operation_id)
        assert [row["operation_id"] for row in two.scan(rows)] == [before.operation_id]
        assert list(two.store.due(two.clock.now())) == []

    def test_is_taken_over_by_a_retry_though_recovery_would_pause(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        one.run(raising(Retry("not yet", retry_after=600)), policy=RECOVERABLE)

        assert one.run(own_row(rows), policy=ATOMIC).response.status == 201

    def test_is_finished_by_recovery_and_an_operator_told_of_its_steps(
        self, worker: NewWorker, rows: str, clock: SetClock
    ) -> None:
        one = worker()
        one.run(self.with_a_step, policy=RECOVERABLE)
        clock.advance(2)

        reply = self.resumed(one, own_row(rows))

        assert reply is not None
        assert one.record().status is Status.COMPLETED
        assert len(one.scan(rows)) == 1
        assert one.telemetry.doubts == ["step 'page' may have been done, but is no part of what was completed"]

    def test_is_parked_with_the_reason_if_it_fails_beside_its_steps(
        self, worker: NewWorker, rows: str, clock: SetClock
    ) -> None:
        one = worker()
        one.run(self.with_a_step, policy=RECOVERABLE)

        for _ in range(MAX_RECOVERIES):
            clock.advance(1_000)
            self.resumed(one, raising(TAKEN))

        record = one.record()
        assert (record.status, record.lease_until) == (Status.RELEASED, PARKED_UNTIL)
        assert "ended before it reached page" in (record.last_error or "")
