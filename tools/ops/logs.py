"""Follow the functions' logs, as `sam logs` reads them, in lines that fit the terminal.

    python -m tools.ops.logs [--env ENV]

Without --env, on the local stack. A traceback follows the line of its error; metrics are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tools.errors import run
from tools.local import stack
from tools.ops.environments import LOCAL
from tools.setup import ENVIRONMENTS, ROOT

# What each line says of its function and its place in the code; `make logs` is about requests.
_LEFT_OUT = frozenset(
    {
        "cold_start",
        "exception",
        "exception_name",
        "function_arn",
        "function_memory_size",
        "function_name",
        "function_request_id",
        "level",
        "location",
        "message",
        "sampling_rate",
        "service",
        "timestamp",
        "xray_trace_id",
    }
)
_METRICS = "_aws"
_INDENT = " " * 9


def read(line: str, width: int) -> Iterator[str]:
    """The lines by which one of sam's is shown: an event; or what sam itself has to say, as it is."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and {"message", "timestamp"} <= event.keys():
        yield from shown(event, width)
    else:
        yield line.rstrip()


def shown(event: Mapping[str, Any], width: int) -> Iterator[str]:
    """The lines by which an event of a log is shown.

    Args:
        event: the event, as CloudWatch Logs returns it.
        width: how many columns there are.
    """
    time = f"{datetime.fromtimestamp(event['timestamp'] / 1000, UTC):%H:%M:%S}"
    text = event["message"].rstrip()
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        yield from _wrapped(f"{time} {text}", width)
    elif _METRICS not in said:
        about = [f"{name}={_plain(value)}" for name, value in said.items() if name not in _LEFT_OUT]
        yield from _wrapped(" ".join([time, said.get("level", ""), _plain(said.get("message", "")), *about]), width)
        for line in said.get("exception", "").splitlines():
            yield from _wrapped(_INDENT + line, width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=_INDENT, drop_whitespace=True, break_on_hyphens=False, replace_whitespace=False
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow the functions' logs.")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    name = parser.parse_args().env or LOCAL
    command = [ENVIRONMENTS["sam"] / "bin" / "sam", "logs", "--config-env", name, "--tail", "--output", "json"]
    environment = stack.environment() if name == LOCAL else None
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as reading:
        assert reading.stdout is not None
        for line in reading.stdout:
            for each in read(line, shutil.get_terminal_size().columns):
                print(each, flush=True)
    return reading.returncode


if __name__ == "__main__":
    run(main)
