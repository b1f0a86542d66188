# example campaigns
"""kill -9 of the worker at every boundary of a campaign: before, during and after each of its calls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.e2e.campaigns import PATH, Campaign, Services
from tests.e2e.faults import Faults, Rule, Side
from tools.local.client import Answer, Client
from tools.local.processes import kill_workers
from tools.local.stack import Stack
from tools.ops.recovery import recover

pytestmark = pytest.mark.slow

SIDES: tuple[Side, ...] = ("before", "during", "after")
AT_ONCE = 8
ONE_OF_EACH = {"funnels": 1, "dns records": 1, "campaigns": 1}
NOTHING = {"funnels": 0, "dns records": 0, "campaigns": 0}
# A worker makes this call once and remembers the answer, so that only its first campaign has it.
SECRET = "secrets-manager.GetSecretValue"


@dataclass(frozen=True)
class Case:
    """A kill at one boundary.

    Args:
        call: the call.
        number: which of the calls with this name, from 1.
        when: the side of the call: before, during or after.
    """

    call: str
    number: int
    when: Side
    campaign: Campaign = field(default_factory=Campaign)

    def kill(self, function: str = "") -> Rule:
        """The rule that kills a worker, of any function or of this one."""
        return Rule(self.call, self.number, self.when, "kill", function=function)

    def __str__(self) -> str:
        return f"{self.when} {self.call} #{self.number}"


@pytest.fixture(scope="module")
def services(stack: Stack) -> Services:
    return Services(stack)


@pytest.fixture
def cases(stack: Stack, faults: Faults, alice: Client) -> list[Case]:
    """A case for each side of each call that an undisturbed campaign makes in a new worker."""
    _renew_workers(stack, alice)
    undisturbed = Campaign()
    assert undisturbed.post(alice).status == 201
    calls = faults.calls(undisturbed.record_id)
    assert Counter(calls) == {
        "dynamodb.PutItem": 1,  # the claim
        "dynamodb.UpdateItem": 2,  # the checkpoints of two steps
        SECRET: 1,
        "myfunnel.POST": 1,
        "route-53.ChangeResourceRecordSets": 1,
        "dynamodb.TransactWriteItems": 2,  # the reservation of the domain, and the completion
    }
    return list(_each_side(calls))


def test_killed_anywhere_and_retried_a_campaign_exists_once(
    cases: list[Case], faults: Faults, stack: Stack, services: Services, alice: Client
) -> None:
    # Given a kill at one boundary for each campaign
    for case in cases:
        faults.expect(case.campaign.record_id, [case.kill()])
    _send_once(cases, stack, alice)

    # When their clients retry until they have an answer
    answers = _at_once(lambda case: case.campaign.post_until_done(alice), cases)

    # Then each campaign has one of everything, and an answer that stays the same
    for case, answer in zip(cases, answers, strict=True):
        assert faults.met(case.campaign.record_id) == [case.call], case
        assert answer.status == 201, (case, answer)
        _assert_one(case, answer, services, alice)


def test_killed_anywhere_and_never_retried_a_campaign_exists_once(
    cases: list[Case], faults: Faults, stack: Stack, services: Services, alice: Client
) -> None:
    # Given a kill at one boundary for each campaign, and one more if recovery gets there
    for case in cases:
        functions = (stack.function_name, stack.worker_function_name)
        faults.expect(case.campaign.record_id, [case.kill(function) for function in functions])

    # When their clients send them once, and never come back
    _send_once(cases, stack, alice)
    begun = {case: services.record(case.campaign) is not None for case in cases}
    _recover_until_done(stack, services, [case for case in cases if begun[case]])

    # Then each that had begun has one of everything, and a late client gets the answer; the others had no effect
    for case in cases:
        assert faults.met(case.campaign.record_id)[0] == case.call, case
        assert begun[case] or (case.call, case.number) == ("dynamodb.PutItem", 1), case
        assert services.effects(case.campaign) == (ONE_OF_EACH if begun[case] else NOTHING), case
        late = case.campaign.post(alice)
        assert (late.status, late.replayed) == (201, begun[case]), case
        _assert_one(case, late, services, alice)


def _assert_one(case: Case, answer: Answer, services: Services, client: Client) -> None:
    again = case.campaign.post(client)
    assert (again.status, again.body, again.replayed) == (201, answer.body, True), case
    assert services.effects(case.campaign) == ONE_OF_EACH, case
    calls = services.myfunnel.calls(case.campaign.domain)
    assert len({call.key for call in calls}) == 1, (case, calls)
    record = services.record(case.campaign)
    assert record is not None, case
    assert (record.completed, record.request) == (True, None), case


def _each_side(calls: list[str]) -> Iterator[Case]:
    for place, call in enumerate(calls):
        for when in SIDES:
            yield Case(call, calls[: place + 1].count(call), when)


def _send_once(cases: list[Case], stack: Stack, client: Client) -> None:
    for case in cases:
        if case.call == SECRET:
            _renew_workers(stack, client)
            case.campaign.post(client)
    _at_once(lambda case: case.campaign.post(client), [case for case in cases if case.call != SECRET])


def _at_once(send: Callable[[Case], Answer], cases: list[Case]) -> list[Answer]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(send, cases))


def _recover_until_done(stack: Stack, services: Services, cases: list[Case]) -> None:
    """Sweep until every campaign has completed."""
    function = stack.client("lambda")
    deadline = time.monotonic() + 180
    while left := [case for case in cases if not (record := services.record(case.campaign)) or not record.completed]:
        assert time.monotonic() < deadline, [(str(case), services.record(case.campaign)) for case in left]
        recover(function, stack.recovery_function_name)
        time.sleep(1)


def _renew_workers(stack: Stack, client: Client) -> None:
    kill_workers(stack.cloud_pid, stack.function_name)
    # The cloud may notice only at the next request.
    while client.get(f"{PATH}/none").status != 404:
        pass
