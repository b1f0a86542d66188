"""The peers in the same simulated worlds: Powertools' DynamoDB persistence layer, and idemkit's DynamoDB backend.

    make peers        explores them, and writes what was found into docs/proof.md

Both are used as their own documentation says, and neither is changed: only the clock, chance and the network are
simulated. Invariants are checked by what clients, services and the table get to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.idempotency import base as powertools_base
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence import base as powertools_persistence
from aws_lambda_powertools.utilities.idempotency.persistence import datarecord as powertools_record
from aws_lambda_powertools.utilities.idempotency.persistence import dynamodb as powertools_dynamodb
from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer
from idemkit.backends import dynamodb as idemkit_dynamodb
from idemkit.core.config import IdempotencyConfig as IdemkitConfig
from idemkit.core.engine import IdempotencyEngine, NeutralRequest, NeutralResponse

from proof.explorer.dynamodb import Change, Table
from proof.explorer.expressions import Item
from proof.explorer.invariants import REPLAYED
from proof.explorer.sdk import Client
from proof.explorer.world import EPOCH_MS, INVOCATION_LIFE_MS, Actor, Budget, Point, World, here, uuid4
from tools.local.client import Answer

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
TABLE = "records"
TIMEOUT_MS = 30_000
TIMED_OUT = "timed out"
FAILED = "failed"
BODY = '{"size":"large"}'


class ServiceFailed(Exception):
    """The other service refused, or did not answer."""


def business(world: World, principal: str) -> bytes:
    """The operation: one call of another service. Who ran it is part of the answer; a newer version refuses it."""
    if world.me.notes["newer"]:
        raise ServiceFailed
    action = world.stop_at(Point("calls the service", (FAILED, TIMED_OUT)))
    if action == FAILED:
        world.tell("service ⚡ refused")
        raise ServiceFailed
    if world.me.cut_off:
        world.violate(7, f"{world.me.name} acts without having reached the database")
    world.tell(f"service {'✓' if action != TIMED_OUT else '⚡ done, answer lost'}")
    if action == TIMED_OUT:
        raise ServiceFailed
    return json.dumps({"principal": principal, "by": world.me.name}).encode()


@dataclass(frozen=True)
class Peer:
    """A library under test.

    Args:
        name: with its version.
        key: the table's partition key.
        request: answers one request in a world, for a principal.
        running: whether an item is a claim, not a result.
        held_until: epoch milliseconds at which a claim lapses, if it does.
        expires_at: epoch milliseconds at which an item counts as absent.
        life: milliseconds after which a worker's process ends it.
        not_promised: invariant → why its absence is not counted.
    """

    name: str
    key: str
    request: Callable[[World, str], Answer]
    running: Callable[[Item], bool]
    held_until: Callable[[Item], int | None]
    expires_at: Callable[[Item], int]
    life: int
    not_promised: dict[int, str]


def powertools_request(world: World, principal: str) -> Answer:
    """One invocation of a handler with Powertools' `@idempotent`."""
    deadline = world.now + TIMEOUT_MS
    client: Any = Client(world, "persistence/dynamodb.py")
    layer = DynamoDBPersistenceLayer(table_name=TABLE, boto3_client=client)
    config = IdempotencyConfig(
        event_key_jmespath='[requestContext.authorizer.principalId, headers."Idempotency-Key"]',
        payload_validation_jmespath="body",
        raise_on_no_idempotency_key=True,
    )
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: max(0, deadline - world.read_clock()))

    @idempotent(config=config, persistence_store=layer)
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"statusCode": 201, "body": business(world, principal).decode(), "by": world.me.name}

    event = {
        "headers": {"Idempotency-Key": KEY},
        "body": BODY,
        "requestContext": {"authorizer": {"principalId": principal}},
    }
    try:
        response: dict[str, Any] = handler(event, context)
    except IdempotencyAlreadyInProgressError:
        return Answer(409, b"in progress")
    except IdempotencyValidationError:
        return Answer(422, b"another payload")
    except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError, ServiceFailed) as error:
        return Answer(503, type(error).__name__.encode())
    replayed = response["by"] != world.me.name
    return Answer(response["statusCode"], response["body"].encode(), REPLAYED if replayed else {})


def idemkit_request(world: World, principal: str) -> Answer:
    """One request through idemkit's HTTP engine, in the order of its own middleware."""
    backend = idemkit_dynamodb.DynamoBackend(table=TABLE, create_table=False)
    backend._table = _AsyncTable(Client(world, "backends/dynamodb.py"))
    engine = IdempotencyEngine(backend, IdemkitConfig(scope=lambda _: principal, wait_timeout_seconds=1))
    request = NeutralRequest(KEY, principal, "POST", "/v1/things", "", BODY.encode(), "application/json")
    outcome = _drive(engine.decide(request))
    if outcome.kind != "pass_through":
        return Answer(outcome.response.status, outcome.response.body, REPLAYED if outcome.kind == "replay" else {})
    try:
        body = business(world, principal)
    except ServiceFailed:
        _drive(engine.on_error(outcome.effective_key, outcome.claim_token))
        return Answer(503, b"service failed")
    _drive(engine.on_complete(outcome.effective_key, outcome.claim_token, NeutralResponse(201, {}, body)))
    return Answer(201, body)


class _AsyncTable:
    """The few methods of aioboto3's table that idemkit calls, over the simulated client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def update_item(self, **params: Any) -> dict[str, Any]:
        return _plain(self._client.update_item(**_wire(params)))

    async def delete_item(self, **params: Any) -> dict[str, Any]:
        return _plain(self._client.delete_item(**_wire(params)))

    async def get_item(self, **params: Any) -> dict[str, Any]:
        return _plain(self._client.get_item(**_wire(params)))


def _wire(params: dict[str, Any]) -> dict[str, Any]:
    serializer = TypeSerializer()
    encoded: dict[str, Any] = {
        name: {inner: serializer.serialize(value) for inner, value in params[name].items()}
        for name in ("Key", "ExpressionAttributeValues")
        if name in params
    }
    return {"TableName": TABLE, **params, **encoded}


def _plain(response: dict[str, Any]) -> dict[str, Any]:
    deserializer = TypeDeserializer()
    return {
        name: {inner: _unwrapped(deserializer.deserialize(value)) for inner, value in item.items()}
        for name, item in response.items()
    }


def _unwrapped(value: Any) -> Any:
    content: Any = value
    return content.value if isinstance(value, Binary) else value


def _drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never really waits: whatever it awaits is simulated."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise RuntimeError("the coroutine waits for something that is not simulated")


def _number(item: Item, name: str) -> float:
    return float(item[name]["N"])


POWERTOOLS_NOTES = {
    3: "It has no steps and derives no downstream keys.",
    8: "It has no steps, and so undoes none.",
}
IDEMKIT_NOTES = {
    1: "Its README says that code runs twice if the completion's write is lost, or a handler outlives its lease.",
    3: "Its README: one side effect a handler; it is no workflow engine.",
    8: "Its README: one side effect a handler; it undoes none.",
}
POWERTOOLS = Peer(
    name="Powertools for AWS Lambda",
    key="id",
    request=powertools_request,
    running=lambda item: item["status"]["S"] == "INPROGRESS",
    held_until=lambda item: int(_number(item, "in_progress_expiration")) if "in_progress_expiration" in item else None,
    expires_at=lambda item: int(_number(item, "expiration")) * 1000 + 1000,
    life=TIMEOUT_MS,
    not_promised=POWERTOOLS_NOTES,
)
IDEMKIT = Peer(
    name="idemkit",
    key="effective_key",
    request=idemkit_request,
    running=lambda item: item["state"]["S"] == "CLAIMED",
    held_until=lambda item: int(_number(item, "lease_until") * 1000),
    expires_at=lambda item: int(_number(item, "lease_until") * 1000) + 1,
    life=INVOCATION_LIFE_MS,
    not_promised=IDEMKIT_NOTES,
)


@dataclass(frozen=True)
class PeerScenario:
    """Two requests with one key, by one principal or by two.

    Args:
        peer: the library.
        principals: who sends the requests.
        faults: faults in one schedule.
        jumps: jumps of time in one schedule.
        rollout: whether all but the first request meet a newer version, whose business code refuses them.
    """

    peer: Peer
    principals: tuple[str, str] = ("alice", "alice")
    faults: int = 2
    jumps: int = 1
    rollout: bool = False

    def __call__(self) -> World:
        """Build the world, with all its actors about to start."""
        return _Trial(self).world


class _Trial:
    def __init__(self, scenario: PeerScenario) -> None:
        self.peer = scenario.peer
        self.rollout = scenario.rollout
        self.principals = dict.fromkeys(scenario.principals)
        self.world = World(
            {TABLE: Table(self.peer.key)},
            Budget(scenario.faults, scenario.jumps),
            instants=self._instants,
            watch=(self._watch_change,),
            answered=self._watch_answer,
            finish=self._finish,
        )
        for name, principal in zip("AB", scenario.principals, strict=True):
            self._request(name, principal)

    def _request(self, name: str, principal: str) -> Actor:
        actor = self.world.spawn(name, lambda: self.peer.request(self.world, principal), life=self.peer.life)
        actor.notes["principal"] = principal
        actor.notes["newer"] = self.rollout and name != "A"
        return actor

    def _watch_change(self, world: World, actor: Actor, change: Change) -> None:
        """Check a change of an item: 1 (a result stays), 2 (only its holder changes it)."""
        before, after = change.before, change.after
        fresh = before is None or self.peer.expires_at(before) <= world.now
        if not fresh and before is not None and not self.peer.running(before):
            world.violate(1, f"{actor.name} changed a stored result")
        elif after is not None and self.peer.running(after):
            self._hold(change.key, actor.name)
        elif not fresh and self._holder(change.key) != actor.name:
            world.violate(2, f"{actor.name} changed an item that {self._holder(change.key)} holds")

    def _hold(self, key: Any, name: str) -> None:
        facts = self.world.facts
        facts[:] = [fact for fact in facts if fact[:2] != ("holder", key)] + [("holder", key, name)]

    def _holder(self, key: Any) -> str | None:
        return next((fact[2] for fact in self.world.facts if fact[:2] == ("holder", key)), None)

    def _watch_answer(self, world: World, actor: Actor) -> None:
        """Check an answer: 1 (the same bytes for all), 5 (not my own write), 6 (only my own)."""
        answer, principal = actor.answer, actor.notes["principal"]
        if answer.status in (409, 423):
            held = [key for key, item in world.database.tables[TABLE].items.items() if self.peer.running(item)]
            if any(self._holder(key) == actor.name for key in held):
                world.violate(5, f"{actor.name} took its own write for somebody else's")
        if answer.status != 201:
            return
        if principal.encode() not in answer.body:
            world.violate(6, f"{actor.name} was shown another principal's response")
        others = {fact[2] for fact in world.facts if fact[:2] == ("answer", principal)}
        if others - {answer.body} and not self._has_expired():
            world.violate(1, f"{actor.name} was told something else than the request before")
        world.facts.append(("answer", principal, answer.body))

    def _has_completed(self, principal: str) -> bool:
        """Whether the table has the result of an operation of this principal's."""
        holders = {name for name, actor in self.world.actors.items() if actor.notes["principal"] == principal}
        return any(
            not self.peer.running(item) and self.peer.expires_at(item) > self.world.now and self._holder(key) in holders
            for key, item in self.world.database.tables[TABLE].items.items()
        )

    def _has_expired(self) -> bool:
        return self.world.now >= EPOCH_MS + 3_600_000

    def _instants(self, world: World) -> Iterator[int]:
        for item in world.database.tables[TABLE].items.values():
            held_until = self.peer.held_until(item) if self.peer.running(item) else None
            if held_until is not None:
                yield held_until + 1

    def _finish(self, world: World) -> Iterator[None]:
        ends = [
            self.peer.held_until(item)
            for item in world.database.tables[TABLE].items.values()
            if self.peer.running(item)
        ]
        world.jump_to(max([world.now, *(end + 1 for end in ends if end is not None)]))
        for principal in self.principals:
            completed = self._has_completed(principal)
            retry = self._request(f"{principal}'s retry", principal)
            yield
            replay = self._request(f"{principal}'s replay", principal)
            yield
            if self.rollout:
                if completed and not retry.answer.replayed:
                    world.violate(9, f"a retry that meets a newer version is answered {retry.answer}")
            elif retry.answer.status != 201:
                world.violate(4, f"a retry after the lease's end is answered {retry.answer}")
            elif not replay.answer.replayed:
                world.violate(1, "a completed operation ran again")


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _Datetime:
        return cls.fromtimestamp(here().read_clock() / 1000, tz)


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Take real time and chance out of the peers."""
    clock = SimpleNamespace(datetime=_Datetime, timedelta=dt.timedelta, date=dt.date, time=dt.time)
    seconds = SimpleNamespace(time=lambda: here().read_clock() / 1000, monotonic=lambda: here().read_clock() / 1000)

    async def sleep(duration: float) -> None:
        here().sleep(duration * 1000)

    with contextlib.ExitStack() as patches:
        for module in (powertools_base, powertools_persistence, powertools_record, powertools_dynamodb):
            patches.enter_context(mock.patch.object(module, "dt", clock))
        patches.enter_context(mock.patch.object(idemkit_dynamodb, "time", seconds))
        patches.enter_context(
            mock.patch.object(idemkit_dynamodb, "secrets", SimpleNamespace(token_hex=lambda _: uuid4().hex))
        )
        patches.enter_context(mock.patch.object(asyncio, "sleep", sleep))
        yield
