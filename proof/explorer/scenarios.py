"""Worlds in which the project's real door, lifecycle, store and steps run; everything around them is simulated."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.api_gateway import BaseRouter

from idempotency import (
    Body,
    Completion,
    Idempotent,
    Lifecycle,
    Operation,
    Outcome,
    Policy,
    Rejected,
    Request,
    Retry,
    Row,
    Settings,
)
from idempotency import lifecycle as lifecycle_module
from idempotency import operation as operation_module
from idempotency import store as store_module
from idempotency.queue import Queue
from idempotency.record import PARKED_UNTIL, Record
from idempotency.request import record_id
from idempotency.store import Store
from proof.explorer import invariants, sdk, world
from proof.explorer.dynamodb import Index, Table
from proof.explorer.expressions import Item
from proof.explorer.invariants import CLOCK_SKEW_MS, RECORDS, ROWS, Effect, Failure, Told
from proof.explorer.sdk import Client, Clock
from proof.explorer.world import GO, INVOCATION_LIFE_MS, Actor, Budget, Point, World
from tools.local.client import Answer

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
ROUTE = "/v1/things"
TIMEOUT_MS = 30_000
LARGE = b'{"size":"large"}'
FAILED = "failed"
"""The other service cannot do it now: nothing happened there."""
TIMED_OUT = "timed out"
"""The other service did it, but its answer is lost."""
REFUSED = "refused"
"""The other service refuses for good: this call did nothing, whatever one before it did."""
NOT_YET = "not yet"
"""What an operation waits for has not come yet."""
WITH_RESULT = "with its result"
BLINDLY = "blindly"
"""How a step is undone: by its result, or without knowing it."""

Business = Callable[["Service"], Completion]


class Telemetry:
    """Stands in for metrics and logs: outcomes go into the timeline, and what an operator is told is a fact."""

    def __init__(self, where: World) -> None:
        self._world = where

    def begin(self) -> None:
        """Nothing is kept between two operations."""

    def emit(self, outcome: Outcome, record: Record | None = None, *, milliseconds: int | None = None) -> None:
        self._world.tell(f"· {outcome.lower()}")

    def doubt(self, doubts: Iterable[str], record: Record) -> None:
        for doubt in doubts:
            self._world.tell(f"· in doubt: {doubt}")
            invariants.watch_doubt(self._world, Told(record.operation_id, doubt))

    def backlog(self, milliseconds: int) -> None:
        """How long the sweep found something to be due is no matter here."""

    def error(self, error: BaseException) -> None:
        self._world.tell(f"· {type(error).__name__}: {error}")


class Service:
    """Other services, as the business code of one attempt uses them: idempotent by the key that they are sent.

    Args:
        where: the world.
        operation: the operation, as this attempt sees it.
        answers: what a call may come to, besides success.

    Attributes:
        taken: the steps that this attempt has the results of.
    """

    def __init__(self, where: World, operation: Operation, answers: tuple[str, ...]) -> None:
        self.world = where
        self.operation = operation
        self.answers = answers
        self.taken: set[str] = set()

    def call(self, name: str) -> str:
        """Do something that is no step; returns the id of what it made."""
        made = self._make(name, self.operation.derived_id(name), Retry, undoable=False)
        self.taken.add(name)
        return made

    def step(self, name: str, undo: str = "", unanswered: Callable[[str], Exception] = Retry, length: int = 0) -> str:
        """Do something as a step.

        Args:
            name: the step's.
            undo: how it is undone; empty if there is nothing to undo.
            unanswered: what it raises if the other service did not answer.
            length: characters that its result has at least.
        """

        def make(key: str) -> str:
            return self._make(name, key, unanswered, undoable=bool(undo)).ljust(length)

        undos: dict[str, Callable[..., object] | None] = {
            WITH_RESULT: lambda _: self._unmake(name),
            BLINDLY: lambda: self._unmake(name),
        }
        made: str = self.operation.step(name, make, undos.get(undo))  # either form
        self.taken.add(name)
        return made

    def thread(self, name: str, undo: str = "") -> Actor:
        """Do something as a step in another thread."""
        return self.world.fork(name, lambda: self.step(name, undo))

    def reserve(self, name: str) -> None:
        """Write a row ahead of the completion, as a step."""
        conflict = self.refusal("the name is taken")
        self.operation.reserve(name, Row(ROWS, {"id": "the name", "step": name}, conflict))
        self.taken.add(name)

    def look(self, at: str) -> None:
        """Look at the world between two steps, which code must not do, and refuse because of what is seen."""
        if self.world.stop_at(Point(f"looks at {at}", (REFUSED,))) == REFUSED:
            self.world.tell(f"{at} ⚡ refused")
            raise self.refusal(f"too much of {at}")

    def weigh(self, what: str) -> None:
        """Look at the world, as code may that leaves no effect but its rows; it may also fail to see anything."""
        action = self.world.stop_at(Point(f"weighs {what}", (FAILED, REFUSED)))
        if action != GO:
            self.world.tell(f"{what} ⚡ {action}")
            raise Retry("It cannot be seen.") if action == FAILED else self.refusal(f"too much of {what}")

    def refusal(self, why: str) -> Rejected:
        # Who refused is part of the answer, so that no two attempts have the same one by accident.
        return Rejected("refused", f"Not for {self.operation.principal}, said {self.world.me.name}: {why}.", status=422)

    def created(self, *made: str) -> Completion:
        body = {
            "principal": self.operation.principal,
            "by": self.world.me.name,
            "made": made,
            "operation": self.operation.id,
        }
        return Completion(201, body)

    def wait(self, name: str) -> str:
        """Wait for something that may not have come yet, or never will."""
        made = self.operation.wait(name, lambda: self._look_for(name), every=10, at_most=60)
        self.taken.add(name)
        return made

    def _look_for(self, name: str) -> str | None:
        action = self.world.stop_at(Point(f"looks for {name}", (NOT_YET, REFUSED)))
        self.world.tell(f"{name} {'✓' if action == GO else f'⚡ {action}'}")
        if action == REFUSED:
            raise self.refusal(f"{name} will never come")
        return f"{name} came" if action == GO else None

    def _make(self, name: str, key: str, unanswered: Callable[[str], Exception], *, undoable: bool) -> str:
        action = self.world.stop_at(Point(f"calls {name}", self.answers))
        if action in (FAILED, REFUSED):
            self.world.tell(f"{name} ⚡ {action}")
            if action == REFUSED:
                raise self.refusal(f"no {name}")
            invariants.watch_failure(self.world, Failure(self.operation.id, name))
            raise Retry("The service fails.")
        effect = Effect(self.operation.id, name, key)
        invariants.watch_effect(self.world, self.world.me, effect, undoable=undoable)
        self.world.tell(f"{name} {'✓' if action == GO else '⚡ done, answer lost'}")
        if action == TIMED_OUT:
            raise unanswered("The service did not answer.")
        return key

    def _unmake(self, name: str) -> None:
        undo = f"undo {name}"
        action = self.world.stop_at(Point(f"calls {undo}", (FAILED, TIMED_OUT)))
        if action != FAILED:
            effect = Effect(self.operation.id, undo, self.operation.derived_id(undo))
            invariants.watch_undo(self.world, self.world.me, effect, name)
        self.world.tell(f"{undo} {'✓' if action == GO else f'⚡ {action}'}")
        if action != GO:
            raise Retry("The service does not undo it." if action == FAILED else "The service did not answer.")


def server(service: Service) -> Completion:
    """One call, its result in the answer."""
    return service.created(service.call("server"))


def site(service: Service) -> Completion:
    """Two steps."""
    page = service.step("page", WITH_RESULT)
    return service.created(page, service.step("name"))


def row(service: Service) -> Completion:
    """A row that is written with the completion."""
    response = service.created(service.call("server"))
    response.rows = (Row(ROWS, {"id": f"row of {service.operation.id}", "made_by": service.world.me.name}),)
    return response


def only_a_row(service: Service) -> Completion:
    """A row, and no other effect."""
    response = service.created()
    response.rows = (Row(ROWS, {"id": f"row of {service.operation.id}", "made_by": service.world.me.name}),)
    return response


def only_a_name(service: Service) -> Completion:
    """A row that only one operation can have, and no other effect."""
    response = service.created()
    response.rows = (Row(ROWS, {"id": "the name"}, service.refusal("the name is taken")),)
    return response


def only_a_large_row(service: Service) -> Completion:
    """The same as `only_a_row` with a body that does not fit into the record."""
    return enlarged(only_a_row(service))


def weighs(service: Service) -> Completion:
    """Looks at the world, which may fail or speak against it, before it writes its row."""
    service.weigh("the quota")
    return only_a_row(service)


def large(service: Service) -> Completion:
    """A body that does not fit into the record, and differs from attempt to attempt."""
    return enlarged(service.created(service.call("server")))


def enlarged(response: Completion) -> Completion:
    """Give a response a body that does not fit into the record, and differs from attempt to attempt."""
    noise = "".join(hashlib.sha256(f"{response.body}{part}".encode()).hexdigest() for part in range(120))
    response.body = {**(response.body or {}), "noise": noise}
    return response


def doomed(service: Service) -> Completion:
    """A step, then a failure for good: the step is undone."""
    service.step("page", WITH_RESULT)
    raise service.refusal("never")


def name_reserved(service: Service) -> Completion:
    """A row that is written ahead of the completion, by whoever comes first."""
    service.reserve("reservation")
    return service.created(service.call("server"))


def reserved_and_doomed(service: Service) -> Completion:
    """A row that is written, then a failure for good: the row is given back."""
    service.reserve("reservation")
    raise service.refusal("never")


def undone_with_result(service: Service) -> Completion:
    """A step that may be refused after it was done without an answer, and cannot be undone without its result."""
    page = service.step("page", WITH_RESULT)
    return service.created(page, service.step("name"))


def undone_blindly(service: Service) -> Completion:
    """The same with a row reserved before, and a step that can be undone by what is known beforehand."""
    service.reserve("reservation")
    page = service.step("page", BLINDLY)
    return service.created(page, service.step("name"))


def looks_first(service: Service) -> Completion:
    """Breaks the rule: refuses in a later attempt, ahead of a finished step."""
    service.look("the quota")
    service.reserve("reservation")
    page = service.step("page", WITH_RESULT)
    return service.created(page, service.step("name", BLINDLY))


def looks_between(service: Service) -> Completion:
    """Breaks the rule: refuses between steps."""
    service.reserve("reservation")
    page = service.step("page", BLINDLY)
    service.look("the quota")
    return service.created(page, service.step("name", WITH_RESULT))


def falls_back(service: Service) -> Completion:
    """Obeys the rule: what it falls back on follows from the refusal of a step."""
    try:
        made = service.step("primary", WITH_RESULT)
    except Rejected:
        made = service.step("fallback", WITH_RESULT)
    return service.created(made, service.step("name"))


def always_falls_back(service: Service) -> Completion:
    """The same with a step that is refused in any case."""

    def refuse(_: str) -> str:
        raise service.refusal("no primary")

    with contextlib.suppress(Rejected):
        service.operation.step("primary", refuse)
    return service.created(service.step("fallback", WITH_RESULT), service.step("name"))


def falls_back_twice(service: Service) -> Completion:
    """The same with a reservation in the one branch, and two steps at a time in the other."""
    try:
        service.step("primary", BLINDLY)
        service.reserve("reservation")
    except Rejected:
        thread = service.thread("fallback", BLINDLY)
        try:
            service.step("second fallback", BLINDLY)
        finally:
            service.world.wait(thread)
        service.world.join(thread)
    return service.created(service.step("name"))


def swallows(service: Service) -> Completion:
    """Breaks the rule: goes on without the outcome of a step, so that no later attempt can take the same way."""
    with contextlib.suppress(TimeoutError):
        service.step("page", BLINDLY, unanswered=TimeoutError)
    with contextlib.suppress(TimeoutError):
        service.step("extra", WITH_RESULT, unanswered=TimeoutError)
    return service.created(service.step("name"))


def answered_or_not(service: Service) -> Completion:
    """A step that fails unexpectedly if there is no answer."""
    page = service.step("page", BLINDLY, unanswered=TimeoutError)
    return service.created(page, service.step("name", BLINDLY, unanswered=TimeoutError))


def unkeepable(service: Service) -> Completion:
    """A step whose result is too large to be kept."""
    service.step("page", BLINDLY)
    return service.created(service.step("name", BLINDLY, length=20_000))


def at_once(service: Service) -> Completion:
    """A step in another thread, which is not waited for if the one beside it fails."""
    thread = service.thread("page", BLINDLY)
    name = service.step("name")
    return service.created(service.world.join(thread), name)


def at_once_and_waited_for(service: Service) -> Completion:
    """The same as an executor's context manager has it: the thread is waited for, whatever happens."""
    service.reserve("reservation")
    thread = service.thread("page", WITH_RESULT)
    try:
        name = service.step("name", BLINDLY)
    finally:
        service.world.wait(thread)
    return service.created(service.world.join(thread), name)


def longer(service: Service) -> Completion:
    """The site with one step more."""
    page = service.step("page", WITH_RESULT)
    dns = service.step("dns", WITH_RESULT)
    return service.created(page, dns, service.step("name"))


def reordered(service: Service) -> Completion:
    """The site the other way round."""
    name = service.step("name")
    return service.created(name, service.step("page", WITH_RESULT))


def renamed(service: Service) -> Completion:
    """The site with another name for one step."""
    page = service.step("front page", WITH_RESULT)
    return service.created(page, service.step("name"))


def waits(service: Service) -> Completion:
    """A step, and then a wait for what it began."""
    page = service.step("page", WITH_RESULT)
    return service.created(page, service.wait("delivery"))


class Thing(Body):
    """What a request asks for."""

    size: str


class Narrowed(Thing):
    """The same in a version that refuses what the other accepts."""

    colour: str


@dataclass(frozen=True)
class Version:
    """A version of the code, as it is deployed.

    Args:
        business: what the key's operation does; None if this version has no such route.
        body: what its route accepts.
        form: the form in which it stores a request; it reads no other one.
        policy: the route's choices; None for the scenario's.
    """

    business: Business | None
    body: type[Thing] = Thing
    form: bytes = b""
    policy: Policy | None = None


@dataclass(frozen=True)
class Scenario:
    """Who is in a world, and how much may go wrong.

    Args:
        business: what the key's operation does.
        workers: name → how it differs from an ordinary worker, as arguments of `Deployment.worker`.
        policy: the route's choices.
        settings: the stack's.
        answers: what a call of another service may come to, besides success.
        life: milliseconds after which a process is ended. Lambda's timeout, or, to see what the fences alone hold,
            much longer than the lease.
        versions: name → another version of the code.
        last: the version that everything runs in the end.
        excuses: what may keep that version from finishing what another one began, as the record must say.
        unshared: the steps that not every version has. Of one that was cut off before its checkpoint, no other version
            can know.
        recovery: whether recovery runs too, and alone has to finish what was abandoned.
        deliveries: messages that are delivered in one schedule at most; 0 if there is no queue, and recovery carries on
            itself what it finds.
        faults: faults in one schedule.
        jumps: jumps of time in one schedule.
        reliable: whether every call of the database goes well: then faults are crashes, and answers of other services.
        whole: whether it is searched to the end in `make prove`, however long that takes.
    """

    business: Business
    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"A": {}, "B": {}})
    policy: Policy = field(default_factory=Policy)
    settings: Settings = field(default_factory=lambda: Settings(cache_bytes=0))
    answers: tuple[str, ...] = (FAILED, TIMED_OUT)
    life: int = INVOCATION_LIFE_MS
    versions: Mapping[str, Version] = field(default_factory=dict)
    last: str = ""
    excuses: str = ""
    unshared: frozenset[str] = frozenset()
    recovery: bool = False
    deliveries: int = 0
    faults: int = 2
    jumps: int = 2
    reliable: bool = False
    whole: bool = False

    def __call__(self) -> World:
        """Build the world, with all its actors about to start."""
        return Deployment(self).world

    def within(self, faults: int, jumps: int, *, reliable: bool = False) -> Scenario:
        """The same with another budget."""
        return dataclasses.replace(self, faults=faults, jumps=jumps, reliable=reliable)

    def version(self, name: str) -> Version:
        """A version by its name; the one that has none runs `business`."""
        return self.versions.get(name) or Version(self.business)


def _any_code(business: Business, excuses: str = "", *, recovery: bool = False, workers: str = "A") -> Scenario:
    """Business code of any kind, with services that may refuse, and processes that end in time."""
    return Scenario(
        business,
        {name: {} for name in workers},
        Policy(recoverable=recovery),
        Settings(cache_bytes=0, max_recoveries=2),
        answers=(FAILED, TIMED_OUT, REFUSED),
        life=TIMEOUT_MS,
        excuses=excuses,
        recovery=recovery,
    )


def _rollout(
    first: Version,
    then: Version,
    excuses: str = "",
    unshared: Iterable[str] = (),
    **workers: Mapping[str, Any],
) -> Scenario:
    """Two versions of the code over one table, the second of which runs in the end."""
    return Scenario(
        site,
        workers or {"A": {"version": "first"}, "B": {"version": "then"}},
        Policy(recoverable=True),
        Settings(cache_bytes=0, max_recoveries=2),
        answers=(FAILED, TIMED_OUT, REFUSED),
        life=TIMEOUT_MS,
        versions={"first": first, "then": then},
        last="then",
        excuses=excuses,
        unshared=frozenset(unshared),
        recovery=True,
        jumps=1,
    )


def _queue(business: Business, workers: Mapping[str, Mapping[str, Any]], deliveries: int = 1) -> Scenario:
    """A queue whose messages come in any order, late, twice or never; in the end, a sweep sends what is left."""
    return Scenario(
        business,
        workers,
        Policy(recoverable=True),
        Settings(cache_bytes=0, max_recoveries=2),
        life=TIMEOUT_MS,
        recovery=True,
        deliveries=deliveries,
        faults=1,
        jumps=1,
    )


BESIDE = {"A": {"version": "first"}, "B": {"version": "then", "principal": "bob"}}
"""Two operations, of which the last version may be unable to carry one on."""
OLD, LONGER, REORDERED, RENAMED = (Version(business) for business in (site, longer, reordered, renamed))
ATOMIC = Policy(atomic=True)
ROW_ALONE = Version(only_a_row, policy=ATOMIC)
UNREACHED = r"before it reached (dns|page|extra|front page|name)"

SCENARIOS: dict[str, Scenario] = {
    "alone": Scenario(server, {"A": {}}, faults=3, whole=True),
    "two workers": Scenario(server, whole=True),
    "two workers and a business row": Scenario(row),
    "two workers and two steps": Scenario(site),
    "two workers, large body": Scenario(large),
    "two workers, undone": Scenario(doomed),
    "two principals, one name": Scenario(name_reserved, {"A": {}, "B": {"principal": "bob"}}),
    "two workers, reserved and undone": Scenario(reserved_and_doomed),
    "a request that waits": Scenario(server, {"A": {}, "B": {"wait": 1}}),
    "skewed clocks": Scenario(site, {"A": {"skew": -CLOCK_SKEW_MS // 2}, "B": {"skew": CLOCK_SKEW_MS // 2}}),
    "a short time to live": Scenario(server, settings=Settings(ttl=60, unfinished_ttl=60, cache_bytes=0)),
    "two principals": Scenario(server, {"A": {}, "B": {"principal": "bob"}}),
    "another request": Scenario(server, {"A": {}, "B": {"body": b'{"size":"small"}'}}),
    "worker and recovery": Scenario(site, {"A": {}}, Policy(recoverable=True), recovery=True),
    "worker, retry and recovery": Scenario(site, policy=Policy(recoverable=True), recovery=True, faults=1, jumps=1),
    "three workers": Scenario(site, {"A": {}, "B": {}, "C": {}}, faults=1, jumps=1),
    "atomic": Scenario(only_a_row, policy=ATOMIC),
    "atomic, two principals, one name": Scenario(only_a_name, {"A": {}, "B": {"principal": "bob"}}, ATOMIC),
    "atomic, large body": Scenario(only_a_large_row, policy=ATOMIC),
    "atomic, may refuse": Scenario(weighs, policy=ATOMIC),
    "atomic, another request": Scenario(only_a_row, {"A": {}, "B": {"body": b'{"size":"small"}'}}, ATOMIC),
    "atomic, a short time to live": Scenario(
        only_a_row, policy=ATOMIC, settings=Settings(ttl=60, unfinished_ttl=60, cache_bytes=0)
    ),
    "undone with its result": _any_code(undone_with_result, workers="AB"),
    "undone blindly": _any_code(undone_blindly, workers="AB"),
    "undoing fails": _any_code(doomed, workers="AB"),
    "refused ahead of a finished step": _any_code(looks_first, workers="AB"),
    "refused between steps": _any_code(looks_between, workers="AB"),
    "falls back": _any_code(falls_back, workers="AB"),
    "falls back on two steps at once": _any_code(falls_back_twice),
    "swallows an error": _any_code(swallows, UNREACHED, workers="AB"),
    "a result that cannot be kept": _any_code(unkeepable),
    "every error is final": dataclasses.replace(_any_code(answered_or_not), policy=Policy(store_5xx=True)),
    "steps at once": _any_code(at_once, UNREACHED),
    "steps at once, waited for": _any_code(at_once_and_waited_for),
    "undone with its result, recovered": _any_code(undone_with_result, recovery=True),
    "undone blindly, recovered": _any_code(undone_blindly, recovery=True),
    "undoing fails, recovered": _any_code(doomed, recovery=True),
    "refused ahead of a finished step, recovered": _any_code(looks_first, recovery=True),
    "refused between steps, recovered": _any_code(looks_between, recovery=True),
    "falls back, recovered": _any_code(falls_back, recovery=True),
    "falls back on two steps at once, recovered": _any_code(falls_back_twice, recovery=True),
    "swallows an error, recovered": _any_code(swallows, UNREACHED, recovery=True),
    "steps at once, waited for, recovered": _any_code(at_once_and_waited_for, recovery=True),
    "rollout of one step more": _rollout(OLD, LONGER, UNREACHED, ["dns"]),
    "rollback of one step more": _rollout(LONGER, OLD, UNREACHED, ["dns"]),
    "rollout of another order": _rollout(OLD, REORDERED, UNREACHED),
    "rollout of another name": _rollout(OLD, RENAMED, UNREACHED, ["page", "front page"]),
    "rollout of another body": _rollout(OLD, Version(site, Narrowed), "refuses the stored request"),
    "rollback of another form": _rollout(Version(site, form=b"2"), OLD, "cannot read the stored request", **BESIDE),
    "rollout of an atomic operation": _rollout(OLD, ROW_ALONE, UNREACHED, ["page", "name"]),
    "rollback of an atomic operation": _rollout(ROW_ALONE, OLD, unshared=["page", "name"]),
    "a queue": _queue(site, {"A": {}}),
    "a queue, and a retry": _queue(site, {"A": {}, "B": {}}),
    "a queue, and undoing": _queue(doomed, {"A": {}}),
    "accepted": _queue(site, {"A": {"respond_async": True}}, deliveries=2),
    "accepted twice": _queue(name_reserved, {"A": {"respond_async": True}, "B": {"respond_async": True}}),
    "accepted, and held": _queue(server, {"A": {"respond_async": True}, "B": {"wait": 1}}),
    "waits": _queue(waits, {"A": {}}),
    "waits without its client": _queue(waits, {"A": {"respond_async": True}}, deliveries=2),
    "rollback of a fallback": _rollout(
        Version(always_falls_back), OLD, "before it reached fallback", ["fallback", "page"], A={"version": "first"}
    ),
    "rollback of the route": _rollout(OLD, Version(None), "has no idempotent route for POST /v1/things"),
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
            Budget(scenario.faults, scenario.jumps, scenario.deliveries),
            instants=_instants_with_deadlines if scenario.deliveries else _instants,
            receive=self._receive,
            expired=_expired,
            watch=(invariants.watch_record, invariants.watch_row),
            answered=invariants.watch_answer,
            finish=self._finish,
            keep=_keep_router,
        )
        for name, differences in scenario.workers.items():
            self.worker(name, **differences)
        if scenario.recovery and not scenario.deliveries:
            self.recovery("R", scenario.last)

    def worker(
        self,
        name: str,
        *,
        principal: str = "alice",
        body: bytes = LARGE,
        wait: int = 0,
        skew: int = 0,
        version: str = "",
        respond_async: bool = False,
    ) -> Actor:
        """One request with the key, from its arrival to its answer."""

        def code() -> Answer:
            context = self._context(self.world.now + TIMEOUT_MS)
            return Answer.of(self._door(version).resolve(_event(principal, body, wait, respond_async), context))

        actor = self.world.spawn(name, code, skew=skew, life=self.scenario.life)
        self._note(actor, principal, version)
        return actor

    def recovery(self, name: str, version: str = "") -> Actor:
        """One run of recovery, which carries every operation on that is due."""

        def sweep() -> Answer:
            try:
                self._door(version).lifecycle.sweep(self.world.now + TIMEOUT_MS)
            except Exception as error:  # noqa: BLE001 - whatever ends a run, the next one goes on
                return Answer(503, f"{type(error).__name__}: {error}".encode())
            return Answer(0)

        def code() -> Answer:
            idempotent, context = self._door(version), self._context(self.world.now + TIMEOUT_MS)
            try:
                lifecycle = idempotent.lifecycle
                for due in lifecycle.store.due(lifecycle.clock.now()):
                    self._resume(idempotent, due.id, context)
            except Exception as error:  # noqa: BLE001 - whatever ends a run, the next one goes on
                return Answer(503, f"{type(error).__name__}: {error}".encode())
            return Answer(0)

        actor = self.world.spawn(name, sweep if self.scenario.deliveries else code, life=self.scenario.life)
        self._note(actor, "alice", version)
        return actor

    def _receive(self, _: World, id_: str) -> None:
        """Let a worker have a message."""

        def code() -> Answer:
            self._resume(self._door(self.scenario.last), id_, self._context(self.world.now + TIMEOUT_MS))
            return Answer(0)

        number = sum(name.startswith("W") for name in self.world.actors) + 1
        actor = self.world.spawn(f"W{number}", code, life=self.scenario.life)
        self._note(actor, "alice", self.scenario.last)

    def _resume(self, idempotent: Idempotent, id_: str, context: Any) -> None:
        """Carry one operation on, as `recovery.worker` does."""
        try:
            idempotent.resume(id_, context)
        except Exception as error:  # noqa: BLE001 - one record must not stop the others
            self.world.tell(f"· {type(error).__name__}: {error}")

    def _door(self, version: str) -> Idempotent:
        """What a process makes at its start."""
        app, telemetry = APIGatewayRestResolver(), Telemetry(self.world)
        idempotent = Idempotent(app, telemetry, lambda: self._lifecycle(telemetry))  # type: ignore[arg-type]
        deployed = self.scenario.version(version)
        business = deployed.business
        if business is None:
            return idempotent

        def things(body: Thing, operation: Operation) -> Completion:
            service = Service(self.world, operation, self.scenario.answers)
            self.world.me.notes.setdefault("taken", {})[operation.id] = service.taken
            return business(service)

        things.__annotations__["body"] = deployed.body
        things.__annotations__["operation"] = Operation
        app.post(ROUTE)(idempotent(deployed.policy or self.scenario.policy)(things))
        return idempotent

    def _lifecycle(self, telemetry: Telemetry) -> Lifecycle:
        clock = Clock(self.world)
        store = Store(Client(self.world, reliable=self.scenario.reliable), RECORDS, clock)  # type: ignore[arg-type]  # it stands in for boto3's
        sqs = sdk.Queue(self.world)
        queue = Queue(lambda: sqs, "queue") if self.scenario.deliveries else None  # type: ignore[arg-type, return-value]
        return Lifecycle(store, telemetry, self.scenario.settings, clock, queue)  # type: ignore[arg-type]

    def _context(self, deadline: int) -> Any:
        """Lambda's context; how much time is left does not depend on the clock of the process."""
        return SimpleNamespace(get_remaining_time_in_millis=lambda: deadline - self.world.now)

    def _note(self, actor: Actor, principal: str, version: str) -> None:
        actor.notes["principal"] = principal
        actor.notes["record"] = _record_id(principal)
        actor.notes["form"] = self.scenario.version(version).form
        actor.notes["unshared"] = self.scenario.unshared

    def _finish(self, where: World) -> Iterator[None]:
        """Whatever happened, one undisturbed retry ends it once the lease has lapsed, and the next one replays it."""
        last = self.scenario.last
        where.jump_to(max([where.now, *(_lapses(item) + 1 for item in _unfinished(where, self.scenario.recovery))]))
        if self.scenario.recovery:
            self.recovery("recovery", last)
            yield
            yield from self._work_off(where)
            yield from self._finish_excused(where)
        principals = {each.get("principal", "alice") for each in self.scenario.workers.values()}
        if self.scenario.version(last).business is None:
            return
        for principal in sorted(principals):
            before = self._record(principal)
            retry = self.worker(f"{principal}'s retry", principal=principal, version=last)
            yield
            replay = self.worker(f"{principal}'s replay", principal=principal, version=last)
            yield
            refused = not before and retry.answer.status == 400 and last
            if not refused and not self._excused(self._record(principal)):
                self._compare(where, before, retry.answer, replay.answer)

    def _work_off(self, where: World) -> Iterator[None]:
        """Let workers have every message, those included that they send."""
        while where.messages:
            message = min(where.messages)
            where.messages.remove(message)
            where.jump_to(max(where.now, message.due))
            self._receive(where, message.body)
            yield

    def _record(self, principal: str) -> Item | None:
        """A record that is in force."""
        item = self.world.database.tables[RECORDS].items.get((_record_id(principal),))
        return item if item and not invariants.expired(item, self.world.now) else None

    def _finish_excused(self, where: World) -> Iterator[None]:
        """What the last version cannot finish, it parks with the true reason, after it has finished all the rest."""
        for item in _unfinished(where, released_too=True):
            if not self._excused(item):
                error = item.get("last_error", {}).get("S", "no reason")
                where.violate(9 if self.scenario.last else 4, f"recovery did not finish what was abandoned: {error}")
        for run in range(self.scenario.settings.max_recoveries):
            pending = _unfinished(where, released_too=True)
            if not pending:
                return
            where.jump_to(max([where.now, *(_lapses(item) + 1 for item in pending)]))
            self.recovery(f"recovery {run + 2}", self.scenario.last)
            yield
        if _unfinished(where, released_too=True):
            where.violate(9, "what this version cannot run is not parked")

    def _excused(self, item: Item | None) -> bool:
        """Whether a record says why the last version cannot finish it."""
        error = (item or {}).get("last_error", {}).get("S", "")
        unfinished = bool(item) and item["status"]["S"] == "RELEASED"  # type: ignore[index]  # it is one
        return unfinished and bool(self.scenario.excuses) and bool(re.search(self.scenario.excuses, error))

    def _compare(self, where: World, before: Item | None, retry: Answer, replay: Answer) -> None:
        completed = before is not None and before["status"]["S"] == "COMPLETED"
        if invariants.refuses_the_key(retry):
            return
        if not invariants.is_final(where, retry):
            where.violate(9 if completed else 4, f"a retry after the lease's end is answered {retry}")
        elif completed and not retry.replayed:
            where.violate(9 if self.scenario.last else 1, "a completed operation ran again")
        elif (replay.status, replay.body) != (retry.status, retry.body):
            where.violate(1, f"two answers differ: {retry} and {replay}")
        elif not replay.replayed:
            where.violate(1, "a completed operation ran again")


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Take chance out of the code under test, the recovery index's empty shards, and looks that change nothing."""
    shards = "".join(sorted({_record_id(principal)[0] for principal in ("alice", "bob")}))
    pack, unpack = Request.pack, Request.unpack

    def read(packed: bytes) -> Request:
        form = world.here().me.notes["form"]
        if not packed.startswith(form):
            raise ValueError("an unknown form")
        return unpack(packed.removeprefix(form))

    with (
        mock.patch.object(lifecycle_module, "uuid4", world.uuid4),
        mock.patch.object(store_module, "uuid4", world.uuid4),
        mock.patch.object(store_module, "_SHARDS", shards),
        mock.patch.object(operation_module, "Lock", world.Lock),
        mock.patch.object(operation_module, "_LOOK_AGAIN", TIMEOUT_MS // 3),
        mock.patch.object(Request, "pack", lambda request: world.here().me.notes["form"] + pack(request)),
        mock.patch.object(Request, "unpack", read),
    ):
        yield


@cache
def _event(principal: str, body: bytes, wait: int, respond_async: bool) -> dict[str, Any]:
    prefer = f"wait={wait}{', respond-async' if respond_async else ''}"
    headers = {"Idempotency-Key": KEY, "Content-Type": "application/json", "Prefer": prefer}
    return {
        "resource": ROUTE,
        "path": ROUTE,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "requestContext": {"path": f"/dev{ROUTE}", "authorizer": {"principalId": principal}},
        "body": body.decode(),
        "isBase64Encoded": False,
    }


@cache
def _record_id(principal: str) -> str:
    return record_id(f"id:{principal}", "POST", ROUTE, KEY)


def _keep_router() -> Callable[[], None]:
    """Powertools keeps the current event in global variables, of which each process has its own."""
    kept = {name: getattr(BaseRouter, name, None) for name in ("current_event", "lambda_context")}

    def restore() -> None:
        for name, value in kept.items():
            setattr(BaseRouter, name, value)

    return restore


def _records(where: World) -> Iterable[Item]:
    return [item for item in where.database.tables[RECORDS].items.values() if "status" in item]


def _unfinished(where: World, released_too: bool) -> list[Item]:
    """The records that somebody has to carry on: parked ones are an operator's."""
    statuses = ("PROCESSING", "RELEASED") if released_too else ("PROCESSING",)
    return [
        item
        for item in _records(where)
        if item["status"]["S"] in statuses
        if _lapses(item) < PARKED_UNTIL and not invariants.expired(item, where.now)
    ]


def _lapses(item: Item) -> int:
    return int(item["lease_until"]["N"])


def _may_lapse(item: Item) -> bool:
    return item["status"]["S"] != "COMPLETED" and _lapses(item) < PARKED_UNTIL


def _instants(where: World) -> Iterator[int]:
    for item in _records(where):
        if _may_lapse(item):
            yield _lapses(item) + 1
        yield int(item["expires_at"]["N"]) * 1000


def _instants_with_deadlines(where: World) -> Iterator[int]:
    """The same, and when messages come, and when an attempt has too little time left for a step."""
    yield from _instants(where)
    yield from (message.due for message in where.messages)
    for actor in where.actors.values():
        if actor.started is not None and not actor.ended:
            yield actor.started + TIMEOUT_MS - 3_000


def _expired(where: World) -> Iterator[tuple[str, Any]]:
    for key, item in where.database.tables[RECORDS].items.items():
        if int(item["expires_at"]["N"]) * 1000 <= where.now:
            yield RECORDS, key
