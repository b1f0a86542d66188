"""How the cost of a request grows with what it has to do with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from statistics import median
from uuid import uuid4

from rich.progress import track

from proof.peers.libraries import provision_once
from proof.peers.libraries.contract import Attempt, Request, Response, Work, Worker
from proof.peers.network import Meter
from proof.peers.plot import Plot
from proof.peers.stage import Stage, new_request
from tools.progress import console as progress

Points = list[dict[str, float]]
"""For each value of what grows, by its name, what was measured."""

_REPEATED = 9
_BATCH = 25


def measure(endpoint: str) -> dict[str, Points]:
    """Measure each series: its name → its points."""
    measured: dict[str, Points] = {}
    for name, series in track(_SERIES.items(), "growth", console=progress):
        with Stage(provision_once.LIBRARY, endpoint) as stage:
            measured[name] = list(series(stage))
    return measured


def plots(measured: Mapping[str, Points]) -> dict[str, str]:
    """Draw each series: the name of a file → SVG."""
    return {f"{name}.svg": _PLOTS[name].svg(points) for name, points in measured.items()}


def _steps(stage: Stage) -> Iterable[dict[str, float]]:
    worker = stage.worker()

    def work(count: int, attempt: Attempt) -> Response:
        for number in range(count):
            attempt.step(f"step {number}", lambda: "x" * 100)
        return Response()

    for count in (0, 1, 2, 4, 8, 16, 32):
        yield {"steps": count, **_cost(stage, worker, partial(work, count))}


def _answers(stage: Stage) -> Iterable[dict[str, float]]:
    for kilobytes in (0.1, 1, 3, 10, 100, 1000, 4000):
        body = Random(1).randbytes(int(kilobytes * 500)).hex()

        def work(_: Attempt, body: str = body) -> Response:
            return Response(body=body, headers={"content-type": "text/plain"})

        first = _cost(stage, stage.worker(), work)
        request = new_request()
        stage.worker().post(request, work)
        replay = _cost(stage, stage.worker(), work, request)
        yield {"kilobytes": kilobytes, **first, **{f"replay_{name}": figure for name, figure in replay.items()}}


def _table(stage: Stage) -> Iterable[dict[str, float]]:
    worker, held = stage.worker(), 0
    for records in (100, 1_000, 10_000, 50_000):
        _fill(stage, records - held)
        held = records
        request = new_request()
        worker.post(request, lambda _: Response())
        replay = _cost(stage, worker, lambda _: Response(), request)
        yield {
            "records": records,
            **_cost(stage, worker, lambda _: Response()),
            "replay_cpu_ms": replay["cpu_ms"],
            "replay_latency_ms": replay["latency_ms"],
        }


def _fill(stage: Stage, count: int) -> None:
    """Put records of other keys into the table."""
    for start in range(0, count, _BATCH):
        items = [
            {"id": {"S": str(uuid4())}, "status": {"S": "COMPLETED"}, "body": {"B": bytes(300)}}
            for _ in range(min(_BATCH, count - start))
        ]
        puts = [{"PutRequest": {"Item": item}} for item in items]
        stage.dynamodb.batch_write_item(RequestItems={stage.site.records: puts})


def _duplicates(stage: Stage) -> Iterable[dict[str, float]]:
    """All ask while the first request runs; each is another worker."""
    for count in (1, 5, 10, 20, 40):
        request, running, refused = new_request(), threading.Event(), threading.Event()

        def slow(_: Attempt, running: threading.Event = running, refused: threading.Event = refused) -> Response:
            running.set()
            refused.wait(60)
            return Response()

        workers = [stage.worker() for _ in range(count)]
        for worker in workers:
            worker.post(new_request(), lambda _: Response())  # connected
        first = threading.Thread(target=stage.worker().post, args=(request, slow))
        first.start()
        running.wait()
        meters = [Meter(stage) for _ in workers]
        begun = time.process_time()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(_metered, meters, workers, [request] * count))
        cpu = time.process_time() - begun
        refused.set()
        first.join()
        yield {
            "duplicates": count,
            "calls": sum(meter.calls for meter in meters) / count,
            "write_units": sum(meter.write_units for meter in meters) / count,
            "cpu_ms": cpu * 1000 / count,
        }


def _waits(stage: Stage) -> Iterable[dict[str, float]]:
    for seconds in (1, 2, 4, 8, 16):
        request, running = new_request(), threading.Event()

        def slow(_: Attempt, running: threading.Event = running, seconds: int = seconds) -> Response:
            running.set()
            time.sleep(seconds)
            return Response()

        first = threading.Thread(target=stage.worker().post, args=(request, slow))
        first.start()
        running.wait()
        meter = Meter(stage)
        begun = time.process_time()
        _metered(meter, stage.worker(wait=20), request)
        cpu = time.process_time() - begun
        first.join()
        yield {"seconds": seconds, "calls": meter.calls, "read_units": meter.read_units, "cpu_ms": cpu * 1000}


def _metered(meter: Meter, worker: Worker, request: Request) -> None:
    with meter.on(worker):
        worker.post(request, lambda _: Response())


def _cost(stage: Stage, worker: Worker, work: Work, request: Request | None = None) -> dict[str, float]:
    """Meter one request, and time several; each has a key of its own unless one is given."""
    meter = Meter(stage)
    with meter.on(worker):
        worker.post(request or new_request(), work)
    times: list[tuple[float, float]] = []
    for _ in range(_REPEATED):
        cpu, wall = time.process_time(), time.perf_counter()
        worker.post(request or new_request(), work)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        "calls": meter.calls,
        "write_units": meter.write_units,
        "read_units": meter.read_units,
        "cpu_ms": median(cpu for cpu, _ in times) * 1000,
        "latency_ms": median(latency for _, latency in times) * 1000,
    }


_SERIES: dict[str, Callable[[Stage], Iterable[dict[str, float]]]] = {
    "steps": _steps,
    "answers": _answers,
    "table": _table,
    "duplicates": _duplicates,
    "waits": _waits,
}

_PLOTS = {
    "steps": Plot("A request by its steps", "steps", {"cpu_ms": "CPU, ms", "write_units": "write units"}),
    "answers": Plot(
        "A request by the size of its answer",
        "kilobytes",
        {"cpu_ms": "first: CPU, ms", "write_units": "first: write units", "replay_cpu_ms": "replay: CPU, ms"},
        logarithmic=True,
    ),
    "table": Plot(
        "A request by the records in the table",
        "records",
        {"latency_ms": "first: latency, ms", "replay_latency_ms": "replay: latency, ms", "cpu_ms": "first: CPU, ms"},
        logarithmic=True,
    ),
    "duplicates": Plot(
        "A duplicate by how many there are at once",
        "duplicates",
        {"calls": "calls each", "write_units": "write units each", "cpu_ms": "CPU each, ms"},
    ),
    "waits": Plot(
        "A duplicate that waits", "seconds", {"calls": "calls", "read_units": "read units", "cpu_ms": "CPU, ms"}
    ),
}
