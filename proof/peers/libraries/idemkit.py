"""idemkit: its ASGI middleware, on its DynamoDB backend.

Configured as its README shows for production: a scope, a key required, the table made beforehand; the lease and the
wait are its defaults, unless a scenario shortens them for every library.

Source: idemkit, README and docs/configuration.md.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from typing import Any

from idemkit import DynamoBackend, HttpConfig, IdempotencyMiddleware

from proof.peers.libraries.contract import (
    CREDENTIALS,
    ROUTE,
    SDK,
    Library,
    Plain,
    Request,
    Response,
    Settings,
    Site,
    Work,
    Worker,
)

# It warns about the short leases that the scenarios need.
logging.getLogger("idemkit").setLevel(logging.CRITICAL)


class Idemkit(Worker):
    """The middleware around an ASGI application that does the work, on an event loop of its own."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._client = site.client()
        self._loop = asyncio.new_event_loop()
        self._backend = DynamoBackend(
            table=site.records, endpoint_url=site.endpoint, create_table=False, config=SDK, **CREDENTIALS
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
        # The client is made at the first request, but the meter needs it before that.
        table = self._loop.run_until_complete(self._backend._ensure_table())
        self.emitters = [self._client.meta.events, table.meta.client.meta.events]

    def post(self, request: Request, work: Work) -> Response:
        headers = {**request.headers, "X-Principal": request.principal}
        scope = {
            "type": "http",
            "method": "POST",
            "path": ROUTE,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "work": work,
            "attempt": Plain(request, self._client, self._site.rows),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body.encode(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        try:
            self._loop.run_until_complete(self._application(scope, receive, send))
        except Exception:  # noqa: BLE001 - as Lambda does
            return Response(502, "")
        headers = {name.decode().lower(): value.decode() for name, value in sent[0].get("headers", [])}
        return Response(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]), headers)

    def close(self) -> None:
        self._loop.run_until_complete(self._backend.aclose())
        self._loop.close()

    @staticmethod
    async def _work(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG004
        answer: Response = scope["work"](scope["attempt"])
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
