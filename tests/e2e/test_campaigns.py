# example campaigns
"""Campaigns on the deployed stack while MyFunnelAPI or DynamoDB misbehaves: each ends as it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.campaigns import Campaign, Services
from tests.e2e.faults import Faults, Rule
from tools.local.client import Client
from tools.local.myfunnel import Fault
from tools.local.stack import Stack
from tools.ops.unfinished import unfinished

ONE_OF_EACH = {"funnels": 1, "dns records": 1, "campaigns": 1}
NOTHING = {"funnels": 0, "dns records": 0, "campaigns": 0}
GOES_ON_WITHIN_SECONDS = 30


@pytest.fixture(scope="module")
def services(stack: Stack) -> Services:
    """The services of the stack."""
    return Services(stack)


@pytest.fixture
def campaign(services: Services) -> Iterator[Campaign]:
    """A campaign."""
    yield Campaign()
    services.myfunnel.behave()


def fails(campaign: Campaign, services: Services, **fault: object) -> None:
    """Make MyFunnelAPI do something wrong with the campaign."""
    services.myfunnel.expect(Fault(domain=campaign.domain, **fault))  # type: ignore[arg-type]


def test_is_launched_and_shown_to_its_principal(
    campaign: Campaign, services: Services, alice: Client, bob: Client
) -> None:
    answer = campaign.post(alice)

    assert answer.status == 201
    assert services.effects(campaign) == ONE_OF_EACH
    path = answer.headers["location"][0].partition("/v1/")[2]
    assert alice.get(f"/v1/{path}").json == answer.json
    assert bob.get(f"/v1/{path}").status == 404


def test_for_a_domain_that_is_taken_does_nothing(
    campaign: Campaign, services: Services, alice: Client, bob: Client
) -> None:
    campaign.post(alice)

    answers = [bob.post("/v1/campaigns", {"name": "Mine", "domain": campaign.domain}, campaign.key) for _ in range(2)]

    assert [answer.status for answer in answers] == [409, 409]
    assert answers[0].json["type"].endswith("#domain-taken")
    assert (answers[0].replayed, answers[1].replayed) == (False, True)
    assert answers[0].body == answers[1].body
    assert len(services.myfunnel.calls(campaign.domain)) == 1


def test_ends_as_it_should_if_myfunnel_acts_and_drops_the_connection(
    campaign: Campaign, services: Services, alice: Client
) -> None:
    fails(campaign, services, drop=True, times=2)  # the function calls again at once

    assert campaign.post(alice).status == 503
    assert campaign.post_until_done(alice).status == 201

    assert services.effects(campaign) == ONE_OF_EACH


def test_ends_as_it_should_if_myfunnel_answers_500_five_times(
    campaign: Campaign, services: Services, alice: Client
) -> None:
    fails(campaign, services, times=5, act=False, status=500, retry_after=1)

    assert campaign.post_until_done(alice).status == 201

    calls = services.myfunnel.calls(campaign.domain)
    assert [call.status for call in calls] == [500] * 5 + [201]
    # The client and recovery each keep the pause that MyFunnelAPI asked for.
    assert all(later.at - earlier.at >= 1 for earlier, later in zip(calls, calls[2:], strict=False))
    assert services.effects(campaign) == ONE_OF_EACH


@pytest.mark.slow
def test_ends_as_it_should_if_myfunnel_hangs(campaign: Campaign, services: Services, alice: Client) -> None:
    fails(campaign, services, linger=20)
    started = time.monotonic()

    assert campaign.post(alice).status == 503
    assert time.monotonic() - started < 10  # the function was not cut off
    assert campaign.post_until_done(alice).status == 201

    assert services.effects(campaign) == ONE_OF_EACH


def test_ends_as_it_should_if_myfunnel_rejects_for_good(campaign: Campaign, services: Services, alice: Client) -> None:
    fails(campaign, services, times=None, act=False, status=422)

    answers = [campaign.post(alice) for _ in range(3)]

    assert [answer.status for answer in answers] == [422] * 3
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].json["type"].endswith("#funnel-rejected")
    assert len(services.myfunnel.calls(campaign.domain)) == 1
    assert services.effects(campaign) == NOTHING


@pytest.mark.parametrize(
    ("call", "number"),
    [("dynamodb.PutItem", 1), ("dynamodb.UpdateItem", 1), ("dynamodb.UpdateItem", 2)],
    ids=["claim", "first checkpoint", "second checkpoint"],
)
def test_ends_as_it_should_if_dynamodb_loses_an_answer(
    call: str, number: int, campaign: Campaign, faults: Faults, services: Services, alice: Client
) -> None:
    faults.expect(campaign.record_id, [Rule(call, number, "after", "lose")])

    answer = campaign.post(alice)

    assert (answer.status, answer.replayed) == (201, False)
    assert faults.met(campaign.record_id) == [call]
    assert len(services.myfunnel.calls(campaign.domain)) == 1
    assert services.effects(campaign) == ONE_OF_EACH


@pytest.mark.parametrize("number", [1, 2], ids=["reservation", "completion"])
@pytest.mark.parametrize(("when", "do"), [("after", "lose"), ("before", "refuse")])
def test_ends_as_it_should_if_a_transaction_is_not_acknowledged_or_refused(
    number: int,
    when: str,
    do: str,
    campaign: Campaign,
    faults: Faults,
    services: Services,
    alice: Client,
) -> None:
    rule = Rule("dynamodb.TransactWriteItems", number, when, do)  # type: ignore[arg-type]
    faults.expect(campaign.record_id, [rule])

    assert campaign.post(alice).status == 201

    assert faults.met(campaign.record_id) == ["dynamodb.TransactWriteItems"]
    assert services.effects(campaign) == ONE_OF_EACH


def test_that_is_slow_refuses_duplicates_meanwhile(
    campaign: Campaign, faults: Faults, services: Services, alice: Client
) -> None:
    faults.expect(campaign.record_id, [Rule("route-53.*", when="before", do="delay", seconds=5)])

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(campaign.post, alice)
        while services.record(campaign) is None:
            time.sleep(0.01)
        duplicate = campaign.post(alice)

    assert (duplicate.status, duplicate.json["type"].partition("#")[2]) == (409, "in-progress")
    assert int(duplicate.headers["retry-after"][0]) >= 1
    assert campaign.post(alice).body == first.result().body
    assert services.effects(campaign) == ONE_OF_EACH


def test_that_fails_for_now_is_listed_and_goes_on_without_its_client(
    campaign: Campaign, services: Services, alice: Client
) -> None:
    fails(campaign, services, act=False, status=503, retry_after=4)
    assert campaign.post(alice).status == 503

    [record] = [record for record in unfinished(services.store) if record.id == campaign.record_id]
    assert (record.attempt, record.last_error) == (1, "Retry: MyFunnelAPI answered 503.")
    wait_until(lambda: completed(campaign, services))

    assert services.effects(campaign) == ONE_OF_EACH
    assert campaign.post(alice).replayed


def test_is_launched_without_holding_the_connection(
    campaign: Campaign, services: Services, alice: Client, bob: Client
) -> None:
    # Given a client that asks not to wait
    accepted = campaign.post(alice, prefer="respond-async")
    assert (accepted.status, accepted.headers["preference-applied"]) == (202, ["respond-async"])
    status = f"/v1{accepted.headers['location'][0].partition('/v1')[2]}"

    # When it looks at the status until it has ended
    wait_until(lambda: alice.get(status).json["state"] == "succeeded")

    # Then there is one of everything, the same request gets the answer, and nobody else sees the status
    answer = campaign.post(alice)
    assert (answer.status, answer.replayed) == (201, True)
    assert alice.get(status).json["response"] == {"status": 201, "location": answer.headers["location"][0]}
    assert services.effects(campaign) == ONE_OF_EACH
    assert bob.get(status).status == 404


def completed(campaign: Campaign, services: Services) -> bool:
    record = services.record(campaign)
    return record is not None and record.completed


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GOES_ON_WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
