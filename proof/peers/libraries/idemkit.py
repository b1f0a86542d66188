"""idemkit: its ASGI middleware, on its DynamoDB backend, behind Mangum, which makes ASGI of the gateway's events.

Configured as its README shows for production: a scope, a key required, the table made beforehand; the lease and the
wait are its defaults, unless a scenario shortens them for every library.

Source: idemkit, README and docs/configuration.md; Mangum, README.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from typing import Any

from idemkit import DynamoBackend, HttpConfig, IdempotencyMiddleware
from mangum import Mangum

from proof.peers.libraries.contract import (
    CREDENTIALS,
    Library,
    Request,
    Response,
    Settings,
    Site,
    Work,
    Worker,
)
from proof.peers.libraries.rest import Context
from proof.peers.libraries.sdk import Plain, dynamodb

# The one warns about the short leases that the scenarios need, the other logs each exception that it answers with 500.
for name in ("idemkit", "mangum.http"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


class Idemkit(Worker):
    """The middleware around an ASGI application that does the work, on an event loop of its own."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._client = dynamodb(site)
        self._loop = asyncio.new_event_loop()
        self._backend = DynamoBackend(
            table=site.records, endpoint_url=site.endpoint, create_table=False, config=site.sdk, **CREDENTIALS
        )
        self._application = IdempotencyMiddleware(
            self._work,
            backend=self._backend,
            config=HttpConfig(
                scope=lambda request: request.headers["x-principal"],
                require_key_for_mutations=True,
                lease_ttl_seconds=settings.lease,
                wait_timeout_seconds=settings.wait,
                expires_after_seconds=settings.ttl,
                use_local_cache=settings.cache,
            ),
        )
        self._death: BaseException | None = None
        asyncio.set_event_loop(self._loop)  # otherwise Mangum makes one, which nobody closes
        self._handle = Mangum(self._application, lifespan="off")
        # The client is made at the first request, but the meter needs it before that.
        table = self._loop.run_until_complete(self._backend._ensure_table())
        self.emitters = [self._client.meta.events, table.meta.client.meta.events]

    def post(self, request: Request, work: Work) -> Response:
        event = request.event()
        event["multiValueHeaders"]["X-Principal"] = [request.principal]
        self._task, self._death = (work, Plain(request, self._client, self._site.rows)), None
        asyncio.set_event_loop(self._loop)
        reply = self._handle(event, Context(28))
        if self._death:
            raise self._death  # Mangum has made a 500 of it, but nothing survives the death of its process
        single = {name: [value] for name, value in reply["headers"].items()}
        return Response.of({**reply, "multiValueHeaders": {**single, **reply["multiValueHeaders"]}})

    def close(self) -> None:
        self._loop.run_until_complete(self._backend.aclose())
        self._loop.close()

    async def _work(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        work, attempt = self._task
        try:
            answer = work(attempt)
        except Exception:
            raise
        except BaseException as death:
            self._death = death
            raise
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content[1]})


LIBRARY = Library(
    "idemkit",
    version("idemkit"),
    Idemkit,
    key="effective_key",
    not_promised={
        "crashed_steps": "documented: one side effect per handler",
        "empty": "documented default: 200, 201 and 202 only",
        "waited_takeover": "documented: 423 if the first does not finish",
        "largest": "documented default: up to 1 MiB",
        "late_row": "documented: it fences the record only",
        "own_header": "documented: an allow-list, configurable",
        "recovered": "nothing looks for abandoned records",
        "refusal": "documented default: 200, 201 and 202 only",
    },
)
