"""Steps: done once each, whatever happens to attempts; undone in reverse if the operation fails for good."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import count
from threading import Barrier
from time import sleep
from typing import Any, cast
from unittest.mock import Mock
from uuid import UUID

import pytest

from idempotency.errors import NotStorable, Rejected, Retry, RowTaken, StepError, Unavailable, Undoing
from idempotency.operation import Attempt, Invocation
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request
from idempotency.response import End, Row, StoredResponse, Verdict
from idempotency.store import Store
from tests.clocks import SetClock
from tests.record import RECORD

REQUEST = Request("alice", "POST", "/v1/things", "/v1/things", "/dev", {}, "application/json", b"")
REJECTED = StoredResponse(422, {"Content-Type": ["application/problem+json"]}, b'{"title":"Rejected"}')
FAILED = Verdict(End.FAIL, REJECTED)
SUCCEEDED = Verdict(End.COMPLETE, StoredResponse(201))
SECONDS = 28

NewAttempt = Callable[..., Attempt]


class Checkpoints:
    """Keeps what a record would keep."""

    def __init__(self) -> None:
        self.record = RECORD
        self.leases: list[int] = []
        self.rows: list[str] = []

    def checkpoint(
        self,
        record: Record,
        step: str,
        result: str,
        lease_until: int,
        *,
        inserted: Sequence[Row] = (),
        deleted: Sequence[Row] = (),
    ) -> None:
        self.record = self.record._replace(steps={**self.record.steps, step: result})
        self.leases.append(lease_until)
        self.rows += [row.item["id"] for row in inserted]
        for row in deleted:
            self.rows.remove(row.item["id"])

    def keep_outcomes(self, record: Record) -> None:
        self.record = self.record._replace(refused=record.refused, begun=record.begun)

    def fail(self, record: Record, response: StoredResponse) -> Record:
        description, body = response.pack()
        self.record = self.record._replace(failure={**description, "body": body})
        return self.record


@pytest.fixture
def kept() -> Checkpoints:
    """What is kept between attempts."""
    return Checkpoints()


@pytest.fixture
def attempt(kept: Checkpoints, clock: SetClock) -> NewAttempt:
    """Function that begins an attempt, with what earlier ones have left."""

    def begin(seconds: float = SECONDS) -> Attempt:
        deadline = clock.now() + round(seconds * 1000)
        invocation = Invocation(REQUEST, Policy(), deadline, Mock(), Mock())
        return Attempt(kept.record, invocation, cast(Store, kept), Settings(), clock)

    return begin


class Calls:
    """Notes which calls were made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name: str, result: Any = None) -> Callable[..., Any]:
        """A call, or an undo, that only notes its name."""

        def call(*_: Any) -> Any:
            self.made.append(name)
            return result

        return call

    def failing(self, name: str, error: Exception) -> Callable[..., Any]:
        """A call that notes its name, and then fails."""

        def call(*_: Any) -> Any:
            self.made.append(name)
            raise error

        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


class TestKey:
    def test_is_the_same_in_every_attempt(self, attempt: NewAttempt) -> None:
        assert attempt().derived_id("page") == attempt().derived_id("page")

    def test_is_different_for_each_step_and_operation(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        keys = {attempt().derived_id(name) for name in ("page", "dns", "page ")}
        kept.record = RECORD._replace(operation_id="2a3cf50d-6b5b-4e2c-9d52-3a3fd2d36a8d")
        keys.add(attempt().derived_id("page"))

        assert len(keys) == 4
        assert {UUID(key).version for key in keys} == {5}


class TestStep:
    def test_runs_once_and_gives_its_result_to_every_attempt(self, attempt: NewAttempt, calls: Calls) -> None:
        results = [attempt().step("dns", calls("dns", {"id": "C1"})) for _ in range(3)]

        assert results == [{"id": "C1"}] * 3
        assert calls.made == ["dns"]

    @pytest.mark.parametrize("result", [None, True, 7, "x", [1, [2]], {"a": {"b": None}}, "é\u2028\ud800", ""])
    def test_keeps_any_json(self, attempt: NewAttempt, calls: Calls, result: Any) -> None:
        assert [attempt().step("s", calls("s", result)) for _ in range(2)] == [result, result]

    def test_gives_in_the_first_attempt_what_it_gives_in_a_later_one(self, attempt: NewAttempt, calls: Calls) -> None:
        results = [attempt().step("s", calls("s", {1: (2, 3)})) for _ in range(2)]

        assert results == [{"1": [2, 3]}] * 2

    def test_is_kept_before_the_next_one_begins(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        operation = attempt()
        operation.step("first", lambda _: 1)

        operation.step("second", lambda _: json.loads(kept.record.steps["first"]) + 1)

        assert kept.record.steps == {"first": "1", "second": "2"}

    def test_lengthens_the_lease(self, attempt: NewAttempt, kept: Checkpoints, clock: SetClock) -> None:
        operation, deadline = attempt(), clock.now() + SECONDS * 1000
        clock.advance(5)

        operation.step("s", lambda _: None)

        assert kept.leases == [deadline + Settings().clock_skew * 1000]

    def test_that_fails_is_not_kept_and_runs_again(self, attempt: NewAttempt, calls: Calls, kept: Checkpoints) -> None:
        with pytest.raises(OSError, match="lost"):
            attempt().step("s", calls.failing("s", OSError("lost")))
        assert kept.record.steps == {}

        assert attempt().step("s", calls("s", "done")) == "done"
        assert calls.made == ["s", "s"]

    def test_does_not_begin_without_time_to_end(self, attempt: NewAttempt, calls: Calls, clock: SetClock) -> None:
        operation = attempt()
        clock.advance(SECONDS - Settings().time_for_a_step)
        operation.step("in time", calls("in time"))
        clock.advance(0.001)

        with pytest.raises(Retry):
            operation.step("too late", calls("too late"))

        assert calls.made == ["in time"]

    def test_requires_no_time_once_it_is_kept(self, attempt: NewAttempt, calls: Calls) -> None:
        attempt().step("s", calls("s", 1))

        assert attempt(seconds=0.001).step("s", calls("s", 2)) == 1

    def test_runs_at_the_same_time_as_another_in_a_thread(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        operation, both = attempt(), Barrier(2, timeout=5)
        with ThreadPoolExecutor() as pool:
            steps = [pool.submit(operation.step, name, lambda _: both.wait() >= 0) for name in ("first", "second")]
            assert [step.result() for step in steps] == [True, True]

        assert kept.record.steps == {"first": "true", "second": "true"}


class TestReservation:
    ROW = Row("rows", {"id": "a"})

    def test_is_a_step_that_inserts_a_row(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        for _ in range(2):
            attempt().reserve("name", self.ROW)

        assert (kept.record.steps, kept.rows) == ({"name": "null"}, ["a"])

    def test_is_undone_in_its_turn(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        operation, rows = attempt(), []
        operation.reserve("name", self.ROW)
        operation.step("s", lambda _: 1, undo=lambda _: rows.extend(kept.rows))

        for _ in range(2):
            operation.undo(FAILED)

        assert (rows, kept.rows) == (["a"], [])

    def test_whose_row_now_belongs_to_another_waits_for_an_operator(
        self, attempt: NewAttempt, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operation = attempt()
        operation.reserve("name", self.ROW)
        monkeypatch.setattr(kept, "checkpoint", Mock(side_effect=RowTaken(self.ROW)))

        with pytest.raises(Retry, match=r"Cannot undo step 'name': RowTaken.*the row a belongs to another operation"):
            operation.undo(FAILED)


class TestMistake:
    def test_of_a_name_used_twice(self, attempt: NewAttempt, calls: Calls) -> None:
        operation = attempt()
        operation.step("s", calls("first"))

        with pytest.raises(StepError, match="'s' occurs twice"):
            operation.step("s", calls("second"))

        assert calls.made == ["first"]

    def test_of_a_name_used_twice_is_found_in_a_later_attempt_too(self, attempt: NewAttempt, calls: Calls) -> None:
        attempt().step("s", calls("s"))
        operation = attempt()
        operation.step("s", calls("s"))

        with pytest.raises(StepError):
            operation.step("s", calls("s"))

    def test_of_a_step_inside_a_step(self, attempt: NewAttempt, calls: Calls) -> None:
        operation = attempt()

        with pytest.raises(StepError, match="'inner' is inside step 'outer'"):
            operation.step("outer", lambda _: operation.step("inner", calls("inner")))

        assert calls.made == []
        assert operation.step("next", calls("next", 1)) == 1

    @pytest.mark.parametrize("every", [0, -1])
    def test_of_a_wait_that_would_not_pause(self, attempt: NewAttempt, calls: Calls, every: int) -> None:
        with pytest.raises(StepError, match=f"'delivery' cannot look every {every} s"):
            attempt().wait("delivery", calls("look"), every=every, at_most=60)

        assert calls.made == []

    def test_of_a_wait_is_not_that_it_looks_every_second(self, attempt: NewAttempt, calls: Calls) -> None:
        assert attempt().wait("delivery", calls("look", "came"), every=1, at_most=60) == "came"

    @pytest.mark.parametrize(
        "given", [{"call": 5}, {"call": None, "undo": 5}, {"call": len, "undo": "undone"}], ids=str
    )
    def test_of_a_value_in_the_place_of_a_function(self, attempt: NewAttempt, given: dict[str, Any]) -> None:
        what, value = next((what, each) for what, each in given.items() if each is not None and not callable(each))
        message = f"the {what} of step 's' is a value ({type(value).__name__}): write lambda …: before it"

        with pytest.raises(StepError, match=rf"^{re.escape(message)}$"):
            attempt().step("s", **given)

    @pytest.mark.parametrize("name", ["", "x" * 101, "undo dns", "two\nlines", "\x1b[31m"])
    def test_of_a_name_that_is_not_allowed(self, attempt: NewAttempt, calls: Calls, name: str) -> None:
        with pytest.raises(StepError):
            attempt().step(name, calls("s"))

        assert calls.made == []

    @pytest.mark.parametrize("result", [object, {1, 2}, b"x", float("nan"), float("inf")], ids=repr)
    def test_of_a_result_that_is_not_json(self, attempt: NewAttempt, kept: Checkpoints, result: Any) -> None:
        with pytest.raises(NotStorable, match="'s' is not JSON"):
            attempt().step("s", lambda _: result)

        assert kept.record.steps == {}

    def test_of_a_result_that_is_too_large(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        with pytest.raises(NotStorable, match="at most 16000"):
            attempt().step("s", lambda _: "x" * 16_000)

        assert attempt().step("s", lambda _: "x" * 15_998)
        assert list(kept.record.steps) == ["s"]


class TestRoom:
    """An item holds 400 KB, names included; outcomes of steps share it with a request and a failure."""

    LONGEST = "😀" * 92
    FOR_OUTCOMES = 400 * 1024 - 40_000 - 20_000 - 10_240 - 5_000

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("name", "result", "steps"),
        [
            ("{:08}", "x" * 15_998, 19),
            ("{:0100}", "", 700),
            (LONGEST + "{:08}", "", 200),
            (LONGEST + "{:08}", "x" * 15_998, 18),
        ],
        ids=["large results", "many steps", "long names", "both"],
    )
    @pytest.mark.parametrize("refused", [False, True])
    def test_that_is_taken_ends_the_operation_before_the_call(
        self,
        attempt: NewAttempt,
        kept: Checkpoints,
        clock: SetClock,
        calls: Calls,
        name: str,
        result: str,
        steps: int,
        refused: bool,
    ) -> None:
        clock.patience = 10 * steps
        operation = attempt()
        no = Rejected("no", result, status=409)

        def fill() -> None:
            for number in count():
                call = calls.failing("x", no) if refused and number % 2 else calls("x", result)
                with suppress(Rejected):
                    operation.step(name.format(number), call, undo=calls("undo"))

        with pytest.raises(NotStorable, match="no room left"):
            fill()

        assert len(calls.made) >= steps
        assert len(kept.record.steps) + len(operation.known.refused) == len(calls.made)
        operation.undo(FAILED)
        outcomes = [
            *kept.record.steps.items(),
            *kept.record.refused.items(),
            *((name, "") for name in kept.record.begun),
        ]
        assert sum(len(name.encode()) + len(text) + 5 for name, text in outcomes) < self.FOR_OUTCOMES

    @pytest.mark.parametrize(("limit", "fits"), [(16_000 + 3 + 32, True), (16_000 + 3 + 31, False)])
    def test_is_needed_for_the_largest_result_and_the_name(
        self, attempt: NewAttempt, calls: Calls, monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool
    ) -> None:
        monkeypatch.setattr("idempotency.operation._OUTCOMES_LIMIT", limit)

        with nullcontext() if fits else pytest.raises(NotStorable, match="no room left"):
            attempt().step("a", calls("a", 1))

    def test_is_not_needed_for_a_step_that_nobody_called(
        self, attempt: NewAttempt, kept: Checkpoints, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given room for two steps, of which the first may have been done, and one that could not begin
        monkeypatch.setattr("idempotency.operation._OUTCOMES_LIMIT", 2 * (16_000 + 3 + 32))
        operation = attempt()
        with suppress(TimeoutError):
            operation.step("a", calls.failing("a", TimeoutError()))
        with monkeypatch.context() as down:
            down.setattr(kept, "keep_outcomes", Mock(side_effect=Unavailable("down")))
            with suppress(Unavailable):
                operation.step("b", calls("b"))

        operation.step("c", calls("c"))

        assert calls.made == ["a", "c"]

    def test_is_kept_for_the_steps_in_flight(self, attempt: NewAttempt) -> None:
        # Given more steps at once than there is room for, each of which says how large its result is only in the end
        operation, begun = attempt(), Barrier(20)

        def call(_: str) -> str:
            begun.wait(10)
            return "x" * 15_998

        def step(number: int) -> bool:
            try:
                operation.step(f"{number}", call)
            except NotStorable:
                begun.wait(10)
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            kept = list(pool.map(step, range(20)))

        assert kept.count(False) == 1


class TestRefusal:
    """It is kept before code goes on another way, of which an attempt that does not know of it would not know."""

    NO = Rejected("no", "Not here.", status=409)

    def refuse(self, operation: Attempt, name: str = "primary") -> None:
        with pytest.raises(Rejected):
            operation.step(name, Calls().failing(name, self.NO))

    def test_is_kept_before_the_next_step(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        operation = attempt()
        self.refuse(operation)

        assert operation.step("fallback", lambda _: list(kept.record.refused)) == ["primary"]

    def test_is_kept_before_any_of_the_next_steps_that_threads_do(
        self, attempt: NewAttempt, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a write that takes long
        operation, writing, keep = attempt(), Barrier(2), kept.keep_outcomes

        def slowly(record: Record) -> None:
            writing.wait(10)
            sleep(0.1)
            keep(record)

        monkeypatch.setattr(kept, "keep_outcomes", slowly)
        self.refuse(operation)

        # When one thread writes, and others come
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(operation.step, "first", lambda _: list(kept.record.refused))
            writing.wait(10)
            others = [pool.submit(operation.step, name, lambda _: list(kept.record.refused)) for name in ("b", "c")]
            assert [each.result() for each in (first, *others)] == [["primary"]] * 3

    def test_of_a_thread_is_never_lost_to_an_older_write(
        self, attempt: NewAttempt, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operation, keep = attempt(), kept.keep_outcomes
        pauses = iter((0.2, 0, 0, 0))

        def the_first_slowly(record: Record) -> None:
            sleep(next(pauses))
            keep(record)

        monkeypatch.setattr(kept, "keep_outcomes", the_first_slowly)
        self.refuse(operation)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(operation.step, "first", lambda _: None)
            sleep(0.05)
            self.refuse(operation, "another")
            operation.step("second", lambda _: None)
            first.result()

        assert kept.record.refused.keys() == {"primary", "another"}

    def test_that_could_not_be_kept_is_kept_before_the_step_after_that(
        self, attempt: NewAttempt, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operation = attempt()
        self.refuse(operation)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "keep_outcomes", Mock(side_effect=Unavailable("DynamoDB cannot be reached.")))
            with pytest.raises(Unavailable):
                operation.step("fallback", lambda _: None)

        assert operation.step("second fallback", lambda _: list(kept.record.refused)) == ["primary"]
        assert operation.doubts(SUCCEEDED) == []

    def test_that_took_long_to_keep_leaves_too_little_time_for_the_next_step(
        self, attempt: NewAttempt, kept: Checkpoints, clock: SetClock, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operation = attempt()
        self.refuse(operation)
        monkeypatch.setattr(kept, "keep_outcomes", lambda _: clock.advance(SECONDS - Settings().time_for_a_step + 1))

        with pytest.raises(Retry, match="Too little time"):
            operation.step("fallback", calls("fallback"))

        assert (calls.made, operation.known.begun) == ([], [])

    def test_is_not_kept_by_itself_if_there_is_no_time_for_the_next_step(
        self, attempt: NewAttempt, kept: Checkpoints, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # It goes with the release, the one write for which there is time.
        operation, keep = attempt(), Mock()
        self.refuse(operation)
        monkeypatch.setattr(kept, "keep_outcomes", keep)
        clock.advance(SECONDS - Settings().time_for_a_step + 1)

        with pytest.raises(Retry, match="Too little time"):
            operation.step("fallback", lambda _: None)

        keep.assert_not_called()
        assert operation.known.refused.keys() == {"primary"}


class TestDoubts:
    """Of a failure after an attempt that was cut off, nobody knows where."""

    @pytest.fixture
    def again(self, attempt: NewAttempt, kept: Checkpoints) -> Attempt:
        kept.record = kept.record._replace(attempt=2)
        return attempt()

    def test_are_there_if_it_is_refused_between_steps(self, again: Attempt) -> None:
        refused = Verdict(End.FAIL, REJECTED, cause=Rejected("no", "No.", status=422))

        assert again.doubts(refused) == [
            "an earlier attempt was cut off, perhaps in a step that this one did not reach"
        ]

    def test_are_not_there_if_a_row_of_its_completion_is_taken(self, again: Attempt) -> None:
        taken = Verdict(End.FAIL, REJECTED, cause=RowTaken(Row("rows", {"id": "name"})))

        assert again.doubts(taken) == []


@pytest.mark.parametrize("held", [True, False])
def test_who_holds_no_connection_is_not_answered_late(held: bool) -> None:
    policy = Policy(recoverable=True, respond_async="late")

    assert Invocation(REQUEST, policy, 0, Mock(), Mock(), held=held).responds_late is held


class TestUndoing:
    """An operation of three steps, of which the second has no undo."""

    @pytest.fixture
    def perform(self, attempt: NewAttempt, calls: Calls) -> Callable[..., Attempt]:
        """Function that begins an attempt, and runs its steps."""

        def perform(undo_first: Callable[[Any], object] | None = None) -> Attempt:
            operation = attempt()
            operation.step("first", calls("first", 1), undo=undo_first or calls("undo first"))
            operation.step("second", calls("second", 2))
            operation.step("third", calls("third", 3), undo=calls("undo third"))
            calls.made.clear()
            return operation

        return perform

    def test_takes_the_latest_first(self, perform: Callable[..., Attempt], calls: Calls, kept: Checkpoints) -> None:
        assert perform().undo(FAILED) == REJECTED

        assert calls.made == ["undo third", "undo first"]
        assert set(kept.record.steps) == {"first", "second", "third", "undo first", "undo third"}

    def test_gets_the_result(self, perform: Callable[..., Attempt]) -> None:
        results: list[int] = []

        perform(undo_first=results.append).undo(FAILED)

        assert results == [1]

    def test_is_decided_before_it_begins(self, perform: Callable[..., Attempt], kept: Checkpoints) -> None:
        decided: list[bool] = []

        perform(undo_first=lambda _: decided.append(kept.record.failure is not None)).undo(FAILED)

        assert decided == [True]

    def test_goes_on_where_it_was_cut_off(
        self, perform: Callable[..., Attempt], calls: Calls, kept: Checkpoints
    ) -> None:
        with pytest.raises(Retry):
            perform(undo_first=calls.failing("undo first", Retry("later"))).undo(FAILED)
        assert calls.made == ["undo third", "undo first"]

        # When another attempt comes, its own failure makes no difference
        other = StoredResponse(409, {}, b"{}")
        assert perform().undo(Verdict(End.FAIL, other)) == REJECTED

        assert calls.made == ["undo first"]

    @pytest.mark.parametrize(("asked", "pause"), [(7, 7), (None, 1)])
    def test_that_is_refused_for_good_is_tried_again_nevertheless(
        self, perform: Callable[..., Attempt], calls: Calls, asked: int | None, pause: int
    ) -> None:
        refused = Rejected("page-rejected", "no", status=422, retry_after=asked)

        with pytest.raises(Retry, match="Cannot undo step 'first'") as raised:
            perform(undo_first=calls.failing("undo first", refused)).undo(FAILED)

        assert raised.value.retry_after == pause

    def test_lets_no_later_attempt_go_forward(self, attempt: NewAttempt, calls: Calls, kept: Checkpoints) -> None:
        attempt().step("first", calls("first"), undo=calls("undo first"))
        kept.fail(kept.record, REJECTED)
        operation = attempt()
        operation.step("first", calls("again"), undo=calls("undo first"))

        with pytest.raises(Undoing):
            operation.step("second", calls("second"), undo=calls("undo second"))
        operation.undo(FAILED)

        assert calls.made == ["first", "undo first"]

    def test_waits_for_an_attempt_that_says_how(
        self, perform: Callable[..., Attempt], attempt: NewAttempt, kept: Checkpoints, calls: Calls
    ) -> None:
        perform()
        kept.fail(kept.record, REJECTED)
        operation = attempt()
        operation.step("first", calls("first"), undo=calls("undo first"))

        with pytest.raises(Retry, match="second, third"):
            operation.ensure_reached()

        assert calls.made == []

    def test_does_not_begin_without_time_to_end(
        self, perform: Callable[..., Attempt], clock: SetClock, calls: Calls
    ) -> None:
        operation = perform()
        clock.advance(SECONDS - 1)

        with pytest.raises(Retry):
            operation.undo(FAILED)

        assert calls.made == []

    def test_of_nothing_writes_nothing(self, attempt: NewAttempt, kept: Checkpoints) -> None:
        operation = attempt()
        operation.step("s", lambda _: 1)

        assert operation.undo(FAILED) == REJECTED
        assert kept.record.failure is None


def test_an_attempt_waits_for_other_threads_until_it_must_release_the_record(
    attempt: NewAttempt, clock: SetClock
) -> None:
    operation = attempt()
    operation._running = 1

    with pytest.raises(Retry, match="still running"):
        operation.close()

    assert sum(clock.sleeps) == SECONDS * 1000 - 500
