"""The functions' logs as they come, a line each, until Ctrl-C.

    python -m tools.ops.logs [--env ENV]

Without --env: of the local stack, from its start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from tools.errors import run
from tools.ops import environments

_FUNCTIONS = {"ApiLog": "api", "RecoveryLog": "recovery", "AuthorizerLog": "authorizer"}
_PAUSE_SECONDS = 1
# A line may show up this long after a later one of another stream.
_LATE_MILLISECONDS = 10_000
_COLOURS = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}
# The same in every line of a function.
_LEFT_OUT = frozenset(
    {
        "cold_start",
        "function_arn",
        "function_memory_size",
        "function_name",
        "function_request_id",
        "level",
        "location",
        "message",
        "service",
        "timestamp",
        "xray_trace_id",
    }
)


class Follower:
    """Reads what is new in a log group.

    Args:
        logs: a CloudWatch Logs client.
        group: the log group's name.
    """

    def __init__(self, logs: Any, group: str) -> None:
        self._logs = logs
        self._group = group
        self._seen: set[tuple[str, int, str]] = set()
        self._since = 0

    def new(self) -> Iterator[tuple[int, str]]:
        """Times (epoch milliseconds) and messages that were not there at the last call."""
        pages = self._logs.get_paginator("filter_log_events").paginate(logGroupName=self._group, startTime=self._since)
        for event in [event for page in pages for event in page["events"]]:
            # Emulators give events no eventId.
            identity = (event["logStreamName"], event["timestamp"], event["message"])
            if identity not in self._seen:
                self._seen.add(identity)
                self._since = max(self._since, event["timestamp"] - _LATE_MILLISECONDS)
                yield event["timestamp"], event["message"]


def render(function: str, timestamp: int, message: str) -> str | None:
    """A line for a person to read; None for what the platform writes around each invocation, and for metrics.

    Args:
        function: which function wrote it.
        timestamp: epoch milliseconds.
        message: what it wrote.
    """
    if message.startswith(("INIT_START ", "START ", "END ", "REPORT ")):
        return None
    try:
        entry = json.loads(message)
    except ValueError:
        entry = {"message": message.rstrip()}
    if not isinstance(entry, dict) or "message" not in entry:
        return None
    colour = _COLOURS.get(entry.get("level", ""), "default")
    moment = datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    text = escape(f"{entry['message']}  {_details(entry)}".rstrip())
    return f"[dim]{moment}[/] [cyan]{function:<10}[/] [{colour}]{text}[/]"


def _details(entry: Mapping[str, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in entry.items() if name not in _LEFT_OUT)


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the functions' logs as they come.")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    environment = environments.find(parser.parse_args().env)
    client = environment.client("logs")
    followers = {name: Follower(client, environment.outputs[output]) for output, name in _FUNCTIONS.items()}
    console = Console(highlight=False, soft_wrap=True)
    while True:
        lines = [(moment, name, text) for name, follower in followers.items() for moment, text in follower.new()]
        for moment, name, text in sorted(lines):
            if line := render(name, moment, text):
                console.print(line)
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    run(main)
