"""Problems, as RFC 9457 has them."""

import json
from typing import Any

import pytest

from idempotency.errors import Problem


@pytest.mark.parametrize(
    ("slug", "own", "status", "title"),
    [
        ("key-missing", {}, 400, "Idempotency-Key is missing"),
        ("key-missing", {"status": 429, "title": "Slow down"}, 429, "Slow down"),
        ("out-of-stock", {}, 500, "Out of stock"),
        ("out-of-stock", {"status": 409, "title": "Nothing is left"}, 409, "Nothing is left"),
    ],
)
def test_has_the_status_and_title_of_its_type_unless_it_brings_its_own(
    slug: str, own: dict[str, Any], status: int, title: str
) -> None:
    response = Problem(slug, "x", **own).response()
    body = json.loads(response.body or "")

    assert (response.status_code, body["status"], body["title"]) == (status, status, title)
