"""Histories: what clients sent and what they were answered, and whether one execution per key explains all of it.

A history is a file of JSON lines, one per `Exchange`. For each key, the checker looks for one request that was carried
out, and a moment at which it completed, such that every answer agrees with the published specification:

    sent ─────────── answered                  409 in-progress: sent before the completion
             sent ──────────── answered        the operation's own response: answered after the completion
    ──────────────┼──────────────────────►
              completion
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from idempotency.policy import KEPT_HEADERS
from tools.local.client import Answer

NO_ANSWER = "no answer"
FINAL = "final"
KEY_REUSED = "key-reused"
_PROBLEM = "application/problem+json"
# These say nothing about the operation: the request was refused before, or nobody knows.
_NEUTRAL = frozenset({"unavailable", "too-many-requests", "unauthorized", "forbidden", "gateway-error"})
_BEFORE_COMPLETION = frozenset({"in-progress", "internal-error"})


@dataclass(frozen=True)
class Exchange:
    """A request and its answer.

    Args:
        principal: who sent it.
        path: the path that it was sent to.
        key: the idempotency key.
        body: the request's body; a different body makes a different request.
        sent: when it was sent, in seconds.
        answered: when the client saw the answer, or the end of the connection.
        outcome: `FINAL` for the operation's own response, `NO_ANSWER`, or the problem's type, such as `KEY_REUSED`.
        replayed: whether the answer says that an earlier request ran the operation.
        digest: SHA-256 of the answer's status, kept headers and body.
    """

    principal: str
    path: str
    key: str
    body: str
    sent: float
    answered: float
    outcome: str
    replayed: bool = False
    digest: str = ""

    def __str__(self) -> str:
        return f"[{self.sent:.3f} … {self.answered:.3f}] {self.body} → {self.outcome}{' (replayed)' * self.replayed}"


class History:
    """Writes a history; several threads may use it.

    Args:
        file: the file to write to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def add(self, exchange: Exchange) -> None:
        """Write an exchange."""
        with self._lock:
            self._file.write(json.dumps(asdict(exchange)) + "\n")


@contextmanager
def recording(path: Path) -> Iterator[History]:
    """A history that is written to a file."""
    with path.open("w") as file:
        yield History(file)


def load(path: Path) -> list[Exchange]:
    """Read a history."""
    return [Exchange(**json.loads(line)) for line in path.read_text().splitlines()]


def now() -> float:
    """The current time, on the clock of histories."""
    return time.monotonic()


def outcome(answer: Answer) -> str:
    """What an answer says about the operation."""
    if answer.headers.get("content-type") != [_PROBLEM]:
        return FINAL if answer.status < 500 else "unavailable"
    slug = answer.json["type"].rpartition("#")[2]
    return slug if slug in _NEUTRAL | _BEFORE_COMPLETION | {KEY_REUSED} else FINAL


def digest(answer: Answer) -> str:
    """Digest of what must be the same in every answer to a key."""
    kept = {name: values for name, values in sorted(answer.headers.items()) if name in KEPT_HEADERS}
    return sha256(json.dumps([answer.status, kept]).encode() + answer.body).hexdigest()


def check(exchanges: Iterable[Exchange]) -> list[str]:
    """Find what cannot be explained by one execution per key; nothing, if all is well.

    Each answer names what was made, so no two operations answer alike: the same answer to two keys is one too many.
    """
    keys: dict[tuple[str, str, str], list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        keys[exchange.principal, exchange.path, exchange.key].append(exchange)
    violations = [f"{' '.join(key)}: {reason}" for key, mine in keys.items() for reason in _unexplained(mine)]
    owners: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for key, mine in keys.items():
        for exchange in mine:
            if exchange.outcome == FINAL:
                owners[exchange.digest].add(key)
    violations += [f"one answer to several keys: {sorted(sharing)}" for sharing in owners.values() if len(sharing) > 1]
    return violations


def _unexplained(exchanges: Sequence[Exchange]) -> list[str]:
    """Why no request of a key can have been the one that was carried out: the reasons against the best candidate."""
    return min((_against(body, exchanges) for body in {exchange.body for exchange in exchanges}), key=len)


def _against(carried_out: str, exchanges: Sequence[Exchange]) -> list[str]:
    """What contradicts that the request with this body was carried out once."""
    same = [exchange for exchange in exchanges if exchange.body == carried_out]
    finals = [exchange for exchange in exchanges if exchange.outcome == FINAL]
    runs = [exchange for exchange in finals if not exchange.replayed]
    earlier = [exchange for exchange in exchanges if exchange.outcome in _BEFORE_COMPLETION]
    reused = [exchange for exchange in exchanges if exchange.outcome == KEY_REUSED]
    reasons = [f"answered, though it is a different request: {e}" for e in finals + earlier if e not in same]
    reasons += [f"refused as a different request, though it is the same: {e}" for e in reused if e in same]
    reasons += [f"different from the first answer: {e}" for e in finals if e.digest != finals[0].digest]
    reasons += [f"run again: {e}" for e in runs[1:]]
    reasons += [
        f"nobody can have sent the request before: {e}"
        for e in [e for e in finals if e.replayed] + [e for e in earlier if e.outcome == "in-progress"] + reused
        if not any(other.sent < e.answered for other in same if other is not e)
    ]
    completed_by = min((e.answered for e in finals), default=float("inf"))
    reasons += [f"not completed after its answer was seen: {e}" for e in earlier + runs if e.sent > completed_by]
    return reasons
