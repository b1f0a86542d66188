"""What a route may choose about its idempotency."""

import os
from dataclasses import dataclass, field
from typing import cast

from idempotency.key import KeyFormat

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

_RETRYABLE_4XX = frozenset({408, 425, 429})


def _seconds(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A route's choices; the first three default to the stack's template parameters.

    Args:
        ttl: seconds for which a completed response is kept.
        hold_limit: longest time, in seconds, for which a duplicate may ask to be held (``Prefer: wait``).
        key_format: ``any``, or ``uuid`` to refuse other keys.
        hold_by_default: seconds for which a duplicate that did not ask is held.
        key_required: whether a request without a key is refused, or runs unprotected.
        anonymous: whether requests without a principal are served, all of them sharing one scope.
        store_5xx: whether a 500 is kept and replayed too, as Stripe's API v1 does.
        recoverable: whether an abandoned operation is finished by recovery, without the client.
        max_recoveries: attempts of recovery after which it parks the operation.
        max_body: largest request body, in bytes.
        lease: longest time, in seconds, between two checkpoints; None: up to the Lambda deadline.
        clock_skew: seconds by which the clocks of two workers may differ; added to each lease.
        guard: seconds that an attempt must have left to begin, or to begin a step: what a slow call takes. With less
            it is released, and the next attempt goes on from there. A call that takes longer is cut off as by a crash.
        abandoned_ttl: seconds for which an operation that never completed is kept, so that a late retry still
            resumes it under the same downstream keys.
        keep_headers: lower-case names of the response headers to store.
    """

    ttl: int = field(default_factory=lambda: _seconds("IDEMPOTENCY_TTL_SECONDS", 24 * 3600))
    hold_limit: int = field(default_factory=lambda: _seconds("IDEMPOTENCY_HOLD_LIMIT_SECONDS", 20))
    key_format: KeyFormat = field(
        default_factory=lambda: cast("KeyFormat", os.environ.get("IDEMPOTENCY_KEY_FORMAT", "any"))
    )
    hold_by_default: int = 0
    key_required: bool = True
    anonymous: bool = False
    store_5xx: bool = False
    recoverable: bool = False
    max_recoveries: int = 10
    max_body: int = 128 * 1024
    lease: int | None = None
    clock_skew: int = 2
    guard: int = 4
    abandoned_ttl: int = 7 * 24 * 3600
    keep_headers: frozenset[str] = KEPT_HEADERS

    def stores(self, status: int) -> bool:
        """Whether a response with this HTTP status ends the operation; otherwise it is released for a retry.

        A 408, 425 or 429 says that the request was not carried out yet, and a 5xx that nobody knows (RFC 9110,
        section 15). Any other status, a business 409 or 422 included, is the operation's last word.
        """
        if status >= 500:
            return self.store_5xx
        return status not in _RETRYABLE_4XX
