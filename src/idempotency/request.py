"""The request as idempotency sees it: who asks, for what, under which key."""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote, unquote

import rfc8785
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from idempotency.errors import Problem

KeyFormat = Literal["any", "uuid"]

_FINGERPRINT_VERSION = "1"
_RECORD_ID_VERSION = "1"
# Bytes of the request that a recoverable operation's record has room for.
_PACKED_LIMIT = 40_000
# Beyond this, not every integer is a double (RFC 7493, section 2.2).
_INTEGERS = 2**53
_PARAMETER = re.compile(r"\{([^{}+]*)(\+?)\}")
# Beside `%`, what no rule of Powertools' resolver matches (its `_SAFE_URI` and `_UNSAFE_URI`).
_UNMATCHED = r"[^-._~()'!*:@,;=+&$<> \[\]{}|^\w/]"
_UNMATCHED_OR_SLASH = rf"{_UNMATCHED}|/"
_VISIBLE = re.compile(r"[!-~]{1,255}")
_STRING = r'"((?:[^"\\]|\\["\\])*)"'
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Args:
        principal: who sent it, as the gateway's authorizer says; empty if nobody is authenticated.
        method: the HTTP method.
        route: the resource of the API that matched, such as ``/v1/servers/{id}``.
        path: the path as the gateway matched it, such as ``/v1/servers/7``: below any base path, and the same with a
            slash at the end or without.
        base_path: what precedes ``path`` in the client's URL: the stage, or a custom domain's base path.
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
        path = matched_path(raw)
        return cls(
            principal=principal_of(event),
            method=event.http_method,
            route=event.resource,
            path=path,
            base_path=_unicode(_base_path(raw, path)),
            query={
                _unicode(name): [_unicode(value) for value in values]
                for name, values in event.multi_value_query_string_parameters.items()
            },
            content_type=(["", *header_values(event, "content-type")][-1] or "").partition(";")[0].strip().lower(),
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
        return self._parsed.value

    @cached_property
    def fingerprint(self) -> str:
        """What a retry must have in common with the first request, as a versioned SHA-256.

        Method, path, query and body: canonical (RFC 8785) if it is JSON, so that white space and the order of members
        do not count; the raw bytes otherwise.
        """
        digest = sha256()
        body = self._parsed.canonical if self.is_json else self.body
        query = rfc8785.dumps(sorted((name, *values) for name, values in self.query.items()))
        for part in (self.method.encode(), self.path.encode(), query, body):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return f"{_FINGERPRINT_VERSION}:{digest.hexdigest()}"

    @cached_property
    def _parsed(self) -> "_Parsed":
        """The JSON body."""
        numbers = _Numbers()
        try:
            value = json.loads(
                self.body.decode(),
                object_pairs_hook=_no_member_twice,
                parse_float=numbers.real,
                parse_int=numbers.whole,
                parse_constant=numbers.real,
            )
            return _Parsed.of(value, plain=numbers.plain)
        except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
            raise Problem("body-invalid", f"The body is not valid JSON: {error}.", errors=[]) from error

    @cached_property
    def normal(self) -> Self:
        """The same request, with a JSON body written in the one way in which operations read every spelling of it.

        That is not its canonical form, whose large numbers (``1e16``) look like integers that `json` refuses.

        Raises:
            Problem: see `json`.
        """
        if not self.is_json:
            return self
        normal = replace(self, body=self._parsed.normal)
        # It is one request: what has been made of the one form holds for the other.
        vars(normal).update(_parsed=self._parsed, fingerprint=self.fingerprint)
        return normal

    def pack(self) -> bytes:
        """Compress what is needed to run the request again: no header but its content type, so never the token.

        Raises:
            Problem: ``body-too-large`` (413) if it takes more room than the record has.
        """
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        packed = zlib.compress(json.dumps({**kept, "body": base64.b64encode(self.body).decode()}).encode())
        if len(packed) > _PACKED_LIMIT:
            raise Problem("body-too-large", f"The request takes {len(packed)} bytes; {_PACKED_LIMIT} can be kept.")
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read what `pack` wrote."""
        fields = json.loads(zlib.decompress(packed))
        return cls(**{**fields, "body": base64.b64decode(fields["body"])})


class StoredEvent(dict[str, Any]):
    """The REST API proxy event of a stored request: all that a recoverable operation may read of its request.

    No client can send one: the gateway's events are plain dictionaries.

    Args:
        request: the request.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(
            resource=request.route,
            path=request.path,
            httpMethod=request.method,
            headers={"content-type": request.content_type},
            multiValueHeaders={"content-type": [request.content_type]},
            queryStringParameters={name: values[-1] for name, values in request.query.items()},
            multiValueQueryStringParameters=request.query,
            pathParameters=path_parameters(request.route, request.path),
            requestContext={"path": f"{request.base_path}{request.path}"},
            body=base64.b64encode(request.body).decode(),
            isBase64Encoded=True,
        )
        self.request = request


def matched_path(event: Mapping[str, Any]) -> str:
    """The path of a REST API proxy event as the gateway matched it: its resource, with the path parameters filled in.

    Unlike the event's own path, it has no base path, no slash at the end, and no slash from within a parameter. What
    Powertools does not match in a path is percent-encoded.
    """
    parameters = event.get("pathParameters") or {}

    def fill(match: re.Match[str]) -> str:
        unmatched = _UNMATCHED if match[2] else _UNMATCHED_OR_SLASH
        value = str(parameters.get(match[1], ""))
        return re.sub(unmatched, lambda found: quote(found[0], safe="", errors="surrogatepass"), value)

    return _PARAMETER.sub(fill, event["resource"])


def principal_of(event: APIGatewayProxyEvent) -> str:
    """Who sent the request, as the gateway authenticated it; empty if it did not. Never what a client can choose.

    The kind comes first, so that no authorizer's principal is ever another's:

    - ``sub:`` and the ``sub`` claim of a Cognito user pool;
    - ``id:`` and the ``principalId`` of a Lambda authorizer;
    - ``identity:`` and the identity id of a Cognito identity pool, one for each end user;
    - ``iam:`` and the unique id of an IAM user or role, without the session's name, which differs between the tasks
      of one service.

    Source: API Gateway, $context variables; IAM, unique identifiers.
    """
    if isinstance(event.raw_event, StoredEvent):
        return event.raw_event.request.principal
    context = event.raw_event.get("requestContext") or {}
    authorizer, identity = context.get("authorizer") or {}, context.get("identity") or {}
    claims = authorizer.get("claims")
    candidates = {
        "sub": claims.get("sub") if isinstance(claims, dict) else None,
        "id": authorizer.get("principalId"),
        "identity": identity.get("cognitoIdentityId"),
        "iam": (identity.get("caller") or "").partition(":")[0],
    }
    return next((f"{kind}:{name}" for kind, name in candidates.items() if name), "")


def parse_key(values: Sequence[str], key_format: KeyFormat = "any") -> str | None:
    """Read the key from every value of the header that was received.

    A structured-field string (``"k"``) and a bare value (``k``) name the same key; only the former may hold a comma,
    which in the latter looks like two lines that a proxy has joined. Parameters after the string are
    refused: the header defines none, and two spellings of one key must never become two keys.

    Returns:
        The key, 1 to 255 visible ASCII characters, or None if the header is absent or empty.

    Raises:
        Problem: ``key-invalid`` (400) if the header was sent twice or its value is not a key.

    Source: draft-ietf-httpapi-idempotency-key-header-07, section 2; RFC 9651, section 3.3.3.
    """
    value = values[0].strip(" \t") if values else ""
    if len(values) > 1 or ("," in value and not value.startswith('"')):  # a proxy joins two lines with a comma
        raise Problem("key-invalid", "The Idempotency-Key header was sent more than once, or its key has a comma.")
    if value.startswith('"'):
        value = _unquote(value)
    if not value:
        return None
    if not _VISIBLE.fullmatch(value):
        raise Problem("key-invalid", "An Idempotency-Key is 1 to 255 visible ASCII characters.")
    if key_format == "uuid" and not re.fullmatch(_UUID, value):
        raise Problem("key-invalid", "This endpoint takes only a UUID as Idempotency-Key.")
    return value


@lru_cache(maxsize=1)  # a request asks for its own more than once
def record_id(principal: str, method: str, route: str, key: str) -> str:
    """Hash what a key is scoped by into the id of its record: 64 hexadecimal digits of SHA-256, and the form's version.

    Each part is preceded by its length, so that no principal reaches another's record by moving characters from one
    part to the next; and the raw key is never stored. What the route's parameters are called does not count.
    """
    digest = sha256()
    pattern = _PARAMETER.sub(r"{\2}", route)
    for part in (principal, method, pattern, key):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return f"{digest.hexdigest()}:{_RECORD_ID_VERSION}"


def header_values(event: APIGatewayProxyEvent, name: str) -> list[str]:
    """All values of a header; an event made by hand may have them in the single-value form only."""
    # The raw event: two spellings of one name must not become one value.
    several = event.raw_event.get("multiValueHeaders")
    if not several:
        return [value for header, value in (event.raw_event.get("headers") or {}).items() if header.lower() == name]
    return [value for header, values in several.items() if header.lower() == name for value in values]


def _base_path(event: Mapping[str, Any], path: str) -> str:
    client_path = unquote((event.get("requestContext") or {}).get("path") or event.get("path") or path)
    return client_path.rstrip("/").rsplit("/", unquote(path).rstrip("/").count("/"))[0]


def _unicode(text: str) -> str:
    """Replace lone surrogates, which neither a hash nor DynamoDB takes, as the gateway does bytes that are no UTF-8."""
    return text.encode(errors="surrogatepass").decode(errors="replace")


def path_parameters(route: str, path: str) -> dict[str, str]:
    """Read the parameters out of a path that `matched_path` made."""
    pattern = _PARAMETER.sub(lambda match: f"(?P<p{match.start()}>{'.*' if match[2] else '[^/]*'})", route)
    found = re.fullmatch(pattern, path)
    values = found.groupdict() if found else {}
    return {
        match[1]: unquote(values[f"p{match.start()}"], errors="surrogatepass")
        for match in _PARAMETER.finditer(route)
        if f"p{match.start()}" in values
    }


class _Numbers:
    """Reads the numbers of one body.

    Attributes:
        plain: whether all of them are integers of I-JSON, which Python writes as RFC 8785 does.
    """

    plain = True

    def whole(self, text: str) -> int:
        """Read what has neither point nor exponent."""
        number = int(text)
        self.plain = self.plain and abs(number) < _INTEGERS
        return number

    def real(self, text: str) -> float | int:
        """Read ``10.0`` as ``10``: they are one number, and so one request (RFC 8785, section 3.2.2.3)."""
        number = float(text)
        if number.is_integer() and abs(number) < _INTEGERS:
            return int(number)
        self.plain = False
        return number


class _Parsed(NamedTuple):
    """A JSON body: its value, its canonical form (RFC 8785), and the one form in which operations read it."""

    value: Any
    canonical: bytes
    normal: bytes

    @classmethod
    def of(cls, value: Any, *, plain: bool) -> Self:
        """Write a value in both forms: without fractions, and in ASCII, they are one, which Python writes much faster.

        Raises:
            rfc8785.CanonicalizationError: for NaN, infinity, and integers beyond a double's.
        """
        normal = json.dumps(value, separators=(",", ":"), sort_keys=True)
        same = plain and "\\u" not in normal
        return cls(value, normal.encode() if same else rfc8785.dumps(value), normal.encode())


def _no_member_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _unquote(value: str) -> str:
    match = re.fullmatch(_STRING, value)
    if not match:
        raise Problem("key-invalid", "The quoted Idempotency-Key is not a structured-field string.")
    return re.sub(r"\\(.)", r"\1", match[1])
