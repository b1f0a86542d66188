"""What each library costs: round trips and capacity, CPU and latency, and a cold start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid4, uuid5

from proof.peers.libraries.contract import Attempt, Request, Response, Site, Work, Worker
from proof.peers.network import Meter
from proof.peers.stage import Stage, elsewhere, new_request
from tools.errors import ToolError
from tools.setup import ROOT

_WAIT_SECONDS = 2
_REQUESTS_PER_ROUND = 8
_FIRST, _WITH_ROW = "First request", "First request that only writes a row"
_REPLAY, _CACHED = "Replay", "Replay, cache on"
KINDS = (_FIRST, _WITH_ROW, _REPLAY, _CACHED)
"""The kinds of requests that are timed."""


def servers(count: int) -> Work:
    """Make business logic that answers with a list of servers, some 100 bytes each."""
    ids = [f"srv-{uuid5(NAMESPACE_URL, str(number))}" for number in range(count)]
    body = json.dumps([{"id": id_, "region": "eu-west", "size": "large", "status": "provisioned"} for id_ in ids])
    answer = Response(body=body, headers={"content-type": "application/json", "location": f"/orders/{ids[0]}"})
    return lambda _: answer


def one_server_and_its_row(attempt: Attempt) -> Response:
    """Answer with one server, and write its row."""
    attempt.save({"id": f"server#{uuid4()}", "principal": "alice", "region": "eu-west", "size": "large"})
    return servers(1)(attempt)


# --- round trips and capacity ---


def first(stage: Stage, work: Work, **settings: bool) -> Meter:
    """Meter a first request."""
    return _metered(stage, stage.worker(**settings), new_request(), work)


def replay(stage: Stage, work: Work) -> Meter:
    """Meter a replay by a worker that has not seen the key."""
    request = new_request()
    stage.worker().post(request, work)
    return _metered(stage, stage.worker(), request, work)


def warm_replay(stage: Stage, work: Work) -> Meter:
    """Meter a replay by the worker that ran the operation, with its cache on."""
    request, worker = new_request(), stage.worker(cache=True)
    worker.post(request, work)
    return _metered(stage, worker, request, work)


def refused(stage: Stage, work: Work) -> Meter:
    """Meter a duplicate that is refused while the first request runs."""
    request, meters = new_request(), []

    def busy(attempt: Attempt) -> Response:
        meters.append(elsewhere(lambda: _metered(stage, stage.worker(), request, work)))
        return work(attempt)

    stage.worker().post(request, busy)
    return meters[0]


def waited(stage: Stage, work: Work) -> Meter:
    """Meter a duplicate that waits until the first request answers."""
    request, running = new_request(), threading.Event()

    def slow(attempt: Attempt) -> Response:
        running.set()
        time.sleep(_WAIT_SECONDS)
        return work(attempt)

    worker, duplicate = stage.worker(), stage.worker(wait=10)
    runner = threading.Thread(target=worker.post, args=(request, slow))
    runner.start()
    running.wait()
    meter = _metered(stage, duplicate, request, work)
    runner.join()
    return meter


def failed(stage: Stage, _: Work) -> Meter:
    """Meter a first request whose operation fails unexpectedly, and which a retry may run again."""

    def fail(_: Attempt) -> Response:
        raise RuntimeError("no capacity")

    return _metered(stage, stage.worker(), new_request(), fail)


@dataclass(frozen=True)
class Scenario:
    """A kind of request whose cost is counted.

    Args:
        name: its name in the table.
        meter: sends it.
        work: its business logic.
        promise: the behaviour that a library must promise, or it has no cost here; empty for none.
    """

    name: str
    meter: Callable[[Stage, Work], Meter]
    work: Work = field(default_factory=lambda: servers(1))
    promise: str = ""


SCENARIOS = (
    Scenario("First request", first),
    Scenario("Replay", replay),
    Scenario("Replay, same worker, cache on", warm_replay),
    Scenario("Duplicate refused while the first runs", refused),
    Scenario(f"Duplicate that waits {_WAIT_SECONDS} s for the answer", waited, promise="waited"),
    Scenario("Failure that a retry may run again", failed),
    Scenario(
        "First request that only writes a business row",
        lambda stage, work: first(stage, work, atomic=True),
        one_server_and_its_row,
    ),
    Scenario("First request that also writes a business row", first, one_server_and_its_row),
    Scenario(
        "First request that recovery would finish",
        lambda stage, work: first(stage, work, recoverable=True),
        promise="recovered",
    ),
    Scenario("First request, 3 KB response", first, servers(30)),
    Scenario("Replay, 3 KB response", replay, servers(30)),
    Scenario("First request, 100 KB response", first, servers(1000)),
    Scenario("Replay, 100 KB response", replay, servers(1000)),
)


def count(scenario: Scenario, stage: Stage) -> Meter | None:
    """Send a scenario's request; None if the library does not promise the behaviour that it needs."""
    return None if scenario.promise in stage.library.not_promised else scenario.meter(stage, scenario.work)


def _metered(stage: Stage, worker: Worker, request: Request, work: Work) -> Meter:
    meter = Meter(stage)
    with meter.on(worker):
        worker.post(request, work)
    return meter


# --- time ---


@dataclass(frozen=True)
class Times:
    """Time of one request, in milliseconds.

    Args:
        cpu: of this process, in all its threads.
        latency: until the answer.
    """

    cpu: float
    latency: float


class Column(NamedTuple):
    """A library's execution environments, one for each kind of request."""

    plain: Worker
    atomic: Worker
    caching: Worker

    @classmethod
    def of(cls, stage: Stage) -> Column:
        """Start them."""
        return cls(stage.worker(), stage.worker(atomic=True), stage.worker(cache=True))


def time_round(columns: Sequence[Column], first: int = 0) -> Mapping[str, Sequence[Times]]:
    """Time some requests under one library after another: kind of request → times of each.

    Args:
        columns: the libraries.
        first: which of them begins.
    """
    times: dict[str, dict[int, Times]] = {kind: {} for kind in KINDS}
    for number in [*range(first, len(columns)), *range(first)]:
        column = columns[number]
        seen, others = ([new_request() for _ in range(_REQUESTS_PER_ROUND)] for _ in range(2))
        work = servers(1)
        for _ in range(2):  # one of the libraries caches what it has replayed, not what it has run
            _timed(column.caching, others, work)
        for kind, worker, requests, what in (
            (_FIRST, column.plain, seen, work),
            (_WITH_ROW, column.atomic, [new_request() for _ in seen], one_server_and_its_row),
            (_REPLAY, column.plain, seen, work),
            (_CACHED, column.caching, others, work),
        ):
            times[kind][number] = _timed(worker, requests, what)
    return {kind: [by_number[number] for number in range(len(columns))] for kind, by_number in times.items()}


def start(module: str, site: Site) -> tuple[float, float]:
    """Start a library in a new process, with bytecode of all modules, as the artifact has it, from the second start on.

    Returns:
        CPU milliseconds until it is imported, and until it has answered a request.

    Raises:
        ToolError: if it does not start or answer.
    """
    command = [sys.executable, "-m", "proof.peers.start", module, site.endpoint, site.records, site.rows]
    written = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=written)
    if done.returncode:
        raise ToolError(f"{module} did not start: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    imported, answered = done.stdout.split()
    return float(imported), float(answered)


def _timed(worker: Worker, requests: Sequence[Request], work: Work) -> Times:
    cpu, wall = time.process_time(), time.perf_counter()
    for request in requests:
        worker.post(request, work)
    milliseconds = 1000 / len(requests)
    return Times((time.process_time() - cpu) * milliseconds, (time.perf_counter() - wall) * milliseconds)
