"""Business rows: written in the transaction that completes their operation, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Rejected, RowTaken
from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.record import Status
from idempotency.response import Completion, Row
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.concurrency import at_once
from tests.integration.conftest import NewWorker
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.worker import LEASE_SECONDS, Run, created, inserting, killed, same

TAKEN = Rejected("name-taken", "Somebody has it.", status=409, title="The name is taken")
CANCELED = "TransactionCanceledException"


class TestWrittenWithTheCompletion:
    def test_all_exist_once_the_record_is_completed(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        one.run(inserting(rows, "a", "b", tags=["x"], size=3))

        found = {row.pop("id"): row for row in one.scan(rows)}
        expected = {"tags": ["x"], "size": 3, "operation_id": one.record().operation_id}
        assert found == {"a": expected, "b": expected}

    @pytest.mark.parametrize("taken", ["a", "b"])
    def test_do_not_exist_if_another_operation_has_one_of_their_ids(
        self, worker: NewWorker, rows: str, taken: str
    ) -> None:
        # Given another operation's row
        worker().run(inserting(rows, taken, by="first"), key="first")
        second = worker()

        # When an operation wants to use the same id, among others
        reply = second.run(inserting(rows, "a", "b", conflict=TAKEN, by="second"), key="second")

        # Then the conflict is its final response, and no row is written
        assert (reply.response.status, reply.response.body) == (409, (TAKEN.response().body or "").encode())
        assert second.record("second").status is Status.COMPLETED
        assert [row["by"] for row in second.scan(rows)] == ["first"]
        assert same([reply, worker().run(key="second")])

    def test_do_not_exist_if_the_record_is_gone(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        def deleted(operation: Operation) -> Response[Any]:
            one.client.delete_item(TableName=one.table, Key={"id": {"S": operation._record.id}})
            return inserting(rows, "a")(operation)

        assert one.refused(deleted).slug == "in-progress"
        assert one.scan(rows) == []

    def test_conflict_is_a_mistake_in_the_code_if_none_is_declared(self, worker: NewWorker, rows: str) -> None:
        worker().run(inserting(rows, "a"), key="first")
        second = worker()

        assert second.run(inserting(rows, "a"), key="second").response.status == 500
        assert isinstance(second.telemetry.errors[0], RowTaken)
        assert second.record("second").status is Status.RELEASED

    @pytest.mark.parametrize("status", [422, 503])
    def test_of_a_failure_are_not_written(self, worker: NewWorker, rows: str, status: int) -> None:
        one = worker()

        reply = one.run(lambda _: Completion(status, {}, rows=[Row(rows, {"id": "a"})]))

        assert reply.response.status == status
        assert one.scan(rows) == []

    def test_with_one_id_is_written_by_one_of_many_operations(self, worker: NewWorker, rows: str) -> None:
        keys = [f"key {number}" for number in range(12)]

        results = at_once([partial(worker().run, inserting(rows, "a", conflict=TAKEN), key=key) for key in keys])

        statuses = [result.response.status for result in results if isinstance(result, Reply)]
        assert statuses.count(201) == 1
        assert set(statuses) <= {201, 409, 503}
        assert len(worker().scan(rows)) == 1


class TestTransactionConflict:
    """Another transaction locks an item for some milliseconds."""

    def test_of_the_completion_is_tried_again(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 2, reasons=("None", "TransactionConflict"))

        reply = one.run(inserting(rows, "a"))

        assert (reply.response.status, one.telemetry.outcomes) == (201, [Outcome.EXECUTED])
        assert clock.sleeps == [20, 50]

    def test_that_goes_on_is_released(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 5, reasons=("TransactionConflict", "None"))

        assert one.run(inserting(rows, "a")).response.status == 503
        clock.advance(0.001)
        assert one.run(inserting(rows, "a")).response.status == 201

    def test_of_a_claim_is_tried_again(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        faults.refuse(one, "UpdateItem", "TransactionConflictException", 1)

        assert one.run().response.status == 201
        assert clock.sleeps == [20]

    def test_together_with_a_failed_condition_counts_as_the_failed_condition(
        self, worker: NewWorker, rows: str
    ) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 1, reasons=("TransactionConflict", "ConditionalCheckFailed"))

        assert one.run(inserting(rows, "a", conflict=TAKEN)).response.status == 409

    @pytest.mark.parametrize("reason", ["ThrottlingError", "ProvisionedThroughputExceeded"])
    def test_and_throttling_are_hidden_from_the_client(self, worker: NewWorker, rows: str, reason: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, SDK_ATTEMPTS, reasons=("None", reason))

        assert one.run(inserting(rows, "a")).response.status == 503

    def test_of_another_kind_is_logged_as_unexpected(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 1, reasons=("None", "AccessDenied"))

        assert one.run(inserting(rows, "a")).response.status == 500
        assert "AccessDenied" in str(one.telemetry.errors[0])


class TestRefusal:
    """DynamoDB refuses the transaction, and no condition is the reason."""

    def test_of_the_row_is_final(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 1, reasons=("None", "ValidationError"))

        reply = one.run(inserting(rows, "a"))

        assert (reply.response.status, one.record().status) == (500, Status.COMPLETED)
        assert b"response-not-stored" in reply.response.body

    def test_of_the_call_is_not_blamed_on_the_row(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", "AccessDeniedException", 1)

        reply = one.run(inserting(rows, "a"))

        assert (reply.response.status, one.record().status) == (500, Status.RELEASED)
        assert b"response-not-stored" not in reply.response.body


class TestReservation:
    """A row that is written ahead of the completion, in one transaction with a checkpoint."""

    def test_is_the_operations_own_row_once_it_completes(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        assert one.run(reserving(rows)).response.status == 201

        [row] = one.scan(rows)
        assert row["operation_id"] == one.record().operation_id

    def test_outlives_a_crash(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        with suppress(Killed):
            worker().run(reserving(rows, then=killed))
        assert worker().run(reserving(rows), key="other").response.status == 409

        clock.advance(LEASE_SECONDS + 0.001)
        assert worker().run(reserving(rows)).response.status == 201

    def test_of_a_row_that_is_taken_ends_the_operation_before_it_does_anything(
        self, worker: NewWorker, rows: str
    ) -> None:
        worker().run(reserving(rows), key="first")
        second = worker()
        ran: list[Operation] = []

        reply = second.run(reserving(rows, then=ran.append), key="second")

        assert (reply.response.status, reply.response.body) == (409, (TAKEN.response().body or "").encode())
        assert second.record("second").status is Status.COMPLETED
        assert ran == []
        assert same([reply, worker().run(key="second")])

    def test_of_a_row_that_is_taken_is_refused_like_any_step_so_that_code_may_fall_back(
        self, worker: NewWorker, rows: str
    ) -> None:
        worker().run(inserting(rows, "a"), key="first")

        def falls_back(operation: Operation) -> Response[Any]:
            try:
                operation.reserve("name", Row(rows, {"id": "a"}, TAKEN))
            except Rejected:
                operation.reserve("other name", Row(rows, {"id": "b"}, TAKEN))
            return Completion(201)

        second = worker()
        assert second.run(falls_back, key="second").response.status == 201
        assert {row["id"] for row in second.scan(rows)} == {"a", "b"}

    def test_of_a_row_that_is_taken_and_says_no_conflict_is_a_mistake(self, worker: NewWorker, rows: str) -> None:
        worker().run(inserting(rows, "a"), key="first")
        second = worker()

        def reserves(operation: Operation) -> Response[Any]:
            operation.reserve("name", Row(rows, {"id": "a"}))
            raise AssertionError

        assert second.run(reserves, key="second").response.status == 500
        assert isinstance(second.telemetry.errors[0], RowTaken)

    def test_is_given_back_if_the_operation_fails_for_good(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        assert one.run(reserving(rows, then=rejected)).response.status == 422

        assert one.scan(rows) == []
        assert worker().run(reserving(rows), key="other").response.status == 201

    def test_is_given_back_once_whatever_happens_to_the_answer(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.lose_answers(one, "TransactWriteItems", 2)

        assert one.run(reserving(rows, then=rejected)).response.status == 422

        assert one.scan(rows) == []

    def test_by_a_worker_that_lost_its_lease_fails(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        # Given a worker about to reserve, when another takes over, and fails for good
        late, winner = worker(), worker()

        def overtake() -> None:
            clock.advance(LEASE_SECONDS + 0.001)
            assert winner.run(reserving(rows, then=rejected)).response.status == 422

        faults.meanwhile(late, "TransactWriteItems", overtake)
        reply = late.run(reserving(rows))

        # Then it has reserved nothing, and gives the winner's answer
        assert (reply.response.status, reply.replayed) == (422, True)
        assert winner.scan(rows) == []

    def test_by_many_at_once_succeeds_for_one_operation(self, worker: NewWorker, rows: str) -> None:
        keys = [f"key {number}" for number in range(12)]

        results = at_once([partial(worker().run, reserving(rows), key=key) for key in keys])

        statuses = [result.response.status for result in results if isinstance(result, Reply)]
        assert statuses.count(201) == 1
        assert set(statuses) <= {201, 409, 503}
        assert len(worker().scan(rows)) == 1


def reserving(table: str, then: Run | Callable[[Operation], object] = created) -> Run:
    """An operation that reserves a row before it does anything else."""

    def run(operation: Operation) -> Response[Any]:
        row = Row(table, {"id": "a"}, TAKEN)
        operation.reserve("name", row)
        then(operation)
        return Completion(201, {"operation": operation.id})

    return run


def rejected(_: Operation) -> None:
    """Fail for good."""
    raise Rejected("rejected", "It never will be.", status=422)
