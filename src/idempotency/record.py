"""The idempotency record: one item, from the first claim of a key to its expiry."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Status(StrEnum):
    """Where the operation of a key stands."""

    PROCESSING = "PROCESSING"
    RELEASED = "RELEASED"
    COMPLETED = "COMPLETED"


PARKED_UNTIL = 10**15
"""The ``lease_until`` of a parked operation: recovery never finds it due, a client's retry still runs it."""


class Record(NamedTuple):
    """The record as one reply of DynamoDB showed it.

    Args:
        id: the record's id, see `idempotency.request.record_id`.
        owner: the token of the latest claim.
        lease_until: epoch milliseconds until which the owner is alone; once released, when recovery is due.
        expires_at: epoch seconds after which the record counts as absent.
        claimed_at: epoch milliseconds of the latest claim.
        created_at: epoch milliseconds of the first claim.
        fingerprint: what the request is compared by.
        operation_id: UUID of the operation, the same for all its attempts.
        status: where the operation stands.
        attempt: how many claims there were; 0 if the operation was handed to recovery before anybody began it.
        recoveries: how many of them recovery made since the operation was last parked, or came further.
        steps: step name → its result as JSON text; gone once the operation is completed.
        refused: step name → its refusal as JSON text; gone once the operation is completed, too.
        begun: steps that may have been done, though no attempt saw their results; gone then, too.
        waits: wait name → epoch milliseconds at which the wait began; gone then, too.
        releases: how many attempts ended by releasing the operation.
        principal: whose it is, if the operation is recoverable.
        request: what recovery needs to run the request again, compressed.
        failure: the stored response of an operation whose steps are being undone.
        response: the stored response of a completed operation.
        last_error: why the latest attempt was released.
    """

    id: str
    owner: str
    lease_until: int
    expires_at: int
    claimed_at: int
    created_at: int
    fingerprint: str
    operation_id: str
    status: Status = Status.PROCESSING
    attempt: int = 1
    recoveries: int = 0
    steps: Mapping[str, str] = MappingProxyType({})
    refused: Mapping[str, str] = MappingProxyType({})
    begun: Sequence[str] = ()
    waits: Mapping[str, int] = MappingProxyType({})
    releases: int = 0
    principal: str = ""
    request: bytes | None = None
    failure: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None
    last_error: str | None = None

    @property
    def completed(self) -> bool:
        """Whether the operation has its final response."""
        return self.status is Status.COMPLETED

    @property
    def parked(self) -> bool:
        """Whether recovery has given the operation up."""
        return self.lease_until >= PARKED_UNTIL

    @property
    def cut_off(self) -> int:
        """How many earlier attempts did not end by a decision of their own, so that nobody knows how far they got."""
        return self.attempt - 1 - self.releases

    def expired(self, now: int) -> bool:
        """Whether the record counts as absent at ``now`` (epoch milliseconds), deleted or not."""
        return self.expires_at * 1000 <= now

    def pausing(self, now: int) -> bool:
        """Whether its latest attempt asked at ``now`` (epoch milliseconds) to wait before the next one."""
        return self.status is Status.RELEASED and now < self.lease_until < PARKED_UNTIL

    def claimable(self, now: int) -> bool:
        """Whether another attempt may start at ``now`` (epoch milliseconds)."""
        lapsed = self.status is Status.RELEASED or self.lease_until < now
        return self.expired(now) or (not self.completed and lapsed)
