"""template.yaml as data, with intrinsic functions in their long form, as in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from tools.setup import ROOT

TEMPLATE = ROOT / "template.yaml"
_UNKNOWN_TO_IAM = frozenset({"aws:RequestedRegion", "ec2:InstanceType", "ec2:MetadataHttpTokens", "ec2:Owner"})


class _Loader(yaml.CSafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` is `{"Ref": "X"}`, `!Sub …` is `{"Fn::Sub": …}`."""


def _intrinsic(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(cast(yaml.MappingNode, node), deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def load(path: Path = TEMPLATE) -> dict[str, Any]:
    """Read a template."""
    template: dict[str, Any] = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a safe loader
    return template


def dump(template: Mapping[str, Any], path: Path) -> None:
    """Write a template, in the order that it has."""
    path.write_text(yaml.dump(template, Dumper=yaml.CSafeDumper, sort_keys=False))


_RIGHTS = {":ec2:*::image/*": ":ec2:*:*:image/*", "sqs:SendMessage": "sqs:SendMessage*"}
"""What a right is called in the template, and what gives the same to MiniStack."""


def adapt(template: dict[str, Any]) -> None:
    """Change what MiniStack does not take as AWS does.

    - It refuses CodeDeploy's types, even under a false condition, and alarms on metric math.
    - Its images have an account, and EC2 launches them with the rights to the image alone.
    - It wants a right of its own for sending messages in batches.
    - It takes a parameter's number for text, which it compares with the number of workers: here it has the default.
    - Its IAM knows neither region, type, owner nor metadata options of a request to EC2: no condition on them holds.
    """
    for name, resource in list(template["Resources"].items()):
        if "Metrics" in resource.get("Properties", {}):
            del template["Resources"][name]
        elif resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"].pop("DeploymentPreference", None)
        elif resource["Type"] == "AWS::Lambda::EventSourceMapping":
            scaling = resource["Properties"]["ScalingConfig"]
            scaling["MaximumConcurrency"] = template["Parameters"][scaling["MaximumConcurrency"]["Ref"]]["Default"]
    template["Resources"] = _without(template["Resources"], _UNKNOWN_TO_IAM)
    for here, there in _RIGHTS.items():
        template["Resources"] = _replaced(template["Resources"], here, there)


def _without(node: Any, keys: frozenset[str]) -> Any:
    match node:
        case dict():
            return {name: _without(member, keys) for name, member in node.items() if name not in keys}
        case list():
            return [_without(member, keys) for member in node]
    return node


def _replaced(node: Any, old: str, new: str) -> Any:
    match node:
        case dict():
            return {name: _replaced(member, old, new) for name, member in node.items()}
        case list():
            return [_replaced(member, old, new) for member in node]
        case str():
            return node.replace(old, new)
    return node
