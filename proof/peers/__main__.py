"""Measure this project and its peers in one run: ``make bench``."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track

from proof.peers import behaviours, costs
from proof.peers.libraries import handwritten, idemkit, powertools, provision_once
from proof.peers.network import Meter
from proof.peers.report import Table, write
from proof.peers.stage import Stage
from tools import errors
from tools.local import dynamodb_local
from tools.progress import console as progress
from tools.setup import ROOT

_MODULES = (provision_once, powertools, idemkit, handwritten)
_LIBRARIES = [module.LIBRARY for module in _MODULES]
_NAMES = [f"{library.name} {library.version}".strip() for library in _LIBRARIES]
_PAGE = ROOT / "docs" / "comparison.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m proof.peers", description="Compare this project with its peers.")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of timing (default: 40)")
    parser.add_argument("--starts", type=int, default=9, help="cold starts of each library (default: 9)")
    parser.add_argument("--page", type=Path, default=_PAGE, help="the page to write to (default: docs/…)")
    arguments = parser.parse_args()
    with dynamodb_local.running() as server, ExitStack() as stack:
        stages = [stack.enter_context(Stage(library, server.endpoint_url)) for library in _LIBRARIES]
        tables = [
            compare_behaviours(server.endpoint_url),
            compare_capacity(stages),
            compare_times(stages, arguments.rounds),
            compare_starts(stages, arguments.starts),
        ]
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        table.show(console)
    write(arguments.page, _introduction(), tables)
    console.print(f"written to {arguments.page}")


def compare_behaviours(endpoint: str) -> Table:
    """Play every scenario under every library."""
    rows = []
    for behaviour in track(behaviours.BEHAVIOURS, "behaviours", console=progress):
        verdicts = [behaviours.judge(behaviour, library, endpoint) for library in _LIBRARIES]
        rows.append([behaviour.title, *(": ".join(filter(None, (v.result, v.reason))) for v in verdicts)])
    totals = [f"{sum(row[column].startswith('yes') for row in rows)} of {len(rows)}" for column in (1, 2, 3, 4)]
    note = "“Not promised”: the scenario fails, but the library's documentation excludes or never mentions it."
    return Table("Behaviour", ["", *_NAMES], [*rows, ["yes", *totals]], note)


def compare_capacity(stages: Sequence[Stage]) -> Table:
    """Count round trips and capacity units of each kind of request."""
    rows = [
        [scenario.name, *(_show_meter(costs.count(scenario, stage)) for stage in stages)]
        for scenario in track(costs.SCENARIOS, "round trips and capacity", console=progress)
    ]
    note = (
        "Round trips to DynamoDB, write units (W: 1 KB each) and strongly consistent read units (R: 4 KB each). "
        "The response has 100 bytes unless the row says otherwise."
    )
    return Table("Round trips and capacity", ["", *_NAMES], rows, note)


def compare_times(stages: Sequence[Stage], rounds: int) -> Table:
    """Time each kind of request, under the libraries in turn."""
    workers = [stage.worker() for stage in stages]
    caching = [stage.worker(cache=True) for stage in stages]
    costs.time_round(workers, caching)  # for connections, and imports inside functions
    measured = [costs.time_round(workers, caching) for _ in track(range(rounds), "CPU and latency", console=progress)]
    rows = []
    for kind in measured[0]:
        for name, figure in (("CPU", attrgetter("cpu")), ("latency", attrgetter("latency"))):
            rows.append([f"{kind}: {name}", *_show_ratios([[*map(figure, a_round[kind])] for a_round in measured])])
    note = (
        f"Medians of {rounds} interleaved rounds: milliseconds per request, and the ratio to the hand-written version "
        "in the same round. CPU time is that of this process. Latency includes DynamoDB Local on the same cores, which "
        "is slower for a table with an index, such as ours; DynamoDB itself updates indexes after it has answered."
    )
    return Table("CPU and latency", ["", *_NAMES], rows, note)


def compare_starts(stages: Sequence[Stage], starts: int) -> Table:
    """Start each library in new processes, in turn."""
    measured = [
        [costs.start(module.__name__, stage.site) for module, stage in zip(_MODULES, stages, strict=True)]
        for _ in track(range(starts), "cold starts", console=progress)
    ]
    rows = [
        ["Python started and library imported", *_show_ratios([[imported for imported, _ in row] for row in measured])],
        ["… and the first request answered", *_show_ratios([[answered for _, answered in row] for row in measured])],
    ]
    note = f"Medians of {starts} new processes: CPU milliseconds, and the ratio to the hand-written version."
    return Table("Cold start", ["", *_NAMES], rows, note)


def _show_meter(meter: Meter | None) -> str:
    if meter is None:
        return "not offered"
    units = f"{meter.write_units:g} W" + (f" + {meter.read_units:g} R" if meter.read_units else "")
    return f"{meter.calls} calls, {units}" if meter.calls != 1 else f"1 call, {units}"


def _show_ratios(rounds: Sequence[Sequence[float]]) -> list[str]:
    """For each column, the median and the ratio to the last column."""
    columns = range(len(rounds[0]))
    return [
        f"{median(row[column] for row in rounds):.2f} ms, {median(row[column] / row[-1] for row in rounds):.2f}x"
        for column in columns
    ]


def _introduction() -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `make bench`: Python {platform.python_version()}, "
        f"boto3 {version('boto3')} (idemkit: aioboto3 {version('aioboto3')}), "
        f"{dynamodb_local.PACKAGE} on the same machine."
    )


if __name__ == "__main__":
    errors.run(main)
