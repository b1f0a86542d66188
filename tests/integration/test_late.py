"""An attempt that goes on past its lease, after another has taken the operation over, changes nothing.

late     claim ── (lease lapses) ───────────────────── finishes: fenced
winner                            claim ── completes
"""

from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Rejected, Retry
from idempotency.lifecycle import Reply
from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from idempotency.record import Status
from idempotency.response import Completion, Row
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration.conftest import NewWorker
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created, inserting, killed, same


def raising(error: Exception) -> Run:
    def run(_: Operation) -> Response[Any]:
        raise error

    return run


def answering(status: int) -> Run:
    return lambda _: Response(status, "text/plain", "late")


class Overtaken:
    """An operation that another worker takes over in the middle of a run.

    Args:
        winner: the other worker.
        clock: the time.
        run: what the late attempt does afterwards.
        winners: what the winning attempt does.
        seconds: after how long the other worker comes.
    """

    def __init__(
        self, winner: Worker, clock: SetClock, run: Run, winners: Run = created, seconds: float = LEASE_SECONDS + 0.001
    ) -> None:
        self._winner = winner
        self._clock = clock
        self._run = run
        self._winners = winners
        self._seconds = seconds
        self.replies: list[Reply] = []
        self.tables: list[list[dict[str, Any]]] = []

    def __call__(self, operation: Operation) -> Response[Any]:
        self._clock.advance(self._seconds)
        with suppress(Killed):
            self.replies.append(self._winner.run(self._winners))
        self.tables.append(self._winner.scan())
        return self._run(operation)


@pytest.mark.parametrize(
    "ends",
    [
        created,
        answering(409),
        answering(422),
        answering(503),
        raising(Retry("later")),
        raising(RuntimeError("late")),
        raising(Rejected("late", "", status=422)),
    ],
    ids=["success", "409", "422", "503", "retryable failure", "unexpected failure", "problem"],
)
class TestFinishingLate:
    def test_answers_with_the_winners_bytes_and_changes_nothing(
        self, worker: NewWorker, clock: SetClock, ends: Run
    ) -> None:
        late, winner = worker(), worker()
        operation = Overtaken(winner, clock, ends)

        reply = late.run(operation)

        assert same([reply, *operation.replies, worker().run()])
        assert reply.replayed
        assert late.scan() == operation.tables[0]
        assert late.telemetry.outcomes[-2:] == [Outcome.FENCED, Outcome.REPLAYED_FROM_TABLE]

    def test_answers_409_while_the_winner_is_running(self, worker: NewWorker, clock: SetClock, ends: Run) -> None:
        def ends_later(operation: Operation) -> Response[Any]:
            clock.advance(7)
            return ends(operation)

        late = worker()
        operation = Overtaken(worker(), clock, ends_later, winners=killed)

        refusal = late.refused(operation)

        assert (refusal.slug, refusal.retry_after) == ("in-progress", 7)  # for as long as the winner has been running
        assert late.scan() == operation.tables[0]

    def test_answers_409_if_the_winner_failed_for_now(self, worker: NewWorker, clock: SetClock, ends: Run) -> None:
        late = worker()
        operation = Overtaken(worker(), clock, ends, winners=raising(Retry("later")))

        assert late.refused(operation).slug == "in-progress"
        assert late.scan() == operation.tables[0]

    def test_answers_409_if_the_record_is_gone(self, worker: NewWorker, clock: SetClock, ends: Run) -> None:
        def delete(operation: Operation) -> Response[Any]:
            late.client.delete_item(TableName=late.table, Key={"id": {"S": operation._record.id}})
            return ends(operation)

        late = worker()

        assert late.refused(delete).slug == "in-progress"
        assert late.scan() == []

    def test_answers_409_if_the_key_now_belongs_to_another_request(
        self, worker: NewWorker, clock: SetClock, ends: Run
    ) -> None:
        def expire(operation: Operation) -> Response[Any]:
            clock.advance(Settings().unfinished_ttl)
            winner.run(body=b'{"n":2}')
            return ends(operation)

        late, winner = worker(), worker()

        assert late.refused(expire).slug == "in-progress"
        assert winner.run(body=b'{"n":2}').replayed


class TestLateStep:
    def test_is_not_checkpointed_and_no_later_one_begins(self, worker: NewWorker, clock: SetClock) -> None:
        # Given business logic that catches every exception it can
        began: list[str] = []

        def begin(name: str, _: str) -> None:
            began.append(name)

        def catches_everything(operation: Operation) -> Response[Any]:
            for name in ("second", "third"):
                with suppress(Exception):
                    operation.step(name, partial(begin, name))
            return created(operation)

        def winners(operation: Operation) -> Response[Any]:
            operation.step("second", lambda _: "winner's")
            return created(operation)

        # When its lease of 5 s lapses long before its deadline
        late = worker()
        winner = worker()
        operation = Overtaken(winner, clock, catches_everything, winners, seconds=7.001)
        reply = late.run(operation, policy=Policy(lease=5))

        # Then the step that had begun leaves no trace, and no further one begins
        assert same([reply, *operation.replies])
        assert began == ["second"]
        assert (late.calls["UpdateItem"], winner.telemetry.doubts) == (1, [])

    def test_does_not_undo_a_step_that_the_winner_relies_on(self, worker: NewWorker, clock: SetClock) -> None:
        undone: list[object] = []

        def first_step(operation: Operation) -> None:
            operation.step("first", lambda _: 1, undo=undone.append)

        def late_failure(operation: Operation) -> Response[Any]:
            first_step(operation)
            return overtaken(operation)

        def winners(operation: Operation) -> Response[Any]:
            first_step(operation)
            return created(operation)

        late = worker()
        overtaken = Overtaken(worker(), clock, answering(422), winners)

        reply = late.run(late_failure)

        assert same([reply, *overtaken.replies])
        assert undone == []


class TestLateRows:
    def test_are_not_written(self, worker: NewWorker, clock: SetClock, rows: str) -> None:
        late = worker()
        operation = Overtaken(
            worker(), clock, inserting(rows, "one", "late", by="late"), inserting(rows, "one", by="winner")
        )

        reply = late.run(operation)

        assert same([reply, *operation.replies])
        [row] = late.scan(rows)
        assert (row["id"], row["by"]) == ("one", "winner")

    def test_are_not_written_if_the_winner_is_still_running(
        self, worker: NewWorker, clock: SetClock, rows: str
    ) -> None:
        late = worker()

        late.refused(Overtaken(worker(), clock, inserting(rows, "late"), killed))

        assert late.scan(rows) == []


class TestLateBody:
    def test_in_parts_is_not_mixed_with_the_winners(self, worker: NewWorker, clock: SetClock) -> None:
        bodies = {name: Random(name).randbytes(1_000_000) for name in ("late", "winner")}

        def large(name: str) -> Run:
            return lambda _: Response(200, "image/png", bodies[name])

        late = worker()
        operation = Overtaken(worker(), clock, large("late"), large("winner"))

        reply = late.run(operation)

        assert same([reply, *operation.replies, worker().run()])
        assert reply.response.body == bodies["winner"]


class TestLateButNotReplaced:
    @pytest.mark.parametrize("elapsed", [LEASE_SECONDS + 1, 24 * 3600])
    def test_still_commits(self, worker: NewWorker, clock: SetClock, rows: str, elapsed: float) -> None:
        def past_its_lease(operation: Operation) -> Response[Any]:
            operation.step("first", lambda _: 1)
            clock.advance(elapsed)
            return Completion(201, {"late": True}, rows=[Row(rows, {"id": "one"})])

        late = worker()

        reply = late.run(past_its_lease)

        assert not reply.replayed
        assert late.record().status is Status.COMPLETED
        assert late.telemetry.outcomes == [Outcome.EXECUTED]
        assert same([reply, worker().run()])

    def test_wins_over_a_retry_that_comes_after_its_commit(self, worker: NewWorker, clock: SetClock) -> None:
        def past_its_lease(operation: Operation) -> Response[Any]:
            clock.advance(LEASE_SECONDS + 1)
            return created(operation)

        late, retry = worker(), worker()

        assert same([late.run(past_its_lease), retry.run()])
        assert retry.telemetry.outcomes == [Outcome.REPLAYED_FROM_TABLE]
