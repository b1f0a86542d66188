"""What goes over the network to DynamoDB: counted, lost or cut off, by hooks of the SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from botocore.httpsession import URLLib3Session

from proof.peers.libraries.contract import Worker
from proof.peers.stage import Stage

_READS = frozenset({"BatchGetItem", "GetItem", "Query"})


class Meter:
    """Counts a worker's round trips, and the capacity that they consume.

    A write whose condition fails consumes as much as a write of the item in its way, but its answer does not say so.
    So another client writes that item once more, unchanged, and its answer does.

    Source: DynamoDB developer guide, "Capacity unit consumption for write operations".
    """

    def __init__(self, stage: Stage) -> None:
        self.calls = 0
        self.write_units = 0.0
        self.read_units = 0.0
        self._stage = stage

    @contextmanager
    def on(self, worker: Worker) -> Iterator[None]:
        """Count what a worker sends in a ``with`` block."""
        with (
            _hooked(worker, "before-parameter-build", self._ask),
            _hooked(worker, "before-call", self._remember),
            _hooked(worker, "before-send", self._count),
            _hooked(worker, "after-call", self._add),
        ):
            yield

    def _ask(self, params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _remember(self, params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["bench"] = json.loads(params["body"])

    def _count(self, **_: Any) -> None:
        self.calls += 1

    def _add(self, model: Any, parsed: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        consumed = parsed.get("ConsumedCapacity", [])
        units = sum(part["CapacityUnits"] for part in (consumed if isinstance(consumed, list) else [consumed]))
        if "Error" in parsed:
            units = self._units_of_failed_write(context["bench"])
        if model.name in _READS:
            self.read_units += units
        else:
            self.write_units += units

    def _units_of_failed_write(self, request: Mapping[str, Any]) -> float:
        name = self._stage.library.key
        table, key = request["TableName"], (request.get("Key") or request["Item"])[name]
        item = self._stage.dynamodb.get_item(TableName=table, Key={name: key}, ConsistentRead=True)["Item"]
        reply = self._stage.dynamodb.put_item(TableName=table, Item=item, ReturnConsumedCapacity="TOTAL")
        return float(reply["ConsumedCapacity"]["CapacityUnits"])


@contextmanager
def unreachable(worker: Worker) -> Iterator[None]:
    """Let nothing that the worker sends reach DynamoDB."""

    def cut(request: Any, **_: Any) -> None:
        raise EndpointConnectionError(endpoint_url=request.url)

    with _hooked(worker, "before-send", cut):
        yield


@contextmanager
def answer_lost(worker: Worker, call: int) -> Iterator[None]:
    """Let DynamoDB carry out everything, but lose the answer to one call; the first is number 1."""
    calls = 0

    def lose(request: Any, **_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            URLLib3Session().send(request)
            raise ConnectionClosedError(endpoint_url=request.url)

    with _hooked(worker, "before-send", lose):
        yield


@contextmanager
def _hooked(worker: Worker, event: str, hook: Callable[..., None]) -> Iterator[None]:
    for emitter in worker.emitters:
        emitter.register(f"{event}.dynamodb", hook)
    try:
        yield
    finally:
        for emitter in worker.emitters:
            emitter.unregister(f"{event}.dynamodb", hook)
