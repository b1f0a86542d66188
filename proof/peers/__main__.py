"""Measure this project and its peers in one run: ``make bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track

from proof.peers import behaviours, costs, grow, prices
from proof.peers.libraries import handwritten, idemkit, powertools, provision_once, unprotected
from proof.peers.libraries.contract import Library
from proof.peers.network import Meter
from proof.peers.report import Table, write
from proof.peers.stage import Stage
from tools import errors
from tools.local import dynamodb_local
from tools.progress import console as progress
from tools.setup import ROOT

_MODULES = (provision_once, powertools, idemkit, handwritten)
_LIBRARIES = [module.LIBRARY for module in _MODULES]
_BASE = 1
"""The column to which the others are compared: Powertools."""
_PAGES = ROOT / "docs"
_PARTS = {
    "behaviours": "comparison.md",
    "capacity": "comparison.md",
    "times": "performance.md",
    "starts": "performance.md",
    "growth": "performance.md",
}
"""What can be measured on its own → the page that shows it."""
_RESULTS = ROOT / "proof" / "peers" / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m proof.peers", description="Compare this project with its peers.")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of timing (default: 60)")
    parser.add_argument("--starts", type=int, default=31, help="cold starts of each library (default: 31)")
    parser.add_argument("--pages", type=Path, default=_PAGES, help="the folder of the pages to write (default: docs)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="the file of all figures (default: proof/…)")
    parser.add_argument(
        "--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="the parts to measure (default: all)"
    )
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    shown: dict[str, list[Table]] = {"comparison.md": [], "performance.md": []}
    with dynamodb_local.running(options=()) as server, ExitStack() as stack:

        def staged(*libraries: Library, tuned: bool = False) -> list[Stage]:
            return [stack.enter_context(Stage(library, server.endpoint_url, tuned=tuned)) for library in libraries]

        stages = staged(*_LIBRARIES, unprotected.LIBRARY)
        measure: dict[str, Callable[[], tuple[Any, Sequence[Table]]]] = {
            "behaviours": lambda: ({}, [compare_behaviours(server.endpoint_url)]),
            "capacity": lambda: compare_capacity(stages),
            "times": lambda: compare_times(
                [*stages, *staged(*_LIBRARIES[1:], unprotected.LIBRARY, tuned=True)], arguments.rounds
            ),
            "starts": lambda: compare_starts(stages, arguments.starts),
            "growth": lambda: (grow.measure(server.endpoint_url), []),
        }
        for part in arguments.only:
            results[part], tables = measure[part]()
            shown[_PARTS[part]] += tables
    if {"capacity", "times"} <= results.keys():
        priced = compare_prices(results["capacity"], results["times"], [*map(_name, stages)])
        shown["performance.md"].append(priced)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for name, tables in shown.items():
        for table in tables:
            table.show(console)
        write(arguments.pages / name, _introduction(), tables)
    for name, picture in grow.plots(results.get("growth", {})).items():
        (arguments.pages / "images" / name).write_text(picture)
    results = {"measured": _circumstances(), **{part: results[part] for part in _PARTS if results.get(part)}}
    arguments.results.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written to {arguments.pages} and {arguments.results}")


def compare_behaviours(endpoint: str) -> Table:
    """Play every scenario under every library."""
    rows = []
    for behaviour in track(behaviours.BEHAVIOURS, "behaviours", console=progress):
        verdicts = [behaviours.judge(behaviour, library, endpoint) for library in _LIBRARIES]
        rows.append([behaviour.title, *(": ".join(filter(None, (v.result, v.reason))) for v in verdicts)])
    totals = [f"{sum(row[column].startswith('yes') for row in rows)} of {len(rows)}" for column in (1, 2, 3, 4)]
    note = "“Not promised”: the scenario fails, but the library's documentation excludes or never mentions it."
    names = [f"{library.name} {library.version}".strip() for library in _LIBRARIES]
    return Table("Behaviour", ["", *names], [*rows, ["yes", *totals]], note)


Figures = dict[str, dict[str, dict[str, float]]]
"""Row → column → figure → number."""


def compare_capacity(stages: Sequence[Stage]) -> tuple[Figures, list[Table]]:
    """Count round trips and capacity units of each kind of request."""
    meters = {
        scenario.name: {_name(stage): costs.count(scenario, stage) for stage in stages}
        for scenario in track(costs.SCENARIOS, "round trips and capacity", console=progress)
    }
    note = (
        "Round trips to DynamoDB, write units (W: 1 KB each) and strongly consistent read units (R: 4 KB each). "
        "The response has 100 bytes unless the row says otherwise. The last column protects nothing."
    )
    rows = [[name, *map(_show_meter, row.values())] for name, row in meters.items()]
    figures = {
        name: {
            column: {"calls": meter.calls, "write_units": meter.write_units, "read_units": meter.read_units}
            for column, meter in row.items()
            if meter
        }
        for name, row in meters.items()
    }
    return figures, [Table("Round trips and capacity", ["", *map(_name, stages)], rows, note)]


def compare_times(stages: Sequence[Stage], rounds: int) -> tuple[Figures, list[Table]]:
    """Time each kind of request, under the libraries in turn."""
    columns = [costs.Column.of(stage) for stage in stages]
    costs.time_round(columns)  # for connections, and imports inside functions
    measured = [
        costs.time_round(columns, number % len(columns))
        for number in track(range(rounds), "CPU and latency", console=progress)
    ]
    figures: Figures = {}
    for kind in costs.KINDS:
        figures[kind] = {_name(stage): {} for stage in stages}
        for figure in ("cpu", "latency"):
            rows = [[getattr(times, figure) for times in a_round[kind]] for a_round in measured]
            for number, stage in enumerate(stages):
                figures[kind][_name(stage)] |= {
                    f"{figure}_ms": median(row[number] for row in rows),
                    f"{figure}_ratio": median(row[number] / row[_BASE] for row in rows),
                }
    note = (
        f"Medians of {rounds} interleaved rounds of 8 requests: milliseconds per request, and the ratio to Powertools "
        "in the same round. CPU time is that of this process, in all its threads. Latency includes DynamoDB Local on "
        "the same cores; on AWS the number of round trips decides."
    )
    tuned_note = (
        "The same rounds, but the peers' SDK is set as ours (`user_agent`, `parameter_validation`): what is left is "
        "the libraries' own work. The ratio is to Powertools in the table above."
    )
    names = [_name(stage) for stage in stages]
    peers = [name for name in names[1:] if not name.endswith(_TUNED)]
    return (
        figures,
        [
            Table("CPU and latency", ["", names[0], *peers], _show_times(figures, [names[0], *peers]), note),
            Table(
                "CPU and latency with our settings of the SDK",
                ["", names[0], *peers],
                _show_times(figures, [names[0], *(name + _TUNED for name in peers)]),
                tuned_note,
            ),
        ],
    )


def compare_starts(stages: Sequence[Stage], starts: int) -> tuple[Figures, list[Table]]:
    """Start each library in new processes, in turn."""
    modules = [*_MODULES, unprotected]
    measured = [
        [costs.start(module.__name__, stage.site) for module, stage in zip(modules, stages, strict=True)]
        for _ in track(range(starts + 1), "cold starts", console=progress)
    ][1:]
    figures: Figures = {}
    for part, name in enumerate(("Python started and library imported", "… and the first request answered")):
        figures[name] = {
            _name(stage): {
                "cpu_ms": median(row[number][part] for row in measured),
                "cpu_ratio": median(row[number][part] / row[_BASE][part] for row in measured),
            }
            for number, stage in enumerate(stages)
        }
    note = (
        f"Medians of {starts} new processes, in turn: CPU milliseconds, and the ratio to Powertools in the same turn."
    )
    rows = [
        [name, *(f"{figure['cpu_ms']:.0f} ms, {figure['cpu_ratio']:.2f}x" for figure in row.values())]
        for name, row in figures.items()
    ]
    return figures, [Table("Cold start", ["", *map(_name, stages)], rows, note)]


_PRICED = {
    "First request": "First request",
    "First request that only writes a row": "First request that only writes a business row",
    "Replay": "Replay",
    "Replay, cache on": "Replay, same worker, cache on",
}
"""Kind of request that is timed → the scenario whose capacity is counted."""


def compare_prices(capacity: Figures, times: Figures, names: Sequence[str]) -> Table:
    """Price a million requests of each kind."""
    rows = []
    for kind, scenario in _PRICED.items():
        cells = []
        for name in names:
            cost, latency = capacity[scenario][name], times[kind][name]["latency_ms"]
            cells.append(str(prices.Price.of(cost["write_units"], cost["read_units"], latency)))
        rows.append([kind, *cells])
    note = (
        f"US dollars on demand ({prices.PLACE}): DynamoDB's units + Lambda's requests and their latency here, at "
        f"{prices.MEMORY_GB:g} GB on arm64. API Gateway's {prices.GATEWAY:.2f} come on top, for everybody."
    )
    return Table("A million requests", ["", *names], rows, note)


_TUNED = ", our SDK settings"


def _name(stage: Stage) -> str:
    return f"{stage.library.name} {stage.library.version}".strip() + (_TUNED if stage.tuned else "")


def _show_times(figures: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> list[list[str]]:
    return [
        [
            f"{kind}: {'CPU' if figure == 'cpu' else figure}",
            *(f"{row[name][f'{figure}_ms']:.2f} ms, {row[name][f'{figure}_ratio']:.2f}x" for name in names),
        ]
        for kind, row in figures.items()
        for figure in ("cpu", "latency")
    ]


def _show_meter(meter: Meter | None) -> str:
    if meter is None:
        return "not offered"
    units = f"{meter.write_units:g} W" + (f" + {meter.read_units:g} R" if meter.read_units else "")
    return f"{meter.calls} calls, {units}" if meter.calls != 1 else f"1 call, {units}"


def _circumstances() -> dict[str, str]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "boto3": version("boto3"),
        "aioboto3": version("aioboto3"),
        "dynamodb": dynamodb_local.PACKAGE,
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "libraries": ", ".join(f"{library.name} {library.version}".strip() for library in _LIBRARIES),
    }


def _introduction() -> str:
    told = _circumstances()
    return (
        f"Measured on {told['date']} by `make bench`: Python {told['python']}, boto3 {told['boto3']} (idemkit: "
        f"aioboto3 {told['aioboto3']}), {told['dynamodb']} on the same machine ({told['machine']})."
    )


def _processor() -> str:
    found = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else platform.machine()


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


if __name__ == "__main__":
    errors.run(main)
