"""`idempotency.testing` on a real engine: steps in threads, a reserved row, and a clock that only the harness sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayRestResolver

from idempotency import Completion, Idempotent, Lifecycle, Operation, Policy, Rejected, Row
from idempotency.testing import crash_everywhere
from tests.events import KEY, Context, proxy_event
from tests.telemetry import RecordedTelemetry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOMS = ["left", "right"]


class Hotel:
    """``POST /v1/stays``: reserves a guest's name, then books two rooms at a time.

    Args:
        client: its client.
        rows: its table of business rows.
        closed: whether it refuses every guest after the rooms are booked.
    """

    def __init__(self, client: DynamoDBClient, rows: str, *, closed: bool) -> None:
        self.client = client
        self.rows = rows
        self.closed = closed
        self.booked: dict[str, str] = {}
        self._lock = Lock()
        self.app = APIGatewayRestResolver()
        telemetry = RecordedTelemetry()
        self.idempotent = Idempotent(self.app, telemetry, lambda: Lifecycle.from_environment(client, telemetry))
        self.app.post("/v1/stays")(self.idempotent(Policy(recoverable=True))(self.stay))

    def stay(self, guest: bytes, operation: Operation) -> Completion:
        name = guest.decode()
        operation.reserve("guest", Row(self.rows, {"id": name}))
        with ThreadPoolExecutor() as threads:
            keys = list(threads.map(lambda room: operation.step(room, self._book(room), self._cancel), ROOMS))
        if self.closed:
            raise Rejected("closed", "The hotel is closed.", status=409)
        return Completion(201, keys, rows=[Row(self.rows, {"id": f"stay of {name}", "keys": keys})])

    def _book(self, room: str) -> Callable[[str], str]:
        def book(key: str) -> str:
            with self._lock:
                self.booked[key] = room
            return key

        return book

    def _cancel(self, key: str) -> None:
        with self._lock:
            self.booked.pop(key, None)

    def post(self) -> dict[str, Any]:
        event = proxy_event(
            "POST",
            "/v1/stays",
            headers=[("Idempotency-Key", KEY)],
            body="Ms. Lovelace",
            authorizer={"principalId": "alice"},
        )
        return self.app.resolve(event, Context())

    def recover(self) -> None:
        lifecycle = self.idempotent.lifecycle
        for due in list(lifecycle.store.due(lifecycle.clock.now())):
            self.idempotent.resume(due.id, Context())

    def scan(self) -> set[str]:
        return {item["id"]["S"] for item in self.client.scan(TableName=self.rows)["Items"]}

    def empty(self) -> None:
        self.booked.clear()
        for table in (self.rows, self.idempotent.lifecycle.store.table):
            for item in self.client.scan(TableName=table, ProjectionExpression="id")["Items"]:
                self.client.delete_item(TableName=table, Key=item)


@pytest.fixture
def new_hotel(
    new_client: Callable[[], DynamoDBClient], records: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Hotel]]:
    """Function that makes a hotel with a client of its own."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", records)
    client = new_client()
    yield lambda **options: Hotel(client, rows, **options)
    client.close()


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_survives_every_crash(new_hotel: Callable[..., Hotel], closed: bool) -> None:
    hotel = new_hotel(closed=closed)
    names = []

    for story in crash_everywhere(post=hotel.post, recover=hotel.recover, client=hotel.client, begin=hotel.empty):
        names.append(story.name)
        if closed:
            assert (story.status, hotel.booked, hotel.scan()) == (409, {}, set())
        else:
            assert story.status == 201
            assert hotel.booked == dict(zip(story.json, ROOMS, strict=True))
            assert hotel.scan() == {"Ms. Lovelace", "stay of Ms. Lovelace"}

    assert "step 'right' ⚡ crash after; then recovery carries on" in names
    assert "checkpoint 'guest' ⚡ first answer lost; then the client asks again" in names
    assert ("undo 'left' ⚡ answer lost; then recovery carries on" in names) == closed
