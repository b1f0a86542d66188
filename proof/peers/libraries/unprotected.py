"""No idempotency at all: what is left of a request if nothing protects it, which no library can go below."""

from __future__ import annotations

from proof.peers.libraries.contract import Library, Request, Response, Settings, Site, Work, Worker
from proof.peers.libraries.rest import Context, application
from proof.peers.libraries.sdk import Plain, dynamodb


class Unprotected(Worker):
    """The route, and nothing around it."""

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._client = dynamodb(site)
        self._app = application()
        self.emitters = [self._client.meta.events]

    def post(self, request: Request, work: Work) -> Response:
        self._app.context.update(work=work, attempt=Plain(request, self._client, self._site.rows))
        try:
            return Response.of(self._app.resolve(request.event(), Context(28)))
        except Exception:  # noqa: BLE001 - as Lambda does
            return Response(502, "")


LIBRARY = Library("No idempotency", "", Unprotected)
