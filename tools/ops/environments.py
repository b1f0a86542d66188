"""Deployed stacks, each by the name of its environment in samconfig.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from tools.local import stack
from tools.local.samconfig import deploy_parameters
from tools.local.stack import Stack

LOCAL = "local"


@dataclass(frozen=True)
class Environment:
    """A deployed stack.

    Args:
        api_url: the API's base URL, stage included.
        outputs: the stack's outputs.
        local: whether it is on the local cloud.
        client: makes a client of the cloud that the stack is in.
    """

    api_url: str
    outputs: Mapping[str, str]
    local: bool
    client: Callable[[str], Any]


def find(name: str | None) -> Environment:
    """Look up a deployed stack; without a name, the one of `make up`.

    Raises:
        ToolError: if there is no such environment, or the local stack is not up.
        ClientError: if the stack is not deployed.
    """
    if not name or name == LOCAL:
        return local(stack.load())
    aws: Any = boto3
    outputs = _outputs(aws.client, name)
    return Environment(outputs["ApiUrl"], outputs, local=False, client=aws.client)


def local(running: Stack) -> Environment:
    """A stack on a local cloud."""
    return Environment(running.api_url, _outputs(running.client, LOCAL), local=True, client=running.client)


def _outputs(client: Callable[[str], Any], name: str) -> dict[str, str]:
    stack_name = deploy_parameters(name)["stack_name"]
    described = client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
