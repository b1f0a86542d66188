"""The local console: what it offers, what it says of a record, and whom it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.e2e.wire import exchange
from tools.local import console
from tools.local.console import Timelines


def nowhere() -> Any:
    """No stack is up."""
    raise AssertionError


@pytest.fixture
def url() -> Iterator[str]:
    with console.serving(nowhere) as found:
        yield found.rstrip("/")


def test_the_page_needs_nothing_from_elsewhere(url: str) -> None:
    page = exchange(f"{url}/", "GET", [], b"")

    assert page.headers["content-type"] == ["text/html; charset=utf-8"]
    assert b"Provision Once" in page.body
    assert b"://" not in page.body


def test_every_operation_of_the_document_is_offered_with_an_example(url: str) -> None:
    offered = {(it["method"], it["path"]): it for it in exchange(f"{url}/operations", "GET", [], b"").json}

    assert json.loads(offered["POST", "/v1/servers/provision"]["body"]) == {"region": "eu-west", "size": "large"}
    assert offered["GET", "/v1/servers/{id}"]["body"] == ""


@pytest.mark.parametrize("path", ["/kill", "/send"])
@pytest.mark.parametrize("origin", [[], [("Origin", "https://elsewhere.example")], [("Origin", "null")]], ids=str)
def test_another_site_cannot_use_it(url: str, path: str, origin: list[tuple[str, str]]) -> None:
    assert exchange(f"{url}{path}", "POST", origin, b"{}").status == 403


class TestTimeline:
    RECORD: ClassVar[dict[str, Any]] = {"id": "r", "status": "PROCESSING", "attempt": 1}

    def said(self, *states: dict[str, Any]) -> list[str]:
        """What is said of a record that goes through these states."""
        timelines = Timelines()
        events = [timelines.look(state) for state in states][-1]
        return [event["what"] for event in events]

    def test_has_attempts_steps_and_the_end(self) -> None:
        said = self.said(
            self.RECORD,
            {**self.RECORD, "steps": {"page": "1"}},
            {**self.RECORD, "steps": {"page": "1"}},
            {**self.RECORD, "steps": {"page": "1"}, "status": "RELEASED", "last_error": "busy"},
            {**self.RECORD, "steps": {"page": "1"}, "attempt": 2},
            {**self.RECORD, "attempt": 2, "status": "COMPLETED", "response": {"status": 201}},
        )

        assert said == [
            "attempt 1 begins",
            "step “page” is done",
            "released: busy",
            "attempt 2 begins",
            "completed: 201",
        ]

    def test_has_refusals_and_the_decision_to_undo(self) -> None:
        said = self.said(self.RECORD, {**self.RECORD, "refused": {"dns": "{}"}, "failure": {"status": 422}})

        assert said == ["attempt 1 begins", "step “dns” is refused", "it has failed for good; what was done is undone"]
