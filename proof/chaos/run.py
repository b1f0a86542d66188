# example campaigns
"""A run of chaos: clients work while workers die or hang, connections break and clocks differ; then the account."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from idempotency.clock import Clock
from idempotency.policy import Settings
from idempotency.queue import Queue
from idempotency.record import PARKED_UNTIL, Record
from idempotency.store import Store
from proof.chaos.casualties import counts, kill_one
from proof.chaos.clients import Clients, Rivals
from proof.chaos.proxy import Proxy
from proof.histories import history
from proof.histories.load import Load
from tests.e2e import campaigns
from tests.e2e.faults import Faults
from tests.e2e.targets import PROVISION, LocalCloud, Tables
from tools.errors import ToolError
from tools.local import myfunnel
from tools.local import stack as local_stack
from tools.local.processes import free_port
from tools.local.stack import Stack
from tools.ops.recovery import recover
from tools.ops.unfinished import unfinished

_FUNCTION_TIMEOUT_SECONDS = 8
_HANG_SECONDS = _FUNCTION_TIMEOUT_SECONDS + 5
_CUT_SHARE = 0.2
_SECONDS_BETWEEN_TROUBLES = (0.5, 2.5)
_OUTAGE_SECONDS = (0.5, 4.0)
_RECOVERY_SECONDS = 45
_LOSE, _REPEAT = "lose", "repeat"
_HOST = "127.0.0.1"
_INJECTED = Path(__file__).with_name("injected")


@dataclass
class Account:
    """The result of a run.

    Args:
        keys: keys that clients used.
        requests: requests that they sent.
        duplicate_effects: whatever does not exist exactly once.
        changed_answers: answers that one execution of their key does not explain.
        stuck: keys without a final answer, and operations that are not finished.
        went_wrong: what went wrong on purpose, and how often.
    """

    keys: int
    requests: int
    duplicate_effects: list[str]
    changed_answers: list[str]
    stuck: list[str]
    went_wrong: dict[str, int]

    @property
    def violations(self) -> list[str]:
        """Everything that must not happen."""
        return self.duplicate_effects + self.changed_answers + self.stuck


@dataclass(frozen=True)
class _World:
    """Where a run takes place: a stack, faults in its workers, and proxies in front of what they call."""

    stack: Stack
    faults: Faults
    dynamodb: Proxy
    myfunnel: Proxy

    @property
    def target(self) -> LocalCloud:
        """The stack as clients reach it."""
        tables = Tables(self.stack.client("dynamodb"), self.stack.idempotency_table, self.stack.resources_table)
        return LocalCloud(self.stack.api_url, tables, {"alice": self.stack.token, "bob": self.stack.other_token})


def run(home: Path, *, seconds: float, seed: int, progress: Callable[[str], None]) -> Account:
    """Deploy a stack, let chaos reign over it, let it come to rest, and take stock.

    Args:
        home: a directory for the cloud, the faults and the history.
        seconds: how long clients begin new operations.
        seed: decides what is sent and how often things go wrong; the moments are left to chance.
        progress: called now and then with how far the run has got.

    Raises:
        ToolError: if the stack cannot be deployed.
    """
    file = home / "history.jsonl"
    with _world(home, Random(seed)) as world:
        with history.recording(file) as recorded:
            clients = Clients(Load(world.target, recorded), world.faults, _HANG_SECONDS, Random(seed))
            with _trouble(world, Random(seed)) as troubles:
                clients.work(seconds, lambda told: progress(f"{told}, {troubles['workers killed']} workers killed"))
            world.dynamodb.calm_down()
            world.myfunnel.calm_down()
            progress("calm again: recovery finishes what was abandoned")
            _recover(world.stack)
            progress("every client asks once more")
            unresolved = clients.settle()
        exchanges = history.load(file)
        return Account(
            keys=len(clients.rivals),
            requests=len(exchanges),
            duplicate_effects=_not_exactly_one(world.stack, clients.rivals),
            changed_answers=history.check(exchanges),
            stuck=[f"no answer to {one.path} {one.key}" for one, _ in unresolved]
            + [f"not finished: {record.id}: {record.last_error}" for record in _unfinished(world.stack)],
            went_wrong={**troubles, **_caused(world)},
        )


@contextmanager
def _world(home: Path, random: Random) -> Iterator[_World]:
    port = free_port()
    faults = Faults(home / "faults")
    dynamodb, proxied = Proxy(random, _CUT_SHARE), Proxy(random, _CUT_SHARE)
    with ExitStack() as cleanup:
        upstream = urlsplit(myfunnel.start(home))
        cleanup.callback(myfunnel.stop, home)
        parameters = {
            "FunctionTimeoutSeconds": str(_FUNCTION_TIMEOUT_SECONDS),
            "MyFunnelApiUrl": cleanup.enter_context(proxied.serving(str(upstream.hostname), int(upstream.port or 0))),
        }
        environment = {
            **faults.environment,
            "PYTHONPATH": f"{faults.environment['PYTHONPATH']}{os.pathsep}{_INJECTED}",
            "INJECTED": f"{faults.environment['INJECTED']} skew",
            "AWS_ENDPOINT_URL_DYNAMODB": cleanup.enter_context(dynamodb.serving(_HOST, port)),
            # Two workers then differ by at most what the settings allow.
            "CLOCK_SKEW_SECONDS": str(Settings().clock_skew / 2),
        }
        running = local_stack.running(home / "cloud", cloud_port=port, parameters=parameters, environment=environment)
        yield _World(cleanup.enter_context(running), faults, dynamodb, proxied)


@contextmanager
def _trouble(world: _World, random: Random) -> Iterator[Counter[str]]:
    """Now and then, kill a worker, take DynamoDB or MyFunnelAPI down, or lose or repeat messages; yields the counts."""
    troubles = Counter({"workers killed": 0})
    sqs, dynamodb = world.stack.client("sqs"), world.stack.client("dynamodb")
    queue, store = (
        Queue(lambda: sqs, world.stack.recovery_queue_url),
        Store(dynamodb, world.stack.idempotency_table, Clock()),
    )
    over = threading.Event()

    def reign() -> None:
        while not over.wait(random.uniform(*_SECONDS_BETWEEN_TROUBLES)):
            # Two workers are killed for each outage of a service.
            down = random.choice([world.dynamodb, world.myfunnel, _LOSE, _REPEAT, None, None, None, None])
            if isinstance(down, Proxy):
                troubles["outages"] += 1
                with down.outage():
                    over.wait(random.uniform(*_OUTAGE_SECONDS))
            elif down == _LOSE:
                sqs.purge_queue(QueueUrl=world.stack.recovery_queue_url)
                troubles["times that all messages were lost"] += 1
            elif down == _REPEAT:
                # Messages that are too many, and most of them out of place: for what runs, waits or has just ended.
                troubles["messages too many"] += queue.send_all(due.id for due in store.due(PARKED_UNTIL + 1))
            else:
                troubles["workers killed"] += kill_one(world.stack, world.faults, random)

    thread = threading.Thread(target=reign)
    thread.start()
    try:
        yield troubles
    finally:
        over.set()
        thread.join()


def _caused(world: _World) -> dict[str, int]:
    met = counts(world.faults)
    return {
        "calls cut off by a kill": met["kill"],
        "functions timed out": met["delay"],
        "calls lost or refused": met["lose"] + met["refuse"],
        "connections cut": world.dynamodb.cuts + world.myfunnel.cuts,
    }


def _recover(stack: Stack) -> None:
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while time.monotonic() < deadline and any(record.lease_until < PARKED_UNTIL for record in _unfinished(stack)):
        with suppress(ToolError):
            recover(stack.client("lambda"), stack.recovery_function_name)
        time.sleep(1)


def _unfinished(stack: Stack) -> list[Record]:
    return list(unfinished(Store(stack.client("dynamodb"), stack.idempotency_table, Clock())))


def _not_exactly_one(stack: Stack, rivals: Iterable[Rivals]) -> list[str]:
    """Whatever does not exist, or exists more than once."""
    keys: dict[str, list[str]] = {PROVISION: [], campaigns.PATH: []}
    for one, _ in rivals:
        keys[one.path].append(one.key)
    instances = _instances(stack)
    found = [f"{number} instances of operation {operation}" for operation, number in instances.items() if number != 1]
    if len(instances) != len(keys[PROVISION]):
        found.append(f"{len(instances)} servers under {len(keys[PROVISION])} keys")
    services = campaigns.Services(stack)
    for key in keys[campaigns.PATH]:
        effects = services.effects(campaigns.Campaign(key))
        found += [f"{number} {kind} of campaign {key}" for kind, number in effects.items() if number != 1]
    return found


def _instances(stack: Stack) -> Counter[str]:
    """How many instances each operation has."""
    pages = stack.client("ec2").get_paginator("describe_instances").paginate()
    reservations = (reservation for page in pages for reservation in page["Reservations"])
    instances = (instance for reservation in reservations for instance in reservation["Instances"])
    return Counter(instance["Tags"][0]["Value"] for instance in instances)
