"""The SDK sends a write again if its answer is lost: that never looks like somebody else's write.

Lost once: the SDK's next attempt meets the effect of the first one. Lost for good: the worker never learns of it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session

from idempotency.errors import Problem, Rejected, Retry
from idempotency.operation import Operation
from idempotency.policy import Settings
from idempotency.record import Status
from idempotency.response import Completion, Row
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.conftest import NewWorker
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created, inserting, killed, same


class Losing:
    """An operation during which the answers to certain writes begin to be lost."""

    def __init__(self, worker: Worker, operation: str, times: int, run: Run = created) -> None:
        self._worker = worker
        self._fault = operation, times
        self._run = run
        self.runs = 0

    def __call__(self, operation: Operation) -> Response[Any]:
        self.runs += 1
        if self.runs == 1:
            faults.lose_answers(self._worker, *self._fault)
        return self._run(operation)


class TestClaim:
    def test_lost_once_goes_on_as_if_nothing_had_happened(self, worker: NewWorker) -> None:
        one = worker()
        faults.lose_answers(one, "PutItem")

        reply = one.run()

        assert not reply.replayed
        assert one.telemetry.outcomes == [Outcome.EXECUTED]
        assert one.record().attempt == 1
        assert one.calls == {"PutItem": 2, "UpdateItem": 1, "GetItem": 1}

    def test_lost_once_for_an_expired_record_goes_on_too(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run()
        clock.advance(Settings().ttl)
        faults.lose_answers(one, "PutItem")

        assert not one.run().replayed
        assert one.telemetry.outcomes[1:] == [Outcome.EXPIRED, Outcome.EXECUTED]

    def test_lost_for_good_runs_nothing_and_is_taken_over_past_the_lease(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        one, runs = worker(), []
        faults.lose_answers(one, "PutItem", SDK_ATTEMPTS)

        def run(operation: Operation) -> Response[Any]:
            runs.append(operation.attempt)
            return created(operation)

        assert one.refused(run).slug == "unavailable"
        assert one.refused(run).slug == "in-progress"
        clock.advance(LEASE_SECONDS + 0.001)
        assert one.run(run).response.status == 201
        assert runs == [2]


class TestCheckpoint:
    @staticmethod
    def run(steps: list[str]) -> Run:
        def run(operation: Operation) -> Response[Any]:
            operation.step("first", lambda _: steps.append(operation.derived_id("first")))
            return created(operation)

        return run

    def test_lost_once_goes_on_as_if_nothing_had_happened(self, worker: NewWorker) -> None:
        one = worker()
        steps: list[str] = []

        reply = one.run(Losing(one, "UpdateItem", 1, self.run(steps)))

        assert not reply.replayed
        assert len(steps) == 1
        assert one.telemetry.outcomes == [Outcome.EXECUTED]

    def test_lost_for_good_is_not_done_again_by_the_retry(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        steps: list[str] = []
        operation = Losing(one, "UpdateItem", SDK_ATTEMPTS, self.run(steps))

        first = one.run(operation)
        clock.advance(0.001)
        second = one.run(operation)

        assert (first.response.status, second.response.status) == (503, 201)
        assert operation.runs == 2
        assert len(steps) == 1


class TestComplete:
    @pytest.mark.parametrize("kind", ["UpdateItem", "TransactWriteItems"])
    def test_lost_once_goes_on_as_if_nothing_had_happened(self, worker: NewWorker, rows: str, kind: str) -> None:
        one = worker()
        operation = Losing(one, kind, 1, created if kind == "UpdateItem" else inserting(rows, "one"))

        reply = one.run(operation)

        assert not reply.replayed
        assert one.telemetry.outcomes == [Outcome.EXECUTED]
        assert same([reply, worker().run(operation)])
        assert operation.runs == 1
        assert len(one.scan(rows)) == (kind == "TransactWriteItems")

    @pytest.mark.parametrize("kind", ["UpdateItem", "TransactWriteItems"])
    def test_lost_for_good_answers_with_what_was_committed(self, worker: NewWorker, rows: str, kind: str) -> None:
        one = worker()
        operation = Losing(one, kind, SDK_ATTEMPTS, created if kind == "UpdateItem" else inserting(rows, "one"))

        reply = one.run(operation)

        assert (reply.response.status, one.record().status) == (201, Status.COMPLETED)
        assert (reply.replayed, one.telemetry.outcomes) == (False, [Outcome.EXECUTED])
        assert same([reply, worker().run(operation)])
        assert operation.runs == 1

    def test_of_a_failure_lost_for_good_answers_with_it_too(self, worker: NewWorker) -> None:
        one = worker()
        operation = Losing(one, "UpdateItem", SDK_ATTEMPTS, lambda _: Response(422, "text/plain", "no"))

        reply = one.run(operation)

        assert reply.response.status == 422
        assert same([reply, worker().run(operation)])
        assert operation.runs == 1

    def test_of_parts_lost_once_writes_them_once(self, worker: NewWorker) -> None:
        one = worker()
        operation = Losing(one, "BatchWriteItem", 1, lambda _: Completion(200, [*range(100_000)]))

        reply = one.run(operation)

        assert not reply.replayed
        assert same([reply, worker().run(operation)])


class TestRelease:
    @pytest.mark.parametrize("times", [1, SDK_ATTEMPTS], ids=["once", "for good"])
    def test_lost_lets_a_retry_run_at_once(self, worker: NewWorker, clock: SetClock, times: int) -> None:
        def fails(_: Operation) -> Response[Any]:
            raise Retry("later", retry_after=7)

        one = worker()

        reply = one.run(Losing(one, "UpdateItem", times, fails))

        assert (reply.response.status, reply.response.header("retry-after")) == (503, "7")
        assert one.record().status is Status.RELEASED
        clock.advance(0.001)
        assert one.run().response.status == 201


class TestDecisionToFail:
    @pytest.mark.parametrize("times", [1, SDK_ATTEMPTS], ids=["once", "for good"])
    def test_lost_undoes_each_step_once(self, worker: NewWorker, clock: SetClock, times: int) -> None:
        undone: list[object] = []
        one = worker()

        def run(operation: Operation) -> Response[Any]:
            operation.step("first", lambda _: 1, undo=undone.append)
            if operation.attempt == 1:
                faults.lose_answers(one, "UpdateItem", times)
            raise Rejected("no", "no", status=422)

        first = one.run(run)
        clock.advance(0.001)
        second = one.run(run)

        assert first.response.status == (422 if times == 1 else 503)
        assert second.response.status == 422
        assert undone == [1]


class TestNothingSent:
    def test_runs_nothing(self, worker: NewWorker) -> None:
        def never(_: Operation) -> Response[Any]:
            raise AssertionError("it ran")

        one = worker()
        faults.send_nothing(one)

        refusal = one.refused(never)

        assert (refusal.slug, refusal.status, refusal.retry_after) == ("unavailable", 503, 1)
        assert one.telemetry.errors == []
        assert one.scan() == []

    @pytest.mark.parametrize(
        "code", ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"]
    )
    def test_because_of_throttling_runs_nothing_either(self, worker: NewWorker, code: str) -> None:
        one = worker()
        faults.refuse(one, "PutItem", code, SDK_ATTEMPTS)

        assert one.refused().slug == "unavailable"
        assert one.scan() == []

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    @pytest.mark.parametrize(
        "body",
        ["", "<html><body>Bad gateway</body></html>", "Service Unavailable", "{}", '{"message": null}', "{"],
        ids=["empty", "HTML", "text", "no error", "null", "broken"],
    )
    def test_for_an_answer_that_makes_no_sense_likewise(self, worker: NewWorker, status: int, body: str) -> None:
        one = worker()
        faults.answer(one, "PutItem", status, body)

        refusal = one.refused()

        assert (refusal.slug, refusal.status, refusal.retry_after) == ("unavailable", 503, 1)
        assert one.scan() == []

    @pytest.mark.parametrize("body", ["", "<html></html>", "{"], ids=["empty", "HTML", "broken"])
    @pytest.mark.parametrize("call", ["UpdateItem", "TransactWriteItems"])
    def test_for_such_an_answer_later_on_is_resumed_by_the_retry(
        self, worker: NewWorker, rows: str, clock: SetClock, call: str, body: str
    ) -> None:
        one = worker()
        done: list[int] = []
        faults.answer(one, call, 503, body)

        def run(operation: Operation) -> Response[Any]:
            operation.step("page", lambda _: done.append(1))
            return Completion(201, {}, rows=[Row(rows, {"id": "a"})])

        first = one.run(run)
        clock.advance(LEASE_SECONDS + 0.001)

        assert (first.response.status, first.response.header("retry-after")) == (503, "1")
        assert one.run(run).response.status == 201

    def test_of_the_completion_is_released_and_resumed_by_the_retry(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()

        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 1:
                faults.send_nothing(one)
            return created(operation)

        assert one.run(run).response.status == 503
        assert one.record().status is Status.RELEASED
        clock.advance(0.001)
        assert one.run(run).response.status == 201

    def test_from_then_on_is_answered_503_and_resumed_past_the_lease(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()

        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 1:
                faults.send_nothing(one, times=2 * SDK_ATTEMPTS)
            return created(operation)

        assert one.run(run).response.status == 503
        assert one.record().status is Status.PROCESSING
        assert one.refused(run).slug == "in-progress"
        clock.advance(LEASE_SECONDS + 0.001)
        assert one.run(run).response.status == 201


class TestArrivingAgain:
    """A network may deliver a request a second time, long after its answer."""

    @pytest.mark.parametrize("completed", [True, False], ids=["completed", "taken over and running"])
    def test_no_write_of_an_earlier_attempt_changes_anything(
        self, worker: NewWorker, clock: SetClock, rows: str, completed: bool
    ) -> None:
        # Given every write of an attempt that checkpoints, and is overtaken before it completes
        first, second = worker(), worker()
        sent: list[AWSPreparedRequest] = []

        def note(request: AWSPreparedRequest, **_: object) -> None:
            sent.append(request)

        def overtaken(operation: Operation) -> Response[Any]:
            operation.step("first", lambda _: "late")
            clock.advance(LEASE_SECONDS + 0.001)
            with suppress(Killed):
                second.run(inserting(rows, "one", by="winner") if completed else killed)
            return inserting(rows, "one", by="late")(operation)

        first.client.meta.events.register("before-send.dynamodb.*", note)
        with suppress(Problem):
            first.run(overtaken)

        # When they all arrive again
        before = first.scan(), first.scan(rows)
        session = URLLib3Session()
        answers = [session.send(request).status_code for request in sent[:3]]
        session.close()

        # Then none is carried out
        assert answers == [400, 400, 400]
        assert (first.scan(), first.scan(rows)) == before
