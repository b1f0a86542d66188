"""The handlers of the functions in this process, as a target of the black-box suite."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import api
import authorizer
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.e2e.targets import Tables, Target, Trait
from tests.events import Context, Headers, proxy_event
from tests.messages import Messages
from tools.local import template
from tools.local.client import Answer

# The same as on the local stack.
TIMEOUT_SECONDS = 10


class InProcess(Target):
    """The handlers of the functions, called as the gateway calls them; time passes only when a test says so."""

    name = "the handler in process"
    traits = frozenset({Trait.EVERY_HEADER})

    def __init__(self, tables: Tables, tokens: Mapping[str, str], clock: SetClock) -> None:
        super().__init__(tables, tokens)
        self._clock = clock
        self.messages = Messages(clock)
        self._routes = _routes()

    def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        headers = list(headers)
        event = proxy_event(
            method,
            path,
            resource=self._resource(method, path),
            headers=headers,
            body=_as_gateway_passes(body),
            authorizer=_authorize(headers),
        )
        try:
            return Answer.of(api.handler(event, Context(TIMEOUT_SECONDS)))
        except Killed:
            return Answer(502)

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def _resource(self, method: str, path: str) -> str:
        for route_method, route in self._routes:
            fixed, variable = route.partition("{")[:2]
            if route_method == method and (path.startswith(fixed) if variable else path == route):
                return route
        return path


@cache
def _routes() -> list[tuple[str, str]]:
    events = template.load()["Resources"]["ApiFunction"]["Properties"]["Events"].values()
    return [(event["Properties"]["Method"], event["Properties"]["Path"]) for event in events]


def _authorize(headers: Headers) -> dict[str, Any] | None:
    """What the authorizer says about a token; None without one."""
    token = next((value for name, value in headers if name.lower() == "authorization"), None)
    if token is None:
        return None
    arn = "arn:aws:execute-api:eu-west-1:123456789012:abcdef1234/dev/POST/v1/servers/provision"
    said = authorizer.handler({"type": "TOKEN", "authorizationToken": token, "methodArn": arn}, Context())
    return {"principalId": said["principalId"]}


def _as_gateway_passes(body: bytes) -> str | None:
    """A body as text; bytes that are not UTF-8 are replaced."""
    return body.decode(errors="replace") or None
