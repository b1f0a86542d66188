"""Stateless model checking: run a world again and again, each time along a schedule not taken before.

A run is steered at every point, so it needs no snapshot: the search goes back by running a shorter prefix again. A
point whose state was met before, on whatever way, is not searched twice.

Sources: P. Godefroid, "Model Checking for Programming Languages using VeriSoft" (POPL 1997), for the search by
re-execution; A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), for shrinking.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from proof.explorer.world import END, GO, TIME, Event, Option, Violation, World

Build: TypeAlias = Callable[[], World]
Pick: TypeAlias = Callable[[World, list[Option]], Option | None]

FAULT_ODDS = 0.15
"""How often a random schedule picks something out of the ordinary, where it can."""


@dataclass(frozen=True)
class Failure:
    """A schedule that breaks an invariant."""

    violation: Violation
    schedule: tuple[str, ...]

    @property
    def replay(self) -> str:
        """What `replay` takes to run it again."""
        return " ".join(self.schedule)


@dataclass
class Report:
    """What a search covered.

    Args:
        schedules: distinct sequences of choices that were run: to the end, or into a state already searched.
        merged: how many of them ended in a state already searched.
        states: distinct states met.
        points: choices made, those of repeated prefixes included.
        exhausted: there is no other schedule within the budget.
    """

    schedules: int = 0
    merged: int = 0
    states: int = 0
    points: int = 0
    seconds: float = 0.0
    exhausted: bool = False
    failures: list[Failure] = field(default_factory=list)

    def adds(self, failure: Failure, wanted: frozenset[int] | None) -> bool:
        """Keep a failure if it is the first of its invariant; returns whether nothing else is wanted."""
        known = {other.violation.invariant for other in self.failures}
        if failure.violation.invariant not in known:
            self.failures.append(failure)
            known.add(failure.violation.invariant)
        return wanted is None or wanted <= known

    def __str__(self) -> str:
        kind = "exhaustive" if self.exhausted else "bounded"
        return (
            f"{self.schedules:,} schedules ({kind}; {self.merged:,} merged into states already searched), "
            f"{self.states:,} states, {self.seconds:.1f} s, {len(self.failures)} violations"
        )


def exhaust(build: Build, *, most: int | None = None, wanted: frozenset[int] | None = None) -> Report:
    """Run every schedule, depth first.

    Args:
        build: makes the world, anew for each run.
        most: the number of schedules after which to give up being exhaustive.
        wanted: go on until these invariants are broken, and keep the first failure of each; None: until any is.
    """
    report = Report()
    started = time.monotonic()
    seen: set[int] = set()
    branches: list[tuple[list[Option], int]] = []
    while True:
        search = _DepthFirst(branches, seen)
        failure = _run(build, search, report)
        report.schedules += 1
        report.merged += search.merged
        if failure is not None and report.adds(failure, wanted):
            break
        while branches and branches[-1][1] == len(branches[-1][0]) - 1:
            branches.pop()
        if not branches:
            report.exhausted = True
            break
        options, taken = branches[-1]
        branches[-1] = (options, taken + 1)
        if report.schedules == most:
            break
    report.states = len(seen)
    report.seconds = time.monotonic() - started
    return report


def sample(build: Build, *, seed: int, schedules: int, wanted: frozenset[int] | None = None) -> Report:
    """Run random schedules, for worlds that are too large to exhaust; the same seed gives the same ones."""
    report = Report()
    started = time.monotonic()
    states: set[int] = set()
    distinct: set[int] = set()
    for number in range(schedules):
        walk = _Random(random.Random(f"{seed}/{number}"), states)
        failure = _run(build, walk, report)
        distinct.add(walk.taken)
        if failure is not None and report.adds(failure, wanted):
            break
    report.schedules = len(distinct)
    report.states = len(states)
    report.seconds = time.monotonic() - started
    return report


def replay(build: Build, schedule: str | Sequence[str]) -> tuple[Failure | None, list[Event]]:
    """Run one schedule again, and keep its events for a timeline.

    A label that is not on offer is passed over, and past the end the least eventful option is taken: so a schedule
    still means something after the code changed, and a shortened one can be tried.
    """
    labels = schedule.split() if isinstance(schedule, str) else list(schedule)
    world_events: list[Event] = []

    def traced() -> World:
        world = build()
        world.events = world_events
        return world

    return _run(traced, _Follow(labels), Report()), world_events


def shrink(build: Build, failure: Failure) -> Failure:
    """The same violation by a schedule from which no single choice can be left out; what follows it is the default."""
    labels = failure.schedule
    weight = _weight(failure)
    position = len(labels) - 1
    while position >= 0:
        shorter = labels[:position] + labels[position + 1 :]
        found, _ = replay(build, shorter)
        if found and found.violation.invariant == failure.violation.invariant and _weight(found) <= weight:
            labels, weight = shorter, _weight(found)
        position -= 1
    return Failure(failure.violation, labels)


def _weight(failure: Failure) -> tuple[int, int]:
    """Few faults first, then few changes of actor."""
    labels = failure.schedule
    subjects = [label.partition(":")[0] for label in labels]
    switches = sum(one != other for one, other in pairwise(subjects))
    return sum(":" in label for label in labels), switches


def timeline(events: Iterable[Event], actors: Sequence[str]) -> str:
    """Events as a table with one column an actor; times are milliseconds since the start."""
    columns = [*actors, "world"]
    rows = [(f"{event.now:,}", columns.index(event.actor), event.text) for event in events]
    widths = [
        max([len(name), *(len(text) for _, at, text in rows if at == column)]) for column, name in enumerate(columns)
    ]
    clock = max([7, *(len(now) for now, _, _ in rows)])
    lines = ["  ".join([f"{'ms':>{clock}}", *(name.ljust(width) for name, width in zip(columns, widths, strict=True))])]
    for now, at, text in rows:
        cells = [(text if column == at else "").ljust(width) for column, width in enumerate(widths)]
        lines.append("  ".join([f"{now:>{clock}}", *cells]).rstrip())
    return "\n".join(lines)


def explain(build: Build, failure: Failure) -> str:
    """A failure in full: what it breaks, its timeline, and how to replay it."""
    smallest = shrink(build, failure)
    found, events = replay(build, smallest.schedule)
    assert found is not None
    names = list(dict.fromkeys(event.actor for event in events if event.actor != "world"))
    return f"{found.violation}\n\n{timeline(events, names)}\n\nreplay: {smallest.replay}"


class _DepthFirst:
    """Follows the branches taken so far, then goes on along the first option, until a state is met again."""

    def __init__(self, branches: list[tuple[list[Option], int]], seen: set[int]) -> None:
        self._branches = branches
        self._seen = seen
        self._depth = 0
        self._known = len(branches)
        self.merged = False

    def __call__(self, world: World, options: list[Option]) -> Option | None:
        # The end counts as a choice only to be searched once: what follows it may have branches of its own.
        if len(options) == 1 and (options[0].subject != END or self._depth < self._known):
            return options[0]
        if self._depth == self._known:
            state = world.state()
            if state in self._seen:
                self.merged = True
                return None
            self._seen.add(state)
            if len(options) == 1:
                return options[0]
            self._branches.append((options, 0))
            self._known += 1
        options, taken = self._branches[self._depth]
        self._depth += 1
        return options[taken]


class _Random:
    """Mostly the ordinary, now and then a fault."""

    def __init__(self, chance: random.Random, states: set[int]) -> None:
        self._chance = chance
        self._states = states
        self.taken = 0

    def __call__(self, world: World, options: list[Option]) -> Option:
        self._states.add(world.state())
        ordinary = [option for option in options if option.action == GO and option.subject != TIME]
        usual = ordinary and self._chance.random() > FAULT_ODDS
        option = self._chance.choice(ordinary if usual else options)
        self.taken = hash((self.taken, option))
        return option


class _Follow:
    def __init__(self, labels: list[str]) -> None:
        self._labels = iter(labels)

    def __call__(self, world: World, options: list[Option]) -> Option:
        by_label = {str(option): option for option in options}
        if len(by_label) == 1:
            return options[0]
        for label in self._labels:
            if label in by_label:
                return by_label[label]
        return options[0]


def _run(build: Build, pick: Pick, report: Report) -> Failure | None:
    """Run one schedule; None if it broke nothing."""
    world = build()
    taken: list[str] = []
    try:
        while options := world.options():
            option = pick(world, options)
            if option is None:
                break
            report.points += 1
            if len(options) > 1:
                taken.append(str(option))
            world.perform(option)
    except Violation as violation:
        return Failure(violation, tuple(taken))
    finally:
        world.abandon()
    return None
