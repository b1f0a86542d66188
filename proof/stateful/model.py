"""The published specification as a model: what each request is answered, but not how the engine does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from idempotency.policy import Settings
from tools.local.client import Answer

Will = Literal["succeed", "refuse", "retry", "fail"]
Death = Literal["", "before the claim", "after the claim", "before the commit", "after the commit"]

RETRY_AFTER_SECONDS = 7
INVALID = 2
"""The body that does not match its schema."""
_STACK = Settings()
_TIME_TO_ANSWER_SECONDS = 1
_EARLY_SECONDS = 1


@dataclass(frozen=True)
class Post:
    """A request, and what happens to it.

    Args:
        principal: who sends it.
        key: the idempotency key.
        body: which of several bodies it has.
        wait: seconds for which the client asks to wait.
        will: what the business logic will do.
        death: where the worker dies, if it gets there.
        down: whether DynamoDB cannot be reached.
    """

    principal: str
    key: str
    body: int
    wait: int = 0
    will: Will = "succeed"
    death: Death = ""
    down: bool = False


@dataclass(frozen=True)
class Expected:
    """What the client should be answered.

    Args:
        status: the HTTP status; 502 if the worker died.
        problem: the type of the problem, if it is one.
        replayed: whether an earlier request ran the operation.
        retry_after: seconds; None if the answer does not say.
    """

    status: int
    problem: str = ""
    replayed: bool = False
    retry_after: int | None = None


_RELEASED: dict[Will, Expected] = {
    "retry": Expected(503, "unavailable", retry_after=RETRY_AFTER_SECONDS),
    "fail": Expected(500, "internal-error", retry_after=1),
}


@dataclass
class Key:
    """The state of a key; times are in milliseconds since the epoch.

    Args:
        body: the body of the request that it stands for.
        status: where its operation stands.
        claimed_at: when the latest attempt began.
        free_at: when its lease ends, or, once released, when recovery is due.
        forgotten_at: when the record expires.
        final: the final answer's status.
        answer: the final answer, if anybody has seen it.
        warm: whether the worker remembers the answer.
        messages: when each message in the queue comes that names it.
    """

    body: int
    claimed_at: int
    free_at: int
    forgotten_at: int
    status: Literal["running", "released", "completed"] = "running"
    final: int = 0
    answer: Answer | None = None
    warm: bool = False
    messages: list[int] = field(default_factory=list)


@dataclass
class Model:
    """All keys, the time, and how many servers there are.

    Args:
        timeout: seconds that an invocation has.
        now: milliseconds since the epoch.
        atomic: whether servers are no more than their rows.
    """

    timeout: int
    now: int
    atomic: bool = False
    keys: dict[tuple[str, str], Key] = field(default_factory=dict)
    servers: int = 0

    def post(self, post: Post) -> Expected:
        """Answer a request."""
        found = self.keys.get((post.principal, post.key))
        forgotten = found is not None and found.forgotten_at <= self.now
        warm = found is not None and found.warm and not forgotten
        if post.body == INVALID:
            # It is looked up before it is refused: an earlier version may have accepted it.
            unseen = post.down and not warm
            return Expected(503, "unavailable", retry_after=1) if unseen else Expected(400, "body-invalid")
        if found and warm:
            return self._completed(found, post)
        if post.down:
            return Expected(503, "unavailable", retry_after=1)
        answer = self._run_at_once if self.atomic else self._claim
        return answer(post, found, forgotten=forgotten)

    def _claim(self, post: Post, found: Key | None, *, forgotten: bool) -> Expected:
        deadline = self.now + self.timeout * 1000
        # A claim first fails if there is any record: only the next write, which this death prevents, would change that.
        if post.death == "before the claim" or (post.death == "after the claim" and found is not None):
            return Expected(502)
        if found is None or forgotten or (found.body == post.body and _claimable(found, self.now)):
            return self._run(post, deadline)
        return self._not_claimed(found, post, deadline)

    def recover(self) -> None:
        """Finish what was abandoned, which the sweep finds, and what a message names that was released."""
        began = self.now
        for known in self.keys.values():
            named = any(comes <= began for comes in known.messages)
            known.messages = [comes for comes in known.messages if comes > began]
            if named and known.status == "released" and 0 <= known.free_at - self.now < _EARLY_SECONDS * 1000:
                self.now = known.free_at + 1
            found = named or known.free_at < began
            if found and known.status != "completed" and known.free_at < self.now < known.forgotten_at:
                self._complete(known, 201)

    def forget_warmth(self) -> None:
        """Start a new worker."""
        for known in self.keys.values():
            known.warm = False

    def _completed(self, known: Key, post: Post) -> Expected:
        if known.body != post.body:
            return Expected(422, "key-reused")
        known.warm = True
        return Expected(known.final, "" if known.final == 201 else "refused", replayed=True)

    def _not_claimed(self, known: Key, post: Post, deadline: int) -> Expected:
        if known.body != post.body or known.status == "completed":
            return self._completed(known, post)
        limit = min(post.wait, _STACK.wait_limit) * 1000
        until = max(self.now, min(self.now + limit, deadline - _TIME_TO_ANSWER_SECONDS * 1000))
        if known.free_at < until:
            self.now = known.free_at + 1
            late = deadline - self.now < _STACK.time_for_a_step * 1000
            return Expected(503, "unavailable", retry_after=1) if late else self._run(post, deadline)
        self.now = until
        seconds = ceil(min(until - known.claimed_at, known.free_at - until) / 1000)
        return Expected(409, "in-progress", retry_after=max(1, seconds))

    def _run(self, post: Post, deadline: int) -> Expected:
        known = Key(
            post.body,
            claimed_at=self.now,
            free_at=deadline + _STACK.clock_skew * 1000,
            forgotten_at=(self.now // 1000 + _STACK.unfinished_ttl) * 1000,
        )
        if before := self.keys.get((post.principal, post.key)):
            known.messages = before.messages
        self.keys[post.principal, post.key] = known
        if post.death == "after the claim":
            return Expected(502)
        if post.will in _RELEASED:
            expected = _RELEASED[post.will]
            known.status, known.free_at = "released", self.now + (expected.retry_after or 0) * 1000
            known.messages.append(known.free_at)
            return expected
        if post.will == "refuse":
            self._complete(known, 403)
            return Expected(403, "refused")
        if post.death != "before the commit":
            self._complete(known, 201)
        return Expected(502) if post.death else Expected(201)

    def _run_at_once(self, post: Post, found: Key | None, *, forgotten: bool) -> Expected:
        """Run an atomic operation: its business logic first, then the one write, a transaction if there is a row."""
        write = {"succeed": "commit", "refuse": "claim"}.get(post.will)
        if write and post.death == f"before the {write}":
            return Expected(502)
        dies = bool(write) and post.death == f"after the {write}"
        if found and not forgotten:
            return Expected(502) if dies else self._completed(found, post)
        if not write:
            return _RELEASED[post.will]
        if found and dies:
            return Expected(502)  # that write has failed; the next one would replace what is forgotten
        known = self.keys[post.principal, post.key] = Key(post.body, self.now, self.now, self.now)
        self._complete(known, 201 if post.will == "succeed" else 403)
        return Expected(502) if dies else Expected(known.final, "" if known.final == 201 else "refused")

    def _complete(self, known: Key, final: int) -> None:
        known.status, known.final, known.warm = "completed", final, True
        known.forgotten_at = (self.now // 1000 + _STACK.ttl) * 1000
        self.servers += final == 201


def _claimable(known: Key, now: int) -> bool:
    return known.status == "released" or (known.status == "running" and known.free_at < now)
