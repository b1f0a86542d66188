"""Each function's role allows the calls to AWS that the function makes, and no others.

That no test makes a call which its function's role does not allow is checked in every test, see `tests.roles.enforced`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from botocore.client import BaseClient

import api
import authorizer
import pre_traffic
from idempotency import Completion, Rejected
from provisioning import dns
from provisioning.ec2 import Ec2Provider
from tests import roles
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import Context
from tests.sample import Samples
from tests.unit.campaigns import DOMAIN, Campaigns
from tests.unit.route import Route
from tests.unit.service import Api
from tools import wiring

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# What the operations of other modules, a team's own, call is played by their own tests, if at all.
_PLAYED = {
    "api",
    "ec2",
    "dns",  # example campaigns
}


@pytest.fixture
def servers(service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are EC2 instances."""
    monkeypatch.setenv("SERVER_PROVIDER", "ec2")
    api.provider.cache_clear()


def killed(after: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but the worker is killed as soon as it is done."""

    def call(*args: Any, **kwargs: Any) -> Any:
        after(*args, **kwargs)
        raise Killed

    return call


def refuse(*_: Any, **__: Any) -> None:
    """Refuse for good, after everything was done."""
    raise Rejected("late", "Too late.", status=422, title="Late")


def beyond_moto(call: Callable[..., Any]) -> Callable[..., Any]:
    """What an SDK's client does; CodeDeploy listens, and Lambda runs the API's function."""

    def answer(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        match operation:
            case "PutLifecycleEventHookExecutionStatus":
                return {}
            case "Invoke":
                reply = api.handler(json.loads(parameters["Payload"]), Context())
                return {"Payload": BytesIO(json.dumps(reply).encode())}
        return call(client, operation, parameters)

    return answer


def play(samples: Samples, clock: SetClock, monkeypatch: pytest.MonkeyPatch, dynamodb: DynamoDBClient) -> None:
    """Let the functions do everything that they can do."""
    service = samples.api

    # A server: provisioned by a second attempt; shown; and another that is undone
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Ec2Provider, "_run", killed(Ec2Provider._run))
        service.post(key="server")
    clock.advance(31)
    made = service.post(key="server").json
    service.get(f"/v1/servers/{made['id']}", resource="/v1/servers/{id}")
    with monkeypatch.context() as patch:
        patch.setattr("provisioning.servers.Completion", refuse)
        assert service.post(key="undone").status == 422

    # A sample that recovery finishes
    samples.service.fails("make", Killed(), acts=True)
    with suppress(Killed):
        samples.create(key="sample")
    clock.advance(31)
    assert samples.recover() == {"taken_up": 1, "completed": 1}

    # A refusal, which looks the request up; an answer so large that it is kept in parts; and a token
    service.post({}, key="server")
    noise = [sha256(str(number).encode()).hexdigest() for number in range(5_000)]
    parts = Route(dynamodb, clock, lambda _: Completion(201, noise))
    assert [parts.post(key="large").replayed for _ in range(2)] == [False, True]
    authorizer.handler({"authorizationToken": "Bearer t", "methodArn": "a/b/c"}, Context())

    # A version that is tried before it has traffic
    pre_traffic.handler({"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "hook"}, Context())


# example campaigns
def launch(campaigns: Campaigns) -> None:
    """A campaign, and another one whose domain somebody else has."""
    assert campaigns.launch(key="campaign").status == 201
    dns.Dns(campaigns._zone).route(f"taken.{DOMAIN}", "somebody.else.example")
    assert campaigns.launch({"name": "n", "domain": f"taken.{DOMAIN}"}, key="taken").status == 409


# end of example


@pytest.mark.usefixtures("servers")
@pytest.mark.thorough
def test_roles_allow_nothing_that_their_functions_never_do(
    samples: Samples,
    campaigns: Campaigns,  # example campaigns
    clock: SetClock,
    dynamodb: DynamoDBClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKENS_TABLE", "TokensTable")
    monkeypatch.setenv("NEW_VERSION", "api:7")
    monkeypatch.setattr(BaseClient, "_make_api_call", beyond_moto(BaseClient._make_api_call))  # type: ignore[attr-defined]

    with roles.recorded() as needs:
        play(samples, clock, monkeypatch, dynamodb)
        launch(campaigns)  # example campaigns

    called = {(action, "") for path, _, action in wiring.calls() if path.stem not in _PLAYED}
    allowed = {right for function in roles.handlers().values() for right in roles.rights(function)}
    assert sorted(allowed - needs - called) == [], "no function does this: take it out of template.yaml"


class TestEnforcement:
    @pytest.fixture
    def without(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Takes an action out of every role."""
        original = roles.rights

        def take(action: str) -> None:
            monkeypatch.setattr(roles, "rights", lambda name: {each for each in original(name) if each[0] != action})

        return take

    @pytest.mark.parametrize("action", ["dynamodb:PutItem", "sqs:SendMessage"])
    def test_fails_a_test_whose_function_does_what_its_role_does_not_allow(
        self, samples: Samples, without: Callable[[str], None], action: str
    ) -> None:
        without(action)
        samples.service.fails("make")  # so that a message carries it on

        with pytest.raises(pytest.fail.Exception, match=f"the role of ApiFunction does not allow .*{action}"):
            samples.create()

    def test_lets_everything_else_pass(self, samples: Samples, without: Callable[[str], None]) -> None:
        without("ec2:TerminateInstances")

        assert samples.create().status == 201


def test_every_function_has_a_handler_that_is_known() -> None:
    assert {"api.handler", "recovery.sweep", "recovery.worker", "authorizer.handler"} <= roles.handlers().keys()
    assert ("dynamodb:Query", "IdempotencyTable/index/recovery") in roles.rights("RecoveryFunction")
    assert ("dynamodb:Query", "IdempotencyTable/index/recovery") not in roles.rights("ApiFunction")
    assert ("dynamodb:UpdateItem", "IdempotencyTable") not in roles.rights("RecoveryFunction")
    assert ("sqs:SendMessage", "RecoveryDeadLetters") not in roles.rights("RecoveryFunction")
    assert ("sqs:ReceiveMessage", "RecoveryQueue") not in roles.rights("WorkerFunction")
