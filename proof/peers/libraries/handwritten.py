"""What tutorials suggest: put if absent, run, update; no lease, no comparison of payloads."""

from __future__ import annotations

import json
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from proof.peers.libraries.contract import Library, Request, Response, Settings, Site, Work, Worker
from proof.peers.libraries.rest import Context, application
from proof.peers.libraries.sdk import Plain, dynamodb


class Handwritten(Worker):
    """Some thirty lines around the handler."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._ttl = settings.ttl
        self._client = dynamodb(site)
        self._app = application()
        self.emitters = [self._client.meta.events]

    def post(self, request: Request, work: Work) -> Response:
        try:
            return Response.of(self._handle(request, work))
        except (ClientError, BotoCoreError):
            return Response(503, "")
        except Exception:  # noqa: BLE001 - as Lambda does
            return Response(502, "")

    def _handle(self, request: Request, work: Work) -> dict[str, Any]:
        key = {"id": {"S": str(request.key)}}
        where: dict[str, Any] = {"TableName": self._site.records, "Key": key}
        expires_at = {"N": str(int(time.time()) + self._ttl)}
        try:
            self._client.put_item(
                TableName=self._site.records,
                Item={**key, "state": {"S": "IN_PROGRESS"}, "expires_at": expires_at},
                ConditionExpression="attribute_not_exists(id)",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            item = self._client.get_item(**where, ConsistentRead=True)["Item"]
            reply = item.get("reply", {"S": '{"statusCode": 409, "multiValueHeaders": {}, "body": ""}'})
            return dict(json.loads(reply["S"]))
        try:
            self._app.context.update(work=work, attempt=Plain(request, self._client, self._site.rows))
            reply = self._app.resolve(request.event(), Context(28))
        except Exception:
            self._client.delete_item(**where)
            raise
        self._client.update_item(
            **where,
            UpdateExpression="SET #state = :done, reply = :reply",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":done": {"S": "DONE"}, ":reply": {"S": json.dumps(reply)}},
        )
        return reply


LIBRARY = Library(
    "Hand-written",
    "",
    Handwritten,
    not_promised=dict.fromkeys(
        ("crashed_steps", "waited", "waited_takeover", "key_quoted", "late_row", "recovered"),
        "not attempted in thirty lines",
    ),
)
