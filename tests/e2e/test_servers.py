"""Servers of the deployed stack, which are EC2 instances, when the worker dies or DynamoDB cannot be reached."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from idempotency.request import record_id
from tests.e2e.faults import Faults, Rule, Side
from tests.e2e.targets import PROVISION, SERVER, LocalCloud
from tools.local.client import Client
from tools.local.stack import Stack

RUN = "ec2.RunInstances"
COMMIT = "dynamodb.TransactWriteItems"


def instances_of(stack: Stack, operation_id: str) -> list[str]:
    """The instances that carry an operation's tag."""
    found: list[dict[str, Any]] = stack.client("ec2").describe_instances(
        Filters=[{"Name": "tag:provision-once:operation", "Values": [operation_id]}]
    )["Reservations"]
    return [instance["InstanceId"] for reservation in found for instance in reservation["Instances"]]


def operation_of(target: LocalCloud, record: str) -> str:
    """The id of the operation of a record."""
    return str(target.tables.record(record)["operation_id"]["S"])


def assert_killed_and_retried_each_server_has_one_instance(
    kills: Iterable[tuple[str, Side]], target: LocalCloud, stack: Stack, faults: Faults, client: Client
) -> None:
    """In each case, kill a worker on one side of one of its calls; the client retries.

    Args:
        kills: the call and the side, per case.
        target: the deployed stack.
        stack: the same stack, as an operator sees it.
        faults: the faults at its calls.
        client: a client of ``alice``.
    """
    # Given workers that are killed
    cases = [(call, side, str(uuid4())) for call, side in kills]
    for call, side, key in cases:
        faults.expect(record_id("id:alice", "POST", PROVISION, key), [Rule(call, when=side, do="kill")])

    # When their clients retry until they have an answer, past the lease
    with ThreadPoolExecutor(len(cases)) as pool:
        answers = list(pool.map(lambda case: client.post_until_done(PROVISION, SERVER, case[2]), cases))

    # Then each has one server, which is one instance
    for (call, side, key), answer in zip(cases, answers, strict=True):
        record = record_id("id:alice", "POST", PROVISION, key)
        committed = (call, side) in {(COMMIT, "during"), (COMMIT, "after")}
        assert faults.met(record) == [call], (call, side)
        assert (answer.status, answer.replayed) == (201, committed), (call, side)
        assert instances_of(stack, operation_of(target, record)) == [answer.json["instance_id"]], (call, side)


@pytest.mark.slow
def test_killed_around_the_ec2_call_a_server_has_one_instance(
    local_cloud: LocalCloud, stack: Stack, faults: Faults, alice: Client
) -> None:
    kills: list[tuple[str, Side]] = [(RUN, "during"), (COMMIT, "after")]

    assert_killed_and_retried_each_server_has_one_instance(kills, local_cloud, stack, faults, alice)


def test_without_dynamodb_nothing_runs(local_cloud: LocalCloud, faults: Faults, stack: Stack, key: str) -> None:
    record = record_id("id:alice", "POST", PROVISION, key)
    before = local_cloud.tables.ids()
    faults.expect(record, [Rule("dynamodb.*", do="lose", times=3)])

    refused = local_cloud.post(key)

    assert (refused.status, refused.problem, refused.headers["retry-after"]) == (503, "unavailable", ["1"])
    assert faults.calls(record) == ["dynamodb.PutItem"] * 3, "the SDK's own repetitions of the claim, and nothing else"
    assert local_cloud.tables.ids() == before
    assert local_cloud.post(key).status == 201


@pytest.mark.parametrize("side", ["before", "during", "after"])
def test_the_answer_to_the_completion_may_be_lost(
    local_cloud: LocalCloud, faults: Faults, stack: Stack, key: str, side: Side
) -> None:
    record = record_id("id:alice", "POST", PROVISION, key)
    faults.expect(record, [Rule(COMMIT, when=side, do="lose")])

    answer = local_cloud.post(key)

    assert (answer.status, answer.replayed) == (201, False)
    assert faults.calls(record).count(COMMIT) == 2
    assert instances_of(stack, operation_of(local_cloud, record)) == [answer.json["instance_id"]]
