"""One attempt to carry an operation out: its steps, their checkpoints, and how they are undone."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid5

from idempotency.clock import Clock
from idempotency.errors import Problem, Retry, RowTaken, StepError, Undoing
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request
from idempotency.response import Row, Show, StoredResponse, Verdict
from idempotency.store import Store

T = TypeVar("T")

_UNDO = "undo "
_RESULT_LIMIT = 16_000
_NAME_LIMIT = 100


@dataclass(frozen=True)
class Invocation:
    """One invocation of a route, by its client or by recovery.

    Args:
        request: the request, valid and authorised.
        policy: the route's choices.
        deadline: epoch milliseconds at which the invocation is cut off.
        execute: the business logic, and what it returned.
        show: turns an exception of the business logic into its response.
    """

    request: Request
    policy: Policy
    deadline: int
    execute: Callable[["Attempt"], Verdict]
    show: Show

    def judge(self, error: Exception) -> Verdict:
        """Decide how an attempt ends that raised this."""
        return Verdict.of_error(error, self.policy, self.show)


class Operation:
    """What business logic gets beside its request: steps that happen once, and the ids to derive from them.

    Between steps, code may depend only on the request and on the results of earlier steps. Whatever may refuse, or
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
        self._undos: list[tuple[str, Callable[[], object], Sequence[Row]]] = []
        self._visited: set[str] = set()
        self._visiting = threading.Lock()
        self._thread = threading.local()

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

    def step(self, name: str, call: Callable[[str], T], undo: Callable[[T], object] | None = None) -> T:
        """Do something once, whatever happens to this attempt.

            attempt 1   ── call ── checkpoint ── crash
            attempt 2   ── result of the checkpoint ── next step …

        An attempt cut off between the call and its checkpoint makes the next one call again, with the same key: send
        that downstream, as `Idempotency-Key` or client token. Steps may run at the same time in threads.

        Args:
            name: what the step is called in the record; 1 to 100 characters, unique within the operation.
            call: does it, given the step's own key (a UUID, the same in every attempt), and returns what a later
                attempt needs to know: JSON, at most 16 KB.
            undo: takes the result, and undoes the step if the operation fails for good later on.

        Returns:
            The result, as JSON gives it back.

        Raises:
            Retry: if too little time is left to do it safely.
            StepError: if the name is used twice, inside another step, or the result cannot be kept.
        """
        with self._inside(name):
            result: T = self._once(name, lambda: call(self.derived_id(name)))
        if undo is not None:
            self._undos.append((name, lambda: _discard(undo(result)), ()))
        return result

    def reserve(self, name: str, row: Row) -> None:
        """Insert a row ahead of the completion: a step that is one transaction with its checkpoint, and so is its undo.

        The row stays as it is, and need not be repeated at the completion; it goes if the operation fails for good.

        Args:
            name: what the step is called, see `step`.
            row: the row; if another operation holds its id, its conflict is this operation's response.

        Raises:
            Retry, StepError: see `step`.
        """
        with self._inside(name):
            self._once(name, _nothing, inserted=[row])
        self._undos.append((name, _nothing, [row]))

    def ensure_time(self) -> None:
        """Refuse to start what the Lambda deadline could cut off in the middle.

        Raises:
            Retry: if less time is left than a step needs.
        """
        if self._invocation.deadline - self._clock.now() < self._settings.time_for_a_step * 1000:
            raise Retry("Too little time is left; the next attempt carries on from here.")

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        outer = getattr(self._thread, "step", None)
        if outer is not None:
            raise StepError(f"step {name!r} is inside step {outer!r}")
        if not 0 < len(name) <= _NAME_LIMIT or name.startswith(_UNDO):
            raise StepError(f"{name!r} cannot be the name of a step")
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
        if self._record.failure is not None and name not in self._results:
            raise Undoing(name)
        return self._checkpointed(name, call, **rows)

    def _checkpointed(self, name: str, call: Callable[[], Any], **rows: Sequence[Row]) -> Any:
        if name not in self._results:
            self.ensure_time()
            result = _as_json(name, self._call(name, call))
            lease_until = self._settings.lease_until(
                self._clock.now(), self._invocation.deadline, self._invocation.policy
            )
            self._store.checkpoint(self._record, name, result, lease_until, **rows)
            self._results[name] = result
        return json.loads(self._results[name])

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
    def failed(self) -> bool:
        """Whether the operation has failed for good, and only undoing is left to do."""
        return self._record.failure is not None

    @property
    def failure(self) -> StoredResponse:
        """The response of a failed operation."""
        failure = self._record.failure or {}
        return StoredResponse.unpack(failure, failure["body"])

    def undo(self, response: StoredResponse) -> StoredResponse:
        """Undo what was done, the latest first, each once.

        The decision to fail is kept before anything is undone: the next attempt cannot go forward again.

        Args:
            response: the response of the failure, unless an earlier attempt has decided on one.

        Returns:
            The response that was decided on.

        Raises:
            Retry: if an undo fails, a step does not say in this attempt how it is undone, or time runs out.
        """
        if not self._undos and not self.failed:
            return response
        if not self.failed:
            self._record = self._store.fail(self._record, response)
        done = {name for name in self._results if not name.startswith(_UNDO)}
        if missing := done - self._visited:
            raise Retry(f"Cannot undo {', '.join(sorted(missing))}: not reached in this attempt.")
        for name, undo, rows in reversed(self._undos):
            try:
                self._checkpointed(_UNDO + name, undo, deleted=rows)
            except (Problem, RowTaken) as error:
                pause = getattr(error, "retry_after", None)
                raise Retry(f"Cannot undo {name}: {error}", pause or 1) from error
        return self.failure


def _discard(_: object) -> None:
    """What an undo returns is not worth keeping."""


def _nothing() -> None:
    """A reservation does nothing besides its rows."""


def _as_json(name: str, result: Any) -> str:
    try:
        text = json.dumps(result, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StepError(f"the result of step {name!r} is not JSON: {error}") from error
    if len(text) > _RESULT_LIMIT:
        raise StepError(f"the result of step {name!r} has {len(text)} characters; at most {_RESULT_LIMIT} are kept")
    return text
