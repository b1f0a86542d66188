"""The design's seven invariants, checked at each change of a record or row, each effect and each answer.

They see what happens in the world, never what the code under test believes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proof.explorer.dynamodb import Change
from proof.explorer.expressions import Item
from proof.explorer.world import Actor, World
from tools.local.client import Answer

RECORDS = "records"
ROWS = "rows"
CLOCK_SKEW_MS = 2_000
FINAL = (200, 201, 204, 404, 422)
REPLAYED = {"idempotent-replayed": ["true"]}


@dataclass(frozen=True)
class Effect:
    """A call of another service that has taken effect there."""

    operation_id: str
    step: str
    key: str


@dataclass(frozen=True)
class Commit:
    """A response that was made the operation's last word."""

    record: str
    operation_id: str
    body: bytes


def watch_record(world: World, actor: Actor, change: Change) -> None:
    """Check a change of a record: 1 (one commit), 2 (fencing), 3 (steps survive), 4 (never deleted)."""
    if change.table != RECORDS or "#" in change.key[0]:
        return
    before, after = change.before, change.after
    if after is None:
        world.violate(4, f"{actor.name} deleted the record")
        return
    if before is None or _text(before, "owner") != _text(after, "owner"):
        _watch_claim(world, actor, before, after)
    elif _text(after, "owner") not in actor.notes.get("owned", ()):
        world.violate(2, f"{actor.name} changed a record that it does not own")
    else:
        actor.notes["steps"] = set(after["steps"]["M"])
    actor.notes["wrote"] = world.database.usage.calls.total()
    if before is not None and not expired(before, world.now):
        _watch_life(world, actor, before, after)
    if _text(after, "status") == "COMPLETED":
        world.facts.append(Commit(change.key[0], _text(after, "operation_id"), actor.notes["stored"]()))


def _watch_claim(world: World, actor: Actor, before: Item | None, after: Item) -> None:
    # An actor never learns of a claim that lands after the SDK gave it up.
    actor.notes.setdefault("unaware" if world.landing else "claimed", set()).add(_text(after, "owner"))
    actor.notes.setdefault("owned", set()).add(_text(after, "owner"))
    actor.notes["steps"] = set(after["steps"]["M"])
    if before is None or expired(before, world.now) or _text(before, "status") == "RELEASED":
        return
    if int(_text(before, "lease_until")) >= world.now + CLOCK_SKEW_MS:
        world.violate(1, f"{actor.name} took over a key whose holder may still be running")


def _watch_life(world: World, actor: Actor, before: Item, after: Item) -> None:
    if _text(before, "status") == "COMPLETED":
        world.violate(1, f"{actor.name} changed a completed record")
    if _text(before, "operation_id") != _text(after, "operation_id"):
        world.violate(3, f"{actor.name} dropped the operation's id")
    if not before["steps"]["M"].items() <= after["steps"]["M"].items():
        world.violate(3, f"{actor.name} dropped a step")


def watch_row(world: World, actor: Actor, change: Change) -> None:
    """Check a business row: changed by its operation's owner alone, in one call with the operation's record."""
    if change.table != ROWS:
        return
    before, after = change.before, change.after
    written_by = _text(after or before or {}, "operation_id")
    records = world.database.tables[RECORDS].items.values()
    record = next((item for item in records if _text(item, "operation_id") == written_by), None)
    if record is None or _text(record, "owner") not in actor.notes.get("owned", ()):
        world.violate(2, f"{actor.name} changed a business row without owning the key")
    elif actor.notes.get("wrote") != world.database.usage.calls.total():
        world.violate(2, f"{actor.name} changed a business row apart from the record")
    if before is not None and after is not None:
        world.violate(6 if _text(before, "operation_id") != written_by else 1, f"{actor.name} replaced a business row")


def watch_effect(world: World, actor: Actor, effect: Effect) -> None:
    """Check a call of another service: 3 (same key, never after its checkpoint), 7 (never unprotected)."""
    if actor.cut_off or not actor.notes.get("owned"):
        world.violate(7, f"{actor.name} acts without having reached the database")
    if effect.step in actor.notes.get("steps", ()):
        world.violate(3, f"{actor.name} runs the step {effect.step!r} again after its checkpoint")
    same = [
        fact
        for fact in world.facts
        if isinstance(fact, Effect) and (fact.operation_id, fact.step) == (effect.operation_id, effect.step)
    ]
    if any(known.key != effect.key for known in same):
        world.violate(3, f"{actor.name} runs the step {effect.step!r} again under another downstream key")


def watch_answer(world: World, actor: Actor) -> None:
    """Check an answer: 1 (what was committed), 4 (no failure inside), 5 (not my own write), 6 (only my own)."""
    answer: Answer = actor.answer
    record = world.database.tables[RECORDS].items.get((actor.notes.get("record"),))
    if answer.status == 500:
        world.violate(4, f"{actor.name} failed inside: {answer.body.decode()}")
    if answer.status == 409 and record and _text(record, "owner") in actor.notes.get("claimed", ()):
        world.violate(5, f"{actor.name} took its own write for somebody else's")
    if answer.status not in FINAL or answer.body.startswith(b"key-reused"):
        return
    if actor.notes["principal"].encode() not in answer.body:
        world.violate(6, f"{actor.name} was shown another principal's response")
    if not any(isinstance(fact, Commit) and fact.body == answer.body for fact in world.facts):
        world.violate(1, f"{actor.name} was told what was not committed")


def _text(item: Item, name: str, missing: Any = None) -> Any:
    if name not in item:
        return missing
    (content,) = item[name].values()
    return content


def expired(item: Item, now: int) -> bool:
    """Whether a record counts as absent for a worker whose clock is as far ahead as clocks may be."""
    return bool(int(_text(item, "expires_at")) * 1000 <= now + CLOCK_SKEW_MS)
