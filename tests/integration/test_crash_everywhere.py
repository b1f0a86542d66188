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
        self.guests = 0
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
            headers=[("Idempotency-Key", f"{KEY}-{self.guests}")],
            body=self.guest,
            authorizer={"principalId": "alice"},
        )
        return self.app.resolve(event, Context())

    def recover(self) -> None:
        records = self.idempotent.lifecycle.store.table
        unfinished = self.client.scan(TableName=records, FilterExpression="attribute_exists(recovery_shard)")
        for item in unfinished["Items"]:
            self.idempotent.resume(item["id"]["S"], Context())

    def begin(self) -> None:
        """Take the next guest: it would take longer to empty the tables."""
        self.booked.clear()
        self.guests += 1

    @property
    def guest(self) -> str:
        return f"guest {self.guests}"

    @property
    def kept(self) -> set[str]:
        """What there is of the guest in the table of business rows."""
        keys = [{"id": {"S": self.guest}}, {"id": {"S": f"stay of {self.guest}"}}]
        found = self.client.batch_get_item(RequestItems={self.rows: {"Keys": keys}})
        return {item["id"]["S"] for item in found["Responses"][self.rows]}


@pytest.fixture
def new_hotel(
    new_client: Callable[[], DynamoDBClient], records: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Hotel]]:
    """Function that makes a hotel with a client of its own."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", records)
    client = new_client()
    yield lambda **options: Hotel(client, rows, **options)
    client.close()


@pytest.mark.parametrize(
    "closed", [pytest.param(False, id="open", marks=pytest.mark.slow), pytest.param(True, id="closed")]
)
def test_survives_every_crash(new_hotel: Callable[..., Hotel], closed: bool) -> None:
    hotel = new_hotel(closed=closed)
    names = []

    for story in crash_everywhere(post=hotel.post, recover=hotel.recover, client=hotel.client, begin=hotel.begin):
        names.append(story.name)
        if closed:
            assert (story.status, hotel.booked, hotel.kept) == (409, {}, set())
        else:
            assert story.status == 201
            assert hotel.booked == dict(zip(story.json, ROOMS, strict=True))
            assert hotel.kept == {hotel.guest, f"stay of {hotel.guest}"}

    assert "step 'right' ⚡ crash after; then recovery carries on" in names
    assert "checkpoint 'guest' ⚡ first answer lost; then the client asks again" in names
    assert ("undo 'left' ⚡ answer lost; then recovery carries on" in names) == closed
