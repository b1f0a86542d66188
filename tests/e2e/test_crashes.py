# example campaigns
"""kill -9 of the worker between two steps of a campaign: whoever comes next goes on from there."""

from __future__ import annotations

import time

from tests.e2e.campaigns import Campaign, Services
from tests.e2e.faults import Faults, Rule
from tests.e2e.test_campaigns import NOTHING, ONE_OF_EACH
from tools.local.client import Client
from tools.local.stack import Stack
from tools.ops.recovery import recover

RECOVERED_WITHIN_SECONDS = 60


def test_killed_between_two_steps_a_campaign_is_finished_by_its_client_or_by_recovery(
    stack: Stack, faults: Faults, alice: Client
) -> None:
    # Given two campaigns whose workers are killed when the landing page is there, but not the DNS record
    services = Services(stack)
    retried, abandoned = campaigns = [Campaign(), Campaign()]
    for campaign in campaigns:
        faults.expect(campaign.record_id, [Rule("route-53.*", when="before", do="kill")])
        assert campaign.post(alice).status >= 500
        assert services.effects(campaign) == {**NOTHING, "funnels": 1}

    # When the client of one retries, and that of the other never comes back
    assert retried.post_until_done(alice).status == 201
    deadline = time.monotonic() + RECOVERED_WITHIN_SECONDS
    while not ((record := services.record(abandoned)) and record.completed):
        assert time.monotonic() < deadline, record
        recover(stack.client("lambda"), stack.recovery_function_name)
        time.sleep(0.5)

    # Then each has one of everything, without a second call to MyFunnelAPI, and an answer that stays the same
    for campaign in campaigns:
        assert services.effects(campaign) == ONE_OF_EACH
        assert len(services.myfunnel.calls(campaign.domain)) == 1
        answers = [campaign.post(alice) for _ in range(2)]
        assert [(answer.status, answer.replayed) for answer in answers] == [(201, True)] * 2
        assert answers[0].body == answers[1].body
