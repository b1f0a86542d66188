# example campaigns
"""A hundred campaigns, eight at a time, while a random worker is killed every two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from random import Random

import pytest

from proof.chaos.casualties import kill_one
from tests.e2e.campaigns import Campaign, Services
from tests.e2e.faults import Faults
from tools.errors import ToolError
from tools.local.client import Client
from tools.local.myfunnel import Fault
from tools.local.stack import Stack
from tools.ops.recovery import recover
from tools.ops.unfinished import unfinished

pytestmark = pytest.mark.slow

CAMPAIGNS = 100
AT_ONCE = 8
SECONDS_BETWEEN_KILLS = 2
SEED = 20260101


class Killer:
    """Kills random workers that have begun an operation."""

    def __init__(self, stack: Stack, faults: Faults) -> None:
        self._stack = stack
        self._faults = faults
        self._random = Random(SEED)
        self._stopped = threading.Event()
        self.kills = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill one every two seconds."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_KILLS):
            self.kills += kill_one(self._stack, self._faults, self._random)


@pytest.fixture
def services(stack: Stack) -> Iterator[Services]:
    """Services; MyFunnelAPI is so slow that kills hit both before its effect and between the effect and the answer."""
    services = Services(stack)
    services.myfunnel.expect(Fault(times=None, delay=0.8, linger=0.8))
    yield services
    services.myfunnel.behave()


def test_workers_die_and_every_campaign_exists_once(
    stack: Stack, faults: Faults, alice: Client, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a killer
    killer = Killer(stack, faults)
    campaigns = [Campaign() for _ in range(CAMPAIGNS)]

    # When half of the clients retry, and the others never come back once the operation has begun
    with capsys.disabled(), killer.at_work(), ThreadPoolExecutor(AT_ONCE) as pool:
        print()
        clients = [_persistent, _vanishing] * (CAMPAIGNS // 2)
        sent = [pool.submit(send, campaign, alice, services) for send, campaign in zip(clients, campaigns, strict=True)]
        for done, future in enumerate(as_completed(sent), start=1):
            future.result()
            if done % 10 == 0:
                print(f"    {done} of {CAMPAIGNS} campaigns sent, {killer.kills} workers killed", flush=True)
    # If kills went on for every attempt of the last campaign, recovery would only park it in the end.
    with capsys.disabled():
        _recover_until_done(stack, services, campaigns)
        print(f"    {CAMPAIGNS} campaigns done, {killer.kills} workers killed", flush=True)

    # Then each exists once, nothing is stuck, and every client that comes back gets the answer of its campaign
    assert killer.kills >= 5
    funnels = services.myfunnel.funnels()
    for campaign in campaigns:
        answer = campaign.post(alice)
        assert (answer.status, answer.replayed) == (201, True), campaign
        assert answer.json["domain"] == campaign.domain, campaign
        assert services.effects(campaign) == {"funnels": 1, "dns records": 1, "campaigns": 1}, campaign
        assert [funnel.id for funnel in funnels if funnel.domain == campaign.domain] == [answer.json["funnel_id"]]
    ids = {campaign.record_id for campaign in campaigns}
    assert [record for record in unfinished(services.store) if record.id in ids] == []


def _persistent(campaign: Campaign, client: Client, services: Services) -> None:
    assert campaign.post_until_done(client, within=600).status == 201


def _vanishing(campaign: Campaign, client: Client, services: Services) -> None:
    while services.record(campaign) is None:
        campaign.post(client)


def _recover_until_done(stack: Stack, services: Services, campaigns: list[Campaign]) -> None:
    deadline = time.monotonic() + 300
    function = stack.client("lambda")
    while left := [campaign for campaign in campaigns if not _completed(campaign, services)]:
        assert time.monotonic() < deadline, left
        with suppress(ToolError):  # it was killed
            recover(function, stack.recovery_function_name)
        print(f"    left to recovery: {len(left)}", flush=True)
        time.sleep(1)


def _completed(campaign: Campaign, services: Services) -> bool:
    record = services.record(campaign)
    return record is not None and record.completed
