"""Powertools for AWS Lambda: its idempotency utility around a handler.

Configured as its documentation shows: the key from several fields of the event, the JSON body validated, a key
required, Lambda's remaining time as the lease. It is left to the user which status a client gets for which
exception; here, it is the same as ours.

Source: Powertools for AWS Lambda (Python), "Idempotency".
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.shared.version import VERSION
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyKeyError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)

from proof.peers.libraries.contract import Library, Request, Response, Settings, Site, Work, Worker
from proof.peers.libraries.rest import Context, application
from proof.peers.libraries.sdk import Plain, dynamodb

_STATUSES: dict[type[Exception], int] = {
    IdempotencyKeyError: 400,
    IdempotencyAlreadyInProgressError: 409,
    IdempotencyValidationError: 422,
    IdempotencyPersistenceLayerError: 503,
}


class Powertools(Worker):
    """``@idempotent`` on the Lambda handler."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._client = dynamodb(site)
        self._context = Context(settings.lease)
        self._app = application()
        self.emitters = [self._client.meta.events]

        @idempotent(
            persistence_store=DynamoDBPersistenceLayer(site.records, boto3_client=self._client),
            config=IdempotencyConfig(
                event_key_jmespath='[requestContext.authorizer.principalId, headers."Idempotency-Key"]',
                payload_validation_jmespath="powertools_json(body)",
                raise_on_no_idempotency_key=True,
                expires_after_seconds=settings.ttl,
                use_local_cache=settings.cache,
            ),
        )
        def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
            return self._app.resolve(event, context)

        self._handle = handle

    def post(self, request: Request, work: Work) -> Response:
        self._app.context.update(work=work, attempt=Plain(request, self._client, self._site.rows))
        try:
            return Response.of(self._handle(request.event(), self._context))
        except tuple(_STATUSES) as error:
            return Response(_STATUSES[type(error)], "")
        except Exception:  # noqa: BLE001 - as Lambda does
            return Response(502, "")


LIBRARY = Library(
    "Powertools",
    VERSION,
    Powertools,
    not_promised={
        "crashed_steps": "the whole handler is one operation",
        "waited": "a duplicate gets an exception at once",
        "waited_takeover": "a duplicate gets an exception at once",
        "key_quoted": "the key is any value of the event",
        "large": "documented: below 400 KB",
        "largest": "documented: below 400 KB",
        "late_row": "rows are the handler's own business",
        "recovered": "nothing looks for abandoned records",
        "unavailable": "documented: only an exception frees the key",
    },
)
