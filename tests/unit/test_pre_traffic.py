"""CodeDeploy is told whether a new version provisions, and replays; nothing of the trial is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any
from unittest.mock import Mock

import pytest

import api
import pre_traffic
from tests.events import Context
from tests.unit.service import Api

VERSION = "arn:aws:lambda:eu-west-1:123456789012:function:api:7"
EVENT = {"DeploymentId": "d-1A2B3C4D5", "LifecycleEventHookExecutionId": "eyJlbmNyeXB0ZWQi"}

Answers = Callable[[dict[str, Any]], Any]


class Aws:
    """The clients that the function makes.

    Args:
        dynamodb: a client of the tables.
        answer: what the new version does with an event.
    """

    def __init__(self, dynamodb: Any, answer: Answers) -> None:
        self.codedeploy = Mock()
        self.ec2 = Mock()
        self.regions: list[str | None] = []
        self.invoked: list[str] = []
        self._dynamodb = dynamodb
        self._answer = answer

    def client(self, service: str, region: str | None = None) -> Any:
        self.regions += [region] if region else []
        return {"codedeploy": self.codedeploy, "dynamodb": self._dynamodb, "ec2": self.ec2, "lambda": self}[service]

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:  # noqa: N803 - as in boto3
        self.invoked.append(FunctionName)
        return {"Payload": BytesIO(json.dumps(self._answer(json.loads(Payload))).encode())}

    @property
    def told(self) -> str:
        """What CodeDeploy was told."""
        [call] = self.codedeploy.put_lifecycle_event_hook_execution_status.call_args_list
        assert call.kwargs["deploymentId"] == EVENT["DeploymentId"]
        assert call.kwargs["lifecycleEventHookExecutionId"] == EVENT["LifecycleEventHookExecutionId"]
        return str(call.kwargs["status"])


Trial = Callable[[Answers], Aws]


@pytest.fixture
def trial(service: Api, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Function that lets CodeDeploy's hook try a version, which answers in some way."""

    def run(answer: Answers) -> Aws:
        aws = Aws(api.dynamodb, answer)
        monkeypatch.setattr(pre_traffic, "_client", aws.client)
        monkeypatch.setenv("NEW_VERSION", VERSION)
        pre_traffic.handler(EVENT, Context())
        return aws

    return run


def deployed(event: dict[str, Any]) -> dict[str, Any]:
    """What this version answers."""
    reply: dict[str, Any] = api.handler(event, Context())
    return reply


class TestAVersion:
    @pytest.mark.parametrize("key_format", ["any", "uuid"])
    def test_that_provisions_and_replays_may_have_traffic(
        self, trial: Trial, service: Api, key_format: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IDEMPOTENCY_KEY_FORMAT", key_format)

        aws = trial(deployed)

        assert aws.told == "Succeeded"
        assert aws.invoked == [VERSION] * 2
        assert service.rows == []
        assert [record["status"] for record in service.records] == ["COMPLETED"]

    @pytest.mark.parametrize(
        "answer",
        [
            lambda _: {"statusCode": 500, "multiValueHeaders": {}, "body": "{}"},
            lambda _: {"errorMessage": "Unable to import module 'api'", "errorType": "Runtime.ImportModuleError"},
            lambda _: None,
        ],
        ids=["answers 500", "crashes", "answers nothing"],
    )
    def test_that_fails_is_refused(self, trial: Trial, answer: Answers) -> None:
        assert trial(answer).told == "Failed"

    @pytest.mark.parametrize("forgets", ["the header", "the body", "to answer"])
    def test_that_does_not_replay_is_refused_and_its_server_removed(
        self, trial: Trial, service: Api, forgets: str
    ) -> None:
        answered: list[dict[str, Any]] = []

        def answer(event: dict[str, Any]) -> Any:
            reply = deployed(event)
            answered.append(reply)
            if len(answered) == 1:
                return reply
            match forgets:
                case "the header":
                    return {**reply, "multiValueHeaders": {}}
                case "the body":
                    return {**reply, "body": "{}"}
            return {"errorMessage": "Task timed out"}

        assert trial(answer).told == "Failed"
        assert service.rows == []


def test_an_instance_of_the_trial_is_terminated_where_it_was_run(trial: Trial) -> None:
    server = {"id": "srv-1", "instance_id": "i-0abc"}

    aws = trial(
        lambda _: {
            "statusCode": 201,
            "multiValueHeaders": {"Idempotent-Replayed": ["true"]},
            "body": json.dumps(server),
        }
    )

    assert aws.told == "Succeeded"
    assert aws.regions == ["eu-west-1"]
    aws.ec2.terminate_instances.assert_called_once_with(InstanceIds=["i-0abc"])
