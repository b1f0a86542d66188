"""What SAM makes of the template, as the deployed stack would show it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from tools.local import template
from tools.local.aws import REGION
from tools.local.deployed import Deployed
from tools.local.transform import transform

ACCOUNT = "123456789012"


def deployed(parameters: Mapping[str, str] | None = None) -> Deployed:
    """The stack, with these parameters and otherwise with defaults; a resource's physical id is its logical one.

    What has an ARN in place of a name refers to itself by a made-up one.
    """
    source = template.load()
    values = {name: str(each["Default"]) for name, each in source["Parameters"].items()} | dict(parameters or {})
    made = copy.deepcopy(_transformed(tuple(values.items())))
    return Deployed(
        made,
        {
            **values,
            **{name: _physical_id(name, resource["Type"]) for name, resource in made["Resources"].items()},
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackName": "stack",
            "AWS::URLSuffix": "amazonaws.com",
        },
        {},
    )


@cache
def _transformed(parameters: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return transform(template.load(), dict(parameters))


def _physical_id(name: str, type_: str) -> str:
    match type_:
        case "AWS::Lambda::Alias":
            return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name.removesuffix('Aliaslive')}:live"
        case "AWS::IAM::ManagedPolicy":
            return f"arn:aws:iam::{ACCOUNT}:policy/{name}"
    return name
