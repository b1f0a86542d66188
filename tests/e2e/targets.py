"""The targets of the black-box suite that are servers; `tests.e2e.in_process` is the one that is not."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.e2e.wire import exchange
from tests.events import Headers
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PROVISION = "/v1/servers/provision"
PROBE = "/v1/probe"
SERVER = {"region": "eu-west", "size": "large"}
JSON = ("Content-Type", "application/json")


class Trait(Enum):
    """A property that not every target has."""

    AUTHORIZER = auto()
    """Refuses a bad token before the function is asked."""
    GATEWAY_RESPONSES = auto()
    """Answers with the template's GatewayResponses."""
    MODELS = auto()
    """Refuses a body against its model before the function is asked, without saying where it is wrong."""
    EVERY_HEADER = auto()
    """Passes a header that was sent twice on to the function, and refuses a bare line break in one."""
    DEFAULT_FOR_ACCEPT = auto()
    """Takes a request without Accept for one that accepts everything."""


@dataclass(frozen=True)
class Tables:
    """The stack's tables.

    Args:
        dynamodb: a client.
        records: name of the table of idempotency records.
        rows: name of the table of business rows.
    """

    dynamodb: DynamoDBClient
    records: str
    rows: str

    def ids(self) -> frozenset[str]:
        """The ids of all items in them."""
        return frozenset(id_ for table in (self.records, self.rows) for id_ in self._ids(table))

    def empty(self) -> None:
        """Delete all items: a scan reads each of them whole, and some have megabytes."""
        for table in (self.records, self.rows):
            for id_ in self._ids(table):
                self.dynamodb.delete_item(TableName=table, Key={"id": {"S": id_}})

    def _ids(self, table: str) -> list[str]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table, ProjectionExpression="id")
        return [item["id"]["S"] for page in pages for item in page["Items"]]

    def record(self, id_: str) -> Mapping[str, Any]:
        """A record as it is in DynamoDB."""
        return self.dynamodb.get_item(TableName=self.records, Key={"id": {"S": id_}}, ConsistentRead=True)["Item"]


class Target(ABC):
    """The API as clients reach it, and its tables.

    Args:
        tables: the tables.
        tokens: the bearer token of each principal.
    """

    name: ClassVar[str]
    traits: ClassVar[frozenset[Trait]]

    def __init__(self, tables: Tables, tokens: Mapping[str, str]) -> None:
        self.tables = tables
        self.tokens = tokens

    @abstractmethod
    def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """Send a request unchanged."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def needs(self, trait: Trait) -> None:
        """Skip the test if this target lacks what it needs."""
        if trait not in self.traits:
            pytest.skip(f"{self.name} has no {trait.name.lower().replace('_', ' ')}")

    def post(
        self,
        key: str | None,
        body: Any = SERVER,
        *,
        path: str = PROVISION,
        principal: str = "alice",
        headers: Headers = (JSON,),
    ) -> Answer:
        """POST; a body that is neither text nor bytes is sent as JSON."""
        sent = [self.bearer(principal), *headers, *([("Idempotency-Key", key)] if key is not None else [])]
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.send("POST", path, sent, text if isinstance(text, bytes) else text.encode())

    def probe(self, key: str, *attempts: str, headers: Headers = (JSON,), **how: Any) -> Answer:
        """POST an operation whose attempts do what they are told, see `probe.ProbeRequest`."""
        return self.post(key, {"attempts": attempts, **how}, path=PROBE, headers=headers)

    def get(self, path: str, principal: str = "alice") -> Answer:
        """GET."""
        return self.send("GET", path, [self.bearer(principal)])

    def bearer(self, principal: str) -> tuple[str, str]:
        """The header that authenticates a principal."""
        return "Authorization", f"Bearer {self.tokens[principal]}"


class Remote(Target):
    """A target that listens at a URL."""

    def __init__(self, api_url: str, tables: Tables, tokens: Mapping[str, str]) -> None:
        super().__init__(tables, tokens)
        self.api_url = api_url

    def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        return exchange(f"{self.api_url}{path}", method, headers, body)


class LocalCloud(Remote):
    """The stack deployed to the local cloud."""

    name = "the local cloud"
    traits = frozenset(Trait)


class SamLocal(Remote):
    """The built functions in `sam local start-api`."""

    name = "sam local"
    traits = frozenset({Trait.AUTHORIZER})
