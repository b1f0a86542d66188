"""Faults between the SDK and DynamoDB, at botocore's last hook before a request is sent.

Each fault ends by itself: the SDK's next attempt goes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from botocore.httpsession import URLLib3Session

if TYPE_CHECKING:
    from tests.integration.worker import Worker

Fault = Callable[[AWSPreparedRequest], AWSResponse]
SDK_ATTEMPTS = 3


def lose_answers(worker: Worker, operation: str, times: int = 1, token: str = "") -> None:
    """Carry requests out, and drop the connection before their answers.

    Args:
        worker: the worker that sends the requests.
        operation: their API operation.
        times: how many.
        token: the transaction's `ClientRequestToken` of these requests; empty for the one that the SDK sends again.
    """

    def lose(request: AWSPreparedRequest) -> AWSResponse:
        session = URLLib3Session()
        if token:
            request.body = re.sub(rb'("ClientRequestToken": ")[^"]*', rb"\g<1>" + token.encode(), request.body)  # type: ignore[arg-type]
        session.send(request)
        session.close()
        raise ConnectionClosedError(endpoint_url=request.url)

    _inject(worker, operation, lose, times)


def send_nothing(worker: Worker, operation: str = "*", times: int = SDK_ATTEMPTS) -> None:
    """Fail to connect."""

    def fail(request: AWSPreparedRequest) -> AWSResponse:
        raise EndpointConnectionError(endpoint_url=request.url)

    _inject(worker, operation, fail, times)


def refuse(worker: Worker, operation: str, code: str, times: int = 1, *, reasons: tuple[str, ...] = ()) -> None:
    """Answer with an error of DynamoDB, and carry nothing out.

    Args:
        worker: the worker that sends the requests.
        operation: the API operation that is refused.
        code: the error.
        times: how often.
        reasons: why a transaction is cancelled, per item.
    """
    error: dict[str, Any] = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "injected"}
    if reasons:
        error["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    _inject(worker, operation, lambda request: _answer(request, 400, error), times)


def answer(worker: Worker, operation: str, status: int, body: str, times: int = SDK_ATTEMPTS) -> None:
    """Answer with whatever a proxy or a load balancer may say, and carry nothing out."""
    _inject(worker, operation, lambda request: _raw_answer(request, status, body.encode()), times)


def meanwhile(worker: Worker, operation: str, happens: Callable[[], object], nth: int = 1) -> None:
    """Make something happen just before the nth request is sent."""
    left = nth

    def hook(**_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            worker.client.meta.events.unregister(event, hook)
            happens()

    event = f"before-send.dynamodb.{operation}"
    worker.client.meta.events.register(event, hook)


def process_only(worker: Worker, operation: str, count: int) -> None:
    """Process only this many items of a batch, and leave the rest, as DynamoDB may do at any time."""

    def shorten(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        [(table, batch)] = params["RequestItems"].items()
        entries = batch if isinstance(batch, list) else batch["Keys"]

        def of(part: list[Any]) -> dict[str, Any]:
            return {table: part if isinstance(batch, list) else {**batch, "Keys": part}}

        # A batch must not be empty; it does no harm to process more than is reported.
        params["RequestItems"] = of(entries[: max(count, 1)])
        context["left over"] = of(entries[count:]) if entries[count:] else {}

    def report(parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        parsed["UnprocessedItems" if operation == "BatchWriteItem" else "UnprocessedKeys"] = context["left over"]

    worker.client.meta.events.register(f"provide-client-params.dynamodb.{operation}", shorten)
    worker.client.meta.events.register(f"after-call.dynamodb.{operation}", report)


class _Raw(BytesIO):
    def stream(self) -> list[bytes]:
        return [self.getvalue()]


def _answer(request: AWSPreparedRequest, status: int, body: dict[str, Any]) -> AWSResponse:
    return _raw_answer(request, status, json.dumps(body).encode())


def _raw_answer(request: AWSPreparedRequest, status: int, body: bytes) -> AWSResponse:
    return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body))


def _inject(worker: Worker, operation: str, fault: Fault, times: int) -> None:
    left = times

    def hook(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        nonlocal left
        if not left:
            return None
        left -= 1
        return fault(request)

    worker.client.meta.events.register(f"before-send.dynamodb.{operation}", hook)  # type: ignore[arg-type]
