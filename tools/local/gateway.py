"""API Gateway's rules for a REST API with Lambda proxy integrations, as they are documented: what MiniStack leaves out.

`tools.local.rest_api` reads from the deployed stack what is enforced; `tools.local.gateway_server` listens.

Source: API Gateway developer guide. "Request validation for REST APIs", "Gateway response types", "Use API Gateway
Lambda authorizers", "Lambda proxy integrations", "Binary media types for REST APIs", "Important notes", "Quotas".
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from http import HTTPStatus
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

from tools.local.rest_api import JSON, TIMEOUT_SECONDS, Api, Authorizer, Method

_log = logging.getLogger(__name__)
MAX_REQUEST_BYTES = 10 * 1024 * 1024
# Of Lambda: what a synchronous invocation takes and gives.
MAX_EVENT_BYTES = 6_291_456
MAX_REPLY_BYTES = 6_291_556

# The status of each response and its message, unless the template has others.
_RESPONSES: dict[str, tuple[int, str | None]] = {
    "ACCESS_DENIED": (403, "User is not authorized to access this resource"),
    "API_CONFIGURATION_ERROR": (500, "Internal server error"),
    "AUTHORIZER_CONFIGURATION_ERROR": (500, None),
    "AUTHORIZER_FAILURE": (500, None),
    "BAD_REQUEST_BODY": (400, "Invalid request body"),
    "BAD_REQUEST_PARAMETERS": (400, None),
    # The guide says 504, and that another format than the documented one is a 502; access logs show 502 for both.
    "INTEGRATION_FAILURE": (502, "Internal server error"),
    "INTEGRATION_TIMEOUT": (504, "Endpoint request timed out"),
    "INVALID_SIGNATURE": (403, None),
    "MISSING_AUTHENTICATION_TOKEN": (403, "Missing Authentication Token"),
    "REQUEST_TOO_LARGE": (413, "Request Too Long"),
    "THROTTLED": (429, "Too Many Requests"),
    "UNAUTHORIZED": (401, "Unauthorized"),
}
# A response whose customisation has no effect ("Important notes for REST APIs").
_NOT_CUSTOMISABLE = "REQUEST_TOO_LARGE"

_DROPPED_FROM_REQUESTS = frozenset(
    {"connection", "content-length", "expect", "max-forwards", "trailer", "transfer-encoding", "upgrade"}
)
_REMAPPED_IN_REPLIES = frozenset(
    {"connection", "content-length", "date", "max-forwards", "proxy-authenticate", "server", "trailer", "user-agent"}
    | {"www-authenticate"}
)
_REPLY_MEMBERS = {"isBase64Encoded", "statusCode", "headers", "multiValueHeaders", "body"}


class FunctionFailed(Exception):
    """A function raised, died or ran out of its own time; the message is what it reports."""


class FunctionTimeout(Exception):
    """A function did not answer in time."""


class FunctionUnavailable(Exception):
    """Lambda did not run a function: it is throttled, does not exist, or may not be invoked."""


Invoke = Callable[[str, Mapping[str, Any], float], bytes]
"""Invokes a function, by its ARN, with an event, and waits for so many seconds; returns what the function returns.

Raises: FunctionFailed, FunctionTimeout, FunctionUnavailable.
"""


@dataclass(frozen=True)
class Request:
    """A request as it was received.

    Args:
        method: the HTTP method.
        target: path and query, as sent, stage included.
        headers: each header line's name and value, as sent.
        body: the body.
        client: the client's address.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    client: str = "127.0.0.1"

    def header(self, name: str) -> str | None:
        """The last value of a header, whatever the case of its name."""
        return next((value for sent, value in reversed(self.headers) if sent.lower() == name.lower()), None)


@dataclass(frozen=True)
class Response:
    """A response; a header name may occur more than once."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class _Refused(Exception):
    """The gateway answers by itself, with one of its gateway responses.

    Args:
        type_: the type of the response.
        message: its message, if it is another than the type's.
    """

    def __init__(self, type_: str, message: str | None = None) -> None:
        super().__init__(type_)
        self.type = type_
        self.message = message or _RESPONSES[type_][1]


class Gateway:
    """Answers requests.

    Args:
        api: what it enforces.
        invoke: invokes a function.
        now: the time in seconds, from any point on.
    """

    def __init__(self, api: Api, invoke: Invoke, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._invoke = invoke
        self._now = now
        self._policies: dict[tuple[Authorizer, str], tuple[float, Mapping[str, Any]]] = {}
        self._asking: dict[tuple[Authorizer, str], Lock] = defaultdict(Lock)
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = Lock()

    def answer(self, request: Request) -> Response:
        """Answer a request, with the function's response or one of the gateway's own."""
        context = {"requestId": str(uuid4())}
        try:
            response = self._answer(request, context)
        except _Refused as refused:
            _log.info("%s: %s", refused.type, refused.__cause__ or refused.message)
            response = self._gateway_response(refused, context)
        return Response(response.status, [*response.headers, ("x-amzn-RequestId", context["requestId"])], response.body)

    def _answer(self, request: Request, context: Mapping[str, str]) -> Response:
        if len(request.body) > MAX_REQUEST_BYTES:
            raise _Refused(_NOT_CUSTOMISABLE)
        path, _, query = request.target.partition("?")
        prefix = f"/{self._api.stage}/"
        if not path.startswith(prefix):
            return Response(HTTPStatus.FORBIDDEN, [("Content-Type", JSON)], b'{"message":"Forbidden"}')
        path = path.removeprefix(prefix[:-1])
        if self._api.edge:  # "API endpoint types for REST APIs"
            request = replace(request, headers=[(_capitalized(name), value) for name, value in request.headers])
        method, parameters = self._route(request, path)
        allowed = self._authorize(method.authorizer, request, path) if method.authorizer else None
        self._throttle((method.resource, request.method))
        _validate(method, request)
        event = self._event(request, method, path, query, parameters, context["requestId"], allowed)
        return self._integrate(method, event, request)

    def _route(self, request: Request, path: str) -> tuple[Method, Mapping[str, str]]:
        """The method that a path leads to, and its path parameters: the resource that says most of the path wins."""
        found = [
            (resource, method, parameters)
            for (resource, allowed), method in self._api.methods.items()
            if allowed in {request.method, "ANY"} and (parameters := _match(resource, path)) is not None
        ]
        if not found and (sent := request.header("Authorization")):
            # Where nothing says how a request is authorized, its header is read as a signature.
            problem = "not a valid key=value pair (missing equal-sign) in Authorization header"
            raise _Refused("INVALID_SIGNATURE", f"'{sent}' {problem}: '{sent}'.")
        if not found:
            raise _Refused("MISSING_AUTHENTICATION_TOKEN")
        _, method, parameters = min(found, key=lambda each: [_vagueness(part) for part in each[0].split("/")])
        return method, parameters

    def _authorize(self, authorizer: Authorizer, request: Request, path: str) -> Mapping[str, Any]:
        """What the authorizer says of a request that it allows: its principal, and its context."""
        token = request.header(authorizer.header) or ""
        if not token or (authorizer.expression and not re.fullmatch(authorizer.expression, token)):
            raise _Refused("UNAUTHORIZED")
        arn = f"arn:aws:execute-api:{self._api.region}:{self._api.account}:{self._api.id}"
        arn = f"{arn}/{self._api.stage}/{request.method}{path}"
        said = self._policy(authorizer, token, arn)
        if not _allows(said["policyDocument"], arn):
            raise _Refused("ACCESS_DENIED")
        return {"principalId": said["principalId"], **{k: str(v) for k, v in said.get("context", {}).items()}}

    def _policy(self, authorizer: Authorizer, token: str, arn: str) -> Mapping[str, Any]:
        """The authorizer's answer to a token, from the cache if it is still there.

        Requests that come at once ask once: a small machine has no room for a worker each.
        """
        event = {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}
        if not authorizer.ttl:
            return self._ask(authorizer, event)
        with self._asking[authorizer, token]:
            until, said = self._policies.get((authorizer, token), (0.0, {}))
            if self._now() >= until or not said:
                said = self._ask(authorizer, event)
                self._policies[authorizer, token] = (self._now() + authorizer.ttl, said)
        return said

    def _ask(self, authorizer: Authorizer, event: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            said = json.loads(self._invoke(authorizer.function, event, TIMEOUT_SECONDS))
        except FunctionFailed as failed:
            raise _Refused("UNAUTHORIZED" if str(failed) == "Unauthorized" else "AUTHORIZER_FAILURE") from failed
        except (FunctionTimeout, FunctionUnavailable, ValueError) as error:
            raise _Refused("AUTHORIZER_CONFIGURATION_ERROR") from error
        if not isinstance(said, dict) or not said.get("principalId") or "policyDocument" not in said:
            raise _Refused("AUTHORIZER_CONFIGURATION_ERROR")
        return said

    def _throttle(self, method: tuple[str, str]) -> None:
        """Take a token out of the method's bucket ("Throttle requests to your REST APIs")."""
        if self._api.rate is None:
            return
        with self._lock:
            tokens, since = self._buckets.get(method, (self._api.burst, self._now()))
            now = self._now()
            tokens = min(self._api.burst, tokens + (now - since) * self._api.rate)
            if tokens >= 1:
                self._buckets[method] = (tokens - 1, now)
                return
        raise _Refused("THROTTLED")

    def _event(
        self,
        request: Request,
        method: Method,
        path: str,
        query: str,
        parameters: Mapping[str, str],
        request_id: str,
        authorizer: Mapping[str, Any] | None,
    ) -> Mapping[str, Any]:
        headers = _together(
            (name, value) for name, value in request.headers if name.lower() not in _DROPPED_FROM_REQUESTS
        )
        headers |= {"X-Forwarded-For": [request.client], "X-Forwarded-Proto": ["http"]}
        queries = _together(parse_qsl(query, keep_blank_values=True))
        binary = _is_binary(request.header("Content-Type") or JSON, self._api.binary_media_types)
        body = base64.b64encode(request.body).decode() if binary else request.body.decode(errors="replace")
        return {
            "resource": method.resource,
            "path": path,
            "httpMethod": request.method,
            "headers": {name: values[-1] for name, values in headers.items()},
            "multiValueHeaders": headers,
            "queryStringParameters": {name: values[-1] for name, values in queries.items()} or None,
            "multiValueQueryStringParameters": queries or None,
            "pathParameters": parameters or None,
            "stageVariables": None,
            "requestContext": {
                "accountId": self._api.account,
                "apiId": self._api.id,
                "domainName": request.header("Host"),
                "httpMethod": request.method,
                "identity": {"caller": None, "sourceIp": request.client, "userAgent": request.header("User-Agent")},
                "path": f"/{self._api.stage}{path}",
                "protocol": "HTTP/1.1",
                "requestId": request_id,
                "requestTimeEpoch": round(time.time() * 1000),
                "resourcePath": method.resource,
                "stage": self._api.stage,
                **({"authorizer": authorizer} if authorizer is not None else {}),
            },
            "body": body or None,
            "isBase64Encoded": bool(binary and body),
        }

    def _integrate(self, method: Method, event: Mapping[str, Any], request: Request) -> Response:
        if len(json.dumps(event)) > MAX_EVENT_BYTES:
            raise _Refused("INTEGRATION_FAILURE")
        try:
            return self._response(_reply(self._invoke(method.function, event, method.timeout)), request)
        except FunctionTimeout as error:
            raise _Refused("INTEGRATION_TIMEOUT") from error
        except (FunctionFailed, FunctionUnavailable, ValueError) as error:
            raise _Refused("INTEGRATION_FAILURE") from error

    def _response(self, reply: Mapping[str, Any], request: Request) -> Response:
        body = (reply.get("body") or "").encode(errors="surrogatepass")
        accepted = (request.header("Accept") or "*/*").partition(",")[0]
        if reply.get("isBase64Encoded") and _is_binary(accepted, self._api.binary_media_types):
            try:
                body = base64.b64decode(body, validate=True)
            except ValueError:
                raise _Refused("API_CONFIGURATION_ERROR") from None
        return Response(int(reply.get("statusCode", HTTPStatus.OK)), _reply_headers(reply), body)

    def _gateway_response(self, refused: _Refused, context: Mapping[str, str]) -> Response:
        status, _ = _RESPONSES[refused.type]
        responses = {} if refused.type == _NOT_CUSTOMISABLE else self._api.responses
        fallback = responses.get(f"DEFAULT_{status // 100}XX", {})
        custom = responses.get(refused.type, fallback)
        status = int(custom.get("statusCode") or fallback.get("statusCode") or status)
        template = custom.get("responseTemplates", {}).get(JSON, '{"message":$context.error.messageString}')
        headers = {"Content-Type": JSON}
        for name, value in custom.get("responseParameters", {}).items():
            headers[name.removeprefix("gatewayresponse.header.")] = value.strip("'")
        variables = {
            "$context.error.messageString": json.dumps(refused.message),
            "$context.error.message": refused.message or "",
            "$context.error.responseType": refused.type,
            "$context.requestId": context["requestId"],
        }
        # A variable that is not known is replaced by nothing, as in access logs and templates.
        body = re.sub(r"\$[A-Za-z.]+", lambda found: variables.get(found[0], ""), template)
        return Response(status, list(headers.items()), body.encode())


def _match(resource: str, path: str) -> dict[str, str] | None:
    """The path parameters of a path that leads to a resource, decoded; None if it leads elsewhere."""
    pattern = re.sub(
        r"\\\{(\w+)(\\\+)?\\\}", lambda found: f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})", re.escape(resource)
    )
    found = re.fullmatch(f"{pattern}/?", path)
    return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


def _vagueness(part: str) -> int:
    return 0 if not part.startswith("{") else 2 if part.endswith("+}") else 1


def _allows(policy: Mapping[str, Any], arn: str) -> bool:
    effects = {
        statement["Effect"]
        for statement in _list(policy["Statement"])
        if any(fnmatchcase("execute-api:invoke", action.lower()) for action in _list(statement["Action"]))
        and any(fnmatchcase(arn, resource) for resource in _list(statement["Resource"]))
    }
    return effects == {"Allow"}


def _capitalized(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def _list(one_or_more: Any) -> list[Any]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


def _validate(method: Method, request: Request) -> None:
    """Check a request as its validator does: first its parameters, then its body."""
    # Names of headers are told apart by case ("Important notes for REST APIs").
    sent = {name for name, value in request.headers if value.strip()}
    if missing := [name for name in method.required_headers if name not in sent]:
        raise _Refused("BAD_REQUEST_PARAMETERS", f"Missing required request parameters: [{', '.join(missing)}]")
    media_type = (request.header("Content-Type") or JSON).partition(";")[0].strip().lower()
    # A body of another media type is not checked.
    if (model := method.models.get(media_type)) is not None:
        try:
            valid = model.is_valid(json.loads(request.body))
        except (ValueError, RecursionError):
            valid = False
        if not valid:
            raise _Refused("BAD_REQUEST_BODY")


def _together(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _is_binary(media_type: str, patterns: Iterable[str]) -> bool:
    plain = media_type.partition(";")[0].strip().lower()
    return any(fnmatchcase(plain, pattern.lower()) for pattern in patterns)


def _reply(payload: bytes) -> Mapping[str, Any]:
    """Read what a function returned.

    Raises:
        ValueError: if it is larger than Lambda allows, or has another form than the documented one.
    """
    reply: Any = json.loads(payload)
    documented = isinstance(reply, dict) and reply.keys() <= _REPLY_MEMBERS
    if len(payload) > MAX_REPLY_BYTES or not documented or not isinstance(reply.get("body", ""), str | None):
        raise ValueError("not what a function may return")
    return dict(reply)


def _reply_headers(reply: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The headers of a reply, single values and lists merged; a name that clients may not get is remapped."""
    merged = {name: list(values) for name, values in (reply.get("multiValueHeaders") or {}).items()}
    names = {name.lower(): name for name in merged}
    for name, value in (reply.get("headers") or {}).items():
        values = merged.setdefault(names.setdefault(name.lower(), name), [])
        values += [value] * (value not in values)
    if "content-type" not in names:
        merged["Content-Type"] = [JSON]
    return [
        (f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED_IN_REPLIES else name, str(value))
        for name, values in merged.items()
        for value in values
    ]
