"""A route of its own for each test, behind the decorator, as in `api`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from idempotency import Body, Idempotent, Lifecycle, Operation, Outcome, Policy, Settings
from idempotency.queue import Queue
from idempotency.store import Store
from tests.events import KEY, Context, Headers, proxy_event
from tests.messages import MAX_RECOVERIES, Messages
from tests.telemetry import RecordedTelemetry
from tests.unit.service import shards_in_use
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from idempotency.clock import Clock

Run = Callable[[Operation], Response[Any]]


class Route:
    """``POST /v1/things``, unless it is told another path.

    Args:
        dynamodb: a client of the DynamoDB that has the table of records.
        clock: the time.
        run: what it does.
        body: what the JSON body is read as.
        settings: the stack's choices.
        rule: the path, as the resolver writes it.
        app: the resolver.
        policy: the route's choices.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        clock: Clock,
        run: Run,
        body: type[Body | bytes] = bytes,
        settings: Settings = Settings(cache_bytes=0, max_recoveries=MAX_RECOVERIES),  # noqa: B008 - frozen
        rule: str = "/v1/things",
        app: APIGatewayRestResolver | None = None,
        **policy: Any,
    ) -> None:
        self._dynamodb = dynamodb
        self.telemetry = RecordedTelemetry()
        self.runs = 0
        self.body: Any = None
        self.path: dict[str, str] = {}
        self.app = app or APIGatewayRestResolver()
        self.messages = Messages(clock)
        store, queue = (
            Store(dynamodb, "IdempotencyTable", clock),
            Queue(lambda: self.messages.client, "https://queue.example/recovery"),
        )
        self.lifecycle = Lifecycle(store, self.telemetry, settings, clock, queue)
        self.idempotent = Idempotent(self.app, self.telemetry, lambda: self.lifecycle)

        def create_thing(body: Any, operation: Operation, /, **path: str) -> Response[Any]:
            self.runs += 1
            self.body, self.path = body, path
            return run(operation)

        create_thing.__annotations__["body"] = body
        create_thing.__annotations__["operation"] = Operation
        self.app.post(rule)(self.idempotent(Policy(**policy))(create_thing))

    def post(
        self,
        *,
        key: str | None = KEY,
        headers: Headers = (),
        body: Any = None,
        principal: str | None = "alice",
        seconds: float = 28,
        content_type: str = "application/json",
        path: str = "/v1/things",
        **event: Any,
    ) -> Answer:
        """Send a request; a body that is neither text nor bytes is sent as JSON."""
        sent = proxy_event(
            "POST",
            path,
            headers=[
                ("Content-Type", content_type),
                *headers,
                *([("Idempotency-Key", key)] if key is not None else []),
            ],
            body=body if isinstance(body, str | bytes) else json.dumps(body),
            authorizer=None if principal is None else {"principalId": principal},
            **event,
        )
        return self.send(sent, seconds)

    def send(self, event: dict[str, Any], seconds: float = 28) -> Answer:
        """Send an event of the gateway."""
        return Answer.of(self.idempotent.resolve(event, Context(seconds)))

    def recover(self) -> list[Outcome | None]:
        """Find what is due, and carry it on; how each attempt ended that there was."""
        self.sweep()
        return [outcome for outcome in self.work() if outcome is not None]

    def sweep(self) -> None:
        """Find what is due, and send it to the queue."""
        with shards_in_use(self._dynamodb):
            self.lifecycle.sweep(self.lifecycle.clock.now() + 28_000)

    def work(self, seconds: float = 28) -> list[Outcome | None]:
        """Carry on what the queue delivers by now; how each attempt ended."""
        return [self.idempotent.resume(id_, Context(seconds)) for id_ in self.messages.receive()]
