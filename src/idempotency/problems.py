"""Errors that clients see, as problem details (RFC 9457)."""

import json
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import ServiceError

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
    "response-not-stored": (HTTPStatus.INTERNAL_SERVER_ERROR, "The request completed, its response is lost"),
}
"""Every problem of this package by the last part of its ``type``: a heading of the published specification."""


class Problem(Exception):
    """A problem to answer with; what an operation raises for good (4xx) is stored and replayed like a success.

    Args:
        slug: the last part of ``type``; one of `PROBLEMS`, unless status and title are given.
        detail: what happened this time, for a person to read.
        status: the HTTP status code.
        title: what always holds of this type of problem.
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
        return Response(self.status, "application/problem+json", json.dumps(body, separators=(",", ":")), headers)


class Retryable(Problem):
    """What an operation raises when it failed for now: the key is released, and a retry resumes it.

    Args:
        detail: what happened, for a person to read.
        retry_after: seconds after which a retry may succeed.
    """

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__("unavailable", detail, retry_after=retry_after)


def as_problem(error: Exception) -> Problem:
    """What a client is told of any error: of an unexpected one, only that it happened."""
    match error:
        case Problem():
            return error
        case ServiceError():
            slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            return Problem(slug, str(error.msg), status=error.status_code)
    return Problem("internal-error", "The request can be sent again with the same Idempotency-Key.")
