"""A deployed stack as CloudFormation describes it: what SAM made of the template, with intrinsic functions resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.errors import ToolError

_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")
_NO_VALUE: Any = object()


@dataclass(frozen=True)
class Deployed:
    """A deployed stack.

    Args:
        template: the transformed template.
        references: what ``Ref`` gives, by name: parameters, resources and pseudo parameters.
        outputs: the stack's outputs.
    """

    template: Mapping[str, Any]
    references: Mapping[str, str]
    outputs: Mapping[str, str]

    def resolve(self, node: Any) -> Any:
        """A part of the template with its intrinsic functions replaced by their values.

        Raises:
            ToolError: if it has a function or a name that is not known here.

        Source: CloudFormation template reference, "Intrinsic functions".
        """
        match node:
            case {"Condition": str(name), **rest} if not rest:
                return self.holds(name)
            case dict() if len(node) == 1 and (name := next(iter(node))) in _FUNCTIONS:
                return _FUNCTIONS[name](self, node[name])
            case dict() if len(node) == 1 and next(iter(node)).startswith("Fn::"):
                raise ToolError(f"{next(iter(node))} cannot be resolved here: {node}")
            case dict():
                members = {name: self.resolve(member) for name, member in node.items()}
                return {name: member for name, member in members.items() if member is not _NO_VALUE}
            case list():
                return [member for member in map(self.resolve, node) if member is not _NO_VALUE]
        return node

    def holds(self, condition: str) -> bool:
        """Whether a condition of the template holds."""
        return bool(self.resolve(self.template["Conditions"][condition]))

    def of_type(self, type_: str) -> dict[str, Any]:
        """The properties of every resource of a type that was made, by logical id."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.template["Resources"].items()
            if resource["Type"] == type_ and ("Condition" not in resource or self.holds(resource["Condition"]))
        }

    def reference(self, name: str) -> Any:
        """What ``Ref`` gives."""
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name not in self.references:
            raise ToolError(f"the deployed stack has nothing called {name}")
        return self.references[name]

    def substitute(self, text: str | list[Any]) -> str:
        """What ``Fn::Sub`` gives."""
        pattern, local = (text, {}) if isinstance(text, str) else text
        values = {name: self.resolve(value) for name, value in local.items()}

        def value(found: re.Match[str]) -> str:
            literal, name = found.groups()
            if literal:
                return f"${{{name}}}"
            return str(values[name] if name in values else self.reference(name))

        return _VARIABLE.sub(value, pattern)

    def choose(self, alternatives: list[Any]) -> Any:
        """What ``Fn::If`` gives."""
        condition, then, otherwise = alternatives
        return self.resolve(then if self.holds(condition) else otherwise)


_FUNCTIONS: dict[str, Callable[[Deployed, Any], Any]] = {
    "Ref": Deployed.reference,
    "Fn::Sub": Deployed.substitute,
    "Fn::If": Deployed.choose,
    "Fn::Join": lambda stack, of: of[0].join(map(str, stack.resolve(of[1]))),
    "Fn::Equals": lambda stack, of: str(stack.resolve(of[0])) == str(stack.resolve(of[1])),
    "Fn::Not": lambda stack, of: not stack.resolve(of[0]),
    "Fn::And": lambda stack, of: all(stack.resolve(of)),
    "Fn::Or": lambda stack, of: any(stack.resolve(of)),
}


def find(cloudformation: Any, name: str) -> Deployed:
    """Look up a deployed stack.

    Args:
        cloudformation: a client of the cloud that it is in.
        name: the stack's name.

    Raises:
        ClientError: if it is not deployed.
    """
    described = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    _, _, _, region, account, *_ = described["StackId"].split(":")
    return Deployed(
        cloudformation.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"],
        {
            "AWS::AccountId": account,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackName": name,
            "AWS::URLSuffix": "amazonaws.com",
            **{parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in described["Parameters"]},
            **{resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources},
        },
        {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])},
    )
