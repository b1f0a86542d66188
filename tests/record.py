"""A record for tests that need no table."""

from idempotency.record import Record

RECORD = Record(
    id="0" * 64,
    owner="owner",
    lease_until=0,
    expires_at=0,
    claimed_at=0,
    created_at=0,
    fingerprint="1:0",
    operation_id="0d2a3cf5-5b6b-4e2c-9d52-3a3fd2d36a8d",
)
"""The record of an operation that has just been claimed."""
