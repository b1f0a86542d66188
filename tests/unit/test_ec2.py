"""Servers that are EC2 instances: one for each operation, whatever happens to its attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import Mock
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

import api
from idempotency.errors import Rejected, Retry
from idempotency.operation import Invocation, Operation
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request
from provisioning import ec2
from provisioning.ec2 import OPERATION_TAG, Ec2Provider
from provisioning.servers import REGIONS, SIZES, Region, ServerRequest, Size
from tests.clocks import SetClock
from tests.record import RECORD
from tests.unit.service import Api

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
    return RECORD._replace(operation_id=str(uuid4()))


@pytest.fixture
def attempt(record: Record, clock: SetClock) -> Attempt:
    """Begins an attempt of the operation."""

    def begin(number: int = 1, seconds: float = 28) -> Operation:
        deadline = clock.now() + round(seconds * 1000)
        invocation = Invocation(REQUEST, Policy(), deadline, Mock(), Mock())
        return Operation(record._replace(attempt=number), invocation, Mock(), Settings(), clock)

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
        assert details == {"status": "running", "instance_id": instance["InstanceId"]}
        assert instance["InstanceType"] == "t4g.large"

    def test_looks_for_nothing_and_sends_the_derived_key(
        self, client: EC2Client, requests: list[tuple[str, dict[str, Any]]], attempt: Attempt
    ) -> None:
        Ec2Provider().provision(SERVER, attempt())

        [(name, sent), (then, _)] = requests
        assert (name, then) == ("RunInstances", "DescribeInstances")
        assert sent["ClientToken"] == attempt().derived_id("server")
        assert sent["ImageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/")
        assert (sent["MinCount"], sent["MaxCount"]) == (1, 1)

    @pytest.mark.parametrize("template", ["", "servers"])
    def test_demands_sessions_for_metadata_and_takes_the_rest_from_a_launch_template_if_there_is_one(
        self, attempt: Attempt, template: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        region = Mock()
        running = {"Instances": [{"InstanceId": "i-1", "State": {"Name": "running"}}]}
        region.run_instances.return_value = running
        region.describe_instances.return_value = {"Reservations": [running]}
        monkeypatch.setattr(ec2, "_client", lambda _: region)
        monkeypatch.setenv("SERVER_PROVIDER", "ec2")
        monkeypatch.setenv("EC2_LAUNCH_TEMPLATE", template)
        api.provider.cache_clear()

        api.provider().provision(SERVER, attempt())
        api.provider.cache_clear()

        sent = region.run_instances.call_args.kwargs
        assert sent["MetadataOptions"] == {"HttpTokens": "required"}
        assert sent.get("LaunchTemplate") == ({"LaunchTemplateName": template} if template else None)

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

        assert [name for name, _ in requests] == ["DescribeInstances", "RunInstances", "DescribeInstances"]
        assert requests[1][1]["ClientToken"] == attempt().derived_id("server")

    def test_does_not_adopt_anothers(self, client: EC2Client, attempt: Attempt) -> None:
        provider, others = Ec2Provider(), attempt()
        others._record = others._record._replace(operation_id=str(uuid4()))
        made = provider.provision(SERVER, others)

        assert provider.provision(SERVER, attempt(2))["instance_id"] != made["instance_id"]

    def test_does_not_run_another_in_the_place_of_one_that_was_terminated(
        self, client: EC2Client, requests: list[tuple[str, dict[str, Any]]], attempt: Attempt
    ) -> None:
        made = Ec2Provider().provision(SERVER, attempt())
        client.terminate_instances(InstanceIds=[made["instance_id"]])
        requests.clear()

        with pytest.raises(Rejected) as raised:
            Ec2Provider().provision(SERVER, attempt(2))

        assert (raised.value.status, raised.value.slug) == (409, "server-terminated")
        assert [name for name, _ in requests] == ["DescribeInstances"]


NO_ANSWER = ReadTimeoutError(endpoint_url="https://ec2.eu-west-1.amazonaws.com")


def refused(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "RunInstances")


@contextmanager
def failing(client: EC2Client, error: Exception, call: str = "RunInstances", when: str = "before") -> Iterator[None]:
    """EC2, for the length of a `with` block, failing before it acts or after it has acted."""
    event = f"{when}-call.ec2.{call}"

    def fail(**_: Any) -> None:
        raise error

    client.meta.events.register_first(event, fail)
    try:
        yield
    finally:
        client.meta.events.unregister(event, fail)


@pytest.fixture
def on_ec2(service: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The API, whose servers are EC2 instances."""
    monkeypatch.setenv("SERVER_PROVIDER", "ec2")
    return service


class TestBooting:
    """An instance that does not run at once."""

    @pytest.fixture
    def state(self, monkeypatch: pytest.MonkeyPatch) -> Mock:
        """What EC2 says of every instance."""
        state, find = Mock(return_value="pending"), Ec2Provider._find

        def found(*args: Any) -> list[Any]:
            return [{**instance, "State": {"Name": state()}} for instance in find(*args) if state() != "unseen"]

        monkeypatch.setattr(Ec2Provider, "_find", found)
        return state

    @pytest.mark.parametrize("before", ["unseen", "pending"])
    def test_is_waited_for_as_long_as_the_request_has_time(
        self, on_ec2: Api, state: Mock, clock: SetClock, before: str
    ) -> None:
        state.return_value = before
        clock.while_asleep = lambda: state.configure_mock(return_value="running") if len(clock.sleeps) == 2 else None

        answer = on_ec2.post()

        assert (answer.status, answer.json["status"]) == (201, "running")
        assert clock.sleeps == [5_000, 5_000]

    def test_is_waited_for_without_the_client_if_it_says_so(self, on_ec2: Api, state: Mock, clock: SetClock) -> None:
        accepted = on_ec2.post(headers=[("Content-Type", "application/json"), ("Prefer", "respond-async")])
        assert accepted.status == 202

        assert on_ec2.recover() == {"taken_up": 1, "completed": 0}
        shown = on_ec2.get(accepted.headers["location"][0].removeprefix("/dev"), resource="/v1/operations/{id}").json
        assert (shown["state"], shown["steps"]) == ("waiting", {"running": "waiting", "server": "done"})
        state.return_value = "running"
        clock.advance(6)

        assert on_ec2.recover() == {"taken_up": 1, "completed": 1}
        assert on_ec2.post().json["status"] == "running"

    def test_that_is_terminated_meanwhile_ends_the_operation(
        self, on_ec2: Api, state: Mock, clock: SetClock, requests: list[tuple[str, dict[str, Any]]]
    ) -> None:
        clock.while_asleep = lambda: state.configure_mock(return_value="terminated")

        assert on_ec2.post().problem == "server-terminated"

        assert [name for name, _ in requests].count("RunInstances") == 1


class TestUndoing:
    """Something else refuses the request once its server runs."""

    @pytest.fixture(autouse=True)
    def refusal(self, monkeypatch: pytest.MonkeyPatch) -> Rejected:
        refusal = Rejected("refused", "No.", status=422)
        monkeypatch.setattr(api, "resources", lambda: Mock(row=Mock(side_effect=refusal)))
        return refusal

    @staticmethod
    def states(client: EC2Client, service: Api) -> list[str]:
        [record] = service.records
        filters: Any = [{"Name": f"tag:{OPERATION_TAG}", "Values": [record["operation_id"]]}]
        reservations = client.describe_instances(Filters=filters)["Reservations"]
        return [instance["State"]["Name"] for found in reservations for instance in found["Instances"]]

    def test_terminates_the_instance(self, client: EC2Client, on_ec2: Api) -> None:
        assert on_ec2.post().status == 422

        assert self.states(client, on_ec2) == ["terminated"]

    def test_is_done_if_the_instance_is_gone_already(
        self, client: EC2Client, on_ec2: Api, requests: list[tuple[str, dict[str, Any]]]
    ) -> None:
        with failing(client, NO_ANSWER, "TerminateInstances", when="after"):
            assert on_ec2.post().status == 503

        assert on_ec2.post().status == 422
        assert [name for name, _ in requests].count("TerminateInstances") == 1

    def test_reaches_an_instance_that_no_attempt_has_heard_of(
        self, client: EC2Client, on_ec2: Api, refusal: Rejected, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an instance whose answer was lost
        with failing(client, NO_ANSWER, when="after"):
            assert on_ec2.post().status == 503
        assert self.states(client, on_ec2) == ["running"]

        # When the next attempt is refused before it has an answer of its own
        monkeypatch.setattr(Ec2Provider, "_provision", Mock(side_effect=refusal))
        assert on_ec2.post().status == 422

        # Then it is terminated all the same
        assert self.states(client, on_ec2) == ["terminated"]


@pytest.mark.thorough
class TestFailure:
    """What EC2 says of the moment, of the account, and of the request."""

    @pytest.mark.parametrize(
        ("error", "pause"),
        [
            (refused("RequestLimitExceeded", 503), 5),
            (refused("IdempotentParameterMismatch"), 5),
            (refused("InternalError", 500), 5),
            (refused("Unavailable", 503), 5),
            (refused("InsufficientInstanceCapacity", 500), 60),
            (refused("InsufficientFreeAddressesInSubnet"), 60),
            (refused("InstanceLimitExceeded"), 60),
            (refused("VcpuLimitExceeded"), 60),
            (refused("VolumeLimitExceeded"), 60),
            (NO_ANSWER, 5),
        ],
        ids=str,
    )
    def test_for_now_is_retryable(self, client: EC2Client, attempt: Attempt, error: Exception, pause: int) -> None:
        with failing(client, error), pytest.raises(Retry) as raised:
            Ec2Provider().provision(SERVER, attempt())

        assert raised.value.retry_after == pause
        assert str(error) not in raised.value.detail

    @pytest.mark.parametrize("code", ["UnauthorizedOperation", "VPCIdNotSpecified", "AuthFailure", "Blocked"])
    def test_that_an_operator_has_to_mend_is_no_verdict_on_the_request(
        self, client: EC2Client, on_ec2: Api, code: str
    ) -> None:
        # Given an account that is not set up as it has to be
        with failing(client, refused(code)):
            failed = on_ec2.post()

        # Then an operator is told, the client is not, and the key has its server once that is mended
        [record] = on_ec2.records
        assert (failed.status, failed.problem) == (500, "internal-error")
        assert code in record["last_error"]
        assert on_ec2.post().status == 201

    def test_of_a_token_whose_instance_is_gone_is_the_final_answer(
        self, client: EC2Client, on_ec2: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an instance whose answer was lost, and that was terminated so long ago that EC2 lists it no more
        with failing(client, NO_ANSWER, when="after"):
            assert on_ec2.post().status == 503
        monkeypatch.setattr(Ec2Provider, "_find", lambda *_: [])

        # When the next attempts ask for it
        with failing(client, refused("IdempotentInstanceTerminated")):
            answers = [on_ec2.post(), on_ec2.post()]

        # Then the key has its answer, for good
        assert [(answer.status, answer.problem) for answer in answers] == [(409, "server-terminated")] * 2
        assert answers[1].replayed

    def test_includes_an_answer_with_an_instance_that_is_gone(
        self, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As EC2 answered before 2025
        gone = {"InstanceId": "i-1", "State": {"Name": "shutting-down"}}
        monkeypatch.setattr(Ec2Provider, "_run", lambda *_: gone)

        with pytest.raises(Rejected) as raised:
            Ec2Provider().provision(SERVER, attempt())

        assert raised.value.slug == "server-terminated"
