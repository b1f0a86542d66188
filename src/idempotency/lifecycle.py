"""The life of a key: claim, execute, complete or release; replay, refuse or delay its duplicates.

no record ──claim──► PROCESSING ──complete──► COMPLETED ──ttl──► (absent)
                      ▲      │
         claim: lease │      │ release: retryable failure
         lapsed, or   │      ▼
         released     └── RELEASED
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import uuid4

from aws_lambda_powertools.event_handler import Response
from cachetools import LRUCache

from idempotency.clock import Clock
from idempotency.errors import (
    Fenced,
    NotStorable,
    OutOfTime,
    Problem,
    Retry,
    RowTaken,
    Unavailable,
    UndoFailed,
    Undoing,
    Waiting,
    WaitOver,
)
from idempotency.operation import Attempt, Invocation
from idempotency.policy import Policy, Settings
from idempotency.progress import accepted, seconds_left
from idempotency.queue import LONGEST_DELAY, Queue
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.request import Request, record_id
from idempotency.response import End, StoredResponse, Verdict
from idempotency.store import Store
from idempotency.telemetry import Outcome, Telemetry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

# Milliseconds between two looks at a record: most operations end within the first few.
_WAIT_PAUSES = (100, 160, 260, 410, 650)
_LONGEST_WAIT_PAUSE = 1_000
# Milliseconds that a waiting request keeps for its answer.
_TIME_TO_ANSWER = 1_000
# Seconds between two attempts of recovery at most.
_LONGEST_RECOVERY_PAUSE = 900
# Milliseconds by which a worker may get a message early.
_EARLY = 1_000
# Milliseconds that the sweep keeps for a page of the index and a batch of messages.
_TIME_TO_SWEEP = 3_000
# Beyond a century, nobody means a number of seconds.
_DIGITS_OF_A_PAUSE = 10
# Bytes of memory that a completed record takes, and each value of a header, beside what they say (measured).
_CACHE_ENTRY_OVERHEAD = 1_664
_CACHE_HEADER_OVERHEAD = 256


class Reply(NamedTuple):
    """How a request ended.

    Args:
        outcome: what happened to its key.
        response: what it is answered with.
        waited: milliseconds for which the request waited for another one.
        unkept: the route's response, if this very request ran it: its cookies, and headers that are not kept.
    """

    outcome: Outcome
    response: StoredResponse
    waited: int = 0
    unkept: Response[Any] | None = None

    @property
    def replayed(self) -> bool:
        """Whether an earlier request ran it."""
        return self.outcome in {Outcome.REPLAYED_FROM_CACHE, Outcome.REPLAYED_FROM_TABLE}


class Lifecycle:
    """Runs each key's operation once.

    Args:
        store: the records.
        telemetry: where outcomes are counted.
        settings: the stack's choices. With memory for completed records (``cache_bytes``), a warm function replays
            without DynamoDB: a completed record never changes until it expires, so the cache is never wrong.
        clock: the time.
        queue: what carries operations on; None if no route is recoverable.
    """

    def __init__(
        self, store: Store, telemetry: Telemetry, settings: Settings, clock: Clock, queue: Queue | None = None
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self._queue = queue
        self._telemetry = telemetry
        self._cache: LRUCache[str, tuple[Record, StoredResponse]] = LRUCache(
            settings.cache_bytes, getsizeof=lambda entry: _memory(entry[1])
        )

    @classmethod
    def from_environment(
        cls, dynamodb: "DynamoDBClient", telemetry: Telemetry, sqs: Callable[[], "SQSClient"] | None = None
    ) -> Self:
        """Make the lifecycle of a Lambda function: its table, its queue, and what the template's parameters set.

        Raises:
            SettingsError: if these contradict each other.
        """
        clock = Clock()
        store = Store(dynamodb, os.environ["IDEMPOTENCY_TABLE"], clock)
        queue = Queue(sqs, os.environ["RECOVERY_QUEUE_URL"]) if sqs else None
        return cls(store, telemetry, Settings.from_environment(), clock, queue)

    def run(self, invocation: Invocation, key: str, wait: int = 0) -> Reply:
        """Answer a request: run its operation, or find out that somebody did, or does.

        First request: 2 writes, or 1 if the operation is atomic. Replay: 1 failed write, or nothing from the cache.

        Args:
            invocation: the request, and what carries it out.
            key: its idempotency key.
            wait: seconds for which a duplicate waits while the operation runs.

        Raises:
            Problem: ``in-progress`` (409), ``key-reused`` (422) or ``unavailable`` (503).
        """
        started = self.clock.now()
        wait_until = self._wait_until(started, wait, invocation)
        id_ = _id_of(invocation.request, key)
        owner = str(uuid4())
        pauses = chain(_WAIT_PAUSES, repeat(_LONGEST_WAIT_PAUSE))
        waited = 0

        begin = self._run_at_once if invocation.policy.atomic else self._claim
        record = self._cached(id_, started) or begin(id_, owner, invocation)
        while isinstance(record, Record) and record.owner != owner:
            now = self.clock.now()
            if record.expired(now):
                record = begin(id_, owner, invocation)
            elif self._has_answer(record, invocation):
                return self._replay(record, waited)
            elif record.claimable(now) and not (waited and record.pausing(now)):
                record = self._claim(id_, owner, invocation)
            else:
                self._pause(record, wait_until, next(pauses), waited)
                waited = self.clock.now() - started
                record = self.store.get(id_) or begin(id_, owner, invocation)
        if isinstance(record, Reply):
            return record
        self._count_wait(record, waited)
        return self.perform(record, invocation)

    def accept(self, invocation: Invocation, key: str, wait: int = 0) -> Reply:
        """Answer a request whose operation recovery carries out: 1 write and 1 message; the replay once it has ended.

        If an operation that was released or abandoned is in the way, it is carried on at once, unless its pause is not
        over yet.

        Args:
            invocation: the request; nothing of it is executed here.
            key: its idempotency key.
            wait: seconds for which it waits for the end of the operation.

        Raises:
            Problem: ``key-reused`` (422) or ``unavailable`` (503).
        """
        started = self.clock.now()
        wait_until = self._wait_until(started, wait, invocation)
        id_ = _id_of(invocation.request, key)
        owner = str(uuid4())
        pauses = chain(_WAIT_PAUSES, repeat(_LONGEST_WAIT_PAUSE))
        driven = False
        waited = 0

        record = self._cached(id_, started) or self._enter(id_, owner, invocation)
        while True:
            now = self.clock.now()
            if record.expired(now):
                record = self._enter(id_, owner, invocation)
            elif self._has_answer(record, invocation):
                return self._replay(record, waited)
            elif record.request is None:
                return self.run(invocation, key, wait)  # an earlier version began it, of which recovery knows nothing
            elif not driven and record.owner != owner:
                driven = True
                record = self._drive(record, now)
            elif now < wait_until:
                self.clock.sleep(min(next(pauses), wait_until - now))
                waited = self.clock.now() - started
                record = self.store.get(id_) or self._enter(id_, owner, invocation)
            else:
                return self._accepted(record, invocation, waited)

    def remembered(self, request: Request, key: str) -> Reply | None:
        """Replay what this function has in memory, without a call; None if it has nothing for this request."""
        record = self._cached(_id_of(request, key), self.clock.now())
        if record is None or record.fingerprint != request.fingerprint:
            return None
        return self._replay(record)

    def look_up(self, request: Request, key: str) -> Reply | None:
        """Answer a request that may not run, if its key has been used for it: 1 read, or nothing from the cache.

        Returns:
            The stored response; None if this key is not in use for this request.

        Raises:
            Problem: ``in-progress`` (409) or ``unavailable`` (503) if the operation has not finished.
        """
        now = self.clock.now()
        id_ = _id_of(request, key)
        record = self._cached(id_, now) or self.store.get(id_)
        if record is None or record.expired(now) or record.fingerprint != request.fingerprint:
            return None
        if record.completed:
            return self._replay(record)
        if not record.claimable(now):
            raise self._in_progress(record)
        raise Retry("An operation that was begun under this key has not finished yet.")

    def perform(self, record: Record, invocation: Invocation) -> Reply:
        """Carry out the operation whose record the caller has claimed; see `run`."""
        if record.attempt > 1:
            renewed = record.created_at == record.claimed_at
            self._telemetry.emit(Outcome.EXPIRED if renewed else Outcome.TAKEN_OVER, record)
        attempt = Attempt(record, invocation, self.store, self.settings, self.clock)
        try:
            return self._settle(attempt, self._execute(attempt, invocation), invocation)
        except Fenced as fenced:
            winner = fenced.record or record
            if winner.completed and winner.owner == record.owner:
                return self._executed(winner, self.store.response(winner))  # only the acknowledgement was lost
            self._telemetry.emit(Outcome.FENCED, record)
            if winner.completed and winner.fingerprint == invocation.request.fingerprint:
                return self._replay(winner)
            raise self._in_progress(winner) from None

    def resume(self, id_: str, policy: Policy, deadline: int) -> Record | None:
        """Claim an abandoned operation for recovery: 1 write. None if it is not due any more, or parked now.

        An operation that kills whoever attempts it never gets to release itself: it is parked here.
        """
        now = self.clock.now()
        record = self.store.resume(self._candidate(id_, str(uuid4()), policy, now, deadline), now)
        if record is None or record.recoveries <= self.settings.max_recoveries:
            return record
        self._telemetry.emit(Outcome.PARKED, record)
        self.store.release(record, due=PARKED_UNTIL, error=record.last_error or "every attempt was cut off")
        return None

    def wait_until_due(self, record: Record) -> None:
        """Let the rest of a pause go by if it is short: the message may be there before the operation is due.

        It is, if this clock is a little behind, or if an earlier attempt has sent it.
        """
        early = record.lease_until - self.clock.now()
        if record.status is Status.RELEASED and 0 <= early < _EARLY:
            self.clock.sleep(early + 1)

    def sweep(self, deadline: int) -> int:
        """Find the operations that are due, and send them to the queue, until the time is nearly up.

        For those that were abandoned: what was released has a message of its own. What is not reached is found again a
        minute later.

        Args:
            deadline: epoch milliseconds at which the invocation is cut off.

        Returns:
            How many were sent.
        """
        if self._queue is None:
            return 0
        began = oldest = self.clock.now()

        def due() -> Iterator[str]:
            nonlocal oldest
            for found in self.store.due(began):
                if self.clock.now() > deadline - _TIME_TO_SWEEP:
                    return
                oldest = min(oldest, found.lease_until)
                yield found.id

        try:
            return self._queue.send_all(due())
        finally:
            self._telemetry.backlog(began - oldest)

    def give_back(self, id_: str, reason: str) -> Outcome | None:
        """Release an abandoned operation that recovery cannot run, with the reason why: 2 writes; park it in the end.

        Returns:
            How it ended; None if it is not due any more, or parked now.
        """
        record = self.resume(id_, Policy(), self.clock.now() + self.settings.timeout * 1000)
        if record is None:
            return None
        return self._release(record, Verdict(End.RETRY, StoredResponse(503), error=reason)).outcome

    def _claim(self, id_: str, owner: str, invocation: Invocation) -> Record:
        now = self.clock.now()
        if record := self._too_late_for(id_, invocation, now):
            return record
        return self.store.claim(self._candidate_of(id_, owner, invocation, now), now)

    def _enter(self, id_: str, owner: str, invocation: Invocation) -> Record:
        """Hand an operation to recovery that nobody has begun, unless there is a record in force."""
        now = self.clock.now()
        candidate = self._candidate_of(id_, owner, invocation, now)
        handed = candidate._replace(status=Status.RELEASED, attempt=0, lease_until=self._due(now))
        record = self.store.enter(handed, now)
        if record.owner == owner:
            self._send(record)
        return record

    def _candidate_of(self, id_: str, owner: str, invocation: Invocation, now: int) -> Record:
        request, policy = invocation.request, invocation.policy
        candidate = self._candidate(id_, owner, policy, now, invocation.deadline, request.fingerprint)
        if policy.recoverable:
            candidate = candidate._replace(principal=request.principal, request=request.pack())
        return candidate

    def _run_at_once(self, id_: str, owner: str, invocation: Invocation) -> Record | Reply:
        """Run an atomic operation, then claim its key and complete it in one write.

        Returns:
            How it ended; or the record that is in its way, for which this run was in vain, and without a trace.
        """
        now = self.clock.now()
        if record := self._too_late_for(id_, invocation, now):
            return record
        candidate = self._candidate_of(id_, owner, invocation, now)
        attempt = Attempt(candidate, invocation, self.store, self.settings, self.clock)
        return self._commit(candidate, self._execute(attempt, invocation), invocation)

    def _commit(self, candidate: Record, verdict: Verdict, invocation: Invocation) -> Record | Reply:
        now = self.clock.now()
        if verdict.end is End.RETRY:
            return self._give_up(candidate, verdict, now)
        expires_at = now // 1000 + self.settings.ttl_of(invocation.policy)
        rows = verdict.rows if verdict.end is End.COMPLETE else ()
        try:
            record = self.store.commit(candidate, verdict.response, now, expires_at_seconds=expires_at, rows=rows)
        except (RowTaken, NotStorable) as error:
            return self._commit(candidate, invocation.judge(error), invocation)
        except Unavailable as error:
            return self._commit(candidate, Verdict.unsettled(error, verdict), invocation)
        if record.owner != candidate.owner:
            return record
        if record.attempt > 1:
            self._telemetry.emit(Outcome.EXPIRED, record)
        return self._executed(record, verdict.response, verdict.unkept)

    def _give_up(self, candidate: Record, verdict: Verdict, now: int) -> Record | Reply:
        """End an atomic operation that failed for now, unless its key has been used; nothing is written."""
        standing = self.store.get(candidate.id)
        if standing is None or standing.expired(now):
            return self._answer_for_now(Outcome.RELEASED, candidate, verdict)
        if standing.owner == candidate.owner:  # only the acknowledgement was lost
            return self._executed(standing, self.store.response(standing))
        return standing

    def _too_late_for(self, id_: str, invocation: Invocation, now: int) -> Record | None:
        """The record of a key for which too little time is left; None if there is enough.

        Raises:
            Retry: if somebody has to run it.
        """
        if invocation.deadline - now >= self.settings.time_for_a_step * 1000:
            return None
        record = self.store.get(id_)
        if record is None or record.claimable(now):
            raise Retry("Too little time is left to begin.")
        return record

    def _candidate(
        self, id_: str, owner: str, policy: Policy, now: int, deadline: int, fingerprint: str = ""
    ) -> Record:
        return Record(
            id=id_,
            owner=owner,
            lease_until=self.settings.lease_until(now, deadline, policy),
            expires_at=now // 1000 + max(self.settings.unfinished_ttl, self.settings.ttl_of(policy)),
            claimed_at=now,
            created_at=now,
            fingerprint=fingerprint,
            operation_id=str(uuid4()),
        )

    def _wait_until(self, now: int, wait: int, invocation: Invocation) -> int:
        policy = invocation.policy
        limit = min(wait, self.settings.wait_limit if policy.wait_limit is None else policy.wait_limit)
        return min(now + limit * 1000, invocation.deadline - _TIME_TO_ANSWER)

    def _has_answer(self, record: Record, invocation: Invocation) -> bool:
        """Whether the record in the way has this request's answer.

        Raises:
            Problem: ``key-reused`` (422) if it is another request's.
        """
        if record.fingerprint != invocation.request.fingerprint:
            self._telemetry.emit(Outcome.KEY_REUSED, record)
            raise Problem("key-reused", "Use a new Idempotency-Key for a new request.")
        return record.completed

    def _drive(self, record: Record, now: int) -> Record:
        """Have an operation carried on that nobody runs; one that is parked has all its attempts again.

        Returns:
            The record as it now is.
        """
        if record.parked:
            due = self._due(now)
            if not self.store.unpark(record.id, due):
                return self.store.get(record.id) or record  # somebody runs it by now
            record = record._replace(lease_until=due)
        if record.claimable(now) and not record.pausing(now):
            self._send(record)
        return record

    def _due(self, now: int, pause: int = 0) -> int:
        """When recovery may carry an operation on: at once means by the clock that is the furthest behind, too."""
        return now + pause * 1000 if pause else now - self.settings.clock_skew * 1000

    def _send(self, record: Record, pause: int = 0) -> None:
        """Have an operation carried on by the queue; where that is not possible, the sweep finds it."""
        if self._queue is None or record.request is None or pause > LONGEST_DELAY:
            return
        try:
            self._queue.send(record.id, pause)
        except Exception as error:  # noqa: BLE001 - nothing is lost: the sweep comes
            self._telemetry.error(error)

    def _accepted(self, record: Record, invocation: Invocation, waited: int = 0) -> Reply:
        self._telemetry.emit(Outcome.ACCEPTED, record)
        response = accepted(record, self.clock.now(), invocation.request.base_path)
        return Reply(Outcome.ACCEPTED, response, waited)

    def _pause(self, record: Record, wait_until: int, pause: int, waited: int) -> None:
        now = self.clock.now()
        if now >= wait_until:
            self._count_wait(record, waited)
            self._telemetry.emit(Outcome.IN_PROGRESS, record)
            raise self._in_progress(record)
        self.clock.sleep(min(pause, wait_until - now, record.lease_until + 1 - now))

    def _count_wait(self, record: Record, waited: int) -> None:
        if waited:
            self._telemetry.emit(Outcome.WAITED, record, milliseconds=waited)

    def _in_progress(self, record: Record) -> Problem:
        """Ask to retry after as long as the attempt has run already, but not beyond its lease; or after its pause."""
        pause = seconds_left(record, self.clock.now())
        return Problem("in-progress", "The first request has not finished yet.", retry_after=pause)

    def _execute(self, attempt: Attempt, invocation: Invocation) -> Verdict:
        try:
            return invocation.execute(attempt)
        except Undoing:
            return Verdict(End.FAIL, attempt.failure)
        except Exception as error:  # noqa: BLE001 - business logic may raise anything
            return invocation.judge(error)

    def _settle(self, attempt: Attempt, verdict: Verdict, invocation: Invocation) -> Reply:
        """Complete the operation, or release it for a retry; undo its steps first if it fails for good."""
        try:
            attempt.close()
            if attempt.failed or verdict.end is End.FAIL:
                verdict = self._undo(attempt, verdict)
            elif verdict.end is End.RETRY:
                return self._let_go(attempt, verdict, invocation)
            else:
                self._telemetry.doubt(attempt.doubts(verdict), attempt.record)
            return self._complete(attempt.record, verdict, invocation.policy)
        except (RowTaken, NotStorable) as error:
            return self._settle(attempt, invocation.judge(error), invocation)
        except Exception as error:  # noqa: BLE001 - so may its undoing, and what DynamoDB says to it
            if not isinstance(error, Retry) or isinstance(error, UndoFailed):
                self._telemetry.error(error)
            return self._let_go(attempt, Verdict.unsettled(error, verdict), invocation)

    def _undo(self, attempt: Attempt, verdict: Verdict) -> Verdict:
        # Before anything is decided: whoever is cut off afterwards tells nobody.
        self._telemetry.doubt(attempt.doubts(verdict), attempt.record)
        attempt.ensure_reached()
        return verdict.undone(attempt.undo(verdict))

    def _complete(self, record: Record, verdict: Verdict, policy: Policy) -> Reply:
        expires_at = self.clock.now() // 1000 + self.settings.ttl_of(policy)
        completed = self.store.complete(record, verdict.response, expires_at_seconds=expires_at, rows=verdict.rows)
        return self._executed(completed, verdict.response, verdict.unkept)

    def _executed(self, record: Record, response: StoredResponse, unkept: Response[Any] | None = None) -> Reply:
        self._telemetry.emit(Outcome.EXECUTED, record)
        self._remember(record, response)
        return Reply(Outcome.EXECUTED, response, unkept=unkept)

    def _let_go(self, attempt: Attempt, verdict: Verdict, invocation: Invocation) -> Reply:
        """End an attempt that does not end the operation: it failed for now, or there is more to do than it has time.

        One that waits, or that ran out of time after it got further, has not failed: the operation goes on by itself.
        """
        late = isinstance(verdict.cause, (OutOfTime, Waiting))
        goes_on = isinstance(verdict.cause, Waiting) or (late and attempt.progressed)
        accepting = invocation if late and invocation.responds_late else None
        return self._release(attempt.known, verdict, goes_on=goes_on, accepting=accepting)

    def _release(
        self, record: Record, verdict: Verdict, *, goes_on: bool = False, accepting: Invocation | None = None
    ) -> Reply:
        """Release an operation, and have it carried on.

        Args:
            record: the record, with the outcomes that the attempt knows of.
            verdict: how the attempt ended.
            goes_on: whether it has not failed. After failures, each pause is longer than the last, and the operation is
                parked in the end.
            accepting: the invocation to be answered with 202, unless the operation is parked.
        """
        if goes_on:
            outcome, record = Outcome.PENDING, record._replace(recoveries=0)
            pause = verdict.cause.pause if isinstance(verdict.cause, Waiting) else 0
        else:
            over = record.recoveries >= self.settings.max_recoveries or isinstance(verdict.cause, WaitOver)
            outcome, pause = Outcome.PARKED if over else Outcome.RELEASED, _pause_after(record, verdict)
        due = PARKED_UNTIL if outcome is Outcome.PARKED else self._due(self.clock.now(), pause)
        try:
            self.store.release(record, due=due, error=verdict.error or f"HTTP {verdict.response.status}")
        except Exception as error:  # noqa: BLE001 - nothing is lost: the lease lapses instead
            self._telemetry.error(error)
        else:
            if outcome is not Outcome.PARKED:
                self._send(record, pause)
        if accepting and outcome is not Outcome.PARKED:
            self._telemetry.emit(outcome, record)
            return self._accepted(record._replace(status=Status.RELEASED, lease_until=due), accepting)
        return self._answer_for_now(outcome, record, verdict)

    def _answer_for_now(self, outcome: Outcome, record: Record, verdict: Verdict) -> Reply:
        self._telemetry.emit(outcome, record)
        told = verdict.response.header("retry-after")
        added = {} if told else {"Retry-After": [str(_pause_after(record, verdict))]}
        response = verdict.response._replace(headers={**verdict.response.headers, **added})
        return Reply(outcome, response, unkept=verdict.unkept)

    def _replay(self, record: Record, waited: int = 0) -> Reply:
        entry = self._cache.get(record.id)
        if entry and entry[0] is record:
            response, outcome = entry[1], Outcome.REPLAYED_FROM_CACHE
        else:
            response, outcome = self.store.response(record), Outcome.REPLAYED_FROM_TABLE
            self._remember(record, response)
        self._count_wait(record, waited)
        self._telemetry.emit(outcome, record)
        return Reply(outcome, response, waited)

    def _cached(self, id_: str, now: int) -> Record | None:
        record, _ = self._cache.get(id_, (None, None))
        return None if record is None or record.expired(now) else record

    def _remember(self, record: Record, response: StoredResponse) -> None:
        with suppress(ValueError):  # larger than the whole cache, as all are if it is off
            # Whatever else a record of an earlier version still holds is not paid for by its size.
            self._cache[record.id] = (record._replace(response=None, request=None, steps={}), response)


def _id_of(request: Request, key: str) -> str:
    return record_id(request.principal, request.method, request.route, key)


def _pause_after(record: Record, verdict: Verdict) -> int:
    """Seconds until recovery tries again: as long as the response asks for, and longer with each of its attempts."""
    asked = verdict.response.header("retry-after")
    backoff: int = min(2**record.recoveries, _LONGEST_RECOVERY_PAUSE)
    return max(backoff, int(asked) if asked.isdecimal() and len(asked) < _DIGITS_OF_A_PAUSE else 0)


def _memory(response: StoredResponse) -> int:
    values = sum(map(len, response.headers.values()))
    return response.size + _CACHE_ENTRY_OVERHEAD + values * _CACHE_HEADER_OVERHEAD
