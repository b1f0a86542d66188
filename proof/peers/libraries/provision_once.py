"""Ours: the middleware on its route, with its metrics and log keys, as `api.py` has it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.metrics import EphemeralMetrics

from idempotency.clock import Clock
from idempotency.lifecycle import Lifecycle
from idempotency.middleware import Idempotent
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.problems import as_problem
from idempotency.request import Request as StoredRequest
from idempotency.response import Completion, Row
from idempotency.signals import Signals
from idempotency.store import Store
from proof.peers.libraries.contract import (
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
from tools.setup import ROOT

T = TypeVar("T")

_CACHE_BYTES = 8 * 1024 * 1024


class Steps(Attempt):
    """The operation that the middleware hands to the route."""

    def __init__(self, operation: Operation, table: str) -> None:
        self._operation = operation
        self._table = table
        self.rows: list[Row] = []

    def step(self, name: str, call: Callable[[], T]) -> T:
        return self._operation.step(name, call)

    def key(self, name: str) -> str:
        return self._operation.key(name)

    def save(self, row: Mapping[str, Any]) -> None:
        self.rows.append(Row(self._table, row))


class ProvisionOnce(Worker):
    """``Idempotent`` on the route."""

    def __init__(self, site: Site, settings: Settings) -> None:
        client = site.client()
        self.emitters = [client.meta.events]
        self._site = site
        self._metrics = cast("Metrics", EphemeralMetrics(namespace="Bench", service="bench"))
        signals = Signals(self._metrics, Logger("bench", stream=StringIO()))
        clock = Clock()
        store = Store(client, site.records, clock)
        cache_bytes = _CACHE_BYTES if settings.cache else 0
        self._lifecycle = Lifecycle(store, signals, clock=clock, cache_bytes=cache_bytes)
        policy = Policy(
            ttl=settings.ttl,
            lease=settings.lease,
            clock_skew=0,
            guard=0,
            hold_by_default=settings.hold,
            recoverable=settings.recoverable,
        )
        self._app = APIGatewayRestResolver()
        self._app.post(ROUTE, middlewares=[Idempotent(lambda: self._lifecycle, policy=lambda: policy)])(self._route)
        self._app.exception_handler(Exception)(lambda error: as_problem(error).response())

    def post(self, request: Request, work: Work) -> Response:
        return Response.of(self._resolve(request.event(), work))

    def recover(self, work: Work) -> None:
        now = self._lifecycle.clock.now()
        for id_ in self._lifecycle.store.due(now):
            record = self._lifecycle.resume(id_, Policy(), now + 28_000)
            if record and record.request:
                self._app.context.update(resumed=record)
                self._resolve(StoredRequest.unpack(record.request).event(), work)

    def _resolve(self, event: dict[str, Any], work: Work) -> dict[str, Any]:
        self._app.context.update(work=work)
        try:
            return self._app.resolve(event, Context(28))
        finally:
            if self._metrics.metric_set:
                self._metrics.serialize_metric_set()
                self._metrics.clear_metrics()

    def _route(self) -> Completion:
        attempt = Steps(self._app.context["operation"], self._site.rows)
        answer: Response = self._app.context["work"](attempt)
        headers = dict(answer.headers)
        content_type = headers.pop("content-type", "application/json")
        return Completion(answer.status, answer.body, headers=headers, rows=attempt.rows, content_type=content_type)


LIBRARY = Library(
    "Provision Once",
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
    ProvisionOnce,
    index=("recovery_shard", "lease_until"),
    not_promised={"own_header": "documented: an allow-list, configurable"},
)
