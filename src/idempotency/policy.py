"""What a route may choose about its idempotency, and what holds for the whole stack."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from idempotency.errors import RETRYABLE_4XX
from idempotency.request import KeyFormat

KEPT_HEADERS = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "etag",
        "last-modified",
        "link",
        "location",
        "retry-after",
        "vary",
    }
)
"""Response headers that are stored and replayed; never ``Set-Cookie``."""


RespondAsync = Literal["asked", "late", "always"]


class SettingsError(Exception):
    """Settings that contradict each other, or are not what they should be; the message says which, in one line."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A route's choices.

    Args:
        ttl: seconds for which a completed response is kept; None: as long as the stack's.
        wait_limit: longest time, in seconds, for which a duplicate may ask to wait (``Prefer: wait``); None: the
            stack's.
        wait_by_default: seconds for which a duplicate waits that did not ask to.
        key_format: ``any``, or ``uuid`` to refuse other keys; None: the stack's.
        key_required: whether a request without a key is refused, or runs unprotected.
        anonymous: whether requests without a principal are served, all of them sharing one scope.
        store_5xx: whether a 500 is kept and replayed too, as Stripe's API v1 does.
        recoverable: whether recovery finishes an abandoned operation, without its client; None, like False: it does
            not. `make lint` asks for a decision where an operation has steps.
        respond_async: when a recoverable route answers 202 and lets recovery carry the operation on: ``asked``, if the
            client prefers it (``Prefer: respond-async``); ``late``, also if there is too little time to finish, where
            others answer 503; ``always``, for a route that is long in any case.
        atomic: whether the operation has no effect but its rows, and so takes one write: its code runs first, then one
            transaction claims the key, writes the rows and keeps the response. Two duplicates may run the code at
            once; one of them commits, and the other replays that. It cannot have steps, and needs no recovery.
        max_body: largest request body, in bytes.
        lease: longest time, in seconds, between two checkpoints; None: up to the Lambda deadline.
        keep_headers: lower-case names of the response headers to store.

    Raises:
        SettingsError: if they contradict each other.
    """

    ttl: int | None = None
    wait_limit: int | None = None
    wait_by_default: int = 0
    key_format: KeyFormat | None = None
    key_required: bool = True
    anonymous: bool = False
    store_5xx: bool = False
    recoverable: bool | None = None
    respond_async: RespondAsync = "asked"
    max_body: int = 16 * 1024
    lease: int | None = None
    keep_headers: frozenset[str] = KEPT_HEADERS
    atomic: bool = False

    def __post_init__(self) -> None:
        if self.atomic and self.recoverable:
            raise SettingsError("an atomic operation leaves nothing to recover: a route is atomic or recoverable")

    @property
    def responds_late(self) -> bool:
        """Whether 202 is the answer where time does not suffice, though the client did not ask for it."""
        return self.respond_async == "late"

    def responds_async(self, *, asked: bool) -> bool:
        """Whether 202 is the answer, and recovery carries the operation out.

        An anonymous client never gets it: the status of an operation is shown to its principal alone.
        """
        return bool(self.recoverable) and not self.anonymous and (asked or self.respond_async == "always")

    def stores(self, status: int) -> bool:
        """Whether a response with this HTTP status ends the operation; otherwise it is released for a retry.

        A 408, 425 or 429 says that the request was not carried out yet, and a 5xx that nobody knows (RFC 9110,
        section 15). Any other status, a business 409 or 422 included, is final.
        """
        if status >= 500:
            return self.store_5xx
        return status not in RETRYABLE_4XX


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for every route of a stack, and for recovery alike.

    Args:
        ttl: seconds for which a completed response is kept, unless the route's policy says otherwise.
        wait_limit: longest time, in seconds, for which a duplicate may ask to wait, unless the policy says otherwise.
        key_format: ``any`` or ``uuid``, unless the policy says otherwise.
        cache_bytes: memory that a function spends on completed records; 0 for none.
        timeout: the timeout of the function that this is, in seconds; a worker's differs from the API's.
        clock_skew: seconds by which the clocks of two workers may differ; added to each lease.
        time_for_a_step: seconds that an attempt must have left to begin, or to begin a step: what a slow call needs.
            With less it is released, and the next attempt carries on. A longer call is cut off as if by a crash.
        unfinished_ttl: seconds for which an operation that never completed is kept, so that a late retry still
            resumes it under the same downstream keys; at least the time to live.
        max_recoveries: attempts of recovery after which it parks the operation.

    Raises:
        SettingsError: if they contradict each other.
    """

    ttl: int = 24 * 3600
    wait_limit: int = 20
    key_format: KeyFormat = "any"
    cache_bytes: int = 8 * 1024 * 1024
    timeout: int = 28
    clock_skew: int = 2
    time_for_a_step: int = 4
    unfinished_ttl: int = 7 * 24 * 3600
    max_recoveries: int = 10

    def __post_init__(self) -> None:
        self._refuse_contradictions(self.ttl, self.timeout, "the function's timeout")
        if self.key_format not in get_args(KeyFormat):
            raise SettingsError(f"keys are of format {' or '.join(get_args(KeyFormat))}, not {self.key_format!r}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read what the template's parameters set.

        Raises:
            SettingsError: if a variable is not a number, or they contradict each other.
        """
        found: dict[str, Any] = {
            name: environ[variable] for name, variable in _VARIABLES.items() if variable in environ
        }
        for name, value in found.items():
            if name != "key_format":
                if not value.isdecimal():
                    raise SettingsError(f"{_VARIABLES[name]} is {value!r}, not a number")
                found[name] = int(value)
        return cls(**found)

    def check(self, policy: Policy) -> None:
        """See that a route's policy fits.

        Raises:
            SettingsError: if its choices contradict each other, or the function's timeout.
        """
        if policy.respond_async != "asked" and (policy.anonymous or not policy.recoverable):
            raise SettingsError(
                f"a route that responds {policy.respond_async} by 202 must be recoverable, and have a principal"
            )
        lease = self.timeout if policy.lease is None else policy.lease
        self._refuse_contradictions(self.ttl_of(policy), lease, "the route's lease")

    def ttl_of(self, policy: Policy) -> int:
        """Seconds for which a route's completed responses are kept."""
        return self.ttl if policy.ttl is None else policy.ttl

    def lease_until(self, now: int, deadline: int, policy: Policy) -> int:
        """When others may take over (all in epoch milliseconds): the attempt's deadline, or sooner by the policy."""
        end = deadline if policy.lease is None else min(deadline, now + policy.lease * 1000)
        return end + self.clock_skew * 1000

    def _refuse_contradictions(self, ttl: int, lease: int, lease_name: str) -> None:
        if lease <= self.time_for_a_step:
            raise SettingsError(
                f"{lease_name} of {lease} s leaves no attempt the {self.time_for_a_step} s that a step needs"
            )
        if lease > self.timeout:
            raise SettingsError(f"{lease_name} of {lease} s is longer than the function's timeout of {self.timeout} s")
        if ttl <= self.clock_skew:
            raise SettingsError(f"a response is kept for {ttl} s, and clocks may differ by {self.clock_skew} s")
        kept, longest_lease = max(ttl, self.unfinished_ttl), self.timeout + self.clock_skew
        if kept <= longest_lease:
            raise SettingsError(f"an operation is kept for {kept} s, and its lease runs for {longest_lease} s")


_VARIABLES = {
    "ttl": "IDEMPOTENCY_TTL_SECONDS",
    "wait_limit": "IDEMPOTENCY_WAIT_LIMIT_SECONDS",
    "key_format": "IDEMPOTENCY_KEY_FORMAT",
    "cache_bytes": "IDEMPOTENCY_CACHE_BYTES",
    "timeout": "IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS",
}
