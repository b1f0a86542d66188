"""What actors use in place of boto3, a real clock and real services: every use of them is a point of the world."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from proof.explorer import dynamodb
from proof.explorer.dynamodb import Refused, Response
from proof.explorer.world import GO, REQUEST_LIFE_MS, InFlight, Message, Point, World

ENDPOINT = "https://dynamodb.simulated"
WRITES = {"UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"}
ATTEMPTS = 3
"""Of the SDK's standard retry mode."""

LOST = "lost"
"""The request is carried out, its answer is lost, and the SDK sends it again."""
LATE = "late"
"""The request is delayed so long that the SDK sends it again; the first one may still land at any later point."""
CUT = "cut"
"""The request is carried out, but no answer ever arrives: the SDK gives up."""
DOWN = "down"
"""The database cannot be reached: the SDK gives up."""
THROTTLED = "throttled"
"""The database refuses for now, each time that the SDK asks."""
CONFLICT = "conflict"
"""A transaction of somebody else holds the item."""
LAG = "lag"
"""The index shows every item as it was before its last change."""


class Client:
    """Stands in for `boto3.client("dynamodb")`, down to the SDK's own retries.

    Args:
        world: where it is called.
        layer: how the file names of the code that calls the client end; its outermost function names the call in
            timelines.
        attempts: how often the SDK sends a request before it gives up.
        reliable: whether no call ever fails.
    """

    exceptions = SimpleNamespace(ClientError=ClientError, **dynamodb.ERRORS)

    def __init__(
        self, world: World, layer: str = "store.py", attempts: int = ATTEMPTS, *, reliable: bool = False
    ) -> None:
        self._world = world
        self._layer = layer
        self._attempts = attempts
        self._reliable = reliable

    def update_item(self, **params: Any) -> Response:
        return self._request("UpdateItem", params)

    def put_item(self, **params: Any) -> Response:
        return self._request("PutItem", params)

    def delete_item(self, **params: Any) -> Response:
        return self._request("DeleteItem", params)

    def get_item(self, **params: Any) -> Response:
        return self._request("GetItem", params)

    def query(self, **params: Any) -> Response:
        return self._request("Query", params)

    def transact_write_items(self, **params: Any) -> Response:
        # The SDK mints a token for each call, not for each attempt.
        return self._request("TransactWriteItems", {"ClientRequestToken": str(self._world.uuid()), **params})

    def batch_write_item(self, **params: Any) -> Response:
        return self._request("BatchWriteItem", params)

    def batch_get_item(self, **params: Any) -> Response:
        return self._request("BatchGetItem", params)

    def get_paginator(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(paginate=lambda **params: self._pages(getattr(self, name), params))

    def _pages(self, operation: Any, params: dict[str, Any]) -> Iterator[Response]:
        page = operation(**params)
        yield page
        while "LastEvaluatedKey" in page:
            page = operation(**params, ExclusiveStartKey=page["LastEvaluatedKey"])
            yield page

    def _request(self, operation: str, params: dict[str, Any]) -> Response:
        world = self._world
        label = self._label(operation)
        for attempt in range(1, self._attempts + 1):
            faults = () if self._reliable else _faults(operation, params, last=attempt == self._attempts)
            action = world.stop_at(Point(label, faults))
            if action in (GO, LAG):
                return self._answer(operation, params, label, lagging=action == LAG)
            if action in (LOST, CUT):
                self._carry_out(operation, params)
            if action == LATE:
                request = InFlight(world.me.name, operation, params, world.now + REQUEST_LIFE_MS)
                world.in_flight.append(request)
            world.tell(f"{label} ⚡ {action}")
            world.me.cut_off = True
            self._raise(operation, params, action)
        raise ReadTimeoutError(endpoint_url=ENDPOINT)

    def _answer(self, operation: str, params: dict[str, Any], label: str, *, lagging: bool) -> Response:
        world = self._world
        world.me.cut_off = False
        try:
            response = world.apply(operation, params, world.me, **({"lagging": True} if lagging else {}))
        except Refused as refused:
            world.me.saw(refused.code, repr(refused.extra))
            world.tell(f"{label} ✗ {refused.code}{_summary(refused.extra)}")
            raise dynamodb.error(refused, operation) from None
        world.me.saw(repr(response))
        world.tell(f"{label} ✓{' (stale)' if lagging else ''}{_summary(response)}")
        return response

    def _carry_out(self, operation: str, params: dict[str, Any]) -> None:
        with suppress(Refused):  # that answer is lost too
            self._world.apply(operation, params, self._world.me)

    def _raise(self, operation: str, params: dict[str, Any], action: str) -> None:
        """The exception with which the SDK gives up, if it does."""
        if action == CUT:
            raise ReadTimeoutError(endpoint_url=ENDPOINT)
        if action == DOWN:
            raise EndpointConnectionError(endpoint_url=ENDPOINT)
        if action == THROTTLED:
            raise dynamodb.error(Refused("ThrottlingException", "Rate exceeded"), operation)
        if action == CONFLICT and operation == "TransactWriteItems":
            reasons = [{"Code": "TransactionConflict"}, *({"Code": "None"} for _ in params["TransactItems"][1:])]
            refused = Refused("TransactionCanceledException", "Transaction cancelled", CancellationReasons=reasons)
            raise dynamodb.error(refused, operation)
        if action == CONFLICT:
            raise dynamodb.error(Refused("TransactionConflictException", "Transaction is ongoing"), operation)

    def _label(self, operation: str) -> str:
        """How timelines call a request: the persistence layer's own name for it, and DynamoDB's."""
        if self._world.events is None:
            return operation
        frame, name = sys._getframe(2), ""
        while frame is not None:
            if frame.f_code.co_filename.endswith(self._layer):
                name = frame.f_code.co_name
            frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
        return f"{name} ({operation})"


class Queue:
    """Stands in for `boto3.client("sqs")`.

    Args:
        world: where it is called.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def send_message(self, *, QueueUrl: str, MessageBody: str, DelaySeconds: int = 0) -> Response:  # noqa: N803
        self._send([MessageBody], DelaySeconds)
        return {}

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> Response:  # noqa: N803
        self._send([entry["MessageBody"] for entry in Entries], 0)
        return {"Successful": Entries}

    def _send(self, bodies: list[str], delay: int) -> None:
        if self._world.stop_at(Point("sends a message", (DOWN,))) == DOWN:
            self._world.tell(f"send ⚡ {DOWN}")
            raise EndpointConnectionError(endpoint_url="https://sqs.simulated")
        self._world.messages += [Message(self._world.now + delay * 1000, body) for body in bodies]
        self._world.tell(f"send ✓{f' (in {delay} s)' if delay else ''}")


class Clock:
    """Stands in for the project's clock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> int:
        return self._world.read_clock()

    def sleep(self, milliseconds: float) -> None:
        self._world.sleep(milliseconds)


def _faults(operation: str, params: dict[str, Any], *, last: bool) -> tuple[str, ...]:
    if operation not in WRITES:
        return (DOWN, LAG) if "IndexName" in params else (DOWN,)
    if last:
        return (CUT, DOWN)
    return (LOST, LATE, CUT, DOWN, THROTTLED, CONFLICT)


def _summary(content: dict[str, Any]) -> str:
    """The attributes of a record that explain an answer, for timelines."""
    item = content.get("Item") or content.get("Attributes") or {}
    reasons = [reason["Code"] for reason in content.get("CancellationReasons", ())]
    shown = [
        f"{name}={next(iter(item[name].values()))!s:.10}" for name in ("status", "owner", "attempt") if name in item
    ]
    return f" [{' '.join(reasons + shown)}]" if reasons or shown else ""
