"""Show the record of a key, finished or not.

    python -m tools.ops.record KEY [--principal NAME] [--env ENV]

Without --principal, that of anybody who has a token; without --env, on the local stack. `src` must be on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from idempotency.clock import Clock
from idempotency.record import PARKED_UNTIL, Record
from idempotency.request import parse_key, record_id
from idempotency.store import Store
from tools.errors import ToolError, run
from tools.local import template
from tools.local.stored import request_of
from tools.ops import environments
from tools.ops.environments import Environment

_LONGEST_BODY = 500
_MILLISECONDS = {"lease_until", "claimed_at", "created_at"}
_SECONDS = {"expires_at"}
# A record keeps a request in a form of its own, and a response's body may be elsewhere.
_SHOWN_BY_PARTS = {"request", "response"}


def find(store: Store, key: str, principals: Iterable[str]) -> Iterator[Record]:
    """The records of a key: one for each principal and route that it was used with.

    Args:
        store: the records.
        key: the key, as clients send it.
        principals: whose it may be.

    Raises:
        ToolError: if no client could send that key.
    """
    try:
        parsed = parse_key([key])
    except Exception as error:
        raise ToolError(f"{key} is not a key: {error}") from error
    for principal in principals:
        for route in _routes():
            if parsed and (record := store.get(record_id(f"id:{principal}", "POST", route, parsed))):
                yield record


def described(record: Record, store: Store) -> Mapping[str, str]:
    """What a record says, by name; what it does not say is left out."""
    values = {name: getattr(record, name) for name in record._fields if name not in _SHOWN_BY_PARTS}
    shown = {name: _plain(name, value) for name, value in values.items() if value not in (None, "", 0) and value != {}}
    if record.request:
        request = request_of(record.request)
        shown["request"] = f"{request.method} {request.path}  {_text(request.body)}" if request else "cannot be read"
    if record.completed:
        response = store.response(record)
        shown["response"] = f"{response.status}  {_text(response.body)}"
    return {name: value for name, value in shown.items() if value not in {"()", "[]"}}


def principals(environment: Environment) -> set[str]:
    """Everybody who was ever given a token that is not gone yet."""
    pages = environment.client("dynamodb").get_paginator("scan").paginate(TableName=environment.outputs["TokensTable"])
    return {item["principal"]["S"] for page in pages for item in page["Items"]}


def _routes() -> list[str]:
    events = template.load()["Resources"]["ApiFunction"]["Properties"]["Events"].values()
    return [event["Properties"]["Path"] for event in events if event["Properties"].get("Method", "").upper() == "POST"]


def _plain(name: str, value: Any) -> str:
    if name == "lease_until" and value >= PARKED_UNTIL:
        return "parked"
    if name in _MILLISECONDS | _SECONDS:
        return datetime.fromtimestamp(value / (1000 if name in _MILLISECONDS else 1), UTC).isoformat(" ", "seconds")
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)


def _text(body: bytes) -> str:
    text = body.decode(errors="replace")
    return text if len(text) <= _LONGEST_BODY else f"{text[:_LONGEST_BODY]} … ({len(body)} bytes)"


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the record of a key.")
    parser.add_argument("key", help="the Idempotency-Key")
    parser.add_argument("--principal", help="whose key it is (default: anybody's who has a token)")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    arguments = parser.parse_args()
    if not arguments.key:
        raise ToolError("of which key? For example: make record KEY=8e03978e-40d5")
    environment = environments.find(arguments.env)
    store = Store(environment.client("dynamodb"), environment.outputs["IdempotencyTable"], Clock())
    whose = {arguments.principal} if arguments.principal else principals(environment)
    records = list(find(store, arguments.key, sorted(whose)))
    if not records:
        raise ToolError(f"there is no record of {arguments.key}, under {', '.join(sorted(whose)) or 'anybody'}")
    for record in records:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for name, value in described(record, store).items():
            table.add_row(name, Text(value))
        Console(highlight=False).print(table)


if __name__ == "__main__":
    run(main)
