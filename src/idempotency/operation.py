"""One attempt to carry an operation out: its steps, their outcomes, and how they are undone."""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import ceil
from threading import Lock
from typing import Any, NamedTuple, TypeVar, overload
from uuid import UUID, uuid5

from idempotency.clock import Clock
from idempotency.errors import (
    NotStorable,
    OutOfTime,
    Problem,
    Rejected,
    Retry,
    RowTaken,
    StepError,
    UndoFailed,
    Undoing,
    Waiting,
    WaitOver,
)
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request
from idempotency.response import End, Row, Serialize, Show, StoredResponse, Verdict, plain_json
from idempotency.store import Store

T = TypeVar("T")

_UNDO = "undo "
_NAME_LIMIT = 100
_RESULT_LIMIT = 16_000
# Of the 400 KB that an item holds, names included, the outcomes of steps may take these. The rest is for the request
# (40,000), the response of a failure (20,000, and 10,240 of headers), and the record's other attributes.
_OUTCOMES_LIMIT = 320_000
# A step's name may stand with its result, with its undo, and among those that were begun; DynamoDB adds a few bytes.
_NAMES = 3
_OVERHEAD = 32
# Milliseconds between two looks at whether steps in other threads have ended, and those kept to release the record.
_LOOK_AGAIN = 20
_TIME_TO_RELEASE = 500

_current_step: ContextVar["tuple[Operation, str] | None"] = ContextVar("current_step", default=None)


class Invocation(NamedTuple):
    """One invocation of a route, by its client or by recovery.

    Args:
        request: the request, valid and authorised.
        policy: the route's choices.
        deadline: epoch milliseconds at which the invocation is cut off.
        execute: the business logic, and what it returned.
        show: turns an exception of the business logic into its response.
        serialize: turns the JSON body of such a response into text.
        held: whether a client holds its connection until the attempt ends.
    """

    request: Request
    policy: Policy
    deadline: int
    execute: Callable[["Attempt"], Verdict]
    show: Show
    serialize: Serialize = plain_json
    held: bool = False

    @property
    def responds_late(self) -> bool:
        """Whether it is answered with 202 if its time does not suffice."""
        return self.held and self.policy.responds_late

    def judge(self, error: Exception) -> Verdict:
        """Decide how an attempt ends that raised this."""
        return Verdict.of_error(error, self.policy, self.show, self.serialize)


@dataclass
class _Step:
    """What this attempt knows of a step that it reached.

    Args:
        undo: how it is undone; None if there is nothing to undo.
        rows: the rows that it is, if it is a reservation.
        effect: whether it does anything elsewhere; a wait only looks, and a reservation is one write.
        open: whether its call has begun, and has come to no outcome.
        error: what its call raised instead.
    """

    undo: Callable[..., object] | None
    rows: Sequence[Row] = ()
    effect: bool = True
    open: bool = False
    error: Exception | None = None

    def undo_of(self, result: str | None) -> Callable[[], object] | None:
        """What undoes it, given its result as JSON text; None if that is not known, or there is nothing to undo.

        Returns:
            None if there is nothing to undo, or it cannot be done without the result.
        """
        undo = self.undo
        if undo is None:
            return None
        if result is not None and _accepts(undo, result):
            return lambda: undo(json.loads(result))
        return undo if _accepts(undo) else None


class Operation:
    """What business logic gets besides its request: steps that happen once, and the ids to derive from them.

    Between steps, code may depend only on the request and on the outcomes of earlier steps. Whatever may refuse, or
    looks at the world, is a step: then every attempt takes the same way, and finds the same steps to undo.

    Args:
        record: the record, claimed by this attempt.
        invocation: the invocation that carries it out.
        store: where checkpoints go.
        settings: the stack's choices.
        clock: the time.
    """

    def __init__(self, record: Record, invocation: Invocation, store: Store, settings: Settings, clock: Clock) -> None:
        self.request = invocation.request
        self._record = record
        self._invocation = invocation
        self._store = store
        self._settings = settings
        self._clock = clock
        self._results = dict(record.steps)
        self._refusals = dict(record.refused)
        self._waits = dict(record.waits)
        self._lease_until = record.lease_until
        self._kept = {*record.refused}
        self._steps: dict[str, _Step] = {}
        self._raised: list[Exception] = []
        self._running = 0
        self._closed = False
        self._lock = Lock()
        self._keeping = Lock()

    @property
    def id(self) -> str:
        """UUID of the operation: the same in every attempt, another for a key used again after its expiry."""
        return self._record.operation_id

    @property
    def attempt(self) -> int:
        """1 in the first attempt; beyond that, an earlier one may have had effects of which no checkpoint tells."""
        return self._record.attempt

    @property
    def principal(self) -> str:
        """On whose behalf the operation runs."""
        return self.request.principal

    def derived_id(self, name: str) -> str:
        """A UUID derived from the operation's, the same in every attempt (RFC 9562, version 5).

        A step of this name gets it as its key.
        """
        return str(uuid5(UUID(self.id), name))

    @overload
    def step(self, name: str, call: Callable[[str], T], undo: Callable[[T], object] | None = None) -> T: ...

    @overload
    def step(self, name: str, call: Callable[[str], T], undo: Callable[[], object]) -> T: ...

    def step(self, name: str, call: Callable[[str], T], undo: Callable[..., object] | None = None) -> T:
        """Do something once, whatever happens to this attempt.

            attempt 1   ── call ── checkpoint ── crash
            attempt 2   ── result of the checkpoint ── next step …

        An attempt cut off between the call and its checkpoint makes the next one call again, with the same key: send
        that downstream, as `Idempotency-Key` or client token. Steps may run at the same time in threads.

        A step has one outcome for all attempts: its result, or its refusal (`Rejected`), which a fallback may catch.
        Any other exception means that the outcome is not known: let it pass through, and the next attempt calls again.

        Args:
            name: what the step is called in the record; 1 to 100 characters, unique within the operation.
            call: does it, given the step's own key (a UUID, the same in every attempt), and returns what a later
                attempt needs to know: JSON, at most 16 KB, and 320 KB for all steps together, names included.
            undo: undoes the step if the operation fails for good later on; succeeds if it is already undone. It takes
                the result; or nothing, if it can do without: then it is also called if the step may have been done
                without anybody having seen its result. If it cannot, an operator is told of that.

        Returns:
            The result, as JSON gives it back.

        Raises:
            Rejected: if the call raised it, in this attempt or in an earlier one; always of this very class, since that
                is all that a later attempt can raise.
            Retry: if too little time is left to do it safely.
            StepError: if the name is used twice, or inside another step; if the call or the undo is no function; or if
                the operation is atomic.
            NotStorable: if the result cannot be kept.
        """
        for what, given in (("call", call), ("undo", undo)):
            if given is not None and not callable(given):
                kind = type(given).__name__
                raise StepError(f"the {what} of step {name!r} is a value ({kind}): write lambda …: before it")
        with self._inside(name, _Step(undo)) as step:
            self._once(name, step, partial(call, self.derived_id(name)))
        result: T = json.loads(self._results[name])
        return result

    def reserve(self, name: str, row: Row) -> None:
        """Insert a row ahead of the completion: a step that is one transaction with its checkpoint, and so is its undo.

        The row stays as it is, and need not be repeated at the completion; it goes if the operation fails for good.

        Args:
            name: what the step is called, see `step`.
            row: the row.

        Raises:
            Rejected: the row's conflict, if another operation holds its id.
            Retry, StepError: see `step`.
        """
        with self._inside(name, _Step(_nothing, rows=[row], effect=False)) as step:
            self._once(name, step, _nothing)

    def wait(
        self,
        name: str,
        check: Callable[[], T | None],
        *,
        every: int,
        at_most: int,
        undo: Callable[..., object] | None = None,
    ) -> T:
        """Wait for something elsewhere, such as a server that boots, without occupying a function: a step that looks.

            attempt 1   ── look ── look ── released, due in `every` seconds
            attempt 2   ── look ── checkpoint ── next step …

        While a client holds its connection, it looks as often as the time allows; then, and whenever the queue carries
        the operation on, the operation is released between two looks. That is no failure, and counts as none.

        Args:
            name: what the wait is called, see `step`.
            check: looks, and changes nothing; returns what came, or None if it has not come yet.
            every: seconds between two looks, at least 1.
            at_most: seconds from the first look, in whichever attempt, after which the operation is parked. A client's
                retry, or an operator's, then looks once more.
            undo: undoes what came if the operation fails for good later on, see `step`.

        Returns:
            What came, as JSON gives it back.

        Raises:
            Rejected: if `check` raised it: what it waits for will never come.
            Retry: if it has not come yet.
            StepError: if it would look without a pause; and see `step`.
            NotStorable: see `step`.
        """
        if every < 1:
            raise StepError(f"wait {name!r} cannot look every {every} s: once a second is the most")
        with self._inside(name, _Step(undo, effect=False)) as step:
            self._once(name, step, partial(self._look, name, check, every, at_most))
        result: T = json.loads(self._results[name])
        return result

    def ensure_time(self) -> None:
        """Refuse to start what the Lambda deadline could cut off in the middle.

        Raises:
            Retry: if less time is left than a step needs.
        """
        if not self._has_time(until=self._invocation.deadline):
            raise OutOfTime("Too little time is left; the next attempt carries on from here.")

    def _has_time(self, *, until: int, after: int = 0) -> bool:
        """Whether there is time for a step, so many milliseconds from now."""
        return until - self._clock.now() - after >= self._settings.time_for_a_step * 1000

    def _look(self, name: str, check: Callable[[], T | None], every: int, at_most: int) -> T:
        """Look until what is waited for has come, or it is better to look again in another attempt."""
        with self._lock:
            over = self._waits.setdefault(name, self._clock.now()) + at_most * 1000
        while (found := check()) is None:
            left = over - self._clock.now()
            if left <= 0:
                raise WaitOver(f"{name!r} has not come within {at_most} s.")
            pause = min(every * 1000, left)
            if not (self._invocation.held and self._has_time(until=self._alone_until, after=pause * 5 // 4)):
                raise Waiting(f"{name!r} has not come yet.", ceil(pause / 1000))
            self._clock.sleep(pause)
        return found

    @property
    def _alone_until(self) -> int:
        """Epoch milliseconds until which nobody takes the operation over, and this attempt is not cut off."""
        return self._lease_until - self._settings.clock_skew * 1000

    @contextmanager
    def _inside(self, name: str, step: _Step) -> Iterator[_Step]:
        outer = _current_step.get()
        if outer and outer[0] is self:
            raise StepError(f"step {name!r} is inside step {outer[1]!r}")
        if self._invocation.policy.atomic:
            raise StepError(f"step {name!r} is in an atomic operation, which keeps nothing before its rows")
        if not 0 < len(name) <= _NAME_LIMIT or name.startswith(_UNDO) or not name.isprintable():
            raise StepError(f"{name!r} cannot be the name of a step")
        with self._lock:
            if name in self._steps:
                raise StepError(f"step {name!r} occurs twice")
            if self._closed:
                raise StepError(f"step {name!r} begins after its operation has ended")
            self._steps[name] = step
            self._running += 1
        inside = _current_step.set((self, name))
        try:
            yield step
        finally:
            _current_step.reset(inside)
            with self._lock:
                self._running -= 1

    def _once(self, name: str, step: _Step, call: Callable[[], Any]) -> None:
        """Give a step its outcome, unless it has one."""
        if name in self._results:
            return
        if name in self._refusals:
            raise self._refusal(name)
        if self._record.failure is not None:
            raise Undoing(name)
        self.ensure_time()
        self._open(name, step)
        try:
            self._checkpointed(name, call, inserted=step.rows)
            step.open = False
        except RowTaken as taken:
            if taken.row.conflict is None:
                raise
            raise self._refused(name, step, taken.row.conflict) from None
        except Rejected as refusal:
            raise self._refused(name, step, refusal) from refusal
        except Exception as error:
            step.error = error
            self._raised.append(error)
            raise

    def _open(self, name: str, step: _Step) -> None:
        """See that there is room for a step's outcome, and time, and that no attempt loses sight of the way to it."""
        with self._lock:
            if self._room_taken(name) > _OUTCOMES_LIMIT:
                raise NotStorable(f"there is no room left for the result of step {name!r}")
            step.open = True
        try:
            self._keep_outcomes()
            self.ensure_time()  # again: that may have taken long
        except Exception:
            step.open = False  # nobody has called it
            raise

    def _keep_outcomes(self) -> None:
        # One thread at a time: none goes on before it is written, and no write is overtaken by an older one.
        with self._keeping:
            with self._lock:
                failed = self._refusals.keys() | {each for each, other in self._steps.items() if other.error}
                known = None if failed <= self._kept else self._known()
            if known is not None:
                # After a failure that was caught, another attempt may take another way, unless it knows of this one.
                self._store.keep_outcomes(known)
                self._kept = failed

    def _room_taken(self, next_: str) -> int:
        """Bytes that the outcomes of steps take in the record, each at its largest while it is not known."""
        outcomes = self._results | self._refusals
        names = (
            outcomes.keys() | {next_, *self._record.begun} | {name for name, step in self._steps.items() if step.open}
        )
        return sum(len(outcomes[name]) if name in outcomes else _RESULT_LIMIT for name in names) + sum(
            _NAMES * len(name.encode()) + _OVERHEAD for name in names
        )

    def _refused(self, name: str, step: _Step, refusal: Rejected) -> Rejected:
        with self._lock:
            self._refusals[name] = refusal.pack()
            step.open = False
        return self._refusal(name)

    def _refusal(self, name: str) -> Rejected:
        """The refusal of a step, as every attempt gets it."""
        refusal = Rejected.unpack(self._refusals[name])
        self._raised.append(refusal)
        return refusal

    def _known(self, refusal: Exception | None = None) -> Record:
        """The record, with what this attempt knows of the outcomes of steps besides their results."""
        begun = sorted(self._possibly_done(refusal))
        return self._record._replace(refused=dict(self._refusals), begun=begun, waits=dict(self._waits))

    def _possibly_done(self, refusal: Exception | None = None) -> set[str]:
        """The steps that somebody may have done, though their results are not known.

        Args:
            refusal: the exception that is the operation's final refusal, and so the outcome of the step that raised it.
        """
        here = {name for name, step in self._steps.items() if self._may_be_done(name, step, refusal)}
        return here | {name for name in self._record.begun if name not in self._results}

    def _may_be_done(self, name: str, step: _Step, refusal: Exception | None) -> bool:
        if name in self._results or name in self._record.refused or self._record.failure is not None:
            return False
        refused_here = step.error is not None and step.error is refusal
        return step.effect and (self._record.cut_off > 0 or (step.open and not refused_here))

    def _checkpointed(self, name: str, call: Callable[[], Any], **rows: Sequence[Row]) -> None:
        result = _as_json(name, self._call(name, call))
        lease_until = self._settings.lease_until(self._clock.now(), self._invocation.deadline, self._invocation.policy)
        self._store.checkpoint(self._record, name, result, lease_until, **rows)
        with self._lock:
            self._results[name] = result
            self._lease_until = lease_until

    def _call(self, name: str, call: Callable[[], Any]) -> Any:  # noqa: ARG002 - see there
        """Do what a step or an undo does: the point at which `idempotency.testing` makes it fail."""
        return call()


class Attempt(Operation):
    """The engine's half of an operation: how it ends."""

    @property
    def record(self) -> Record:
        """The record as this attempt last wrote it."""
        return self._record

    @property
    def progressed(self) -> bool:
        """Whether it got further than the attempts before it: a step more is done, or undone."""
        return len(self._results) > len(self._record.steps)

    @property
    def known(self) -> Record:
        """The record, with all that this attempt knows of outcomes."""
        with self._lock:  # a step that does not end may still run in another thread
            return self._known()

    @property
    def failed(self) -> bool:
        """Whether the operation has failed for good, and only undoing is left to do."""
        return self._record.failure is not None

    @property
    def failure(self) -> StoredResponse:
        """The response of a failed operation."""
        failure = self._record.failure or {}
        return StoredResponse.unpack(failure, failure["body"])

    def close(self) -> None:
        """Let no further step begin, and wait for those that other threads are in.

        Raises:
            Retry: if they do not end in time.
        """
        with self._lock:
            self._closed = True
        until = self._invocation.deadline - _TIME_TO_RELEASE
        while self._running and self._clock.now() < until:
            self._clock.sleep(_LOOK_AGAIN)
        if self._running:
            raise Retry("A step is still running in another thread.")

    def ensure_reached(self) -> None:
        """See that this attempt can undo whatever earlier ones did: it has reached each step that they began.

        Raises:
            Retry: if it has not. Nothing is decided then, and a later attempt may still go forward.
        """
        if unreached := self._unreached():
            raise Retry(
                f"This attempt ended before it reached {', '.join(unreached)}, which an earlier one began: "
                "whatever may refuse, or looks at the world, must be a step of its own."
            )

    def undo(self, verdict: Verdict) -> StoredResponse:
        """Undo what was done, or may have been done, the latest first, each once.

        The decision to fail is kept before anything is undone: no later attempt goes forward again.

        Args:
            verdict: why it fails, unless an earlier attempt has decided on that.

        Returns:
            The response that was decided on.

        Raises:
            Retry: if an undo fails, or time runs out.
        """
        possibly_done = self._possibly_done(verdict.refusal)
        undos = {
            name: undo
            for name, step in self._steps.items()
            if (name in self._results or name in possibly_done) and (undo := step.undo_of(self._results.get(name)))
        }
        if not undos and not self.failed:
            return verdict.response
        if not self.failed:
            self._record = self._store.fail(self._known(verdict.refusal), verdict.response.shortened())
        for name, undo in reversed(undos.items()):
            self._undo(name, undo, self._steps[name].rows)
        return self.failure

    def doubts(self, verdict: Verdict) -> list[str]:
        """What an operator should look at when the operation ends like this: effects that may be left behind."""
        possibly_done, unreached = self._possibly_done(verdict.refusal), self._unreached()
        if not self.failed and verdict.end is not End.FAIL:
            left = sorted(possibly_done.union(unreached))
            return [f"step {name!r} may have been done, but is no part of what was completed" for name in left]
        if unreached:
            return [f"step {name!r} was begun, and no attempt that failed has reached it since" for name in unreached]
        if self.failed:
            return []  # it was told before that was decided
        found = [
            f"step {name!r} may have been done, and cannot be undone without its result"
            for name in sorted(possibly_done)
            if self._steps[name].undo and not self._steps[name].undo_of(None)
        ]
        if self._record.cut_off and self._refused_between_steps(verdict):
            found.append("an earlier attempt was cut off, perhaps in a step that this one did not reach")
        return found

    def _undo(self, name: str, undo: Callable[[], object], rows: Sequence[Row]) -> None:
        if _UNDO + name in self._results:
            return
        self.ensure_time()
        try:
            self._checkpointed(_UNDO + name, partial(_discard, undo), deleted=rows)
        except Exception as error:
            pause = getattr(error, "retry_after", None)
            kind = Retry if isinstance(error, Problem) else UndoFailed
            raise kind(f"Cannot undo step {name!r}: {error!r}", pause or 1) from error

    def _unreached(self) -> list[str]:
        """The steps that earlier attempts did, or may have done, and that this one did not come to."""
        done = {name for name in self._record.steps if not name.startswith(_UNDO)}
        return sorted({*done, *self._record.begun} - self._steps.keys())

    def _refused_between_steps(self, verdict: Verdict) -> bool:
        """Whether the refusal is no step's, and the business logic had not come to its end either."""
        if isinstance(verdict.cause, RowTaken):
            return False
        error: BaseException | None = verdict.cause
        while error is not None:
            if error in self._raised:
                return False
            error = error.__cause__ or error.__context__
        return True


def _accepts(undo: Callable[..., object], *arguments: object) -> bool:
    try:
        inspect.signature(undo).bind(*arguments)
    except ValueError:  # a built-in that does not tell
        return bool(arguments)
    except TypeError:
        return False
    return True


def _discard(undo: Callable[[], object]) -> None:
    """What an undo returns is not worth keeping."""
    undo()


def _nothing() -> None:
    """A reservation does nothing besides its rows."""


def _as_json(name: str, result: Any) -> str:
    try:
        text = json.dumps(result, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotStorable(f"the result of step {name!r} is not JSON: {error}") from error
    if len(text) > _RESULT_LIMIT:
        raise NotStorable(f"the result of step {name!r} has {len(text)} characters; at most {_RESULT_LIMIT} are kept")
    return text
