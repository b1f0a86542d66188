"""The function as it is deployed, on tables that moto keeps (one thread only)."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from moto import mock_aws

import api
from tests.clocks import SetClock
from tests.unit.service import Api, restart
from tools.tables import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Each is called as the template calls it.
_TABLES = ("IdempotencyTable", "ResourcesTable", "TokensTable")


@pytest.fixture(scope="session")
def cloud() -> Iterator[None]:
    """An AWS account of moto's, with the tables of the stack."""
    with mock_aws():
        for table in _TABLES:
            create_table(api.dynamodb, table, table)
        yield


@pytest.fixture
def dynamodb(cloud: None) -> Iterator[DynamoDBClient]:
    """DynamoDB with the tables of the stack, empty."""
    yield api.dynamodb
    for table in _TABLES:
        for item in api.dynamodb.scan(TableName=table, ProjectionExpression="id")["Items"]:
            api.dynamodb.delete_item(TableName=table, Key=item)


@pytest.fixture
def clock() -> SetClock:
    """The time."""
    return SetClock()


@pytest.fixture
def logs() -> Iterator[StringIO]:
    """What the function logs."""
    handler = api.logger.registered_handler
    stream, before = StringIO(), handler.stream  # type: ignore[attr-defined]
    handler.stream = stream  # type: ignore[attr-defined]
    yield stream
    handler.stream = before  # type: ignore[attr-defined]


@pytest.fixture
def service(
    dynamodb: DynamoDBClient, clock: SetClock, logs: StringIO, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    """The API on fresh tables, in a function that has just started."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", "IdempotencyTable")
    monkeypatch.setenv("RESOURCES_TABLE", "ResourcesTable")
    monkeypatch.setattr(api, "Clock", lambda: clock)
    restart()
    yield Api(dynamodb)
    restart()
