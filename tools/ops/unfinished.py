"""Operations that are not finished, and what an operator can do about them.

    python -m tools.ops.unfinished list [--env ENV]
    python -m tools.ops.unfinished recover [--env ENV]
    python -m tools.ops.unfinished retry ID|all [--env ENV]

Without --env, on the local stack. `src` must be on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from idempotency.clock import Clock
from idempotency.policy import Settings
from idempotency.queue import Queue
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.store import Store
from tools.errors import ToolError, run
from tools.local.stored import request_of
from tools.ops import environments
from tools.ops.environments import Environment
from tools.ops.recovery import recover

_SHOWN_DIGITS = 12
# A message that is lost is sent again.
_SECONDS_BETWEEN_SWEEPS = 20
_PATIENCE_SECONDS = 60
_clock = Clock()


def unfinished(store: Store) -> Iterator[Record]:
    """Every recoverable operation that has not completed, oldest first."""
    found = (store.get(due.id) for due in store.due(PARKED_UNTIL + 1))
    yield from sorted((record for record in found if record and not record.completed), key=lambda r: r.created_at)


def retry(store: Store, queue: Queue, prefix: str) -> Record:
    """Have an operation carried on now, whether it is parked or only waits for its next attempt.

    Args:
        store: the records.
        queue: the queue of recovery.
        prefix: the first digits of its record's id, enough to tell it from the others.

    Raises:
        ToolError: if the prefix does not name exactly one unfinished operation, or that one is running.
    """
    records = [record for record in unfinished(store) if record.id.startswith(prefix)]
    if len(records) != 1:
        raise ToolError(f"{len(records) or 'no'} unfinished operations have an id that begins with {prefix}")
    if not _carry_on(store, queue, records[0]):
        raise ToolError(f"{prefix} is running, or already due: make recover")
    return records[0]


def retry_all(store: Store, queue: Queue) -> int:
    """Have every parked operation carried on now; returns how many."""
    return sum(_carry_on(store, queue, record) for record in unfinished(store) if record.parked)


def _carry_on(store: Store, queue: Queue, record: Record) -> bool:
    # Due by the clock of any worker.
    carried_on = store.unpark(record.id, _clock.now() - Settings().clock_skew * 1000)
    if carried_on:
        queue.send(record.id)
    return carried_on


def drain(store: Store, sweep: Callable[[], int], told: Callable[[int], None]) -> int:
    """Send everything that is due to the workers, and wait until they have taken all of it up.

    Args:
        store: the records.
        sweep: runs the sweep, and returns how many operations it sent.
        told: called each second with how many are left.

    Returns:
        How many operations were due.

    Raises:
        ToolError: if the workers take nothing up.
    """
    was_due = {due.id: due.lease_until for due in store.due(_clock.now())}
    left, patience = len(was_due), _PATIENCE_SECONDS
    while left:
        sweep()
        for _ in range(_SECONDS_BETWEEN_SWEEPS):
            told(left)
            time.sleep(1)
            before, left = left, sum(was_due.get(due.id) == due.lease_until for due in store.due(_clock.now()))
            patience = patience - 1 if left == before else _PATIENCE_SECONDS
            if not left:
                break
        if patience <= 0:
            raise ToolError(f"{left} are due, and no worker takes them up: see the alarm WorkerThrottled, and its log")
    return len(was_due)


def _show(console: Console, records: list[Record]) -> None:
    """Show what is known of each in lines that fit a terminal of 80 columns."""
    now = _clock.now()
    margin = " " * (_SHOWN_DIGITS + 2)
    for record in records:
        request = request_of(record.request)
        what = f"{request.method} {request.path}  {request.principal}" if request else "made by another version"
        console.print(f"[bold]{record.id[:_SHOWN_DIGITS]}[/]  {escape(what)}")
        age = _duration(now - record.created_at)
        console.print(f"{margin}{_state(record, now)}; attempt {record.attempt}; {age} old")
        if record.last_error:
            console.print(Padding(Text(record.last_error), (0, 0, 0, len(margin))))


def _state(record: Record, now: int) -> str:
    waits = [
        f"waits for {escape(name)} since {_duration(now - begun)}"
        for name, begun in record.waits.items()
        if name not in record.steps
    ]
    return ", ".join([_when(record, now), *waits])


def _when(record: Record, now: int) -> str:
    if record.parked:
        return "[red]parked[/]"
    if record.lease_until < now:
        return f"due since {_duration(now - record.lease_until)}"
    left = _duration(record.lease_until - now)
    return f"due in {left}" if record.status is Status.RELEASED else f"running, lease ends in {left}"


def _duration(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _store(environment: Environment) -> Store:
    return Store(environment.client("dynamodb"), environment.outputs["IdempotencyTable"], _clock)


def main() -> None:
    parser = argparse.ArgumentParser(description="List, retry and recover operations that are not finished.")
    parser.add_argument("action", choices=["list", "recover", "retry"])
    parser.add_argument("id", nargs="?", default="", help="the first digits of the operation's id, or all (retry)")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    arguments = parser.parse_args()
    if arguments.action == "retry" and not arguments.id:
        raise ToolError("which operation? For example: make retry ID=1f0c; make unfinished lists them")
    environment = environments.find(arguments.env)
    store, queue = (
        _store(environment),
        Queue(lambda: environment.client("sqs"), environment.outputs["RecoveryQueueUrl"]),
    )
    console = Console(highlight=False)
    match arguments.action:
        case "list":
            if records := list(unfinished(store)):
                _show(console, records)
            else:
                console.print("every operation is finished")
        case "recover":
            sweep = partial(recover, environment.client("lambda"), environment.outputs["RecoveryFunctionName"])
            with console.status("") as status:
                number = drain(store, sweep, lambda left: status.update(f"{left} left"))
            console.print(f"{number} were due, and are taken up" if number else "nothing is due")
        case "retry" if arguments.id == "all":
            console.print(f"{retry_all(store, queue)} parked operations are carried on")
        case "retry":
            record = retry(store, queue, arguments.id)
            console.print(f"{record.id[:_SHOWN_DIGITS]} is carried on now")


if __name__ == "__main__":
    run(main)
