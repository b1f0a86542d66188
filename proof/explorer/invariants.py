"""The design's nine invariants, checked at each change of a record or row, each effect, each answer and at the end.

They see what happens in the world, never what the code under test believes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from idempotency.response import StoredResponse
from idempotency.store import _decode, _record
from proof.explorer.dynamodb import Change
from proof.explorer.expressions import Item
from proof.explorer.world import Actor, World
from tools.local.client import Answer

RECORDS = "records"
ROWS = "rows"
CLOCK_SKEW_MS = 2_000
FINAL = (201, 422)
REPLAYED = {"idempotent-replayed": ["true"]}


@dataclass(frozen=True)
class Effect:
    """A call of another service that has taken effect there."""

    operation_id: str
    step: str
    key: str


@dataclass(frozen=True)
class Failure:
    """A call of another service that was made, and came to nothing there; the caller cannot know."""

    operation_id: str
    step: str


@dataclass(frozen=True)
class Standing:
    """What a step has made in another service, until it is undone there.

    Args:
        undoable: whether its code says how it is undone.
        overdue: whether whoever made it had outlived its lease, which no process of Lambda does.
        known: whether the record tells of it, or every version of the code has this step.
        kept: whether the record has its result.
    """

    operation_id: str
    step: str
    undoable: bool
    overdue: bool
    known: bool
    kept: bool = False


@dataclass(frozen=True)
class Told:
    """What an operator was told of an operation."""

    operation_id: str
    doubt: str

    def covers(self, step: str) -> bool:
        """Whether it names the step, or says that it could be any."""
        return repr(step) in self.doubt or "step '" not in self.doubt


@dataclass(frozen=True)
class Commit:
    """A response that was made the operation's last word.

    Args:
        taken: the steps on the way that the business code took to it.
    """

    operation_id: str
    status: int
    body: bytes
    taken: frozenset[str]

    @property
    def failed(self) -> bool:
        return self.status >= 400


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
        actor.notes["steps"] = set(_members(after, "steps"))
    _watch_knowledge(world, after)
    if _text(after, "status") == "PROCESSING":
        actor.notes["lease"] = int(_text(after, "lease_until"))
    actor.notes["wrote"] = world.database.calls
    if before is not None and not expired(before, world.now):
        _watch_life(world, actor, before, after)
    if _text(after, "status") == "COMPLETED":
        operation_id = _text(after, "operation_id")
        taken = frozenset(actor.notes.get("taken", {}).get(operation_id, ()))
        commit = Commit(operation_id, *stored(world, change.key[0]), taken)
        world.facts.append(commit)
        _watch_left_behind(world, commit)


def _watch_knowledge(world: World, after: Item) -> None:
    kept, begun = _members(after, "steps"), {name["S"] for name in _text(after, "begun", ())}
    operation_id = _text(after, "operation_id")
    for number, fact in enumerate(world.facts):
        if isinstance(fact, Standing) and fact.operation_id == operation_id and not fact.kept:
            known, has_result = fact.known or fact.step in begun, fact.step in kept
            world.facts[number] = replace(fact, known=known or has_result, kept=has_result)


def _watch_claim(world: World, actor: Actor, before: Item | None, after: Item) -> None:
    # An actor never learns of a claim that lands after the SDK gave it up.
    actor.notes.setdefault("unaware" if world.landing else "claimed", set()).add(_text(after, "owner"))
    actor.notes.setdefault("owned", set()).add(_text(after, "owner"))
    actor.notes["steps"] = set(_members(after, "steps"))
    if before is None or expired(before, world.now) or _text(before, "status") == "RELEASED":
        return
    if int(_text(before, "lease_until")) >= world.now + CLOCK_SKEW_MS:
        world.violate(1, f"{actor.name} took over a key whose holder may still be running")


def _watch_life(world: World, actor: Actor, before: Item, after: Item) -> None:
    if _text(before, "status") == "COMPLETED":
        world.violate(1, f"{actor.name} changed a completed record")
    if _text(before, "operation_id") != _text(after, "operation_id"):
        world.violate(3, f"{actor.name} dropped the operation's id")
    if _text(after, "status") == "COMPLETED":
        return
    for kind in ("steps", "refused"):
        if not _members(before, kind).items() <= _members(after, kind).items():
            world.violate(3, f"{actor.name} dropped the outcome of a step")


def watch_row(world: World, actor: Actor, change: Change) -> None:
    """Check a business row: changed by its operation's owner alone, in one call with the operation's record."""
    if change.table != ROWS:
        return
    before, after = change.before, change.after
    written_by = _text(after or before or {}, "operation_id")
    record = _record_of(world, written_by)
    if record is None or _text(record, "owner") not in actor.notes.get("owned", ()):
        world.violate(2, f"{actor.name} changed a business row without owning the key")
    elif actor.notes.get("wrote") != world.database.calls:
        world.violate(2, f"{actor.name} changed a business row apart from the record")
    if before is not None and after is not None:
        world.violate(6 if _text(before, "operation_id") != written_by else 1, f"{actor.name} replaced a business row")


def watch_effect(world: World, actor: Actor, effect: Effect, *, undoable: bool) -> None:
    """Check a call of another service: 3 (same key, never after its checkpoint), 7 (never unprotected), 8 (the end)."""
    _watch_call(world, actor, effect)
    overdue = world.now > actor.notes.get("lease", world.now)
    before = _take_down(world, effect.operation_id, effect.step)
    overdue &= all(fact.overdue for fact in before)
    known = effect.step not in actor.notes.get("unshared", ()) or any(fact.known for fact in before)
    world.facts.append(Standing(effect.operation_id, effect.step, undoable, overdue, known))
    for commit in [fact for fact in world.facts if isinstance(fact, Commit)]:
        if commit.operation_id == effect.operation_id:
            _watch_left_behind(world, commit)


def watch_failure(world: World, failure: Failure) -> None:
    """Note a call of another service that came to nothing there."""
    if failure not in world.facts:
        world.facts.append(failure)


def watch_doubt(world: World, told: Told) -> None:
    """Check what an operator is told: 8 (no alarm without a cause).

    A step that is named was called, or has a result; after an attempt that was cut off, nobody can know.
    """
    world.facts.append(told)
    record = _record_of(world, told.operation_id)
    if record is None or int(_text(record, "attempt")) - 1 > int(_text(record, "releases", 0)):
        return
    for step in re.findall(r"step '([^']*)'", told.doubt):
        called = any(
            isinstance(fact, (Effect, Failure)) and (fact.operation_id, fact.step) == (told.operation_id, step)
            for fact in world.facts
        )
        if not called and step not in _members(record, "steps"):
            world.violate(8, f"an operator is told of {step!r}, which nobody has called")


def watch_undo(world: World, actor: Actor, undo: Effect, step: str) -> None:
    """Check a call of another service that undoes a step: 3, 7."""
    _watch_call(world, actor, undo)
    _take_down(world, undo.operation_id, step)


def _left_behind(world: World, commit: Commit) -> set[str]:
    """The steps whose effects stand though the operation ended without them, and of which nobody was told.

    To tell is not enough where the operation failed and the record has a step's result: that can be undone.
    """
    told = [fact for fact in world.facts if isinstance(fact, Told) and fact.operation_id == commit.operation_id]
    found = set()
    for fact in world.facts:
        if not isinstance(fact, Standing) or fact.operation_id != commit.operation_id:
            continue
        left = fact.undoable if commit.failed else fact.step not in commit.taken
        excused = not (commit.failed and fact.kept) and any(each.covers(fact.step) for each in told)
        if left and fact.known and not fact.overdue and not excused:
            found.add(fact.step)
    for row in world.database.tables[ROWS].items.values():
        step = _text(row, "step")
        if step and _text(row, "operation_id") == commit.operation_id and (commit.failed or step not in commit.taken):
            found.add(step)
    return found


def _watch_left_behind(world: World, commit: Commit) -> None:
    for step in sorted(_left_behind(world, commit)):
        world.violate(8, f"the operation ended with {commit.status}, and {step!r} is left behind in silence")
    if commit.failed:
        return
    happened, standing = (
        {fact.step for fact in world.facts if isinstance(fact, kind) and fact.operation_id == commit.operation_id}
        for kind in (Effect, Standing)
    )
    for step in sorted(commit.taken & happened - standing):
        world.violate(8, f"the operation succeeded, and {step!r} is undone")


def _take_down(world: World, operation_id: str, step: str) -> list[Standing]:
    """Remove what stands of a step, and return it."""
    found = [
        fact
        for fact in world.facts
        if isinstance(fact, Standing) and (fact.operation_id, fact.step) == (operation_id, step)
    ]
    for fact in found:
        world.facts.remove(fact)
    return found


def _watch_call(world: World, actor: Actor, effect: Effect) -> None:
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
    world.facts.append(effect)


def watch_answer(world: World, actor: Actor) -> None:
    """Check an answer: 1 (what was committed), 4 (no failure inside), 5 (not my own write), 6 (only my own)."""
    answer: Answer = actor.answer
    record = world.database.tables[RECORDS].items.get((actor.notes.get("record"),))
    if answer.status == 500 and not is_final(world, answer):
        world.violate(4, f"{actor.name} failed inside: {answer.body.decode()}")
    if answer.status == 202 and not record:
        world.violate(4, f"{actor.name} was told that its operation is accepted, of which there is no record")
    if answer.status == 409 and record and _text(record, "owner") in actor.notes.get("claimed", ()):
        world.violate(5, f"{actor.name} took its own write for somebody else's")
    if not is_final(world, answer) or refuses_the_key(answer):
        return
    if answer.status != 500 and actor.notes["principal"].encode() not in answer.body:
        world.violate(6, f"{actor.name} was shown another principal's response")
    if not any(isinstance(fact, Commit) and fact.body == answer.body for fact in world.facts):
        world.violate(1, f"{actor.name} was told what was not committed")


def is_final(world: World, answer: Answer) -> bool:
    """Whether an answer is the last word on its key: any status may be, if it was committed."""
    return answer.status in FINAL or any(
        isinstance(fact, Commit) and (fact.status, fact.body) == (answer.status, answer.body) for fact in world.facts
    )


def refuses_the_key(answer: Answer) -> bool:
    """Whether the key belongs to another request."""
    return b"#key-reused" in answer.body


def _record_of(world: World, operation_id: str) -> Item | None:
    """The record of an operation, read behind the back of the code under test."""
    records = world.database.tables[RECORDS].items.values()
    return next((item for item in records if _text(item, "operation_id") == operation_id), None)


def _text(item: Item, name: str, missing: Any = None) -> Any:
    if name not in item:
        return missing
    (content,) = item[name].values()
    return content


def stored(world: World, id_: str) -> tuple[int, bytes]:
    """Status and body that a record keeps, read behind the back of the code under test."""
    items = world.database.tables[RECORDS].items
    record = _record(_decode(items[(id_,)]))
    assert record.response is not None
    body = record.response.get("body")
    if body is None:
        parts = [items[(f"{id_}#{record.owner}#{part}",)]["body"]["B"] for part in range(record.response["parts"])]
        body = b"".join(parts)
    response = StoredResponse.unpack(record.response, body)
    return response.status, response.body


def _members(item: Item, name: str) -> dict[str, Any]:
    return dict(_text(item, name, {}))


def expired(item: Item, now: int) -> bool:
    """Whether a record counts as absent for a worker whose clock is as far ahead as clocks may be."""
    return bool(int(_text(item, "expires_at")) * 1000 <= now + CLOCK_SKEW_MS)
