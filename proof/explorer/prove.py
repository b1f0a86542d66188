"""Explore every scenario in full.

    python -m proof.explorer.prove

Prints a line for each as it ends, and each violation in full; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from proof.explorer.explorer import Report, exhaust, explain, sample
from proof.explorer.scenarios import REFUSED, SCENARIOS, Scenario, simulated

SEED = 2026
RANDOM: dict[str, Any] = {"faults": 6, "jumps": 4}
"""What may go wrong in one random schedule."""
DEEP: dict[str, Any] = {"faults": 3, "jumps": 2, "reliable": True}
"""What may go wrong beside a database that always answers, which leaves room for the services' own answers."""


def explore(scenario: Scenario, most: int) -> tuple[Report, list[str]]:
    """Search a scenario depth first; returns what was covered, and each violation explained."""
    with simulated():
        report = exhaust(scenario, most=None if scenario.whole else most)
        return report, [explain(scenario, failure) for failure in report.failures]


def wander(scenario: Scenario, schedules: int) -> tuple[Report, list[str]]:
    """Try random schedules with more faults than can be searched in full."""
    with simulated():
        report = sample(scenario, seed=SEED, schedules=schedules)
        return report, [explain(scenario, failure) for failure in report.failures]


def main() -> int:
    parser = argparse.ArgumentParser(description="Explore every schedule of the record's life.")
    parser.add_argument("--most", type=int, default=40_000, help="schedules a scenario at most (default: 40000)")
    parser.add_argument("--random", type=int, default=2_000, help="random schedules a scenario (default: 2000)")
    arguments = parser.parse_args()
    started = time.monotonic()
    total, states, broken = 0, 0, 0
    for title, (report, stories) in _searches(arguments.most, arguments.random):
        print(f"{title:<76} {report}", flush=True)
        for story in stories:
            print(f"\n{story}\n", flush=True)
        total += report.schedules
        states += report.states
        broken += len(stories)
    minutes = (time.monotonic() - started) / 60
    print(f"\n{total:,} distinct schedules, {states:,} states, {broken} violations, {minutes:.1f} minutes")
    return 1 if broken else 0


def _searches(most: int, schedules: int) -> Iterator[tuple[str, tuple[Report, list[str]]]]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        searches: dict[Future[tuple[Report, list[str]]], str] = {}
        for name, scenario in SCENARIOS.items():
            budget = f"≤ {scenario.faults} faults, ≤ {scenario.jumps} jumps"
            searches[pool.submit(explore, scenario, most)] = f"{name}, {budget}"
            if REFUSED in scenario.answers:
                deep = replace(scenario, **DEEP)
                searches[pool.submit(explore, deep, most)] = f"{name}, ≤ {deep.faults} faults beside the database's"
            searches[pool.submit(wander, replace(scenario, **RANDOM), schedules)] = f"{name}, random (seed {SEED})"
        for search in as_completed(searches):
            yield searches[search], search.result()


if __name__ == "__main__":
    sys.exit(main())
