"""Worlds in which the project's real lifecycle, store and steps run; everything around them is simulated."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any
from unittest import mock

from aws_lambda_powertools.event_handler import Response

from idempotency import lifecycle as lifecycle_module
from idempotency import store as store_module
from idempotency.errors import Problem, Rejected, Retry, as_problem
from idempotency.lifecycle import Lifecycle
from idempotency.operation import Invocation, Operation
from idempotency.policy import Policy, Settings
from idempotency.record import PARKED_UNTIL, Record
from idempotency.request import Request, record_id
from idempotency.response import Completion, Row, StoredResponse, Verdict
from idempotency.store import Store
from idempotency.telemetry import Outcome
from proof.explorer import invariants, world
from proof.explorer.dynamodb import Index, Table
from proof.explorer.expressions import Item
from proof.explorer.invariants import CLOCK_SKEW_MS, FINAL, RECORDS, REPLAYED, ROWS, Effect
from proof.explorer.sdk import Client, Clock
from proof.explorer.world import GO, Actor, Budget, Point, World
from tools.local.client import Answer

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
TIMEOUT_MS = 30_000
FAILED = "failed"
"""The other service refuses: nothing happened there."""
TIMED_OUT = "timed out"
"""The other service did it, but its answer is lost."""

Business = Callable[["Service", Operation], Completion]


class Telemetry:
    """Stands in for metrics and logs: outcomes go into the timeline."""

    def __init__(self, where: World) -> None:
        self._world = where

    def emit(self, outcome: Outcome, record: Record | None = None, *, milliseconds: int | None = None) -> None:
        self._world.tell(f"· {outcome.lower()}")

    def error(self, error: BaseException) -> None:
        self._world.tell(f"· {type(error).__name__}: {error}")


class Service:
    """Another service: idempotent by the key that it is sent, as MyFunnelAPI and EC2 are."""

    def __init__(self, where: World) -> None:
        self.world = where

    def call(self, operation: Operation, step: str) -> str:
        """Do something there, once for each key; returns the id of what it made."""
        action = self.world.stop_at(Point(f"calls {step}", (FAILED, TIMED_OUT)))
        if action == FAILED:
            self.world.tell(f"{step} ⚡ refused")
            raise Retry("The service refuses.")
        actor = self.world.me
        effect = Effect(operation.id, step, operation.derived_id(step))
        invariants.watch_effect(self.world, actor, effect)
        self.world.facts.append(effect)
        self.world.tell(f"{step} {'✓' if action == GO else '⚡ done, answer lost'}")
        if action == TIMED_OUT:
            raise Retry("The service did not answer.")
        return effect.key


def server(service: Service, operation: Operation) -> Completion:
    """One call, its result in the answer."""
    return _created(service, operation, service.call(operation, "server"))


def campaign(service: Service, operation: Operation) -> Completion:
    """Two steps."""
    page = operation.step("page", lambda _: service.call(operation, "page"))
    name = operation.step("name", lambda _: service.call(operation, "name"))
    return _created(service, operation, page, name)


def row(service: Service, operation: Operation) -> Completion:
    """A row that is written with the completion."""
    response = _created(service, operation, service.call(operation, "server"))
    response.rows = (Row(ROWS, {"id": f"row of {operation.id}", "made_by": service.world.me.name}),)
    return response


def large(service: Service, operation: Operation) -> Completion:
    """A body that does not fit into the record, and differs from attempt to attempt."""
    response = _created(service, operation, service.call(operation, "server"))
    noise = "".join(hashlib.sha256(f"{response.body}{part}".encode()).hexdigest() for part in range(120))
    response.body = {**(response.body or {}), "noise": noise}
    return response


def doomed(service: Service, operation: Operation) -> Completion:
    """A step, then a failure for good: the step is undone."""
    operation.step("page", lambda _: service.call(operation, "page"), lambda _: service.call(operation, "undo page"))
    raise Rejected("domain-taken", f"Not for {operation.principal}, said {service.world.me.name}.", status=422)


def name_reserved(service: Service, operation: Operation) -> Completion:
    """A row that is written ahead of the completion, by whoever comes first."""
    _reserve(operation)
    return _created(service, operation, service.call(operation, "server"))


def reserved_and_doomed(service: Service, operation: Operation) -> Completion:
    """A row that is written, then a failure for good: the row is given back."""
    _reserve(operation)
    raise Rejected("domain-taken", f"Not for {operation.principal}, said {service.world.me.name}.", status=422)


def _reserve(operation: Operation) -> None:
    conflict = Rejected("name-taken", f"Not for {operation.principal}.", status=422)
    operation.reserve("name", Row(ROWS, {"id": "the name"}, conflict))


def _created(service: Service, operation: Operation, *made: str) -> Completion:
    # Who ran it is part of the body, so that no two attempts have the same answer by accident.
    body = {"principal": operation.principal, "by": service.world.me.name, "made": made, "operation": operation.id}
    return Completion(201, body)


@dataclass(frozen=True)
class Scenario:
    """Who is in a world, and how much may go wrong.

    Args:
        business: what the key's operation does.
        workers: name → how it differs from an ordinary worker, as arguments of `Deployment.worker`.
        policy: the route's choices.
        settings: the stack's.
        recovery: whether recovery runs too, and alone has to finish what was abandoned.
        faults: faults in one schedule.
        jumps: jumps of time in one schedule.
        whole: whether it is searched to the end in `make prove`, however long that takes.
    """

    business: Business
    workers: dict[str, dict[str, Any]] = field(default_factory=lambda: {"A": {}, "B": {}})
    policy: Policy = field(default_factory=Policy)
    settings: Settings = field(default_factory=lambda: Settings(cache_bytes=0))
    recovery: bool = False
    faults: int = 2
    jumps: int = 2
    whole: bool = False

    def __call__(self) -> World:
        """Build the world, with all its actors about to start."""
        return Deployment(self).world

    def within(self, faults: int, jumps: int) -> Scenario:
        """The same with another budget."""
        return dataclasses.replace(self, faults=faults, jumps=jumps)


SCENARIOS: dict[str, Scenario] = {
    "alone": Scenario(server, {"A": {}}, faults=3, whole=True),
    "two workers": Scenario(server, whole=True),
    "two workers and a business row": Scenario(row, whole=True),
    "two workers and two steps": Scenario(campaign),
    "two workers, large body": Scenario(large),
    "two workers, undone": Scenario(doomed),
    "two principals, one name": Scenario(name_reserved, {"A": {}, "B": {"principal": "bob"}}),
    "two workers, reserved and undone": Scenario(reserved_and_doomed),
    "a holder": Scenario(server, {"A": {}, "B": {"wait": 1}}),
    "skewed clocks": Scenario(campaign, {"A": {"skew": -CLOCK_SKEW_MS // 2}, "B": {"skew": CLOCK_SKEW_MS // 2}}),
    "a short time to live": Scenario(server, settings=Settings(ttl=60, unfinished_ttl=60, cache_bytes=0)),
    "two principals": Scenario(server, {"A": {}, "B": {"principal": "bob"}}),
    "another request": Scenario(server, {"A": {}, "B": {"body": b'{"size":"small"}'}}),
    "worker and recovery": Scenario(campaign, {"A": {}}, Policy(recoverable=True), recovery=True),
    "worker, retry and recovery": Scenario(campaign, policy=Policy(recoverable=True), recovery=True, faults=1, jumps=1),
    "three workers": Scenario(campaign, {"A": {}, "B": {}, "C": {}}, faults=1, jumps=1),
}


class Deployment:
    """The project's code in a simulated world."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(
            {
                RECORDS: Table(
                    "id", indexes={"recovery": Index("recovery_shard", "lease_until")}, types={"lease_until": "N"}
                ),
                ROWS: Table("id"),
            },
            Budget(scenario.faults, scenario.jumps),
            instants=_instants,
            expired=_expired,
            watch=(invariants.watch_record, invariants.watch_row),
            answered=invariants.watch_answer,
            finish=self._finish,
        )
        for name, differences in scenario.workers.items():
            self.worker(name, **differences)
        if scenario.recovery:
            self.recovery("R")

    def worker(
        self, name: str, *, principal: str = "alice", body: bytes = b'{"size":"large"}', wait: int = 0, skew: int = 0
    ) -> Actor:
        """One request with the key, from its arrival to its answer."""
        request = _request(principal, body)

        def code() -> Answer:
            lifecycle = self._lifecycle()
            deadline = self.world.now + skew + TIMEOUT_MS
            return _answer(lambda: lifecycle.run(self._invocation(request, deadline), KEY, wait))

        actor = self.world.spawn(name, code, skew=skew)
        self._note(actor, principal)
        return actor

    def recovery(self, name: str) -> Actor:
        """One run of recovery, which finishes every operation that is due."""

        def code() -> Answer:
            lifecycle, policy = self._lifecycle(), self.scenario.policy
            deadline = self.world.now + TIMEOUT_MS
            answer = Answer(0, b"nothing due")
            for id_ in lifecycle.store.due(lifecycle.clock.now()):
                record = lifecycle.resume(id_, policy, deadline)
                if record is not None and record.request is not None:
                    invocation = self._invocation(Request.unpack(record.request), deadline)
                    answer = _answer(partial(lifecycle.perform, record, invocation))
            return answer

        def guarded() -> Answer:
            try:
                return code()
            except Exception as error:  # noqa: BLE001 - recovery's run may fail; the next one goes on
                return Answer(503, str(error).encode())

        actor = self.world.spawn(name, guarded)
        self._note(actor, "alice")
        return actor

    def _lifecycle(self) -> Lifecycle:
        clock = Clock(self.world)
        store = Store(Client(self.world), RECORDS, clock)  # type: ignore[arg-type]  # it stands in for boto3's
        return Lifecycle(store, Telemetry(self.world), self.scenario.settings, clock)  # type: ignore[arg-type]

    def _invocation(self, request: Request, deadline: int) -> Invocation:
        def execute(operation: Operation) -> Verdict:
            return Verdict.of(self.scenario.business(Service(self.world), operation), self.scenario.policy)

        return Invocation(request, self.scenario.policy, deadline, execute, self._show)

    def _show(self, error: Exception) -> Response[str]:
        self.world.tell(f"· {type(error).__name__}: {error}")
        return as_problem(error).response()

    def _note(self, actor: Actor, principal: str) -> None:
        actor.notes["principal"] = principal
        actor.notes["record"] = _record_id(principal)
        actor.notes["stored"] = lambda: self._stored(actor.notes["record"])

    def _stored(self, id_: str) -> bytes:
        """The body that a record keeps, read behind the back of the code under test."""
        items = self.world.database.tables[RECORDS].items
        record = store_module._record(store_module._decode(items[(id_,)]))
        assert record.response is not None
        body = record.response.get("body")
        if body is None:
            parts = [items[(f"{id_}#{record.owner}#{part}",)]["body"]["B"] for part in range(record.response["parts"])]
            body = b"".join(parts)
        return StoredResponse.unpack(record.response, body).body

    def _finish(self, where: World) -> Iterator[None]:
        """Whatever happened, one undisturbed retry ends it once the lease has lapsed, and the next one replays it."""
        statuses = ("PROCESSING", "RELEASED") if self.scenario.recovery else ("PROCESSING",)
        unfinished = [item for item in _records(where) if item["status"]["S"] in statuses]
        where.jump_to(max([where.now, *(_lapses(item) + 1 for item in unfinished if _lapses(item) < PARKED_UNTIL)]))
        if self.scenario.recovery:
            self.recovery("recovery")
            yield
            if any("recovery_shard" in item and not invariants.expired(item, where.now) for item in _records(where)):
                where.violate(4, "recovery did not finish what was abandoned")
        for principal in dict.fromkeys(each.get("principal", "alice") for each in self.scenario.workers.values()):
            retry = self.worker(f"{principal}'s retry", principal=principal)
            yield
            replay = self.worker(f"{principal}'s replay", principal=principal)
            yield
            if retry.answer.body.startswith(b"key-reused"):
                continue
            if retry.answer.status not in FINAL:
                where.violate(4, f"a retry after the lease's end is answered {retry.answer}")
            elif (replay.answer.status, replay.answer.body) != (retry.answer.status, retry.answer.body):
                where.violate(1, f"two answers differ: {retry.answer} and {replay.answer}")
            elif not replay.answer.replayed:
                where.violate(1, "a completed operation ran again")


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Take chance out of the code under test, and the recovery index's empty shards."""
    shard = _record_id("alice")[0]
    with (
        mock.patch.object(lifecycle_module, "uuid4", world.uuid4),
        mock.patch.object(store_module, "uuid4", world.uuid4),
        mock.patch.object(store_module, "_SHARDS", shard),
    ):
        yield


@cache
def _request(principal: str, body: bytes) -> Request:
    return Request(principal, "POST", "/v1/things", "/v1/things", "/dev", {}, "application/json", body)


@cache
def _record_id(principal: str) -> str:
    return record_id(principal, "POST", "/v1/things", KEY)


def _answer(reply: Callable[[], Any]) -> Answer:
    try:
        found = reply()
    except Problem as problem:
        return Answer(problem.status, f"{problem.slug}: {problem.detail}".encode())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Answer(500, f"{type(error).__name__}: {error}".encode())
    response: StoredResponse = found.response
    return Answer(response.status, response.body, REPLAYED if found.replayed else {})


def _records(where: World) -> Iterable[Item]:
    return [item for item in where.database.tables[RECORDS].items.values() if "status" in item]


def _lapses(item: Item) -> int:
    return int(item["lease_until"]["N"])


def _may_lapse(item: Item) -> bool:
    return item["status"]["S"] != "COMPLETED" and _lapses(item) < PARKED_UNTIL


def _instants(where: World) -> Iterator[int]:
    for item in _records(where):
        if _may_lapse(item):
            yield _lapses(item) + 1
        yield int(item["expires_at"]["N"]) * 1000


def _expired(where: World) -> Iterator[tuple[str, Any]]:
    for key, item in where.database.tables[RECORDS].items.items():
        if int(item["expires_at"]["N"]) * 1000 <= where.now:
            yield RECORDS, key
