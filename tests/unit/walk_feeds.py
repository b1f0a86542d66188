"""Tests of the endpoint in docs/adding-an-endpoint.md: `test_walk` runs them in a copy of the project that has it."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest

import api
from idempotency import Operation, Rejected
from idempotency.testing import crash_everywhere
from tests.clocks import SetClock
from tests.events import Context
from tests.unit.service import Api, request
from tools.local.client import Answer
from tools.setup import ROOT

PATH = "/v1/feeds"
NEWS = {"title": "News"}


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
    assert set(page.topics()) - set(topics) == {first.json["topic_arn"]}
    assert set(page.queues()) - set(queues) == {first.json["queue_url"]}
    assert [row["id"] for row in service.rows] == [f"feed#{first.json['id']}"]


@pytest.mark.parametrize("body", [{"title": ""}, {"title": "News", "size": 1}, {"name": "News"}])
def test_refuses_what_the_schema_does(feeds: Any, service: Api, body: Any) -> None:
    assert send(service, body).status == 400
    assert service.records == []


def test_leaves_no_topic_if_the_queue_is_refused_whatever_crashes(
    feeds: Any, page: Any, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, topics = feeds._client, page.topics()

    def reject_queues(name: str) -> Any:
        if name == "sqs":
            raise Rejected("feed-rejected", "No queue.", status=422)
        return client(name)

    monkeypatch.setattr(feeds, "_client", reject_queues)
    for story in crash_everywhere(
        post=lambda: api.handler(request(NEWS, path=PATH), Context()),
        recover=service.recover,
        client=api.dynamodb,
        begin=service.empty,
        clock=clock,
    ):
        assert story.status == 422
        assert page.topics() == topics


def test_fails_as_the_page_says_if_names_differ_between_attempts(
    page: Any, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Operation, "derived_id", lambda *_: str(uuid4()))

    with pytest.raises(AssertionError):
        page.test_opens_one_feed_whatever_crashes(service, clock)

    shown = capsys.readouterr().err.strip()
    title = shown.splitlines()[0]
    document = (ROOT / "docs" / "adding-an-endpoint.md").read_text()
    assert but_for_claims(shown) == but_for_claims(title + document.partition(f"```\n{title}")[2].partition("```")[0])


def but_for_claims(timeline: str) -> list[str]:
    """How many writes a claim takes is the store's business."""
    return [line for line in timeline.splitlines() if "  claim " not in line]
