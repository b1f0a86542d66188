"""Operations that are not finished, and what an operator can do about them.

    python -m tools.ops.unfinished list [--env ENV]
    python -m tools.ops.unfinished recover [--env ENV]
    python -m tools.ops.unfinished retry ID [--env ENV]

Without --env, on the local stack. `src` must be on PYTHONPATH.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from idempotency.clock import Clock
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.request import Request
from idempotency.store import Store
from tools.errors import ToolError, run
from tools.ops import environments
from tools.ops.environments import Environment
from tools.ops.recovery import recover

_SHOWN_DIGITS = 12
_clock = Clock()


def unfinished(store: Store) -> Iterator[Record]:
    """Every recoverable operation that has not completed, oldest first."""
    found = (store.get(due.id) for due in store.due(PARKED_UNTIL + 1))
    yield from sorted((record for record in found if record and not record.completed), key=lambda r: r.created_at)


def retry(store: Store, prefix: str) -> Record:
    """Make an operation due for recovery now, whether it is parked or only waits for its next attempt.

    Args:
        store: the records.
        prefix: the first digits of its record's id, enough to tell it from the others.

    Raises:
        ToolError: if the prefix does not name exactly one unfinished operation, or that one is running.
    """
    records = [record for record in unfinished(store) if record.id.startswith(prefix)]
    if len(records) != 1:
        raise ToolError(f"{len(records) or 'no'} unfinished operations have an id that begins with {prefix}")
    if not store.unpark(records[0].id, _clock.now()):
        raise ToolError(f"{prefix} is running, or already due: make recover")
    return records[0]


def _show(console: Console, records: list[Record]) -> None:
    now = _clock.now()
    table = Table(box=None, header_style="bold")
    for heading in ("id", "operation", "principal", "attempt", "age", "state", "last error"):
        table.add_column(heading, overflow="fold")
    for record in records:
        request = Request.unpack(record.request) if record.request else None
        table.add_row(
            record.id[:_SHOWN_DIGITS],
            f"{request.method} {request.path}" if request else "",
            request.principal if request else "",
            str(record.attempt),
            _duration(now - record.created_at),
            _state(record, now),
            record.last_error or "",
        )
    console.print(table)


def _state(record: Record, now: int) -> str:
    if record.lease_until >= PARKED_UNTIL:
        return "[red]parked[/]"
    if record.lease_until < now:
        return "due"
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
    parser.add_argument("id", nargs="?", default="", help="the first digits of the operation's id (retry)")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    arguments = parser.parse_args()
    if arguments.action == "retry" and not arguments.id:
        raise ToolError("which operation? For example: make retry ID=1f0c; make unfinished lists them")
    environment = environments.find(arguments.env)
    console = Console(highlight=False)
    match arguments.action:
        case "list":
            if records := list(unfinished(_store(environment))):
                _show(console, records)
            else:
                console.print("every operation is finished")
        case "recover":
            done = recover(environment.client("lambda"), environment.outputs["RecoveryFunctionName"])
            console.print(f"{done['taken_up']} taken up, {done['completed']} completed")
        case "retry":
            record = retry(_store(environment), arguments.id)
            console.print(
                f"{record.id[:_SHOWN_DIGITS]} is due: recovery takes it up within a minute; or run make recover"
            )


if __name__ == "__main__":
    run(main)
