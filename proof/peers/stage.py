"""A library on DynamoDB Local: its tables, its workers, and what business logic did under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, Self, TypeVar
from uuid import uuid4

from proof.peers.libraries.contract import Library, Request, Settings, Site, Worker
from proof.peers.libraries.sdk import dynamodb

T = TypeVar("T")


class Stage:
    """Tables for one library, and workers that are closed at the end.

    Args:
        library: the library.
        endpoint: DynamoDB's URL.
        tuned: whether the SDK is set as `api.py` sets it.
    """

    def __init__(self, library: Library, endpoint: str, *, tuned: bool = False) -> None:
        self.library = library
        self.tuned = tuned
        prefix = library.name.lower().replace(" ", "-")
        self.site = Site(endpoint, f"{prefix}-records-{uuid4().hex[:8]}", f"{prefix}-rows-{uuid4().hex[:8]}", tuned)
        self.dynamodb = dynamodb(self.site, read_timeout=60)  # a busy machine takes long to make a table
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._create(self.site.records, self.library.key, self.library.index)
        self._create(self.site.rows, "id")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def worker(self, **settings: Any) -> Worker:
        """Start an execution environment; see `Settings`."""
        return self._closing.enter_context(closing(self.library.worker(self.site, Settings(**settings))))

    def row(self, id_: str) -> Mapping[str, Any] | None:
        """Read a business row."""
        reply = self.dynamodb.get_item(TableName=self.site.rows, Key={"id": {"S": id_}}, ConsistentRead=True)
        item: Mapping[str, Any] | None = reply.get("Item")
        return item

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Read all idempotency records."""
        items: Sequence[Mapping[str, Any]] = self.dynamodb.scan(TableName=self.site.records)["Items"]
        return items

    def _create(self, table: str, key: str, index: Sequence[str] = ()) -> None:
        types = {key: "S", **dict(zip(index, ("S", "N"), strict=False))}
        request: dict[str, Any] = {
            "TableName": table,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": _schema((key,)),
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()],
        }
        if index:
            projection = {"ProjectionType": "KEYS_ONLY"}
            request["GlobalSecondaryIndexes"] = [
                {"IndexName": "recovery", "KeySchema": _schema(index), "Projection": projection}
            ]
        self.dynamodb.create_table(**request)


def new_request() -> Request:
    """Make a request with a key of its own."""
    return Request(str(uuid4()))


def elsewhere(call: Callable[[], T]) -> T:
    """Do something in another thread, as another worker would, and wait until it is done."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result()


def _schema(keys: Sequence[str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=False)]
