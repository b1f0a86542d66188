"""Servers that are EC2 instances."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from idempotency import Operation, Rejected, Retry
from provisioning.servers import REGIONS, SIZES, ServerRequest

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

OPERATION_TAG = "provision-once:operation"

# EC2 resolves the parameter itself. An id resolved here could change between two attempts, and EC2 refuses a client
# token that comes with other parameters than the first time.
_IMAGE = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
_GONE = frozenset({"shutting-down", "terminated"})
# The last one says that the token has run an instance already, or is just about to, perhaps as an earlier version of
# this code asks for it: the next attempt finds it by its tag.
_BUSY = frozenset({"RequestLimitExceeded", "Throttling", "IdempotentParameterMismatch"})
_PAUSE = 5
# Seconds between two looks at an instance that boots, and those after which an operator should look.
_LOOK_EVERY = 5
_BOOT = 600
# Room comes when other instances go, or an operator has a quota raised.
_PAUSE_FOR_ROOM = 60


@cache
def _client(region: str) -> "EC2Client":
    config = Config(connect_timeout=2, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("ec2", region_name=region, config=config)


class Ec2Provider:
    """Runs an instance for each server, which gives its metadata to those alone that ask for a session (IMDSv2).

    The step's key is the client token: EC2 runs no second instance for it. A later attempt first looks for an instance
    with the operation's tag, which also serves where client tokens do not last.

    Args:
        launch_template: name of the launch template, in every region, that says where instances are; empty for none.

    Source: EC2 API reference, "Ensuring idempotency" and "Error codes".
    """

    def __init__(self, launch_template: str = "") -> None:
        self._launch_template = launch_template

    def provision(self, server: ServerRequest, operation: Operation) -> dict[str, str]:
        """Run an instance, and wait until it runs; see `provisioning.servers.Provider`.

        Raises:
            Rejected: ``server-terminated`` (409) if the instance was run, and has been terminated: a second one under
                the same key would be more than the request asked for.
        """
        client = _client(REGIONS[server.region])
        operation.step(
            "server",
            lambda key: self._provision(client, server, operation, key),
            undo=lambda: self._terminate(client, operation),
        )
        return operation.wait("running", lambda: self._running(client, operation), every=_LOOK_EVERY, at_most=_BOOT)

    def _provision(self, client: "EC2Client", server: ServerRequest, operation: Operation, key: str) -> dict[str, str]:
        found = self._find(client, operation) if operation.attempt > 1 else []
        if not found:
            operation.ensure_time()
            found = [self._run(client, server, operation, key)]
        return _shown(_standing(found))

    def _running(self, client: "EC2Client", operation: Operation) -> dict[str, str] | None:
        """The instance as soon as it runs; EC2 may not show it at first."""
        found = self._find(client, operation)
        instance = _standing(found) if found else None
        return _shown(instance) if instance and instance["State"]["Name"] == "running" else None

    def _terminate(self, client: "EC2Client", operation: Operation) -> None:
        ids = [instance["InstanceId"] for instance in _alive(self._find(client, operation))]
        if ids:
            _call(client.terminate_instances, InstanceIds=ids)

    def _find(self, client: "EC2Client", operation: Operation) -> list[Any]:
        filters = [{"Name": f"tag:{OPERATION_TAG}", "Values": [operation.id]}]
        reservations = _call(client.describe_instances, Filters=filters)["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]

    def _run(self, client: "EC2Client", server: ServerRequest, operation: Operation, key: str) -> Any:
        tags = [{"Key": OPERATION_TAG, "Value": operation.id}]
        template = {"LaunchTemplate": {"LaunchTemplateName": self._launch_template}} if self._launch_template else {}
        reply = _call(
            client.run_instances,
            ImageId=_IMAGE,
            InstanceType=SIZES[server.size],
            MinCount=1,
            MaxCount=1,
            ClientToken=key,
            MetadataOptions={"HttpTokens": "required"},
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            **template,
        )
        return reply["Instances"][0]


def _alive(instances: Iterable[Any]) -> Iterator[Any]:
    return (instance for instance in instances if instance["State"]["Name"] not in _GONE)


def _standing(instances: Iterable[Any]) -> Any:
    """The first that is not terminated.

    Raises:
        Rejected: if all of them are.
    """
    instance = next(_alive(instances), None)
    if instance is None:
        raise _terminated()
    return instance


def _shown(instance: Any) -> dict[str, str]:
    return {"status": instance["State"]["Name"], "instance_id": instance["InstanceId"]}


def _terminated() -> Rejected:
    return Rejected(
        "server-terminated",
        "The server of this request was terminated before the request was completed.",
        status=409,
        title="The server was terminated",
    )


def _call(call: Callable[..., Any], **request: Any) -> Any:
    try:
        return call(**request)
    except ClientError as error:
        raise _translate(error) from error
    except BotoCoreError as error:
        raise Retry("EC2 cannot be reached.", _PAUSE) from error


def _translate(error: ClientError) -> Exception:
    """Tell what may come right by itself from what an operator has to mend: that stays unexpected, and never final."""
    code = error.response["Error"]["Code"]
    if code == "IdempotentInstanceTerminated":
        return _terminated()
    if code in _BUSY:
        return Retry(f"EC2 cannot take the request now ({code}).", _PAUSE)
    if code.startswith("Insufficient") or code.endswith("LimitExceeded"):
        return Retry(f"The region has no room for a server now ({code}).", _PAUSE_FOR_ROOM)
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Retry(f"EC2 failed ({code}).", _PAUSE)
    return error
