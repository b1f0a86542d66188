"""Faults at the calls that a deployed function makes, and a journal of these calls."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Literal

from tools.local.processes import workers
from tools.local.stack import Stack

Side = Literal["before", "during", "after"]
Fate = Literal["kill", "lose", "refuse", "delay"]

_INJECTED = Path(__file__).with_name("injected")


@dataclass(frozen=True)
class Rule:
    """What happens to a call.

    Args:
        call: which one, such as ``dynamodb.UpdateItem`` or ``myfunnel.POST``; ``*`` stands for anything.
        number: the how manieth of the operation's calls like this, from 1; the SDK's repetitions count.
        when: before it is sent; during it, when the service has been sent it and nobody waits for the answer; or after
            it has been answered.
        do: kill -9 the worker; lose the connection; refuse with a throttling error or, from MyFunnelAPI, a 503; or
            wait.
        times: how many calls in a row.
        function: part of the name of the function that makes it; empty for any.
        seconds: how long to wait.
    """

    call: str = "*"
    number: int = 1
    when: Side = "before"
    do: Fate = "kill"
    times: int = 1
    function: str = ""
    seconds: float = 0


class Faults:
    """The rules and journals of operations, each by the id of its record (`idempotency.key.record_id`).

    Args:
        directory: where they are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the local cloud, which its workers inherit."""
        return {"PYTHONPATH": str(_INJECTED), "FAULTS": str(self._directory)}

    def expect(self, record_id: str, rules: Iterable[Rule]) -> None:
        """Have faults happen to an operation."""
        (self._directory / f"{record_id}.rules").write_text(json.dumps([asdict(rule) for rule in rules]))

    def calls(self, record_id: str) -> list[str]:
        """What an operation has called, in order, such as ``dynamodb.UpdateItem``."""
        return self._journal(record_id, "calls")

    def met(self, record_id: str) -> list[str]:
        """To which of its calls something has happened."""
        return self._journal(record_id, "met")

    def workers(self) -> set[int]:
        """Processes that have begun an operation; some may have ended since."""
        return {int(worker.stem) for worker in self._directory.glob("*.worker")}

    def kill_one(self, stack: Stack, random: Random) -> bool:
        """Kill -9 a random worker of a stack, if there is one that has come as far as to begin an operation."""
        functions = (stack.function_name, stack.recovery_function_name)
        alive = {pid for function in functions for pid in workers(stack.cloud_pid, function)}
        if not (victims := sorted(alive & self.workers())):
            return False
        with suppress(ProcessLookupError):
            os.kill(random.choice(victims), signal.SIGKILL)
        return True

    def counts(self) -> Counter[str]:
        """How often what has happened to a call, by `Rule.do`."""
        journals = self._directory.glob("*.met")
        return Counter(line.split()[2] for journal in journals for line in journal.read_text().splitlines())

    def _journal(self, record_id: str, kind: str) -> list[str]:
        journal = self._directory / f"{record_id}.{kind}"
        return [line.split()[1] for line in journal.read_text().splitlines()] if journal.exists() else []
