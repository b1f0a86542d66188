"""The life of a key: claim, execute, complete or release; replay, hold or refuse its duplicates.

no record ──claim──► PROCESSING ──complete──► COMPLETED ──ttl──► (absent)
                      ▲      │
         claim: lease │      │ release: retryable failure
         lapsed, or   │      ▼
         released     └── RELEASED
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from math import ceil
from typing import Any, Self
from uuid import uuid4

from aws_lambda_powertools.event_handler import Response
from cachetools import LRUCache

from idempotency.clock import Clock
from idempotency.key import record_id
from idempotency.operation import Operation, Undoing, lease_until
from idempotency.policy import KEPT_HEADERS, Policy
from idempotency.problems import Problem, Retryable, as_problem
from idempotency.record import PARKED_UNTIL, Record
from idempotency.request import Request
from idempotency.response import Completion, NotStorable, Row, RowTaken, StoredResponse
from idempotency.signals import Outcome, Signals
from idempotency.store import Fenced, Store, Unavailable

# Milliseconds between two looks at a record: most operations end within the first few.
_HOLD_PAUSES = (100, 160, 260, 410, 650)
_LONGEST_HOLD_PAUSE = 1_000
# Milliseconds that a held request keeps for its answer.
_TIME_TO_ANSWER = 1_000
# Seconds between two attempts of recovery at most.
_LONGEST_RECOVERY_PAUSE = 900
_CACHE_ENTRY_OVERHEAD = 1_024
_ERROR_LIMIT = 500


@dataclass(frozen=True)
class Result:
    """What an attempt came to.

    Args:
        response: the response.
        rows: business rows to be written with it.
        error: why it failed, for the record; empty if only the response says so.
        final: whether it is the operation's last word; None: as the route's policy says of its status.
    """

    response: StoredResponse
    rows: Sequence[Row] = ()
    error: str = ""
    final: bool | None = None

    @classmethod
    def of(cls, response: Response[Any], policy: Policy) -> Self:
        """Take what is kept of a route's response.

        What cannot be kept has happened all the same: the operation ends with an answer that says so, and never runs
        again.
        """
        rows = response.rows if isinstance(response, Completion) else ()
        try:
            return cls(StoredResponse.of(response, policy.keep_headers), rows)
        except NotStorable as error:
            problem = Problem("response-not-stored", f"The request was carried out, but {error}.")
            return cls(StoredResponse.of(problem.response(), KEPT_HEADERS), rows, str(error), final=True)


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Args:
        response: the response.
        replayed: whether an earlier request ran it.
        held: milliseconds for which the request was held.
    """

    response: StoredResponse
    replayed: bool = False
    held: int = 0


Execute = Callable[[Operation], Result]


class Lifecycle:
    """Runs each key's operation once.

    Args:
        store: the records.
        signals: where outcomes are counted.
        clock: the time.
        cache_bytes: memory for completed records, so that a warm function replays without DynamoDB; 0 for none.
            A completed record never changes until it expires, so the cache is never wrong.
    """

    def __init__(self, store: Store, signals: Signals, *, clock: Clock, cache_bytes: int = 0) -> None:
        self.store = store
        self._signals = signals
        self.clock = clock
        self._cache: LRUCache[str, tuple[Record, StoredResponse]] = LRUCache(
            cache_bytes, getsizeof=lambda entry: len(entry[1].body) + _CACHE_ENTRY_OVERHEAD
        )

    def run(self, request: Request, key: str, policy: Policy, deadline: int, execute: Execute, wait: int = 0) -> Reply:
        """Answer a request: run its operation, or find out that somebody did, or does.

        First request: 2 writes. Replay: 1 failed write, or nothing from the cache.

        Args:
            request: the request, valid and authorised.
            key: its idempotency key.
            policy: the route's policy.
            deadline: epoch milliseconds at which this invocation is cut off.
            execute: the business logic.
            wait: seconds for which to hold a duplicate while the operation runs.

        Raises:
            Problem: ``in-progress`` (409), ``key-reused`` (422) or ``unavailable`` (503).
        """
        started = self.clock.now()
        hold_until = min(started + min(wait, policy.hold_limit) * 1000, deadline - _TIME_TO_ANSWER)
        id_ = record_id(request.principal, request.method, request.route, key)
        owner = str(uuid4())
        pauses = chain(_HOLD_PAUSES, repeat(_LONGEST_HOLD_PAUSE))
        held = 0

        def claim() -> Record:
            return self._claim(id_, owner, request, policy, deadline)

        record = self._cached(id_) or claim()
        while record.owner != owner:
            now = self.clock.now()
            if record.expired(now):
                record = claim()
            elif record.fingerprint != request.fingerprint:
                self._signals.emit(Outcome.KEY_REUSED, record)
                raise Problem("key-reused", "Use a new Idempotency-Key for a new request.")
            elif record.completed:
                return self._replay(record, held)
            elif record.claimable(now):
                record = claim()
            else:
                self._pause(record, hold_until, next(pauses), held)
                held = self.clock.now() - started
                record = self.store.get(id_) or claim()
        self._count_hold(record, held)
        return self.perform(record, request, policy, deadline, execute)

    def perform(self, record: Record, request: Request, policy: Policy, deadline: int, execute: Execute) -> Reply:
        """Carry out the operation whose record the caller has claimed; see `run`."""
        if record.attempt > 1:
            renewed = record.created_at == record.claimed_at
            self._signals.emit(Outcome.EXPIRED if renewed else Outcome.TAKEN_OVER, record)
        operation = Operation(record, request, policy, deadline, self.store, self.clock)
        try:
            return self._settle(operation, self._attempt(operation, execute), policy)
        except Fenced as fenced:
            winner = fenced.record or record
            if winner.completed and winner.owner == record.owner:
                return self._executed(winner, self.store.response(winner))  # only the acknowledgement was lost
            self._signals.emit(Outcome.FENCED, record)
            if winner.completed and winner.fingerprint == request.fingerprint:
                return self._replay(winner)
            raise self._in_progress(winner) from None

    def resume(self, id_: str, policy: Policy, deadline: int) -> Record | None:
        """Claim an abandoned operation for recovery: 1 write. None if it is not due any more, or parked now.

        An operation that kills whoever attempts it never gets to release itself: it is parked here.
        """
        now = self.clock.now()
        record = self.store.resume(self._candidate(id_, str(uuid4()), policy, now, deadline), now)
        if record is None or record.recoveries <= policy.max_recoveries:
            return record
        self._signals.emit(Outcome.PARKED, record)
        self.store.release(record, due=PARKED_UNTIL, error=record.last_error or "every attempt was cut off")
        return None

    def _claim(self, id_: str, owner: str, request: Request, policy: Policy, deadline: int) -> Record:
        now = self.clock.now()
        if deadline - now < policy.guard * 1000:
            raise Retryable("Too little time is left to begin.")
        candidate = self._candidate(id_, owner, policy, now, deadline)
        packed = request.pack() if policy.recoverable else None
        return self.store.claim(replace(candidate, fingerprint=request.fingerprint, request=packed), now)

    def _candidate(self, id_: str, owner: str, policy: Policy, now: int, deadline: int) -> Record:
        return Record(
            id=id_,
            owner=owner,
            lease_until=lease_until(now, deadline, policy),
            expires_at=now // 1000 + max(policy.abandoned_ttl, policy.ttl),
            claimed_at=now,
            created_at=now,
            fingerprint="",
            operation_id=str(uuid4()),
        )

    def _pause(self, record: Record, hold_until: int, pause: int, held: int) -> None:
        now = self.clock.now()
        if now >= hold_until:
            self._count_hold(record, held)
            self._signals.emit(Outcome.IN_PROGRESS, record)
            raise self._in_progress(record)
        self.clock.sleep(min(pause, hold_until - now, record.lease_until + 1 - now))

    def _count_hold(self, record: Record, held: int) -> None:
        if held:
            self._signals.emit(Outcome.HELD, record, milliseconds=held)

    def _in_progress(self, record: Record) -> Problem:
        """Ask to retry after as long as the attempt has run already, but not beyond its lease."""
        now = self.clock.now()
        seconds = ceil(min(now - record.claimed_at, record.lease_until - now) / 1000)
        return Problem("in-progress", "The first request has not finished yet.", retry_after=max(1, seconds))

    def _attempt(self, operation: Operation, execute: Execute) -> Result:
        try:
            return execute(operation)
        except Undoing:
            return Result(operation.failure)
        except Exception as error:  # noqa: BLE001 - business logic may raise anything
            return self._failure(error)

    def _settle(self, operation: Operation, result: Result, policy: Policy) -> Reply:
        """Complete the operation, or release it for a retry; undo its steps first if it fails for good."""
        final = policy.stores(result.response.status) if result.final is None else result.final
        failed = final and result.final is None and result.response.status >= 400
        try:
            if failed or operation.failed:
                result = Result(operation.undo(result.response))
            elif not final:
                return self._release(operation, result, policy)
            return self._complete(operation, result, policy)
        except RowTaken as taken:
            return self._settle(operation, self._failure(taken), policy)
        except Exception as error:  # noqa: BLE001 - so may its undoing
            return self._release(operation, self._failure(error), policy)

    def _complete(self, operation: Operation, result: Result, policy: Policy) -> Reply:
        expires_at = self.clock.now() // 1000 + policy.ttl
        record = self.store.complete(operation.record, result.response, expires_at_seconds=expires_at, rows=result.rows)
        return self._executed(record, result.response)

    def _executed(self, record: Record, response: StoredResponse) -> Reply:
        self._signals.emit(Outcome.EXECUTED, record)
        self._remember(record, response)
        return Reply(response)

    def _release(self, operation: Operation, result: Result, policy: Policy) -> Reply:
        record = operation.record
        asked = result.response.header("retry-after")
        backoff = min(2**record.recoveries, _LONGEST_RECOVERY_PAUSE)
        pause = max(backoff, int(asked) if asked.isdecimal() else 0)
        parked = record.recoveries >= policy.max_recoveries
        due = PARKED_UNTIL if parked else self.clock.now() + pause * 1000
        try:
            self.store.release(record, due=due, error=result.error or f"HTTP {result.response.status}")
        except Unavailable as error:
            # Nothing is lost: the lease lapses instead.
            self._signals.error(error)
        self._signals.emit(Outcome.PARKED if parked else Outcome.RELEASED, record)
        added = {} if asked else {"Retry-After": [str(pause)]}
        return Reply(replace(result.response, headers={**result.response.headers, **added}))

    def _failure(self, error: Exception) -> Result:
        if isinstance(error, RowTaken):
            error = error.row.conflict or error
        problem = as_problem(error)
        if problem.slug == "internal-error":
            self._signals.error(error)
        response = StoredResponse.of(problem.response(), KEPT_HEADERS)
        text = f"{type(error).__name__}: {error}"[:_ERROR_LIMIT]
        return Result(response, error=text, final=False if isinstance(error, Retryable) else None)

    def _replay(self, record: Record, held: int = 0) -> Reply:
        entry = self._cache.get(record.id)
        if entry and entry[0] is record:
            response, outcome = entry[1], Outcome.REPLAYED_FROM_CACHE
        else:
            response, outcome = self.store.response(record), Outcome.REPLAYED_FROM_TABLE
            self._remember(record, response)
        self._count_hold(record, held)
        self._signals.emit(outcome, record)
        return Reply(response, replayed=True, held=held)

    def _cached(self, id_: str) -> Record | None:
        record, _ = self._cache.get(id_, (None, None))
        return record

    def _remember(self, record: Record, response: StoredResponse) -> None:
        with suppress(ValueError):  # larger than the whole cache
            self._cache[record.id] = (record, response)
