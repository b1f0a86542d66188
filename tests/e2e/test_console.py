"""The local console at the deployed stack: duplicates, a crash and the way out of it can be seen by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.campaigns import Campaign
from tests.e2e.wire import exchange
from tools.local import console
from tools.local.client import Client
from tools.local.stack import Stack

PROBE = "/v1/probe"
SECONDS = 6


class Page:
    """The console as its page uses it.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def ask(self, where: str, /, **sent: Any) -> Any:
        origin = [("Origin", self._url), ("Content-Type", "application/json")]
        return exchange(f"{self._url}{where}", "POST", origin, json.dumps(sent).encode()).json

    def post(self, key: str) -> dict[str, Any]:
        body = json.dumps({"attempts": ["answer"], "seconds": SECONDS})
        answer: dict[str, Any] = self.ask("/send", method="POST", path=PROBE, key=key, body=body, prefer="")
        return answer

    def record(self, key: str) -> dict[str, Any]:
        """What is shown of a key's record."""
        shown = exchange(f"{self._url}/records", "GET", [], b"").json["records"]
        return next((record for record in shown if record["key"] == key), {"status": "", "events": []})

    def wait_for(self, key: str, status: str) -> dict[str, Any]:
        deadline = time.monotonic() + 40
        while (record := self.record(key))["status"] != status and time.monotonic() < deadline:
            time.sleep(0.1)
        return record


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    with console.serving(lambda: stack) as url:
        yield Page(url)


@pytest.mark.slow
def test_shows_a_duplicate_a_crash_and_how_the_key_gets_its_answer(page: Page) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(1) as pool:
        # Given an operation that takes its time
        first = pool.submit(page.post, key)
        assert page.wait_for(key, "PROCESSING")["attempt"] == 1

        # When the same request is sent again, and then the workers are killed
        assert page.post(key)["status"] == 409
        page.ask("/kill")
        assert first.result()["status"] == 502

    # Then somebody finishes it, and the page has the whole story
    record = page.wait_for(key, "PROCESSING")
    time.sleep(max(0.0, record["lease_until"] / 1000 - time.time()) + 0.2)
    assert page.post(key)["status"] == 201
    shown = page.wait_for(key, "COMPLETED")
    told = [event["what"] for event in shown["events"]]
    assert shown["what"].startswith("POST /v1/")
    assert told[0] == "attempt 1 begins"
    assert "attempt 2 begins" in told
    assert told[-1] == "completed: 201"


# example campaigns
def test_slows_down_what_campaigns_need(page: Page, alice: Client) -> None:
    campaign = Campaign()

    assert "8 s" in page.ask("/slow", on=True)
    assert campaign.post(alice).status == 503
    assert "fast again" in page.ask("/slow", on=False)
    assert campaign.post_until_done(alice).status == 201


# end of example
