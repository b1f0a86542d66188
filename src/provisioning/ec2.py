"""Servers that are EC2 instances."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from idempotency import Operation, Retry
from provisioning.servers import REGIONS, SIZES, ServerRequest

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

OPERATION_TAG = "provision-once:operation"

# EC2 resolves the parameter itself. An id resolved here could change between two attempts, and EC2 refuses a client
# token that comes with other parameters than the first time.
_IMAGE = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
_ALIVE = ["pending", "running", "stopping", "stopped"]
_RETRYABLE = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InternalError",
        "InternalFailure",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "Unavailable",
    }
)


@cache
def _client(region: str) -> "EC2Client":
    config = Config(connect_timeout=2, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("ec2", region_name=region, config=config)


class Ec2Provider:
    """Runs an instance for each server.

    The operation's derived key is the client token: EC2 runs no second instance for it. A later attempt first looks
    for an instance with the operation's tag, which also serves where client tokens do not last.

    Source: EC2 API reference, "Ensuring idempotency".
    """

    def provision(self, server: ServerRequest, operation: Operation) -> dict[str, str]:
        """See `provisioning.servers.Provider`."""
        client = _client(REGIONS[server.region])
        instance = operation.attempt > 1 and self._find(client, operation)
        if not instance:
            operation.ensure_time()
            instance = self._run(client, server, operation)
        return {"status": instance["State"]["Name"], "instance_id": instance["InstanceId"]}

    def _find(self, client: "EC2Client", operation: Operation) -> Any:
        filters = [
            {"Name": f"tag:{OPERATION_TAG}", "Values": [operation.id]},
            {"Name": "instance-state-name", "Values": _ALIVE},
        ]
        reservations = _call(client.describe_instances, Filters=filters)["Reservations"]
        return next((instance for reservation in reservations for instance in reservation["Instances"]), None)

    def _run(self, client: "EC2Client", server: ServerRequest, operation: Operation) -> Any:
        tags = [{"Key": OPERATION_TAG, "Value": operation.id}]
        reply = _call(
            client.run_instances,
            ImageId=_IMAGE,
            InstanceType=SIZES[server.size],
            MinCount=1,
            MaxCount=1,
            ClientToken=operation.derived_id("server"),
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        return reply["Instances"][0]


def _call(call: Callable[..., Any], **request: Any) -> Any:
    try:
        return call(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] in _RETRYABLE:
            raise Retry("The region cannot provision a server now.", retry_after=5) from error
        raise
    except BotoCoreError as error:
        raise Retry("EC2 cannot be reached.", retry_after=5) from error
