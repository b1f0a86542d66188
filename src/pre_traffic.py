"""Lambda entry point for CodeDeploy: try a new version of the API before a client meets it."""

import json
import os
from functools import cache
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from provisioning.resources import row_id
from provisioning.servers import REGIONS

# A request that must succeed, and whose effects `_clean_up` removes: replace both with your own.
_PATH = "/v1/servers/provision"
_BODY = {"region": "eu-west", "size": "small"}
_PRINCIPAL = "deployment-check"

logger = Logger(serialize_stacktrace=False)  # the traceback is in each error once, as text


class CheckFailed(Exception):
    """The new version does not answer as it should; the message says how."""


@cache
def _client(service: Any, region: str | None = None) -> Any:
    config = Config(read_timeout=30, retries={"mode": "standard", "total_max_attempts": 1})
    return boto3.client(service, region_name=region, config=config)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> None:  # noqa: ARG001
    """Tell CodeDeploy whether the version may have traffic; if not, it rolls the deployment back.

    Source: CodeDeploy user guide, "AppSpec 'hooks' section for an AWS Lambda deployment".
    """
    status = "Failed"
    try:
        _check(os.environ["NEW_VERSION"], str(uuid5(NAMESPACE_OID, event["DeploymentId"])))
        status = "Succeeded"
    except Exception:
        logger.exception("the new version is refused")
    _client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=status,
    )


def _check(version: str, key: str) -> None:
    """Send a request twice: it must be carried out, and then replayed.

    Raises:
        CheckFailed: if the version answers otherwise, or crashes.
    """
    first = _send(version, key)
    if first.get("statusCode") != 201:
        raise CheckFailed(f"the request is answered with {first}")
    try:
        second = _send(version, key)
        replayed = "Idempotent-Replayed" in second.get("multiValueHeaders", {})
        if not replayed or second["body"] != first["body"]:
            raise CheckFailed(f"its retry is answered with {second}")
    finally:
        _clean_up(json.loads(first["body"]))


def _send(version: str, key: str) -> dict[str, Any]:
    """Invoke a version as the gateway does."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    event = {
        "resource": _PATH,
        "path": _PATH,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "requestContext": {
            "path": _PATH,
            "resourcePath": _PATH,
            "requestId": key,
            "authorizer": {"principalId": _PRINCIPAL},
        },
        "body": json.dumps(_BODY),
        "isBase64Encoded": False,
    }
    reply = _client("lambda").invoke(FunctionName=version, Payload=json.dumps(event))
    answer: dict[str, Any] = json.loads(reply["Payload"].read())
    return answer


def _clean_up(server: dict[str, str]) -> None:
    """Remove the server; its idempotency record goes by its time to live."""
    if "instance_id" in server:
        ec2 = _client("ec2", REGIONS["eu-west"])
        ec2.terminate_instances(InstanceIds=[server["instance_id"]])
    _client("dynamodb").delete_item(
        TableName=os.environ["RESOURCES_TABLE"], Key={"id": {"S": row_id("server", server["id"])}}
    )
