"""Problems, as RFC 9457 has them."""

import json
from typing import Any

import pytest

from idempotency.errors import _REFUSAL_LIMIT, Problem, Rejected


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


@pytest.mark.parametrize("status", [200, 399, 408, 425, 429, 500, 503])
def test_a_refusal_has_no_status_that_leaves_it_open(status: int) -> None:
    with pytest.raises(ValueError, match=rf"^{status} is not the status of a final refusal; raise Retry "):
        Rejected("out-of-stock", "x", status=status)


@pytest.mark.parametrize("status", [400, 409, 424, 499])
def test_a_refusal_has_any_other_status_of_a_client_error(status: int) -> None:
    assert Rejected("out-of-stock", "x", status=status).status == status


@pytest.mark.parametrize(
    "slug", ["", "Out of stock", "out_of_stock", "Out-of-stock", "out-of-", "-stock", "out--stock", "é"]
)
def test_a_refusal_has_a_slug(slug: str) -> None:
    with pytest.raises(ValueError, match=r"is no slug: write it in lower case, with hyphens between words$"):
        Rejected(slug, "x", status=409)


@pytest.mark.parametrize(("more", "whole"), [(0, True), (1, False)])
def test_a_refusal_is_kept_whole_up_to_a_limit(more: int, whole: bool) -> None:
    without = len(Rejected("no", "No.", status=409, note="").pack())

    refusal = Rejected("no", "No.", status=409, note="x" * (_REFUSAL_LIMIT - without + more))

    kept = Rejected.unpack(refusal.pack())
    assert (kept.detail, "note" in kept.extensions) == ("No.", whole)
