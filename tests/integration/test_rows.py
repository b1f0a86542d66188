"""Business rows: written in the transaction that completes their operation, or not at all."""

from __future__ import annotations

from functools import partial

import pytest

from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.problems import Problem
from idempotency.record import Status
from idempotency.response import Completion
from idempotency.signals import Outcome
from idempotency.store import Rows, RowTaken
from tests.clocks import SetClock
from tests.integration import faults
from tests.integration.concurrency import at_once
from tests.integration.conftest import NewWorker
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.worker import inserting, same

TAKEN = Problem("name-taken", "Somebody has it.", status=409, title="The name is taken")
CANCELED = "TransactionCanceledException"


class TestWrittenWithTheCompletion:
    def test_are_all_there_once_the_record_is_completed(self, worker: NewWorker, rows: str) -> None:
        one = worker()

        one.run(inserting(rows, "a", "b", tags=["x"], size=3))

        found = {row.pop("id"): row for row in one.scan(rows)}
        expected = {"tags": ["x"], "size": 3, "operation_id": one.record().operation_id}
        assert found == {"a": expected, "b": expected}

    def test_is_a_row_that_the_same_operation_reserved_before(
        self, worker: NewWorker, rows: str, clock: SetClock
    ) -> None:
        one = worker()
        table = Rows(one.client, rows, clock)

        def run(operation: Operation) -> Completion:
            row = table.row({"id": "a"}, TAKEN)
            operation.step("reserve", lambda: table.reserve(row, operation.id))
            return Completion(201, {}, rows=[row])

        assert one.run(run).response.status == 201
        assert len(one.scan(rows)) == 1

    @pytest.mark.parametrize("held", ["a", "b"])
    def test_is_none_if_another_operation_holds_one_of_their_ids(self, worker: NewWorker, rows: str, held: str) -> None:
        # Given another operation's row
        worker().run(inserting(rows, held, by="first"), key="first")
        second = worker()

        # When an operation wants its id among others
        reply = second.run(inserting(rows, "a", "b", conflict=TAKEN, by="second"), key="second")

        # Then the conflict is its response for good, and no row is written
        assert (reply.response.status, reply.response.body) == (409, (TAKEN.response().body or "").encode())
        assert second.record("second").status is Status.COMPLETED
        assert [row["by"] for row in second.scan(rows)] == ["first"]
        assert same([reply, worker().run(key="second")])

    def test_is_a_mistake_in_the_code_if_nobody_said_what_a_conflict_means(self, worker: NewWorker, rows: str) -> None:
        worker().run(inserting(rows, "a"), key="first")
        second = worker()

        assert second.run(inserting(rows, "a"), key="second").response.status == 500
        assert isinstance(second.signals.errors[0], RowTaken)
        assert second.record("second").status is Status.RELEASED

    def test_goes_to_one_of_many_operations_at_once(self, worker: NewWorker, rows: str) -> None:
        keys = [f"key {number}" for number in range(12)]

        results = at_once([partial(worker().run, inserting(rows, "a", conflict=TAKEN), key=key) for key in keys])

        statuses = [result.response.status for result in results if isinstance(result, Reply)]
        assert statuses.count(201) == 1
        assert set(statuses) <= {201, 409, 503}
        assert len(worker().scan(rows)) == 1


class TestTransactionConflict:
    """Another transaction holds an item for some milliseconds."""

    def test_of_the_completion_is_tried_again(self, worker: NewWorker, rows: str, clock: SetClock) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 2, reasons=("None", "TransactionConflict"))

        reply = one.run(inserting(rows, "a"))

        assert (reply.response.status, one.signals.outcomes) == (201, [Outcome.EXECUTED])
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

    def test_beside_a_failed_condition_is_the_failed_condition(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 1, reasons=("TransactionConflict", "ConditionalCheckFailed"))

        assert one.run(inserting(rows, "a", conflict=TAKEN)).response.status == 409

    @pytest.mark.parametrize("reason", ["ThrottlingError", "ProvisionedThroughputExceeded"])
    def test_and_throttling_are_no_business_of_the_client(self, worker: NewWorker, rows: str, reason: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, SDK_ATTEMPTS, reasons=("None", reason))

        assert one.run(inserting(rows, "a")).response.status == 503

    def test_of_another_kind_is_logged_as_unexpected(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        faults.refuse(one, "TransactWriteItems", CANCELED, 1, reasons=("None", "ValidationError"))

        assert one.run(inserting(rows, "a")).response.status == 500
        assert "ValidationError" in str(one.signals.errors[0])


class TestReservation:
    @pytest.fixture
    def table(self, worker: NewWorker, rows: str, clock: SetClock) -> Rows:
        """The table of rows, without the lifecycle."""
        return Rows(worker().client, rows, clock)

    def test_is_one_operations_until_given_back(self, table: Rows) -> None:
        row = table.row({"id": "a"}, TAKEN)

        table.reserve(row, "first")
        table.reserve(row, "first")
        with pytest.raises(Problem) as refused:
            table.reserve(row, "second")
        assert refused.value is TAKEN

        table.give_back(row, "first")
        table.reserve(row, "second")

    def test_without_a_conflict_says_whose_it_is(self, table: Rows) -> None:
        row = table.row({"id": "a"})
        table.reserve(row, "first")

        with pytest.raises(RowTaken):
            table.reserve(row, "second")

    def test_is_given_back_by_its_operation_alone_and_twice_is_no_error(self, table: Rows) -> None:
        row = table.row({"id": "a"}, TAKEN)
        table.reserve(row, "first")

        table.give_back(row, "second")
        assert table.get("a") == {"id": "a", "operation_id": "first"}
        table.give_back(row, "first")
        table.give_back(row, "first")
        assert table.get("a") is None

    def test_of_many_at_once_is_one_operations(self, table: Rows) -> None:
        row = table.row({"id": "a"}, TAKEN)

        results = at_once([partial(table.reserve, row, f"operation {number}") for number in range(12)])

        assert results.count(None) == 1
        assert results.count(TAKEN) == 11
