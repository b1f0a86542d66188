"""Steps: each done once, its result kept; undone once each, the latest first, if the operation fails for good."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier, Event, Thread
from typing import Any
from uuid import UUID

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Fenced, Problem, Rejected, Retry, StepError
from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from idempotency.record import Status
from idempotency.telemetry import Outcome
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.conftest import NewWorker
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created

NO = Rejected("rejected", "No.", status=422, title="Rejected")


def resumed(worker: Worker, clock: SetClock, run: Run) -> int:
    """Run attempts, each after the lease of the one before, until the operation has ended; return its status."""
    for _ in range(20):
        with suppress(Killed, Problem):
            reply = worker.run(run)
            if worker.record().completed:
                return reply.response.status
        clock.advance(LEASE_SECONDS + 0.001)
    raise AssertionError("it never ends")


class TestStep:
    def test_is_done_once_whatever_happens_afterwards(self, worker: NewWorker, clock: SetClock) -> None:
        # Given an operation of three steps that is killed after the second, then fails after the third
        done: list[str] = []
        results: list[list[Any]] = []

        def run(operation: Operation) -> Response[Any]:
            def do(name: str, _: str) -> dict[str, Any]:
                done.append(name)
                return {"name": name, "attempt": operation.attempt}

            seen = [operation.step(name, partial(do, name)) for name in ("one", "two")]
            if operation.attempt == 1:
                raise Killed
            seen.append(operation.step("three", partial(do, "three")))
            if operation.attempt == 2:
                raise Retry("later")
            results.append(seen)
            return created(operation)

        one = worker()

        assert resumed(one, clock, run) == 201
        assert done == ["one", "two", "three"]
        assert results == [
            [{"name": "one", "attempt": 1}, {"name": "two", "attempt": 1}, {"name": "three", "attempt": 2}]
        ]

    def test_cut_off_before_its_checkpoint_is_done_again_under_the_same_key(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        keys: list[str] = []

        def run(operation: Operation) -> Response[Any]:
            def do(key: str) -> None:
                keys.append(key)
                if operation.attempt == 1:
                    raise Killed

            operation.step("pay", do)
            return created(operation)

        assert resumed(worker(), clock, run) == 201
        assert len(keys) == 2
        assert len({*keys}) == 1

    @pytest.mark.parametrize(
        ("result", "as_json"),
        [
            (None, None),
            ("é😀", "é😀"),
            ((1, 2), [1, 2]),
            ({"a": {"b": 1.5}}, {"a": {"b": 1.5}}),
            (True, True),
            ("", ""),
        ],
    )
    def test_gives_its_result_as_json_from_the_first_attempt_on(
        self, worker: NewWorker, clock: SetClock, result: Any, as_json: Any
    ) -> None:
        seen: list[Any] = []

        def run(operation: Operation) -> Response[Any]:
            seen.append(operation.step("only", lambda _: result))
            if operation.attempt == 1:
                raise Killed
            return created(operation)

        resumed(worker(), clock, run)

        assert seen == [as_json, as_json]

    def test_lengthens_the_lease_where_the_route_keeps_it_short(self, worker: NewWorker, clock: SetClock) -> None:
        leases: list[int] = []
        one = worker()

        def run(operation: Operation) -> Response[Any]:
            for name in ("one", "two"):
                clock.advance(4)
                operation.step(name, lambda _: 1)
                leases.append(one.record().lease_until - clock.now())
            return created(operation)

        one.run(run, policy=Policy(lease=5))

        assert leases == [7_000, 7_000]

    def test_begins_only_with_time_to_finish(self, worker: NewWorker, clock: SetClock) -> None:
        done: list[str] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: done.append("one"))
            if operation.attempt == 1:
                clock.advance(24.5)
            operation.step("two", lambda _: done.append("two"))
            return created(operation)

        one = worker()

        first = one.run(run)
        clock.advance(0.001)
        second = one.run(run)

        # Of 28 s, 3.5 s are left: less than the 4 s that an attempt needs.
        assert (first.response.status, first.response.header("retry-after")) == (503, "1")
        assert second.response.status == 201
        assert done == ["one", "two"]

    def test_that_raises_is_not_kept(self, worker: NewWorker, clock: SetClock) -> None:
        calls: list[int] = []

        def flaky(operation: Operation) -> Response[Any]:
            def do(_: str) -> None:
                calls.append(operation.attempt)
                if operation.attempt < 3:
                    raise ConnectionError

            operation.step("flaky", do)
            return created(operation)

        assert resumed(worker(), clock, flaky) == 201
        assert calls == [1, 2, 3]


class TestKey:
    def test_is_a_uuid_of_its_own_for_each_step_and_the_same_in_each_attempt(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        keys: list[tuple[str, str]] = []

        def run(operation: Operation) -> Response[Any]:
            keys.append((operation.derived_id("one"), operation.derived_id("two")))
            if operation.attempt < 3:
                raise Retry("later")
            return created(operation)

        resumed(worker(), clock, run)

        assert len(keys) == 3
        assert len({*keys}) == 1
        assert keys[0][0] != keys[0][1]
        assert all(UUID(key).version == 5 for key in keys[0])

    def test_is_new_for_a_key_that_is_used_again_after_its_expiry(self, worker: NewWorker, clock: SetClock) -> None:
        keys: list[str] = []

        def run(operation: Operation) -> Response[Any]:
            keys.append(operation.derived_id("one"))
            return created(operation)

        one = worker()
        for _ in range(2):
            one.run(run)
            clock.advance(Settings().ttl)

        assert len({*keys}) == 2


class TestMistake:
    def test_in_the_code_is_reported_to_the_operator_and_not_to_the_client(self, worker: NewWorker) -> None:
        def twice(operation: Operation) -> Response[Any]:
            operation.step("pay", lambda _: 1)
            operation.step("pay", lambda _: 2)
            return created(operation)

        one = worker()

        reply = one.run(twice)

        record = one.record()
        assert (reply.response.status, record.status) == (500, Status.RELEASED)
        assert b"pay" not in reply.response.body
        assert record.last_error == "StepError: step 'pay' occurs twice"
        assert record.last_error == f"StepError: {one.telemetry.errors[0]}"


class TestName:
    @pytest.mark.parametrize("name", ["x" * 100, "a.b", "#status", ":value", "é 😀", "0", "steps"])
    def test_may_be_anything_even_what_means_something_in_an_expression(
        self, worker: NewWorker, clock: SetClock, name: str
    ) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step(name, lambda _: "done")
            if operation.attempt == 1:
                raise Killed
            steps.append(one.record().steps)
            return created(operation)

        one = worker()
        steps: list[Any] = []

        assert resumed(one, clock, run) == 201
        assert steps == [{name: '"done"'}]
        assert one.record().steps == {}, "nobody reads them again"


class TestThreads:
    def test_checkpoint_separately(self, worker: NewWorker, clock: SetClock) -> None:
        # Given four steps at the same time, of which one fails at first
        names = ["a", "b", "c", "d"]
        done: list[str] = []

        def run(operation: Operation) -> Response[Any]:
            together = Barrier(4 if operation.attempt == 1 else 1)

            def do(name: str, _: str) -> str:
                together.wait(10)
                if (name, operation.attempt) == ("c", 1):
                    raise Retry("later")
                done.append(name)
                return name * 2

            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(lambda name: operation.step(name, partial(do, name)), names))
            assert results == ["aa", "bb", "cc", "dd"]
            assert one.record().steps == {name: f'"{name * 2}"' for name in names}
            return created(operation)

        one = worker()

        assert resumed(one, clock, run) == 201
        assert sorted(done) == names


class TestInFlight:
    """A step that another thread is in when the operation ends."""

    class Slow:
        """A step that acts at once, and ends when it is told to.

        Args:
            outcome: what it ends with.
        """

        def __init__(self, outcome: Exception | None = None) -> None:
            self.undone: list[str] = []
            self._outcome = outcome
            self._began, self._may_end = Event(), Event()
            self._threads: list[Thread] = []

        def begin(self, operation: Operation) -> None:
            """Begin it in another thread, and return once it has acted."""

            def step() -> None:
                with suppress(Exception, Fenced):
                    operation.step("slow", self._act, undo=lambda: self.undone.append("slow"))

            self._threads.append(Thread(target=step))
            self._threads[-1].start()
            assert self._began.wait(10)

        def _act(self, _: str) -> str:
            self._began.set()
            assert self._may_end.wait(10)
            if self._outcome is not None:
                raise self._outcome
            return "done"

        def end(self) -> None:
            """Let it end, and wait until its outcome is there."""
            self._may_end.set()
            for thread in self._threads:
                thread.join()

    @pytest.mark.parametrize(
        ("outcome", "undone"),
        [(None, ["slow"]), (ConnectionError(), ["slow"]), (NO, [])],
        ids=["done", "possibly done", "refused"],
    )
    def test_is_waited_for_before_anything_is_undone(
        self, worker: NewWorker, clock: SetClock, outcome: Exception | None, undone: list[str]
    ) -> None:
        slow = self.Slow(outcome)

        def run(operation: Operation) -> Response[Any]:
            slow.begin(operation)
            clock.while_asleep = slow.end
            raise NO

        assert worker().run(run).response.status == 422
        assert (slow.undone, bool(clock.sleeps)) == (undone, True)

    def test_is_waited_for_before_the_operation_completes(self, worker: NewWorker, clock: SetClock) -> None:
        slow, one = self.Slow(), worker()

        def run(operation: Operation) -> Response[Any]:
            slow.begin(operation)
            clock.while_asleep = slow.end
            return created(operation)

        assert one.run(run).response.status == 201
        assert (one.telemetry.doubts, bool(clock.sleeps)) == ([], True)

    def test_is_never_forgotten_if_it_does_not_end_in_time(self, worker: NewWorker) -> None:
        # Given an operation that fails for good while a step goes on and on
        slow, one = self.Slow(), worker()

        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 1:
                slow.begin(operation)
            raise NO

        first = one.run(run)

        # Then nothing is decided, and no later attempt that does not come to the step may fail for good
        assert (first.response.status, one.record().begun, one.record().failure) == (503, ["slow"], None)
        slow.end()
        assert one.run(run).response.status == 503
        assert one.telemetry.doubts == ["step 'slow' was begun, and no attempt that failed has reached it since"]

    def test_begins_no_more_once_its_operation_ends(self, worker: NewWorker) -> None:
        operations: list[Operation] = []

        def run(operation: Operation) -> Response[Any]:
            operations.append(operation)
            raise NO

        worker().run(run)

        with pytest.raises(StepError, match="begins after its operation has ended"):
            operations[0].step("late", lambda _: None)


class TestUndo:
    class Steps:
        """Steps in a row, whose undoing is recorded; the operation fails for good after them."""

        def __init__(self, *names: str) -> None:
            self.names = names
            self.done: list[str] = []
            self.undone: list[str] = []
            self.before_undo: dict[str, Callable[[Operation], None]] = {}

        def __call__(self, operation: Operation) -> Response[Any]:
            for name in self.names:
                operation.step(name, partial(self._do, name), undo=partial(self._undo, operation))
            raise NO

        def _do(self, name: str, _: str) -> str:
            self.done.append(name)
            return name

        def _undo(self, operation: Operation, name: str) -> None:
            if name in self.before_undo:
                self.before_undo[name](operation)
            self.undone.append(name)

    def test_is_in_reverse_each_once_and_the_failure_is_stored(self, worker: NewWorker) -> None:
        steps = self.Steps("one", "two", "three")
        one = worker()

        reply = one.run(steps)

        assert (reply.response.status, steps.undone) == (422, ["three", "two", "one"])
        assert worker().run(steps).replayed
        assert (len(steps.done), len(steps.undone)) == (3, 3)
        assert one.telemetry.outcomes == [Outcome.EXECUTED]

    @pytest.mark.parametrize("dies_at", ["one", "two", "three"])
    def test_goes_on_where_it_was_cut_off(self, worker: NewWorker, clock: SetClock, dies_at: str) -> None:
        steps = self.Steps("one", "two", "three")

        def die_once(operation: Operation) -> None:
            if operation.attempt == 1:
                raise Killed

        steps.before_undo[dies_at] = die_once

        assert resumed(worker(), clock, steps) == 422
        assert steps.done == ["one", "two", "three"]
        assert steps.undone == ["three", "two", "one"]

    def test_that_fails_is_tried_again_by_a_retry(self, worker: NewWorker, clock: SetClock) -> None:
        steps = self.Steps("one", "two")
        one = worker()

        def fail_once(operation: Operation) -> None:
            if operation.attempt == 1:
                raise Rejected("gone", "Not now.", status=404)

        steps.before_undo["one"] = fail_once

        first = one.run(steps)
        clock.advance(0.001)
        second = one.run(steps)

        assert [first.response.status, second.response.status] == [503, 422]
        assert steps.undone == ["two", "one"]

    def test_is_of_the_steps_that_were_done(self, worker: NewWorker) -> None:
        undone: list[object] = []

        def run(operation: Operation) -> Response[Any]:
            def rejected(_: str) -> None:
                raise NO

            operation.step("one", lambda _: 1, undo=undone.append)
            operation.step("two", rejected, undo=undone.append)
            return created(operation)

        assert worker().run(run).response.status == 422
        assert undone == [1]

    def test_may_be_decided_by_a_response(self, worker: NewWorker) -> None:
        undone: list[object] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: 1, undo=undone.append)
            return Response(409, "text/plain", "no")

        assert worker().run(run).response.status == 409
        assert undone == [1]

    def test_does_not_follow_a_failure_for_now(self, worker: NewWorker) -> None:
        undone: list[object] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: 1, undo=undone.append)
            raise Retry("later")

        assert worker().run(run).response.status == 503
        assert undone == []

    def test_sticks_to_the_decision_even_if_the_next_attempt_would_succeed(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        # Given an attempt that decides to fail, and is killed before it has undone anything
        done: list[str] = []
        undone: list[int] = []

        def die(_: object) -> None:
            raise Killed

        def decides(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: 1, undo=die)
            raise NO

        one = worker()
        with suppress(Killed):
            one.run(decides)
        clock.advance(LEASE_SECONDS + 0.001)

        # When the next attempt would get further, and catches all that it can
        def would_succeed(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: 1, undo=undone.append)
            with suppress(Exception):
                operation.step("two", lambda _: done.append("two"))
            done.append("after two")
            return created(operation)

        reply = one.run(would_succeed)

        # Then it undoes nevertheless, and does nothing new
        assert reply.response.status == 422
        assert (done, undone) == ([], [1])

    def test_needs_the_code_to_reach_the_step_again(self, worker: NewWorker, clock: SetClock) -> None:
        # Given a step that the code of the next deployment no longer has
        one = worker()

        def before(operation: Operation) -> Response[Any]:
            operation.step("old", lambda _: 1, undo=lambda _: None)
            faults.send_nothing(one, "UpdateItem", times=6)
            raise NO

        def decided(operation: Operation) -> Response[Any]:
            operation.step("new", lambda _: 2, undo=lambda _: None)
            raise NO

        one.run(before)
        clock.advance(LEASE_SECONDS + 0.001)
        reply = one.run(decided)

        # Then it is not left behind in silence
        assert reply.response.status == 503
        last_error = one.record().last_error or ""
        assert last_error.startswith("Retry: This attempt ended before it reached old")

    def test_gets_the_results_of_earlier_attempts(self, worker: NewWorker, clock: SetClock) -> None:
        undone: list[object] = []

        def run(operation: Operation) -> Response[Any]:
            operation.step("one", lambda _: {"by": operation.attempt}, undo=undone.append)
            raise Killed if operation.attempt == 1 else NO

        assert resumed(worker(), clock, run) == 422
        assert undone == [{"by": 1}]

    def test_of_threads_is_each_once(self, worker: NewWorker) -> None:
        undone: list[int] = []

        def run(operation: Operation) -> Response[Any]:
            def step(number: int) -> None:
                operation.step(f"step {number}", lambda _: number, undo=undone.append)

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(step, range(4)))
            raise NO

        assert worker().run(run).response.status == 422
        assert sorted(undone) == [0, 1, 2, 3]
