"""The request as idempotency sees it: who asks, for what, under which key."""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, Self

import rfc8785
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from idempotency.errors import Problem

KeyFormat = Literal["any", "uuid"]

_FINGERPRINT_VERSION = "1"
_VISIBLE = re.compile(r"[!-~]{1,255}")
_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Args:
        principal: who sent it, as the gateway's authorizer says; empty if nobody is authenticated.
        method: the HTTP method.
        route: the resource of the API that matched, such as ``/v1/servers/{id}``.
        path: the path below the stage, such as ``/v1/servers/7``.
        base_path: what precedes ``path`` in the client's URL: the stage, or nothing under a custom domain.
        query: each parameter with all its values.
        content_type: the media type of the body, in lower case, without parameters.
        body: the body's bytes.
    """

    principal: str
    method: str
    route: str
    path: str
    base_path: str
    query: Mapping[str, Sequence[str]]
    content_type: str
    body: bytes

    @classmethod
    def from_event(cls, event: APIGatewayProxyEvent) -> Self:
        """Read a REST API proxy event."""
        raw = event.raw_event
        body = raw.get("body") or ""
        path = _below_base(event.path, event.resource)
        client_path = event.request_context.get("path") or event.path
        return cls(
            principal=principal(event),
            method=event.http_method,
            route=event.resource,
            path=path,
            base_path=client_path.removesuffix(path),
            query=event.multi_value_query_string_parameters,
            content_type=(event.headers.get("content-type") or "").partition(";")[0].strip().lower(),
            body=base64.b64decode(body) if event.is_base64_encoded else body.encode(errors="surrogatepass"),
        )

    @property
    def is_json(self) -> bool:
        """Whether the body claims to be JSON."""
        return self.content_type == "application/json" or self.content_type.endswith("+json")

    @property
    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Problem: ``body-invalid`` (400) if it is not I-JSON: UTF-8, no member twice, no NaN, no infinity, no
                integer beyond ±(2^53 - 1). Two parsers could read such a body differently.

        Source: RFC 7493, section 2.
        """
        return self._parsed[0]

    @cached_property
    def fingerprint(self) -> str:
        """What a retry must have in common with the first request, as a versioned SHA-256.

        Method, path, query and body: canonical (RFC 8785) if it is JSON, so that white space and the order of members
        do not count; the raw bytes otherwise.
        """
        digest = sha256()
        body = self._parsed[1] if self.is_json else self.body
        query = rfc8785.dumps(sorted((name, *values) for name, values in self.query.items()))
        for part in (self.method.encode(), self.path.encode(), query, body):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return f"{_FINGERPRINT_VERSION}:{digest.hexdigest()}"

    @cached_property
    def _parsed(self) -> tuple[Any, bytes]:
        """The value of a JSON body, and its canonical form."""
        try:
            value = json.loads(self.body.decode(), object_pairs_hook=_no_member_twice)
            return value, rfc8785.dumps(value)  # refuses NaN, infinity, and integers beyond a double's
        except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
            raise Problem("body-invalid", f"The body is not valid JSON: {error}.", errors=[]) from error

    def pack(self) -> bytes:
        """Compress what is needed to run the request again: no header but its content type, so never the token."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return zlib.compress(json.dumps({**kept, "body": base64.b64encode(self.body).decode()}).encode())

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read what `pack` wrote."""
        fields = json.loads(zlib.decompress(packed))
        return cls(**{**fields, "body": base64.b64decode(fields["body"])})

    def event(self) -> dict[str, Any]:
        """Build the REST API proxy event that `from_event` reads as this request."""
        return {
            "resource": self.route,
            "path": self.path,
            "httpMethod": self.method,
            "headers": {"content-type": self.content_type},
            "multiValueHeaders": {"content-type": [self.content_type]},
            "queryStringParameters": {name: values[-1] for name, values in self.query.items()},
            "multiValueQueryStringParameters": self.query,
            "requestContext": {
                "path": f"{self.base_path}{self.path}",
                "authorizer": {"principalId": self.principal},
            },
            "body": base64.b64encode(self.body).decode(),
            "isBase64Encoded": True,
        }


def principal(event: APIGatewayProxyEvent) -> str:
    """Who sent the request, as the gateway authenticated it; empty if it did not. Never what a client can choose.

    Cognito user pools: the ``sub`` claim. A Lambda authorizer: its ``principalId``. IAM: the unique id of the user or
    role, without the session name, which differs between the tasks of one service.

    Source: API Gateway, $context variables; IAM, unique identifiers.
    """
    context = event.raw_event.get("requestContext") or {}
    authorizer = context.get("authorizer") or {}
    caller = (context.get("identity") or {}).get("caller") or ""
    claims = authorizer.get("claims")
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject or authorizer.get("principalId") or caller.partition(":")[0]


def parse_key(values: Sequence[str], key_format: KeyFormat = "any") -> str | None:
    """Read the key from every value of the header that was received.

    A structured-field string (``"k"``) and a bare value (``k``) name the same key. Parameters after the string are
    refused: the header defines none, and two spellings of one key must never become two keys.

    Returns:
        The key, 1 to 255 visible ASCII characters, or None if the header is absent or empty.

    Raises:
        Problem: ``key-invalid`` (400) if the header was sent twice or its value is not a key.

    Source: draft-ietf-httpapi-idempotency-key-header-07, section 2; RFC 9651, section 3.3.3.
    """
    if len(values) > 1:
        raise Problem("key-invalid", "The Idempotency-Key header was sent more than once.")
    value = values[0].strip(" \t") if values else ""
    if value.startswith('"'):
        value = _unquote(value)
    if not value:
        return None
    if not _VISIBLE.fullmatch(value):
        raise Problem("key-invalid", "An Idempotency-Key is 1 to 255 visible ASCII characters.")
    if key_format == "uuid" and not _UUID.fullmatch(value):
        raise Problem("key-invalid", "This endpoint takes only a UUID as Idempotency-Key.")
    return value


def record_id(principal: str, method: str, route: str, key: str) -> str:
    """Hash what a key is scoped by into the id of its record: 64 hexadecimal digits of SHA-256.

    Each part is preceded by its length, so that no principal reaches another's record by moving characters from one
    part to the next; and the raw key is never stored.
    """
    digest = sha256()
    for part in (principal, method, route, key):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def header_values(event: APIGatewayProxyEvent, name: str) -> list[str]:
    """All values of a header; an event made by hand may have them in the single-value form only."""
    # The raw event: two spellings of one name must not become one value.
    single = {header: [value] for header, value in (event.raw_event.get("headers") or {}).items()}
    headers = event.raw_event.get("multiValueHeaders") or single
    return [value for header, values in headers.items() if header.lower() == name for value in values]


def _below_base(path: str, route: str) -> str:
    """Take from a path what a custom domain's mapping puts before it: as many segments as the route has are ours."""
    if "+}" in route:  # how many segments a greedy parameter holds, nobody tells
        return path
    return "/" + "/".join(path.rsplit("/", route.count("/"))[1:])


def _no_member_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _unquote(value: str) -> str:
    match = _STRING.fullmatch(value)
    if not match:
        raise Problem("key-invalid", "The quoted Idempotency-Key is not a structured-field string.")
    return re.sub(r"\\(.)", r"\1", match[1])
