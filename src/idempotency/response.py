"""How an attempt ends, and the response as it is stored: exactly what a replay answers with."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple, Self

from aws_lambda_powertools.event_handler import Response

from idempotency.errors import NotStorable, Problem, Rejected, Retry, RowTaken, as_problem
from idempotency.policy import KEPT_HEADERS, Policy

# Lambda's limit for a synchronous response is 6 MB of JSON, which also holds status and headers.
_LAMBDA_LIMIT = 6 * 1024 * 1024 - 16 * 1024
# All headers of a REST API's response together.
_HEADERS_LIMIT = 10_240
# One byte of text is up to six in JSON (\u0000).
_JSON_GROWTH = 6
# Below this, compression costs more than it saves.
_COMPRESS_FROM = 512
# Bytes that the response of a failure has in the record while steps are undone.
_SHORT_LIMIT = 20_000
# Characters of an error that the record keeps.
_ERROR_LIMIT = 500


Serialize = Callable[[Any], str]
"""Turns a JSON body into text."""

Show = Callable[[Exception], Response[Any]]
"""Turns an exception into the response that clients see."""

plain_json: Serialize = partial(json.dumps, separators=(",", ":"))


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
    conflict: Rejected | None = None


class Completion(Response[Any]):
    """A route's response, together with the rows to be written with it.

    Args:
        status_code: the HTTP status code.
        body: text, bytes or, for ``application/json``, any JSON value.
        headers: response headers.
        rows: business rows, at most 99; a failure (4xx, 5xx) writes none.
        content_type: the media type of the body.

    Raises:
        TypeError: if what should be a row is something else.
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
        for row in self.rows:
            if not isinstance(row, Row):
                raise TypeError(f"rows are what Rows.row(…) returns, not {type(row).__name__}")


class StoredResponse(NamedTuple):
    """Status, kept headers and body.

    Args:
        status: the HTTP status code.
        headers: the kept headers, each with its values.
        body: the body's bytes; empty if there is none.
        text: whether the body goes out as text; otherwise the gateway decodes it from base64.
    """

    status: int
    headers: Mapping[str, Sequence[str]] = MappingProxyType({})
    body: bytes = b""
    text: bool = True

    @classmethod
    def of(
        cls, response: Response[Any], keep: frozenset[str] = KEPT_HEADERS, serialize: Serialize = plain_json
    ) -> Self:
        """Take from a route's response what is kept.

        Raises:
            NotStorable: if Lambda could not return it, or it is neither bytes nor text nor JSON.
        """
        body = response.body
        try:
            if isinstance(body, bytes) and response.is_json():
                body = body.decode()  # Powertools would encode it as JSON once more
            elif not isinstance(body, (str, bytes, NoneType)):
                body = _without_nan(serialize(body))
        except Exception as error:  # the application chooses the serializer, and what that raises
            raise NotStorable(f"the body is not JSON: {error}") from error
        headers = {
            name: [str(value) for value in (values if isinstance(values, (list, tuple)) else [values])]
            for name, values in response.headers.items()
            if name.lower() in keep
        }
        content = body if isinstance(body, bytes) else _encode(body or "")
        stored = cls(int(response.status_code), headers, content, text=not isinstance(body, bytes))
        stored._check_limits()
        return stored

    @classmethod
    def instead_of(cls, status: int, problem: NotStorable) -> Self:
        """Make the response for one that cannot be kept: with its status, if that says that it failed."""
        told = Problem("response-not-stored", f"The request was carried out, but {problem}.")
        if status >= 400:
            told = Problem("response-not-stored", f"The request failed, and {problem}.", status=status)
        return cls.of(told.response())

    def shortened(self) -> Self:
        """Make it fit into the record besides the results of steps."""
        _, body = self.pack()
        if len(body) <= _SHORT_LIMIT:
            return self
        return self.instead_of(self.status, NotStorable(f"its answer of {len(self.body)} bytes is too large"))

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + sum(len(name) + len(value) for name, values in self.headers.items() for value in values)

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
        if self.size - len(self.body) > _HEADERS_LIMIT:
            raise NotStorable("the headers are beyond what API Gateway can return")

    def _encoded_length(self) -> int:
        if self.text:
            return len(_encode(json.dumps(_decode(self.body), ensure_ascii=False)))
        return -(-len(self.body) // 3) * 4


class End(Enum):
    """The three ways in which an attempt can end by its own decision."""

    COMPLETE = "complete"
    """It succeeded: keep the response, and write the rows."""
    FAIL = "fail"
    """It failed for good: undo the steps, then keep the response."""
    RETRY = "retry"
    """It failed for now: release the key."""


class Verdict(NamedTuple):
    """How an attempt ends, decided once.

    Args:
        end: which way.
        response: what the client is answered with.
        rows: business rows to be written with a completion.
        error: why it failed, for the record; empty if only the response says so.
        cause: the exception that it failed with, if any.
        unkept: the route's response, whose cookies and further headers only the first client gets; None if there is
            none, or the route's response is not the one that was stored.
    """

    end: End
    response: StoredResponse
    rows: Sequence[Row] = ()
    error: str = ""
    cause: Exception | None = None
    unkept: Response[Any] | None = None

    @property
    def refusal(self) -> Exception | None:
        """The exception by which a step said that it was not done; None if it left that open.

        A 500 that the policy keeps says nothing of the step; and what cannot be kept was done.
        """
        final = self.response.status < 500 and not isinstance(self.cause, NotStorable)
        return self.cause if final else None

    @classmethod
    def unsettled(cls, error: Exception, verdict: "Verdict") -> Self:
        """The end of an attempt that could not be settled, whatever its response would have been."""
        problem = error if isinstance(error, Retry) else as_problem(RuntimeError())
        text = f"{_text(error)} ({verdict.error or f'HTTP {verdict.response.status}'})"
        return cls(End.RETRY, StoredResponse.of(problem.response()), error=text, cause=error)

    def undone(self, decided: StoredResponse) -> Self:
        """The end of an operation whose steps are undone: an earlier attempt may have decided on another response."""
        return self._replace(response=decided, rows=(), unkept=self.unkept if decided == self.response else None)

    @classmethod
    def of(cls, response: Response[Any], policy: Policy, serialize: Serialize = plain_json) -> Self:
        """Judge what a route returned.

        What cannot be kept has happened all the same: the operation ends with an answer that says so, and never runs
        again.
        """
        rows = response.rows if isinstance(response, Completion) else ()
        final, failed = policy.stores(response.status_code), response.status_code >= 400
        end = End.RETRY if not final else End.FAIL if failed else End.COMPLETE
        try:
            stored = StoredResponse.of(response, policy.keep_headers, serialize)
        except NotStorable as error:
            return cls(end, StoredResponse.instead_of(response.status_code, error), rows, str(error))
        return cls(end, stored, rows, unkept=response)

    @classmethod
    def of_error(cls, error: Exception, policy: Policy, show: Show, serialize: Serialize = plain_json) -> Self:
        """Judge what a route raised: the application's own exception handlers say what it comes to."""
        shown = (error.row.conflict or error) if isinstance(error, RowTaken) else error
        judged = cls.of(show(shown), policy, serialize)
        end = judged.end
        if isinstance(shown, (Rejected, NotStorable)):
            end = End.FAIL
        elif isinstance(shown, Retry):
            end = End.RETRY
        return judged._replace(end=end, rows=(), error=_text(shown), cause=error)


def _text(error: Exception) -> str:
    """What an error says, as far as a record can hold it."""
    text = f"{type(error).__name__}: {error}"[:_ERROR_LIMIT]
    return text.encode(errors="replace").decode()


def _without_nan(text: str) -> str:
    """Refuse what Python's JSON has, and nobody else's: NaN and infinities (RFC 8259, section 6)."""
    if "NaN" in text or "Infinity" in text:
        json.loads(text, parse_constant=_refuse)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


# A lone surrogate is text to Python and to JSON, but not to UTF-8: pass it through both ways.
def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decode(body: bytes) -> str:
    return body.decode(errors="surrogatepass")
