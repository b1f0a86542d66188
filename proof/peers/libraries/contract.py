"""What each library under comparison is asked to do, and what business logic gets from it."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.config import Config

T = TypeVar("T")

ROUTE = "/orders"

# The same for every library: defaults differ, and what they achieve is to the SDK's credit rather than theirs.
SDK = Config(
    connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2}, max_pool_connections=50
)
TUNED = Config(parameter_validation=False, user_agent="provision-once")
"""What `api.py` sets besides: it saves CPU at every call, whoever makes it."""
CREDENTIALS: dict[str, Any] = {
    "region_name": "eu-west-1",
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
}


class NotPromised(Exception):
    """The library has no such feature."""


@dataclass(frozen=True)
class Site:
    """Where a library keeps things.

    Args:
        endpoint: DynamoDB's URL.
        records: name of the table of its idempotency records.
        rows: name of the table of business rows.
        tuned: whether the SDK is set as `api.py` sets it.
    """

    endpoint: str
    records: str
    rows: str
    tuned: bool = False

    @property
    def sdk(self) -> Config:
        """How the SDK is set."""
        return SDK.merge(TUNED) if self.tuned else SDK


@dataclass(frozen=True)
class Request:
    """A client's POST.

    Args:
        key: the ``Idempotency-Key``; None for no header.
        body: JSON.
        principal: who the client is, according to the gateway.
    """

    key: str | None
    body: str = '{"region": "eu-west", "size": "large"}'
    principal: str = "alice"

    @property
    def headers(self) -> dict[str, str]:
        key = {} if self.key is None else {"Idempotency-Key": self.key}
        return {"Content-Type": "application/json", **key}

    def event(self) -> dict[str, Any]:
        """Build the event of a REST API, Lambda proxy integration."""
        return {
            "resource": ROUTE,
            "path": ROUTE,
            "httpMethod": "POST",
            "headers": self.headers,
            "multiValueHeaders": {name: [value] for name, value in self.headers.items()},
            "queryStringParameters": None,
            "multiValueQueryStringParameters": None,
            "requestContext": {"path": ROUTE, "authorizer": {"principalId": self.principal}},
            "body": self.body,
            "isBase64Encoded": False,
        }


@dataclass(frozen=True)
class Response:
    """A response, as business logic makes it and as a client gets it; header names in lower case."""

    status: int = 201
    body: str | bytes = '{"id":"order-1"}'
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Response:
        """Read what a Lambda proxy integration returns."""
        body = reply["body"] or ""
        headers = {name.lower(): values[0] for name, values in reply["multiValueHeaders"].items()}
        return cls(reply["statusCode"], base64.b64decode(body) if reply.get("isBase64Encoded") else body, headers)

    @property
    def content(self) -> tuple[int, bytes]:
        """Status and bytes: what two answers to one key have in common."""
        return self.status, self.body.encode() if isinstance(self.body, str) else self.body


class Attempt(ABC):
    """What business logic gets from a library."""

    @abstractmethod
    def step(self, name: str, call: Callable[[], T]) -> T:
        """Do a part of the operation."""

    @abstractmethod
    def key(self, name: str) -> str:
        """The idempotency key to send downstream with a part of the operation."""

    @abstractmethod
    def save(self, row: Mapping[str, Any]) -> None:
        """Write a row of business data, as safely as the library can."""


Work = Callable[[Attempt], Response]


@dataclass(frozen=True)
class Settings:
    """What scenarios vary; the defaults are for production.

    Args:
        ttl: seconds for which a response is kept.
        lease: seconds after which a worker that has not finished is considered dead.
        wait: seconds for which a duplicate waits while the first request runs.
        cache: whether a warm worker keeps completed responses in memory.
        recoverable: whether `Worker.recover` finds the operation if it is abandoned.
        atomic: whether the operation has no effect but its rows, for a library that makes a difference.
    """

    ttl: int = 24 * 3600
    lease: int = 28
    wait: int = 0
    cache: bool = False
    recoverable: bool = False
    atomic: bool = False


class Worker(ABC):
    """One execution environment of Lambda: it serves one request at a time, and shares nothing but the tables."""

    emitters: Sequence[Any]
    """The events of its SDK clients."""

    @abstractmethod
    def post(self, request: Request, work: Work) -> Response:
        """Serve a request."""

    def recover(self, work: Work) -> None:
        """Finish what was abandoned, without its client."""
        raise NotPromised

    def close(self) -> None:  # noqa: B027
        """Give connections back."""


@dataclass(frozen=True)
class Library:
    """A library under comparison.

    Args:
        name: what it is called in the tables.
        version: the version of the package.
        worker: makes an execution environment.
        key: partition key of its table.
        index: hash and range key of an index that it queries; empty for none.
        not_promised: name of a behaviour → why its documentation does not promise it.
    """

    name: str
    version: str
    worker: Callable[[Site, Settings], Worker]
    key: str = "id"
    index: tuple[str, ...] = ()
    not_promised: Mapping[str, str] = field(default_factory=dict)
