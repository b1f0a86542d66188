"""The response as it is stored: exactly what a replay answers with."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Self

from aws_lambda_powertools.event_handler import Response

from idempotency.problems import Problem

# Lambda's limit for a synchronous response is 6 MB of JSON, which also holds status and headers.
_LAMBDA_LIMIT = 6 * 1024 * 1024 - 16 * 1024
# All headers of a REST API's response together.
_HEADERS_LIMIT = 10_240
# One byte of text is up to six in JSON (\u0000).
_JSON_GROWTH = 6
# Below this, compression costs more than it saves.
_COMPRESS_FROM = 512


class NotStorable(Exception):
    """The response cannot be kept: too large, or not made of bytes, text or JSON."""


@dataclass(frozen=True)
class Row:
    """A row of business data, written in one transaction with the operation's completion, or with a checkpoint.

    It replaces only a row of the same operation. One of another operation makes `conflict` the operation's response.

    Args:
        table: the table's name; its partition key is ``id``.
        item: the row; strings, integers, booleans, lists and maps of these.
        conflict: what to answer if another operation holds this id.
    """

    table: str
    item: Mapping[str, Any]
    conflict: Problem | None = None


class RowTaken(Exception):
    """A row's id belongs to another operation."""

    def __init__(self, row: Row) -> None:
        super().__init__(f"the row {row.item['id']} belongs to another operation")
        self.row = row


class Completion(Response[Any]):
    """A route's response, together with the rows to be written with it.

    Args:
        status_code: the HTTP status code.
        body: text, bytes or, for ``application/json``, any JSON value.
        headers: response headers.
        rows: business rows, at most 99; a failure (4xx, 5xx) writes none.
        content_type: the media type of the body.
    """

    def __init__(
        self,
        status_code: int,
        body: Any = None,
        *,
        headers: Mapping[str, str | list[str]] | None = None,
        rows: Sequence[Row] = (),
        content_type: str = "application/json",
    ) -> None:
        super().__init__(status_code, content_type, body, headers)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class StoredResponse:
    """Status, kept headers and body.

    Args:
        status: the HTTP status code.
        headers: the kept headers, each with its values.
        body: the body's bytes; empty if there is none.
        text: whether the body goes out as text; otherwise the gateway decodes it from base64.
    """

    status: int
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: bytes = b""
    text: bool = True

    @classmethod
    def of(cls, response: Response[Any], keep: frozenset[str]) -> Self:
        """Take from a route's response what is kept.

        Raises:
            NotStorable: if Lambda could not return it, or it is neither bytes nor text nor JSON.
        """
        body = response.body
        try:
            if isinstance(body, bytes) and response.is_json():
                body = body.decode()  # Powertools would encode it as JSON once more
            elif not isinstance(body, (str, bytes, NoneType)):
                body = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise NotStorable(f"the body is not JSON: {error}") from error
        headers = {
            name: [values] if isinstance(values, str) else list(values)
            for name, values in response.headers.items()
            if name.lower() in keep
        }
        content = body if isinstance(body, bytes) else _encode(body or "")
        stored = cls(int(response.status_code), headers, content, text=not isinstance(body, bytes))
        stored._check_limits()
        return stored

    def header(self, name: str) -> str:
        """The first value of a kept header, whose name is given in lower case; empty if there is none."""
        return next((values[0] for kept, values in self.headers.items() if kept.lower() == name), "")

    def response(self) -> Response[str | bytes]:
        """Build the response that a route or a replay answers with."""
        headers: dict[str, str | list[str]] = {name: list(values) for name, values in self.headers.items()}
        return Response(self.status, body=_decode(self.body) if self.text else self.body, headers=headers)

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """Split into what goes into the record and the body's bytes, compressed where that makes them fewer."""
        packed = zlib.compress(self.body) if len(self.body) >= _COMPRESS_FROM else self.body
        compressed = len(packed) < len(self.body)
        description = {
            "status": self.status,
            "headers": {name: list(values) for name, values in self.headers.items()},
            "text": self.text,
            "compressed": compressed,
        }
        return description, packed if compressed else self.body

    @classmethod
    def unpack(cls, description: Mapping[str, Any], body: bytes) -> Self:
        """Read what `pack` wrote."""
        body = zlib.decompress(body) if description["compressed"] else body
        return cls(description["status"], description["headers"], body, description["text"])

    def _check_limits(self) -> None:
        # Only a body near the limit is worth encoding to see how long it gets.
        if len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH and self._encoded_length() > _LAMBDA_LIMIT:
            raise NotStorable(f"the body of {len(self.body)} bytes is beyond what Lambda can return")
        if sum(len(name) + len(value) for name, values in self.headers.items() for value in values) > _HEADERS_LIMIT:
            raise NotStorable("the headers are beyond what API Gateway can return")

    def _encoded_length(self) -> int:
        if self.text:
            return len(_encode(json.dumps(_decode(self.body), ensure_ascii=False)))
        return -(-len(self.body) // 3) * 4


# A lone surrogate is text to Python and to JSON, but not to UTF-8: pass it through both ways.
def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decode(body: bytes) -> str:
    return body.decode(errors="surrogatepass")
