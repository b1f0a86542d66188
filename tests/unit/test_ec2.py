"""Servers that are EC2 instances: one for each operation, whatever happens to its attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import Mock
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from idempotency.errors import Retry
from idempotency.operation import Invocation, Operation
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request
from provisioning import ec2
from provisioning.ec2 import OPERATION_TAG, Ec2Provider
from provisioning.servers import REGIONS, SIZES, Region, ServerRequest, Size
from tests.clocks import SetClock

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

Attempt = Callable[..., Operation]

SERVER = ServerRequest("eu-west", "large")
REQUEST = Request(
    "alice", "POST", "/v1/servers/provision", "/v1/servers/provision", "/dev", {}, "application/json", b""
)


@pytest.fixture
def record() -> Record:
    """The record of an operation that no other test has."""
    return Record(
        id="0" * 64,
        owner="owner",
        lease_until=0,
        expires_at=0,
        claimed_at=0,
        created_at=0,
        fingerprint="1:0",
        operation_id=str(uuid4()),
    )


@pytest.fixture
def attempt(record: Record, clock: SetClock) -> Attempt:
    """Begins an attempt of the operation."""

    def begin(number: int = 1, seconds: float = 28) -> Operation:
        deadline = clock.now() + round(seconds * 1000)
        invocation = Invocation(REQUEST, Policy(), deadline, Mock(), Mock())
        return Operation(replace(record, attempt=number), invocation, Mock(), Settings(), clock)

    return begin


@pytest.fixture
def client(cloud: None) -> EC2Client:
    """EC2 in the region of `SERVER`, by the provider's own client."""
    return ec2._client(REGIONS[SERVER.region])


@pytest.fixture
def requests(client: EC2Client) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What is asked of EC2."""
    made: list[tuple[str, dict[str, Any]]] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        made.append((model.name, dict(params)))

    client.meta.events.register("provide-client-params.ec2.*", note)
    yield made
    client.meta.events.unregister("provide-client-params.ec2.*", note)


def instances(client: EC2Client, operation: Operation) -> list[InstanceTypeDef]:
    """What there is of an operation."""
    all_ = [instance for found in client.describe_instances()["Reservations"] for instance in found["Instances"]]
    return [instance for instance in all_ if {"Key": OPERATION_TAG, "Value": operation.id} in instance["Tags"]]


class TestFirstAttempt:
    def test_runs_an_instance_of_the_size_with_the_operations_tag(self, client: EC2Client, attempt: Attempt) -> None:
        details = Ec2Provider().provision(SERVER, attempt())

        [instance] = instances(client, attempt())
        assert details == {"status": "pending", "instance_id": instance["InstanceId"]}
        assert instance["InstanceType"] == "t4g.large"

    def test_looks_for_nothing_and_sends_the_derived_key(
        self, client: EC2Client, requests: list[tuple[str, dict[str, Any]]], attempt: Attempt
    ) -> None:
        Ec2Provider().provision(SERVER, attempt())

        [(name, sent)] = requests
        assert name == "RunInstances"
        assert sent["ClientToken"] == attempt().derived_id("server")
        assert sent["ImageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/")
        assert (sent["MinCount"], sent["MaxCount"]) == (1, 1)

    def test_goes_to_the_servers_region_and_runs_its_size(self, client: EC2Client, attempt: Attempt) -> None:
        # Each that a body may name; regions do not see each other's servers.
        for region, size in zip_longest(get_args(Region), get_args(Size), fillvalue=get_args(Size)[0]):
            Ec2Provider().provision(ServerRequest(region, size), attempt())

            [instance] = instances(ec2._client(REGIONS[region]), attempt())
            assert instance["InstanceType"] == SIZES[size]

    def test_begins_nothing_without_time_to_finish_it(self, client: EC2Client, attempt: Attempt) -> None:
        with pytest.raises(Retry):
            Ec2Provider().provision(SERVER, attempt(seconds=3.9))

        assert instances(client, attempt()) == []


class TestLaterAttempt:
    def test_adopts_the_instance_that_an_earlier_one_ran(self, client: EC2Client, attempt: Attempt) -> None:
        first = Ec2Provider().provision(SERVER, attempt())

        second = Ec2Provider().provision(SERVER, attempt(2))

        assert second["instance_id"] == first["instance_id"]
        assert len(instances(client, attempt())) == 1

    def test_runs_one_with_the_same_token_if_there_is_none(
        self, client: EC2Client, requests: list[tuple[str, dict[str, Any]]], attempt: Attempt
    ) -> None:
        Ec2Provider().provision(SERVER, attempt(2))

        assert [name for name, _ in requests] == ["DescribeInstances", "RunInstances"]
        assert requests[1][1]["ClientToken"] == attempt().derived_id("server")

    def test_adopts_neither_anothers_nor_a_terminated_one(self, client: EC2Client, attempt: Attempt) -> None:
        # Given another operation's instance, and one of this operation that is gone
        provider = Ec2Provider()
        others = attempt()
        others._record = replace(others._record, operation_id=str(uuid4()))
        gone = [
            provider.provision(SERVER, others)["instance_id"],
            provider.provision(SERVER, attempt())["instance_id"],
        ]
        client.terminate_instances(InstanceIds=gone[1:])

        assert provider.provision(SERVER, attempt(2))["instance_id"] not in gone


class TestFailure:
    @pytest.fixture
    def fail(self) -> Iterator[Callable[[Exception], None]]:
        """Makes EC2 fail, without sending anything."""
        client = ec2._client(REGIONS[SERVER.region])
        failures: list[Exception] = []

        def fail(**_: Any) -> None:
            raise failures[-1]

        client.meta.events.register_first("before-call.ec2.RunInstances", fail)
        yield failures.append
        client.meta.events.unregister("before-call.ec2.RunInstances", fail)

    @pytest.mark.parametrize(
        "error",
        [
            *[
                ClientError({"Error": {"Code": code}}, "RunInstances")
                for code in ("InsufficientInstanceCapacity", "RequestLimitExceeded", "InternalError", "Unavailable")
            ],
            ReadTimeoutError(endpoint_url="https://ec2.eu-west-1.amazonaws.com"),
        ],
        ids=str,
    )
    def test_for_now_is_retryable(self, fail: Callable[[Exception], None], attempt: Attempt, error: Exception) -> None:
        fail(error)

        with pytest.raises(Retry) as raised:
            Ec2Provider().provision(SERVER, attempt())

        assert raised.value.retry_after == 5
        assert str(error) not in raised.value.detail

    def test_for_another_reason_is_nothing_that_a_retry_mends(
        self, fail: Callable[[Exception], None], attempt: Attempt
    ) -> None:
        fail(ClientError({"Error": {"Code": "UnauthorizedOperation"}}, "RunInstances"))

        with pytest.raises(ClientError):
            Ec2Provider().provision(SERVER, attempt())
