"""The endpoint of docs/adding-an-endpoint.md: run by `test_walk`, in a copy of the project that has it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import boto3
import pytest

import recovery
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import Context
from tests.unit.service import Api
from tools.local.client import Answer

LEASE_SECONDS = 31


@pytest.fixture
def feeds(service: Api) -> Any:
    """The module of the walk, with clients of moto's."""
    module = import_module("provisioning.feeds")
    module._client.cache_clear()
    return module


def send(service: Api, body: Any = None, key: str = "feed") -> Answer:
    return service.post(body or {"title": "News"}, path="/v1/feeds", key=key)


def made(service: str) -> list[str]:
    """The names of the topics or queues that there are."""
    client: Any = boto3.Session().client(service)  # type: ignore[call-overload]
    found = client.list_topics()["Topics"] if service == "sns" else client.list_queues().get("QueueUrls", [])
    client.close()
    return sorted(str(thing).rstrip("'}").replace("/", ":").rpartition(":")[2] for thing in found)


def test_opens_a_feed_once(feeds: Any, service: Api) -> None:
    first, again = send(service), send(service)

    assert (first.status, again.body, again.replayed) == (201, first.body, True)
    assert made("sns") == made("sqs") == [first.json["id"]]
    assert [row["id"] for row in service.rows] == [f"feed#{first.json['id']}"]


@pytest.mark.parametrize("body", [{"title": ""}, {"title": "News", "size": 1}, {"name": "News"}])
def test_refuses_what_the_schema_does(feeds: Any, service: Api, body: Any) -> None:
    assert send(service, body).status == 400
    assert service.records == []


@pytest.mark.parametrize("retried", [True, False], ids=["retried", "recovered"])
def test_goes_on_from_the_first_step_after_a_crash(
    feeds: Any, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch, retried: bool
) -> None:
    # Given a crash between the two steps
    before, client = (made("sns"), made("sqs")), feeds._client

    def die_at_the_queue(name: str) -> Any:
        if name == "sqs":
            raise Killed
        return client(name)

    with monkeypatch.context() as patch:
        patch.setattr(feeds, "_client", die_at_the_queue)
        with pytest.raises(Killed):
            send(service, key=f"feed-{retried}")
    [topic] = set(made("sns")) - set(before[0])
    assert made("sqs") == before[1]

    # When the client retries, or recovery comes
    clock.advance(LEASE_SECONDS)
    if not retried:
        assert recovery.handler({}, Context()) == {"taken_up": 1, "completed": 1}
    answer = send(service, key=f"feed-{retried}")

    # Then there is one of each
    assert (answer.status, answer.json["id"], answer.replayed) == (201, topic, not retried)
    assert set(made("sns")) - set(before[0]) == set(made("sqs")) - set(before[1]) == {topic}
