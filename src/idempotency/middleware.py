"""Idempotency as a Powertools middleware: what HTTP says, and what it is answered."""

import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol, cast
from uuid import uuid4

import fastjsonschema
from aws_lambda_powertools.event_handler import ApiGatewayResolver, Response
from aws_lambda_powertools.event_handler.middlewares import BaseMiddlewareHandler, NextMiddleware
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from idempotency.key import parse_key
from idempotency.lifecycle import Lifecycle, Reply, Result
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.problems import Problem
from idempotency.request import Request

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


class Body(Protocol):
    """A class, such as a dataclass, whose constructor takes what its JSON Schema admits."""

    SCHEMA: ClassVar[dict[str, Any]]


class Idempotent(BaseMiddlewareHandler[ApiGatewayResolver]):
    """Makes a route run once for each Idempotency-Key.

    The route finds its typed request in ``app.context["body"]`` and its operation in ``app.context["operation"]``.
    Whatever is wrong with a request is found before its key is claimed, so that no mistake uses a key up.

    Args:
        lifecycle: makes or returns the lifecycle; called at the first request, not at import.
        body: what the JSON body is read as; None for a route that reads its own.
        policy: makes the route's policy; called at each request.
    """

    def __init__(
        self,
        lifecycle: Callable[[], Lifecycle],
        body: type[Body] | None = None,
        policy: Callable[[], Policy] = Policy,
    ) -> None:
        super().__init__()
        self._lifecycle = lifecycle
        self._policy = policy
        self._body = body
        self._validate = fastjsonschema.compile(body.SCHEMA if body else {}, use_default=False, fast_fail=False)

    def handler(self, app: ApiGatewayResolver, next_middleware: NextMiddleware) -> Response[Any]:
        """Answer one request."""
        event = cast("APIGatewayProxyEvent", app.current_event)
        request, policy, lifecycle = Request.from_event(event), self._policy(), self._lifecycle()
        if not request.principal and not policy.anonymous:
            raise Problem("unauthorized", "The gateway has authenticated nobody.")
        deadline = lifecycle.clock.now() + app.lambda_context.get_remaining_time_in_millis()
        responses: list[Response[Any]] = []

        def execute(operation: Operation) -> Result:
            app.context["operation"] = operation
            responses.append(next_middleware(app))
            return Result.of(responses[-1], policy)

        if resumed := app.context.get("resumed"):
            self._read_body(app, request, policy)
            reply = lifecycle.perform(resumed, request, policy, deadline, execute)
        else:
            key = self._key(event, policy)
            self._read_body(app, request, policy)
            wait = _wait(event, policy)
            reply = lifecycle.run(request, key, policy, deadline, execute, wait)
        response = _response(reply, event)
        if responses and not reply.replayed and responses[-1].status_code == response.status_code:
            # Only the first answer carries what is not kept, such as cookies.
            response.headers = {**responses[-1].headers, **response.headers}
            response.cookies = responses[-1].cookies
        return response

    def _key(self, event: APIGatewayProxyEvent, policy: Policy) -> str:
        key = parse_key(_header_values(event, "idempotency-key"), policy.key_format)
        if key is None and policy.key_required:
            raise Problem("key-missing", "Send an Idempotency-Key of your own with each new request; a UUID, say.")
        # Without a key, the operation still has its steps and its recovery; only no retry ever finds it.
        return key or str(uuid4())

    def _read_body(self, app: ApiGatewayResolver, request: Request, policy: Policy) -> None:
        if len(request.body) > policy.max_body:
            raise Problem("body-too-large", f"A body has at most {policy.max_body} bytes here.")
        if self._body is None:
            return
        if not request.is_json:
            raise Problem("unsupported-media-type", "Send Content-Type: application/json.")
        try:
            app.context["body"] = cast("Callable[..., Body]", self._body)(**self._validate(request.json))
        except fastjsonschema.JsonSchemaValuesException as invalid:
            raise Problem(
                "body-invalid", "The body does not match its schema.", errors=_field_errors(invalid.errors)
            ) from invalid


def _header_values(event: APIGatewayProxyEvent, name: str) -> list[str]:
    """All values of a header; an event made by hand may have them in the single-value form only."""
    # The raw event: two spellings of one name must not become one value.
    single = {header: [value] for header, value in (event.raw_event.get("headers") or {}).items()}
    headers = event.raw_event.get("multiValueHeaders") or single
    return [value for header, values in headers.items() if header.lower() == name for value in values]


def _field_errors(errors: Iterable[fastjsonschema.JsonSchemaValueException]) -> list[dict[str, str]]:
    """One entry a field, pointing at it as RFC 9457's own example does (RFC 6901, section 6)."""
    details: dict[str, str] = {}
    for error in errors:
        pointer = "#" + "".join(f"/{name}" for name in error.path[1:])
        match error.rule:
            case "required":
                missing = [name for name in error.rule_definition if name not in error.value]
                found = {f"{pointer}/{name}": "is required" for name in missing}
            case "additionalProperties":
                known = error.definition["properties"]
                found = {f"{pointer}/{name}": "is not known here" for name in error.value if name not in known}
            case _:
                found = {pointer: error.message.removeprefix(str(error.name)).strip()}
        details = found | details
    return [{"pointer": pointer, "detail": detail} for pointer, detail in details.items()]


def _wait(event: APIGatewayProxyEvent, policy: Policy) -> int:
    """Seconds of the ``wait`` preference; the first counts (RFC 7240, sections 2 and 4.3)."""
    match = _WAIT.search(event.headers.get("prefer") or "")
    return int(match[1]) if match else policy.hold_by_default


def _response(reply: Reply, event: APIGatewayProxyEvent) -> Response[Any]:
    response = reply.response.response()
    if reply.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if reply.held and (match := _WAIT.search(event.headers.get("prefer") or "")):
        response.headers["Preference-Applied"] = f"wait={match[1]}"
    return response
