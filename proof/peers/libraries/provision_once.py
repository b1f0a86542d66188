"""This project: the decorator on a route, with its metrics and log keys, as in `api.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, cast

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.metrics import EphemeralMetrics

from idempotency import Completion, Idempotent, Lifecycle, Operation, Policy, Row, Telemetry
from idempotency import Settings as Stack
from idempotency.clock import Clock
from idempotency.store import Store
from proof.peers.libraries.contract import (
    CREDENTIALS,
    ROUTE,
    Attempt,
    Library,
    Request,
    Response,
    Settings,
    Site,
    Work,
    Worker,
)
from proof.peers.libraries.rest import Context

T = TypeVar("T")

_CACHE_BYTES = 8 * 1024 * 1024


class Steps(Attempt):
    """The operation that the decorator hands to the route."""

    def __init__(self, operation: Operation, table: str) -> None:
        self._operation = operation
        self._table = table
        self.rows: list[Row] = []

    def step(self, name: str, call: Callable[[], T]) -> T:
        return self._operation.step(name, lambda _: call())

    def key(self, name: str) -> str:
        return self._operation.derived_id(name)

    def save(self, row: Mapping[str, Any]) -> None:
        self.rows.append(Row(self._table, row))


class ProvisionOnce(Worker):
    """A route with the decorator `Idempotent`."""

    def __init__(self, site: Site, settings: Settings) -> None:
        client: Any = botocore.session.get_session().create_client(
            "dynamodb", endpoint_url=site.endpoint, config=replace(site, tuned=True).sdk, **CREDENTIALS
        )
        self.emitters = [client.meta.events]
        self._site = site
        self._metrics = cast("Metrics", EphemeralMetrics(namespace="Bench", service="bench"))
        telemetry = Telemetry(self._metrics, Logger("bench", stream=StringIO()))
        clock = Clock()
        store = Store(client, site.records, clock)
        cache_bytes = _CACHE_BYTES if settings.cache else 0
        stack = Stack(cache_bytes=cache_bytes, clock_skew=0, time_for_a_step=0, timeout=settings.lease)
        policy = Policy(
            ttl=settings.ttl,
            lease=settings.lease,
            wait_by_default=settings.wait,
            recoverable=settings.recoverable,
            atomic=settings.atomic,
        )
        self._app = APIGatewayRestResolver()
        self._idempotent = Idempotent(self._app, telemetry, lambda: Lifecycle(store, telemetry, stack, clock))
        self._app.post(ROUTE)(self._idempotent(policy)(self._route))

    def post(self, request: Request, work: Work) -> Response:
        return Response.of(self._resolve(request.event(), work))

    def recover(self, work: Work) -> None:
        self._work = work
        lifecycle = self._idempotent.lifecycle
        for due in list(lifecycle.store.due(lifecycle.clock.now())):
            self._idempotent.resume(due.id, Context(28))

    def _resolve(self, event: dict[str, Any], work: Work) -> dict[str, Any]:
        self._work = work
        try:
            return self._app.resolve(event, Context(28))
        finally:
            if self._metrics.metric_set:
                self._metrics.serialize_metric_set()
                self._metrics.clear_metrics()

    def _route(self, _body: bytes, operation: Operation) -> Completion:
        attempt = Steps(operation, self._site.rows)
        answer = self._work(attempt)
        headers = dict(answer.headers)
        content_type = headers.pop("content-type", "application/json")
        return Completion(answer.status, answer.body, headers=headers, rows=attempt.rows, content_type=content_type)


LIBRARY = Library(
    "Provision Once",
    re.search(r'^version = "(.*)"$', Path(__file__).parents[3].joinpath("pyproject.toml").read_text(), re.MULTILINE)[1],  # type: ignore[index]
    ProvisionOnce,
    index=("recovery_shard", "lease_until"),
    not_promised={"own_header": "documented: an allow-list, configurable"},
)
