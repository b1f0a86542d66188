"""Workers on DynamoDB Local."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3
import botocore.endpoint
import pytest
from botocore.config import Config

from tests.clocks import SetClock
from tests.integration.faults import SDK_ATTEMPTS
from tests.integration.worker import Worker
from tools.local.tables import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from idempotency.clock import Clock

NewWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def new_client(dynamodb_local: str) -> Callable[[], DynamoDBClient]:
    """Function that makes a client of DynamoDB Local."""
    config = Config(retries={"mode": "standard", "total_max_attempts": SDK_ATTEMPTS}, max_pool_connections=50)
    return lambda: boto3.client("dynamodb", endpoint_url=dynamodb_local, config=config)


@pytest.fixture(scope="session")
def owner(new_client: Callable[[], DynamoDBClient]) -> Iterator[DynamoDBClient]:
    """A client that creates and deletes tables."""
    client = new_client()
    yield client
    client.close()


@pytest.fixture
def records(owner: DynamoDBClient) -> Iterator[str]:
    """A table of records."""
    name = create_table(owner, "IdempotencyTable", f"records-{uuid4()}")
    yield name
    owner.delete_table(TableName=name)


@pytest.fixture
def rows(owner: DynamoDBClient) -> Iterator[str]:
    """A table of business rows."""
    name = create_table(owner, "ResourcesTable", f"rows-{uuid4()}")
    yield name
    owner.delete_table(TableName=name)


@pytest.fixture
def worker(
    new_client: Callable[[], DynamoDBClient], records: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewWorker]:
    """Function that makes a worker; all of them use one table."""
    # The SDK pauses between its own attempts; these seconds would show nothing.
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
    clients = []

    def make(*, clock: Clock = clock, cache_bytes: int = 0) -> Worker:
        clients.append(new_client())
        return Worker(clients[-1], records, clock, cache_bytes)

    yield make
    for client in clients:
        client.close()
