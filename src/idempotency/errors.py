"""The errors that cross modules: what clients see as problem details (RFC 9457), and what ends an attempt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import ServiceError
from aws_lambda_powertools.shared.json_encoder import Encoder

if TYPE_CHECKING:
    from idempotency.record import Record
    from idempotency.response import Row

PROBLEMS: dict[str, tuple[HTTPStatus, str]] = {
    "key-missing": (HTTPStatus.BAD_REQUEST, "Idempotency-Key is missing"),
    "key-invalid": (HTTPStatus.BAD_REQUEST, "Idempotency-Key is not valid"),
    "body-invalid": (HTTPStatus.BAD_REQUEST, "The request body is not valid"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request body is too large"),
    "unsupported-media-type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request body is not JSON"),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "No principal is authenticated"),
    "in-progress": (HTTPStatus.CONFLICT, "A request with this Idempotency-Key is being processed"),
    "key-reused": (HTTPStatus.UNPROCESSABLE_ENTITY, "This Idempotency-Key was used with another request"),
    "unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The request cannot be completed now"),
    "internal-error": (HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed unexpectedly"),
    "response-not-stored": (HTTPStatus.INTERNAL_SERVER_ERROR, "The outcome of the request cannot be stored"),
}
"""Every problem of this package by the last part of its ``type``: a heading of the published specification."""

RETRYABLE_4XX = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Client errors that say "not yet" instead of "no" (RFC 9110, section 15.5.9; RFC 8470; RFC 6585)."""

_SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"
# Characters of a refusal, as JSON, that the record keeps; and of each of its texts if they are more.
_REFUSAL_LIMIT = 16_000
_TEXT_LIMIT = 400


class Problem(Exception):
    """A problem to answer with. Business logic raises `Rejected` or `Retry` instead.

    Args:
        slug: the last part of ``type``; one of `PROBLEMS`, unless status and title are given.
        detail: what happened this time, for a person to read.
        status: the HTTP status code.
        title: what is true of every problem of this type.
        retry_after: seconds after which a retry may succeed.
        extensions: further members of the problem object.
    """

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        retry_after: int | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail)
        readable = slug.replace("-", " ").capitalize()
        known_status, known_title = PROBLEMS.get(slug, (HTTPStatus.INTERNAL_SERVER_ERROR, readable))
        self.slug = slug
        self.detail = detail
        self.status = int(status or known_status)
        self.title = title or known_title
        self.retry_after = retry_after
        self.extensions = extensions

    def response(self) -> Response[str]:
        """Render the problem as ``application/problem+json``."""
        headers: Mapping[str, str] = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        body = {
            "type": f"{os.environ.get('SPECIFICATION_URL', '')}#{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }
        return Response(self.status, "application/problem+json", _as_json(body), headers)


class Rejected(Problem):
    """Raised by business logic to refuse an operation for good: undone, stored, and replayed like a success.

    Args:
        slug: the last part of ``type``: a heading of the published specification, such as ``server-terminated``.
        detail: what happened this time, for a person to read.
        status: the HTTP status code, 4xx.
        title: what is true of every problem of this type; by default, made from the slug.
        extensions: further members of the problem object.

    Raises:
        ValueError: if the status is not a final refusal: a 5xx, or a 4xx that asks for a retry (408, 425, 429); or the
            slug is none.
    """

    def __init__(self, slug: str, detail: str, *, status: int, title: str | None = None, **extensions: Any) -> None:
        if not 400 <= status < 500 or status in RETRYABLE_4XX:
            raise ValueError(f"{status} is not the status of a final refusal; raise Retry for what may succeed later")
        if not re.fullmatch(_SLUG, slug):
            raise ValueError(f"{slug!r} is no slug: write it in lower case, with hyphens between words")
        super().__init__(slug, detail, status=status, title=title, **extensions)

    def pack(self) -> str:
        """Write down what a later attempt needs to raise it again, as JSON."""
        texts = {"slug": self.slug, "detail": self.detail, "title": self.title}
        others = {"status": self.status, "retry_after": self.retry_after}
        packed = _as_json({**self.extensions, **texts, **others})
        if len(packed) <= _REFUSAL_LIMIT:
            return packed
        return _as_json({**{name: text[:_TEXT_LIMIT] for name, text in texts.items()}, **others})

    @classmethod
    def unpack(cls, packed: str) -> Self:
        """Read what `pack` wrote, perhaps in a version that was less strict."""
        refusal = cls.__new__(cls)
        Problem.__init__(refusal, **json.loads(packed))
        return refusal


class Retry(Problem):
    """Raised by business logic that cannot succeed now: the key is released, and a retry carries on (503).

    Args:
        detail: what happened, for a person to read.
        retry_after: seconds after which a retry may succeed.
    """

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__("unavailable", detail, retry_after=retry_after)


class Unavailable(Retry):
    """DynamoDB cannot be reached, or refuses for now."""


class UndoFailed(Retry):
    """The undo of a step raised what nobody expected; the message says which."""


class OutOfTime(Retry):
    """Too little of the attempt's time is left for the next step."""


class Waiting(Retry):
    """What an operation waits for has not come yet.

    Args:
        detail: what it is.
        pause: seconds until the next look.
    """

    def __init__(self, detail: str, pause: int) -> None:
        super().__init__(detail, pause)
        self.pause = pause


class WaitOver(Retry):
    """What an operation waits for has not come in time: that is for an operator to see."""


class StepError(Exception):
    """A step is declared wrongly: a mistake in the code, not in the request."""


class NotStorable(Exception):
    """A step's result or the response cannot be kept: too large, or not JSON. No attempt can do better: it is final."""


class RowTaken(Exception):
    """A row's id belongs to another operation."""

    def __init__(self, row: Row) -> None:
        super().__init__(f"the row {row.item['id']} belongs to another operation")
        self.row = row


class Fenced(BaseException):
    """Another attempt took the operation over while this one was running: this one must stop.

    Not an Exception, so that business logic that catches everything does not go on by mistake.

    Args:
        record: the record as it is now; None if it is gone.
    """

    def __init__(self, record: Record | None) -> None:
        super().__init__(
            "This attempt lost its lease, and another attempt has taken the operation over. Nothing that this one "
            "does from here on is kept. Do not catch this: let it pass through."
        )
        self.record = record


class Undoing(BaseException):
    """The operation has failed for good, and this step was never done: stop here, so that the others are undone.

    Not an Exception, so that business logic that catches everything does not go on by mistake.
    """

    def __init__(self, step: str) -> None:
        super().__init__(
            f"An earlier attempt of this operation failed for good, and this one undoes its steps. Step {step!r} was "
            "never done, so the code need not go any further. Do not catch this: let it pass through."
        )


def as_problem(error: Exception) -> Problem:
    """Tell a client about any error: of an unexpected one, only that it happened."""
    match error:
        case Problem():
            return error
        case ServiceError():
            pause = 1 if error.status_code >= 500 else None
            return Problem(_slug(error.status_code), str(error.msg), status=error.status_code, retry_after=pause)
        case NotStorable():
            return Problem("response-not-stored", f"The outcome cannot be stored: {error}.")
    return Problem("internal-error", "The request can be sent again with the same Idempotency-Key.", retry_after=1)


def _as_json(members: Mapping[str, Any]) -> str:
    """Write members as JSON, as Powertools does; without those that cannot be written."""
    written = {name: text for name, value in members.items() if (text := _written(value)) is not None}
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in written.items()) + "}"


def _written(value: Any) -> str | None:
    try:
        return json.dumps(value, separators=(",", ":"), cls=Encoder, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _slug(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "-")
    except ValueError:  # Powertools lets an application choose any number
        return f"status-{status}"
