"""Faults at the calls that a deployed function makes, and a journal of these calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Side = Literal["before", "during", "after"]
Fate = Literal["kill", "lose", "refuse", "delay"]

_INJECTED = Path(__file__).with_name("injected")


@dataclass(frozen=True)
class Rule:
    """What happens to a call.

    Args:
        call: its name, such as ``dynamodb.UpdateItem``; ``*`` stands for anything.
        number: which of the operation's calls with this name, from 1; repetitions by the SDK count.
        when: before it is sent; during it, when it has been sent but nobody waits for the answer; or after it has been
            answered.
        do: kill -9 the worker; lose the connection; refuse, as the service does when it is busy; or delay.
        times: how many calls in a row.
        function: part of the name of the function that makes it; empty for any.
        seconds: how long a delay is.
    """

    call: str = "*"
    number: int = 1
    when: Side = "before"
    do: Fate = "kill"
    times: int = 1
    function: str = ""
    seconds: float = 0


class Faults:
    """The rules and journals of operations, each by the id of its record (`idempotency.request.record_id`).

    Args:
        directory: the directory that they are kept in.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the local cloud, which its workers inherit."""
        return {"PYTHONPATH": str(_INJECTED), "INJECTED": "injector", "FAULTS": str(self.directory)}

    def expect(self, record_id: str, rules: Iterable[Rule]) -> None:
        """Make faults happen to an operation."""
        (self.directory / f"{record_id}.rules").write_text(json.dumps([asdict(rule) for rule in rules]))

    def calls(self, record_id: str) -> list[str]:
        """The calls that an operation has made, in order, such as ``dynamodb.UpdateItem``."""
        return self._journal(record_id, "calls")

    def met(self, record_id: str) -> list[str]:
        """The calls of an operation to which a fault has happened."""
        return self._journal(record_id, "met")

    def _journal(self, record_id: str, kind: str) -> list[str]:
        journal = self.directory / f"{record_id}.{kind}"
        return [line.split()[2] for line in journal.read_text().splitlines()] if journal.exists() else []
