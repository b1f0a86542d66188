"""One attempt to carry an operation out: its steps, their checkpoints, and how they are undone."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid5

from idempotency.clock import Clock
from idempotency.policy import Policy
from idempotency.problems import Problem, Retryable
from idempotency.record import Record
from idempotency.request import Request
from idempotency.response import Row, RowTaken, StoredResponse
from idempotency.store import Store

T = TypeVar("T")

_UNDO = "undo "
_RESULT_LIMIT = 16_000
_NAME_LIMIT = 100


class StepError(Exception):
    """A step is declared wrongly: a mistake in the code, not in the request."""


class Undoing(BaseException):
    """The operation has failed for good, and this step was never done: go no further, undo those that were.

    Not an Exception, so that business logic that catches everything does not go on by mistake.
    """


def lease_until(now: int, deadline: int, policy: Policy) -> int:
    """When others may take over (all in epoch milliseconds): the attempt's deadline, or sooner if the route says so."""
    end = deadline if policy.lease is None else min(deadline, now + policy.lease * 1000)
    return end + policy.clock_skew * 1000


class Operation:
    """What business logic gets: the request, its steps, and the keys to send downstream.

    Args:
        record: the record, claimed by this attempt.
        request: the request.
        policy: the route's policy.
        deadline: epoch milliseconds at which this attempt is cut off.
        store: where checkpoints go.
        clock: the time.
    """

    def __init__(
        self, record: Record, request: Request, policy: Policy, deadline: int, store: Store, clock: Clock
    ) -> None:
        self.record = record
        self.request = request
        self._policy = policy
        self._deadline = deadline
        self._store = store
        self._clock = clock
        self._results = dict(record.steps)
        self._undos: list[tuple[str, Callable[[], object], Sequence[Row]]] = []
        self._visited: set[str] = set()
        self._visiting = threading.Lock()
        self._thread = threading.local()

    @property
    def id(self) -> str:
        """UUID of the operation: the same in every attempt, another for a key used again after its expiry."""
        return self.record.operation_id

    @property
    def attempt(self) -> int:
        """1 in the first attempt; beyond that, an earlier one may have had effects that no checkpoint tells of."""
        return self.record.attempt

    @property
    def principal(self) -> str:
        """On whose behalf the operation runs."""
        return self.request.principal

    def key(self, name: str) -> str:
        """The idempotency key of a step, to be sent downstream: a UUID derived from the operation's (RFC 9562, v5)."""
        return str(uuid5(UUID(self.id), name))

    def step(self, name: str, call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Do something once, whatever happens to this attempt.

            attempt 1   ── call ── checkpoint ── crash
            attempt 2   ── result of the checkpoint ── next step …

        An attempt cut off between the call and its checkpoint makes the next one call again: send `key(name)`
        downstream. Steps may run at the same time in threads.

        Args:
            name: what the step is called in the record; 1 to 100 characters, once an operation.
            call: does it, and returns what a later attempt needs to know: JSON, at most 16 KB.
            undo: takes the result, and undoes the step if the operation fails for good later on.

        Returns:
            The result, as JSON gives it back.

        Raises:
            Retryable: if too little time is left to do it safely.
            StepError: if the name is used twice, inside another step, or the result cannot be kept.
        """
        with self._inside(name):
            result: T = self._once(name, call)
        if undo is not None:
            self._undos.append((name, lambda: _discard(undo(result)), ()))
        return result

    def reserve(self, name: str, row: Row) -> None:
        """Insert a row ahead of the completion: a step that is one transaction with its checkpoint, and so is its undo.

        Args:
            name: what the step is called, see `step`.
            row: the row; if another operation holds its id, its conflict is this operation's response.

        Raises:
            Retryable, StepError: see `step`.
        """
        with self._inside(name):
            self._once(name, _nothing, inserted=[row])
        self._undos.append((name, _nothing, [row]))

    @property
    def failed(self) -> bool:
        """Whether the operation has failed for good, and only undoing is left to do."""
        return self.record.failure is not None

    @property
    def failure(self) -> StoredResponse:
        """The response of a failed operation."""
        failure = self.record.failure or {}
        return StoredResponse.unpack(failure, failure["body"])

    def undo(self, response: StoredResponse) -> StoredResponse:
        """Undo what was done, the latest first, each once.

        The decision to fail is kept before anything is undone: the next attempt cannot go forward again.

        Args:
            response: the response of the failure, unless an earlier attempt has decided on one.

        Returns:
            The response that was decided on.

        Raises:
            Retryable: if an undo fails, a step does not say in this attempt how it is undone, or time runs out.
        """
        if not self._undos and not self.failed:
            return response
        if not self.failed:
            self.record = self._store.fail(self.record, response)
        done = {name for name in self._results if not name.startswith(_UNDO)}
        if missing := done - self._visited:
            raise Retryable(f"Cannot undo {', '.join(sorted(missing))}: not reached in this attempt.")
        for name, undo, rows in reversed(self._undos):
            try:
                self._checkpointed(_UNDO + name, undo, deleted=rows)
            except (Problem, RowTaken) as error:
                pause = getattr(error, "retry_after", None)
                raise Retryable(f"Cannot undo {name}: {error}", pause or 1) from error
        return self.failure

    def ensure_time(self) -> None:
        """Refuse to start what the Lambda deadline could cut off in the middle.

        Raises:
            Retryable: if less time is left than the policy's guard.
        """
        if self._deadline - self._clock.now() < self._policy.guard * 1000:
            raise Retryable("Too little time is left; the next attempt goes on from here.")

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        outer = getattr(self._thread, "step", None)
        if outer is not None:
            raise StepError(f"step {name!r} is inside step {outer!r}")
        if not 0 < len(name) <= _NAME_LIMIT or name.startswith(_UNDO):
            raise StepError(f"{name!r} is no name for a step")
        with self._visiting:
            if name in self._visited:
                raise StepError(f"step {name!r} occurs twice")
            self._visited.add(name)
        self._thread.step = name
        try:
            yield
        finally:
            self._thread.step = None

    def _once(self, name: str, call: Callable[[], Any], **rows: Sequence[Row]) -> Any:
        if self.failed and name not in self._results:
            raise Undoing
        return self._checkpointed(name, call, **rows)

    def _checkpointed(self, name: str, call: Callable[[], Any], **rows: Sequence[Row]) -> Any:
        if name not in self._results:
            self.ensure_time()
            result = _as_json(name, call())
            end = lease_until(self._clock.now(), self._deadline, self._policy)
            self._store.checkpoint(self.record, name, result, end, **rows)
            self._results[name] = result
        return json.loads(self._results[name])


def _discard(_: object) -> None:
    """What an undo returns is not worth keeping."""


def _nothing() -> None:
    """What a reservation does beside its rows."""


def _as_json(name: str, result: Any) -> str:
    try:
        text = json.dumps(result, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StepError(f"the result of step {name!r} is not JSON: {error}") from error
    if len(text) > _RESULT_LIMIT:
        raise StepError(f"the result of step {name!r} has {len(text)} characters; at most {_RESULT_LIMIT} are kept")
    return text
