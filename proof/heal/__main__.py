# example campaigns
"""How soon operations go on, measured on the local stack; exit 1 if that is later than it should be.

python -m proof.heal [--before COMMIT]

With --before, the same outage is measured with an earlier version of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.e2e import campaigns
from tools import errors
from tools.local import stack as local_stack
from tools.local import template
from tools.local.aws import local_client
from tools.local.client import Client
from tools.local.myfunnel import Control, Fault
from tools.local.neighbours import ZONE
from tools.local.processes import kill_workers
from tools.local.stack import Stack
from tools.progress import console, task
from tools.setup import LOCAL, ROOT

_HOME = LOCAL / "heal"
_ROOM = Path(__file__).parent
_LEASE_SECONDS = 12
_PATIENCE_SECONDS = 900
_STEPS, _STEP_SECONDS = 12, 4
_WORKER_TIMEOUT_SECONDS = 15
# A further worker may have to start, on a machine that does other things as well.
_START_SECONDS = 6


@dataclass(frozen=True)
class Finding:
    """A figure, and what it should be at most."""

    what: str
    seconds: float
    at_most: float
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.seconds <= self.at_most


def _outage(stack: dict[str, Any], root: Path, number: int, slow: float) -> tuple[float, str]:
    """Abandon campaigns all at once, and wait until the last one is finished.

    Returns:
        Seconds from the last kill to the last end, and what there is of each campaign.
    """
    control = Control(stack["myfunnel_url"])
    prefix = f"c{uuid4().hex[:8]}"
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "ZONE": ZONE}
    command = [sys.executable, str(_ROOM / "abandon.py"), json.dumps(stack), str(number), prefix]
    subprocess.run(command, env=environment, check=True, cwd=root, stderr=subprocess.DEVNULL)
    killed = time.monotonic()
    if slow:
        control.expect(Fault(times=None, delay=slow))
    dynamodb = local_client("dynamodb", stack["aws_endpoint_url"])
    _wait_until(lambda: _unfinished(dynamodb, stack["idempotency_table"]) == 0)
    seconds = time.monotonic() - killed
    control.behave()
    funnels = [funnel for funnel in control.funnels() if funnel.domain.startswith(prefix)]
    rows = dynamodb.get_paginator("scan").paginate(TableName=stack["resources_table"])
    made = [item for page in rows for item in page["Items"] if item["id"]["S"].startswith("campaign#")]
    live = [item for item in made if item["resource"]["M"]["domain"]["S"].startswith(prefix)]
    routed = _routed(stack, prefix)
    return seconds, f"{len(funnels)} landing pages, {routed} DNS records, {len(live)} rows of {number} campaigns"


def _unfinished(dynamodb: Any, table: str) -> int:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return sum(
        item.get("status", {}).get("S") in {"PROCESSING", "RELEASED"} for page in pages for item in page["Items"]
    )


def _routed(stack: dict[str, Any], prefix: str) -> int:
    route53 = local_client("route53", stack["aws_endpoint_url"])
    pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=stack["dns_zone_id"])
    return sum(record["Name"].startswith(prefix) for page in pages for record in page["ResourceRecordSets"])


def _wait_until(condition: Callable[[], bool], every: float = 0.5) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise errors.ToolError(f"not finished within {_PATIENCE_SECONDS} s")
        time.sleep(every)


def _released(stack: Stack) -> Finding:
    """A release with a pause of 2 s, without client."""
    services, client = campaigns.Services(stack), Client(stack.api_url, stack.token)
    first = campaigns.Campaign()  # starts a worker, which a stack that is used has already
    first.post(client, prefer="respond-async")
    _wait_until(lambda: bool((record := services.record(first)) and record.completed))
    campaign = campaigns.Campaign()
    services.myfunnel.expect(Fault(domain=campaign.domain, act=False, status=503, retry_after=2))
    answer = campaign.post(client)
    released = time.monotonic()
    assert answer.status == 503, answer
    _wait_until(lambda: len(services.myfunnel.calls(campaign.domain)) == 2, every=0.05)
    return Finding("a release with a pause of 2 s, until the next attempt", time.monotonic() - released, 4)


def _long(home: Path) -> Iterator[Finding]:
    """An operation of many steps, undisturbed and with two kills."""
    journal = home / "journal.jsonl"
    with local_stack.running(
        home / "cloud",
        parameters={"WorkerTimeoutSeconds": str(_WORKER_TIMEOUT_SECONDS)},
        environment={"JOURNAL": str(journal)},
        variant=lambda built: _with_long(built, home / "variant"),
    ) as stack:
        for kills in (0, 2):
            journal.unlink(missing_ok=True)
            runs = _run_long(stack, journal, kills)
            numbers = [number for number, *_ in runs]
            gaps = [then[2] - before[3] for before, then in pairwise(runs) if before[1] != then[1]]
            again = f"{len(runs)} runs of {_STEPS} steps, in {runs[-1][1]} attempts"
            assert sorted(numbers) == list(range(_STEPS)), f"a checkpointed step ran again: {numbers}"
            if kills:
                took = runs[-1][3] - runs[0][2]
                at_most = _STEPS * _STEP_SECONDS + kills * (_WORKER_TIMEOUT_SECONDS + 2 + 60 + 5)
                yield Finding(f"{_STEPS} steps of {_STEP_SECONDS} s, killed twice", took, at_most, again)
            else:
                yield Finding(
                    "the longest gap between two attempts of a long operation", max(gaps), _START_SECONDS, again
                )


def _run_long(stack: Stack, journal: Path, kills: int) -> list[Any]:
    client = Client(stack.api_url, stack.token)
    key, body = str(uuid4()), {"steps": _STEPS, "seconds": _STEP_SECONDS}
    accepted = client.post("/v1/long", body, key)
    assert accepted.status == 202, accepted

    def runs() -> list[Any]:
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    for number in range(kills):
        _wait_until(lambda number=number: len(runs()) >= 3 * number + 2)  # type: ignore[misc]
        time.sleep(_STEP_SECONDS / 2)  # in the middle of a step
        kill_workers(stack.cloud_pid, stack.worker_function_name)
    status = accepted.headers["location"][0].removeprefix(f"/{stack.api_url.rpartition('/')[2]}")
    _wait_until(lambda: client.get(status).json["state"] == "succeeded")
    replay = client.post("/v1/long", body, key)
    assert (replay.status, replay.replayed) == (201, True), replay
    return runs()


def _with_long(built: Path, into: Path) -> Path:
    """What was built, with the route of `proof/heal/long.py` in the API's function and the worker."""
    shutil.copytree(built, into)
    changed = template.load(built / "template.yaml")
    for function, handler in (("ApiFunction", "long.handler"), ("WorkerFunction", "long.worker")):
        shutil.copy(_ROOM / "long.py", into / function)
        changed["Resources"][function]["Properties"]["Handler"] = handler
    properties = {"RestApiId": {"Ref": "Api"}, "Method": "POST", "Path": "/v1/long"}
    changed["Resources"]["ApiFunction"]["Properties"]["Events"]["Long"] = {"Type": "Api", "Properties": properties}
    template.dump(changed, into / "template.yaml")
    return into


@contextmanager
def _version(commit: str, home: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """An earlier version of the project in a work tree of its own, with its stack up."""
    tree = home / "before"
    subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True, capture_output=True)
    try:
        (tree / ".venv").symlink_to(ROOT / ".venv")
        (tree / ".local").mkdir()
        for environment in ("sam", "cloud", "uv"):
            (tree / ".local" / environment).symlink_to(LOCAL / environment)
        run = [sys.executable, "-m", "tools.local.stack"]
        subprocess.run([*run, "up"], cwd=tree, check=True)
        try:
            yield tree, json.loads((tree / ".local" / "stack.json").read_text())
        finally:
            subprocess.run([*run, "down"], cwd=tree, check=True)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def _show(findings: Sequence[Finding]) -> None:
    for each in findings:
        mark = "[green]✓[/]" if each.holds else "[red]✗[/]"
        console.print(f"{mark} {each.what}: {each.seconds:.1f} s (at most {each.at_most:g}) {each.note}")


def main() -> int:
    parser = argparse.ArgumentParser(description="How soon operations go on, on the local stack.")
    parser.add_argument("--before", metavar="COMMIT", help="measure the outage with an earlier version as well")
    arguments = parser.parse_args()
    shutil.rmtree(_HOME, ignore_errors=True)
    _HOME.mkdir(parents=True)
    findings = []
    with local_stack.running(_HOME / "outage") as stack:
        findings.append(_released(stack))
        for number, slow, at_most in ((40, 1.0, 90), (300, 0.0, _LEASE_SECONDS + 120)):
            with task(f"{number} campaigns are abandoned"):
                seconds, effects = _outage(asdict(stack), ROOT, number, slow)
            what = f"{number} abandoned campaigns of {slow:g} s more, from the last kill to the last end"
            findings.append(Finding(what, seconds, at_most, effects))
        _show(findings)
    if arguments.before:
        with _version(arguments.before, _HOME) as (tree, described):
            seconds, effects = _outage(described, tree, 40, 1.0)
            console.print(f"  the same 40 with {arguments.before}: {seconds:.0f} s ({effects})")
    slow_ones = list(_long(_HOME / "long"))
    _show(slow_ones)
    return 0 if all(each.holds for each in findings + slow_ones) else 1


if __name__ == "__main__":
    errors.run(main)
