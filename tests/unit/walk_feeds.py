"""Tests of the endpoint in docs/adding-an-endpoint.md: `test_walk` runs them in a copy of the project that has it."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest

from idempotency import Operation
from tests.clocks import SetClock
from tests.unit.service import Api
from tools.local.client import Answer
from tools.setup import ROOT

PATH = "/v1/feeds"
NEWS = {"name": "News"}


@pytest.fixture
def feeds(service: Api) -> Any:
    """The module of the walk."""
    return import_module("provisioning.feeds")


@pytest.fixture
def page() -> Any:
    """The test of the walk."""
    return import_module("tests.unit.test_feeds")


def send(service: Api, body: Any = NEWS) -> Answer:
    return service.post(body, path=PATH)


def test_opens_a_feed_once(feeds: Any, page: Any, service: Api) -> None:
    topics, queues = page.topics(), page.queues()

    first, again = send(service), send(service)

    assert (first.status, again.body, again.replayed) == (201, first.body, True)
    assert set(page.topics()) - set(topics) == {first.json["topic"]}
    assert set(page.queues()) - set(queues) == {first.json["queue"]}
    assert [row["id"] for row in service.rows] == [f"feed#{first.json['id']}"]


@pytest.mark.parametrize("body", [{"name": ""}, {"name": "News", "size": 1}, {"title": "News"}])
def test_refuses_what_the_schema_does(feeds: Any, service: Api, body: Any) -> None:
    assert send(service, body).status == 400
    assert service.records == []


def test_fails_as_the_page_says_if_names_differ_between_attempts(
    page: Any, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Operation, "derived_id", lambda *_: str(uuid4()))

    with pytest.raises(AssertionError):
        page.test_creates_one_feed_whatever_crashes(service, clock)

    shown = capsys.readouterr().err.strip()
    title = shown.splitlines()[0]
    document = (ROOT / "docs" / "adding-an-endpoint.md").read_text()
    assert but_for_claims(shown) == but_for_claims(title + document.partition(f"```\n{title}")[2].partition("```")[0])


def but_for_claims(timeline: str) -> list[str]:
    """How many writes a claim takes is the store's business."""
    return [line for line in timeline.splitlines() if "  claim " not in line]
