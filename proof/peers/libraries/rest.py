"""Lambda and API Gateway, for every library but idemkit: Powertools' REST resolver."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import event_handler
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.typing import LambdaContext

from proof.peers.libraries.contract import ROUTE, Response


class Context(LambdaContext):
    """An invocation that always has the same number of seconds left."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]
        return self._seconds * 1000


def application() -> APIGatewayRestResolver:
    """Make an application whose one route does the ``work`` in its context."""
    app = APIGatewayRestResolver()

    @app.post(ROUTE)
    def route() -> event_handler.Response[Any]:
        answer: Response = app.context["work"](app.context["attempt"])
        return event_handler.Response(answer.status, body=answer.body, headers=dict(answer.headers))

    return app
