"""What a record keeps of its request, for people."""

from __future__ import annotations

from idempotency.request import Request


def request_of(packed: bytes | None) -> Request | None:
    """A stored request; None if there is none, or if it has a form that this version of the code does not read."""
    try:
        return Request.unpack(packed) if packed else None
    except Exception:  # noqa: BLE001 - written by another version; what else the record says is shown all the same
        return None
