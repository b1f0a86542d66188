"""A route of its own for each test, behind the middleware as `api` has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from idempotency.lifecycle import Lifecycle
from idempotency.middleware import Body, Idempotent
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.problems import as_problem
from idempotency.store import Store
from tests.events import KEY, Context, Headers, proxy_event
from tests.signals import RecordedSignals
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from tests.clocks import SetClock

Run = Callable[[Operation], Response[Any]]


class Route:
    """``POST /v1/things``.

    Args:
        dynamodb: where the table of records is.
        clock: the time.
        run: what it does.
        body: what the JSON body is read as.
        cache_bytes: memory for completed records.
        policy: the route's choices.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        clock: SetClock,
        run: Run,
        body: type[Body] | None = None,
        cache_bytes: int = 0,
        **policy: Any,
    ) -> None:
        self.signals = RecordedSignals()
        self.runs = 0
        self._run = run
        self._app = APIGatewayRestResolver()
        self.lifecycle = Lifecycle(
            Store(dynamodb, "IdempotencyTable", clock), self.signals, clock=clock, cache_bytes=cache_bytes
        )
        self._app.post("/v1/things", middlewares=[Idempotent(lambda: self.lifecycle, body, lambda: Policy(**policy))])(
            self._handle
        )
        self._app.exception_handler(Exception)(lambda error: as_problem(error).response())

    def _handle(self) -> Response[Any]:
        self.runs += 1
        return self._run(self._app.context["operation"])

    def post(
        self,
        *,
        key: str | None = KEY,
        headers: Headers = (),
        body: Any = None,
        principal: str | None = "alice",
        seconds: float = 28,
        content_type: str = "application/json",
    ) -> Answer:
        """Send a request; a body that is neither text nor bytes is sent as JSON."""
        event = proxy_event(
            "POST",
            "/v1/things",
            headers=[
                ("Content-Type", content_type),
                *headers,
                *([("Idempotency-Key", key)] if key is not None else []),
            ],
            body=body if isinstance(body, str | bytes) else json.dumps(body),
            authorizer=None if principal is None else {"principalId": principal},
        )
        return Answer.of(self._app.resolve(event, Context(seconds)))
