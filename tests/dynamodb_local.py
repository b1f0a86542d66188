"""Fixtures for tests that need a real engine: one DynamoDB Local per test session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest

from tools.errors import ToolError
from tools.local import dynamodb_local as tool

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ENDPOINT = "DYNAMODB_LOCAL_ENDPOINT"
"""The environment variable with the URL of a running server that nobody else uses."""


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[str]:
    """The endpoint of a DynamoDB Local: the one that the environment names, or one of our own.

    If none can be started, the test is skipped; on CI, it fails.
    """
    if ENDPOINT in os.environ:
        yield os.environ[ENDPOINT]
        return
    try:
        server = tool.start()
    except ToolError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    yield server.endpoint_url
    server.stop()


@pytest.fixture(scope="session")
def dynamodb_client(dynamodb_local: str) -> Iterator[DynamoDBClient]:
    """A client of it."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb_local,
        region_name="eu-west-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    yield client
    client.close()
