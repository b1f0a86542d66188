"""Problems, as RFC 9457 has them."""

import json

import pytest

from idempotency.problems import Problem


@pytest.mark.parametrize(
    ("problem", "status", "title"),
    [
        (Problem("in-progress", "x"), 409, "A request with this Idempotency-Key is being processed"),
        (Problem("in-progress", "x", status=429, title="Slow down"), 429, "Slow down"),
        (Problem("out-of-stock", "x"), 500, "Out of stock"),
        (Problem("out-of-stock", "x", status=409, title="Nothing is left"), 409, "Nothing is left"),
    ],
)
def test_has_the_status_and_title_of_its_type_unless_it_brings_its_own(
    problem: Problem, status: int, title: str
) -> None:
    response = problem.response()
    body = json.loads(response.body or "")

    assert (response.status_code, body["status"], body["title"]) == (status, status, title)
