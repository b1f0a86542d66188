"""How far an operation has come, as its client is told."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil
from typing import Any

from idempotency.record import Record
from idempotency.response import StoredResponse, plain_json

OPERATIONS = "/v1/operations"
"""The path below which operations are shown, each under its record's id."""

_UNDO = "undo "


class State(StrEnum):
    """Where an operation stands, for its client."""

    ACCEPTED = "accepted"
    """Nobody has begun it yet."""
    RUNNING = "running"
    """An attempt is at it."""
    WAITING = "waiting"
    """The next attempt is at ``due_at``: it waits for something elsewhere, or failed for now."""
    DUE = "due"
    """The next attempt is about to begin."""
    PARKED = "parked"
    """It goes on when its client asks again, or an operator says so."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @classmethod
    def of(cls, record: Record, now: int) -> "State":
        """The state at ``now`` (epoch milliseconds)."""
        if record.completed:
            return cls.FAILED if (record.response or {})["status"] >= 400 else cls.SUCCEEDED
        if record.parked:
            return cls.PARKED
        if record.pausing(now):
            return cls.WAITING
        if record.claimable(now):
            return cls.DUE if record.attempt else cls.ACCEPTED
        return cls.RUNNING

    @property
    def goes_on(self) -> bool:
        """Whether asking again later shows something new."""
        return self not in {State.PARKED, State.SUCCEEDED, State.FAILED}


def seconds_left(record: Record, now: int) -> int:
    """How long to wait before asking again: as long as the attempt has run already, or until the next one begins.

    Args:
        record: the record of an operation that goes on.
        now: epoch milliseconds.
    """
    left = record.lease_until - now
    return max(1, ceil((left if record.pausing(now) else min(now - record.claimed_at, left)) / 1000))


def accepted(record: Record, now: int, base_path: str) -> StoredResponse:
    """The 202 of an operation that goes on without its client (RFC 9110, section 15.3.3)."""
    shown = status(record, now)
    location = {"Location": [f"{base_path}{OPERATIONS}/{record.id}"]}
    return StoredResponse(202, {**shown.headers, **location}, shown.body)


def status(record: Record, now: int) -> StoredResponse:
    """The representation of an operation.

    Args:
        record: its record.
        now: epoch milliseconds.
    """
    state = State.of(record, now)
    headers = {"Content-Type": ["application/json"]}
    if state.goes_on:
        headers["Retry-After"] = [str(seconds_left(record, now))]
    return StoredResponse(200, headers, plain_json(_representation(record, state)).encode())


def _representation(record: Record, state: State) -> dict[str, Any]:
    shown = {
        "id": record.id,
        "state": state,
        "attempt": record.attempt,
        "created_at": _time(record.created_at),
        "due_at": _time(record.lease_until) if state is State.WAITING else None,
        "steps": _steps(record),
        **_ending(record),
    }
    return {name: value for name, value in shown.items() if value not in (None, {})}


def _steps(record: Record) -> dict[str, str]:
    """What is known of each step until the operation ends: which are still to come, only its code knows."""
    states = {
        **dict.fromkeys(record.waits, "waiting"),
        **dict.fromkeys(record.begun, "begun"),
        **dict.fromkeys(record.refused, "refused"),
        **dict.fromkeys((name for name in record.steps if not name.startswith(_UNDO)), "done"),
        **{name.removeprefix(_UNDO): "undone" for name in record.steps if name.startswith(_UNDO)},
    }
    return dict(sorted(states.items()))


def _ending(record: Record) -> dict[str, Any]:
    """The final response in short, or that of a failure whose steps are still being undone."""
    description = record.response if record.completed else record.failure
    if description is None:
        return {}
    response = StoredResponse(description["status"], description["headers"])
    ended = {"response": {"status": response.status, "location": response.header("location") or None}}
    told = "problem+json" in response.header("content-type") and "body" in description  # a large one lies elsewhere
    problem = _object(StoredResponse.unpack(description, description["body"]).body) if told else None
    return {**(ended if record.completed else {}), "problem": problem}


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None if it is something else, whatever its type claims."""
    try:
        value = json.loads(body)
        json.dumps(value, allow_nan=False)  # 1e400 is read as infinity, which is no JSON any more
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _time(milliseconds: int) -> str:
    """Epoch milliseconds as a timestamp of RFC 3339."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
