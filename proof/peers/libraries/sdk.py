"""The SDK as the libraries under comparison use it, and business logic that uses it beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import boto3
from boto3.dynamodb.types import TypeSerializer
from botocore.config import Config

from proof.peers.libraries.contract import CREDENTIALS, Attempt, Request, Site

T = TypeVar("T")


def dynamodb(site: Site, **settings: Any) -> Any:
    """Make a client of DynamoDB."""
    config = site.sdk.merge(Config(**settings))
    return boto3.client("dynamodb", endpoint_url=site.endpoint, config=config, **CREDENTIALS)


class Plain(Attempt):
    """Business logic under a library that knows only the call as a whole.

    The client's own key goes downstream, as the libraries' documentation advises; rows are written at once.
    """

    def __init__(self, request: Request, dynamodb: Any, table: str) -> None:
        self._request = request
        self._dynamodb = dynamodb
        self._table = table

    def step(self, name: str, call: Callable[[], T]) -> T:
        return call()

    def key(self, name: str) -> str:
        return f"{self._request.key}:{name}"

    def save(self, row: Mapping[str, Any]) -> None:
        serialize = TypeSerializer().serialize
        item = {name: serialize(value) for name, value in row.items()}
        self._dynamodb.put_item(TableName=self._table, Item=item)
