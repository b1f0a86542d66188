"""The deployed function's handler, called as the gateway calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from boto3.dynamodb.types import TypeDeserializer
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends

import api
from idempotency.clock import Clock
from idempotency.testing import Story, crash_everywhere
from tests.clocks import SetClock
from tests.events import KEY, Context, Headers, proxy_event
from tests.messages import Messages, recover
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SERVER = {"region": "eu-west", "size": "large"}
JSON = ("Content-Type", "application/json")

# The originals, before a test replaces them.
_MADE_ONCE = [made for made in vars(api).values() if hasattr(made, "cache_clear")]


def request(
    body: Any = SERVER,
    *,
    key: str | None = KEY,
    principal: str | None = "alice",
    headers: Headers = (JSON,),
    path: str = "/v1/servers/provision",
    **event: Any,
) -> dict[str, Any]:
    """The event of a POST; a body that is neither text nor bytes is sent as JSON."""
    return proxy_event(
        "POST",
        path,
        headers=[*headers, *([("Idempotency-Key", key)] if key is not None else [])],
        body=body if isinstance(body, str | bytes | None) else json.dumps(body),
        authorizer=None if principal is None else {"principalId": principal},
        **event,
    )


class Api:
    """The API as a client sees it, and its tables as an operator does."""

    def __init__(self, dynamodb: DynamoDBClient, clock: Clock) -> None:
        self._dynamodb = dynamodb
        self.messages = Messages(clock)

    def call(self, event: dict[str, Any], seconds: float = 28) -> Answer:
        """Send an event."""
        return Answer.of(api.handler(event, Context(seconds)))

    def post(
        self,
        body: Any = SERVER,
        *,
        key: str | None = KEY,
        principal: str | None = "alice",
        headers: Headers = (JSON,),
        path: str = "/v1/servers/provision",
        seconds: float = 28,
        **event: Any,
    ) -> Answer:
        """POST; see `request`."""
        return self.call(request(body, key=key, principal=principal, headers=headers, path=path, **event), seconds)

    def get(self, path: str, *, resource: str, principal: str = "alice") -> Answer:
        """GET."""
        return self.call(proxy_event("GET", path, resource=resource, authorizer={"principalId": principal}))

    def recover(self, seconds: float = 28) -> dict[str, int]:
        """Run recovery once, see `tests.messages.recover`."""
        with shards_in_use(self._dynamodb):
            return recover(self.messages, seconds)

    def empty(self) -> None:
        """Empty its tables and its queue."""
        self.messages.waiting.clear()
        for table in ("IdempotencyTable", "ResourcesTable"):
            empty(table)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The items in the table of records."""
        return scan(self._dynamodb, "IdempotencyTable")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The items in the table of resources."""
        return scan(self._dynamodb, "ResourcesTable")


class Things:
    """What the operations of one path make, as a client and an operator see it.

    Args:
        api: the API.
        path: the path.
    """

    def __init__(self, api: Api, path: str) -> None:
        self.api = api
        self._path = path

    def get(self, id_: str, principal: str = "alice") -> Answer:
        """GET one of them."""
        return self.api.get(f"{self._path}/{id_}", resource=f"{self._path}/{{id}}", principal=principal)

    def recover(self, seconds: float = 28) -> dict[str, int]:
        """Run recovery once."""
        return self.api.recover(seconds)

    @property
    def record(self) -> dict[str, Any]:
        """The only record."""
        [record] = self.api.records
        return record


def stories(
    service: Api, clock: SetClock, path: str, body: Any, begin: Callable[[], object] | None = None
) -> Iterator[Story]:
    """POST once for each thing that may go wrong, see `idempotency.testing.crash_everywhere`."""
    return crash_everywhere(
        post=lambda: api.handler(request(body, path=path), Context()),
        recover=service.recover,
        client=api.dynamodb,
        begin=begin or service.empty,
        clock=clock,
    )


@contextmanager
def shards_in_use(dynamodb: DynamoDBClient) -> Iterator[None]:
    """Pass over the shards that are empty, which takes moto longer than all else that recovery does."""
    shards = {record["recovery_shard"] for record in scan(dynamodb, "IdempotencyTable") if "recovery_shard" in record}
    with patch("idempotency.store._SHARDS", "".join(sorted(shards)) or "0"):
        yield


def scan(dynamodb: DynamoDBClient, table: str) -> list[dict[str, Any]]:
    """Read a whole table."""
    deserialize = TypeDeserializer().deserialize
    items = dynamodb.scan(TableName=table)["Items"]
    return [{name: deserialize(value) for name, value in item.items()} for item in items]


def empty(table: str) -> None:
    """Delete every item of a table of moto's, without a call: tests do it more often than anything else."""
    dynamodb_backends[ACCOUNT_ID][os.environ["AWS_DEFAULT_REGION"]].tables[table].items.clear()


def restart() -> None:
    """Forget what a warm function keeps."""
    api.idempotent.__dict__.pop("lifecycle", None)
    for made in _MADE_ONCE:
        made.cache_clear()
