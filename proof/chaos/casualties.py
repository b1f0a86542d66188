# example campaigns
"""Workers that are killed at any moment, and what the journals say about all faults."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random

from tests.e2e.faults import Faults
from tools.local.processes import workers
from tools.local.stack import Stack


def kill_one(stack: Stack, faults: Faults, random: Random) -> bool:
    """Kill -9 a random worker of a stack, if there is one that has begun an operation."""
    functions = (stack.function_name, stack.worker_function_name)
    alive = {pid for function in functions for pid in workers(stack.cloud_pid, function)}
    begun = {int(pid) for pid, *_ in _entries(faults, "calls")}
    if not (victims := sorted(alive & begun)):
        return False
    with suppress(ProcessLookupError):
        os.kill(random.choice(victims), signal.SIGKILL)
    return True


def counts(faults: Faults) -> Counter[str]:
    """How many calls had each kind of fault, by `Rule.do`."""
    return Counter(do for *_, do in _entries(faults, "met"))


def _entries(faults: Faults, kind: str) -> Iterator[list[str]]:
    for journal in faults.directory.glob(f"*.{kind}"):
        # The last line may not be complete yet.
        yield from (line.split() for line in journal.read_text().rpartition("\n")[0].splitlines())
