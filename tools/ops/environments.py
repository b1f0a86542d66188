"""Deployed stacks, each by the name of its environment in samconfig.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from tools.local import stack
from tools.local.samconfig import deploy_parameters

LOCAL = "local"


@dataclass(frozen=True)
class Environment:
    """A deployed stack.

    Args:
        outputs: the stack's outputs.
        client: makes a client of the cloud that the stack is in.
    """

    outputs: Mapping[str, str]
    client: Callable[[str], Any]


def find(name: str | None) -> Environment:
    """Look up a deployed stack; without a name, the one of `make up`.

    Raises:
        ToolError: if there is no such environment, or the local stack is not up.
        ClientError: if the stack is not deployed.
    """
    aws: Any = boto3
    client: Callable[[str], Any] = aws.client if name and name != LOCAL else stack.load().client
    stack_name = deploy_parameters(name or LOCAL)["stack_name"]
    described = client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return Environment({output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}, client)
