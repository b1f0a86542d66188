"""The rights of the functions' roles, as SAM makes them of the template, and the rights that calls to AWS need."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from botocore import client

from tests.transformed import deployed
from tools.local.deployed import Deployed

Right = tuple[str, str]
"""An action of IAM, and the table or queue of the template that it is for; empty for anything else."""

# Everything that a stack can be told to have.
_WHOLE = {
    "ServerProvider": "ec2",
    # example campaigns
    "MyFunnelApiUrl": "https://myfunnel.example",
    "DnsZoneId": "Z1",
    # end of example
}
_WITHIN_TRANSACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "Get": "GetItem",
    "ConditionCheck": "ConditionCheckItem",
}
# All calls of all clients go through its method `_make_api_call`, which is not public.
_client: Any = client.BaseClient
_OWN_RESOURCES = {"AWS::DynamoDB::Table", "AWS::SQS::Queue"}
# Names of services in the SDK that IAM does not use, and of calls that it has no action of their own for.
_PREFIXES = {"route-53": "route53", "secrets-manager": "secretsmanager"}
_ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
}


@cache
def stack() -> Deployed:
    """The stack, with everything that it can be told to have."""
    return deployed(_WHOLE)


@cache
def handlers() -> Mapping[str, str]:
    """The function behind each entry point, such as ``api.handler``."""
    return {each["Handler"]: name for name, each in stack().of_type("AWS::Lambda::Function").items()}


@cache
def rights(function: str) -> frozenset[Right]:
    """What a function's role allows, without what only Lambda itself does in its name."""
    role = stack().template["Resources"][f"{function}Role"]["Properties"]
    documents = [policy["PolicyDocument"] for policy in role.get("Policies", [])]
    managed = [name for each in role.get("ManagedPolicyArns", []) for name in _managed(each)]
    documents += [stack().template["Resources"][name]["Properties"]["PolicyDocument"] for name in managed]
    destinations = [
        ("sqs:SendMessage", _own(each["DestinationConfig"]))
        for each in stack().of_type("AWS::Lambda::EventInvokeConfig").values()
        if each["FunctionName"] == {"Ref": function}
    ]
    sources = [
        (f"sqs:{action}", _own(each["EventSourceArn"]))
        for each in stack().of_type("AWS::Lambda::EventSourceMapping").values()
        if each["FunctionName"]["Ref"].startswith(f"{function}Alias")
        for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    ]
    granted = frozenset(right for document in documents for right in _granted(document["Statement"]))
    return granted - {*destinations, *sources}


def needed(service: str, operation: str, parameters: Mapping[str, Any]) -> set[Right]:
    """The rights that a call needs; tables and queues are called as in the template.

    Source: Service Authorization Reference, "Actions, resources, and condition keys" of each service.
    """
    match f"{service}:{operation}":
        case "dynamodb:TransactWriteItems" | "dynamodb:TransactGetItems":
            members = [member for item in parameters["TransactItems"] for member in item.items()]
            return {(f"dynamodb:{_WITHIN_TRANSACTIONS[kind]}", it["TableName"]) for kind, it in members}
        case "dynamodb:BatchGetItem" | "dynamodb:BatchWriteItem":
            return {(f"dynamodb:{operation}", table) for table in parameters["RequestItems"]}
        case "ec2:RunInstances":
            tags = {("ec2:CreateTags", "")} if "TagSpecifications" in parameters else set[Right]()
            image = {("ssm:GetParameters", "")} if parameters["ImageId"].startswith("resolve:ssm:") else set[Right]()
            return {("ec2:RunInstances", "")} | tags | image
    index = f"/index/{parameters['IndexName']}" if "IndexName" in parameters else ""
    name = f"{parameters.get('TableName') or parameters.get('QueueUrl', '').rpartition('/')[2]}{index}"
    action = f"{_PREFIXES.get(service, service)}:{operation}"
    return {(_ACTIONS.get(action, action), name)}


@contextmanager
def recorded() -> Iterator[set[Right]]:
    """The rights that are needed within a `with` block."""
    needs: set[Right] = set()
    original = _client._make_api_call

    def record(self: Any, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        needs.update(needed(self.meta.service_model.service_id.hyphenize(), operation_name, api_params))
        return original(self, operation_name, api_params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_client, "_make_api_call", record)
        yield needs


@contextmanager
def enforced() -> Iterator[None]:
    """Within a `with` block, fail a test in which a function makes a call that its role does not allow."""
    original = _client._make_api_call

    def check(self: Any, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        if function := _running():
            needs = needed(self.meta.service_model.service_id.hyphenize(), operation_name, api_params)
            # A table that the template does not have is a test's own, and nobody's right.
            known = {right for right in needs if right[1].partition("/")[0] in {"", *stack().template["Resources"]}}
            if missing := known - rights(function):
                pytest.fail(
                    f"the role of {function} does not allow {sorted(missing)}: template.yaml gives it its rights"
                )
        return original(self, operation_name, api_params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_client, "_make_api_call", check)
        yield


def _running() -> str | None:
    """The function whose handler is running in this thread."""
    frame = inspect.currentframe()
    while frame:
        if name := handlers().get(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"):
            return name
        frame = frame.f_back
    return None


def _managed(policy: Any) -> Iterator[str]:
    """The managed policy of the template that a role's list names, if it is there."""
    match policy:
        case {"Fn::If": [condition, then, otherwise]}:
            yield from _managed(then if stack().holds(condition) else otherwise)
        case {"Ref": str(name)} if name in stack().template["Resources"]:
            yield name


def _granted(statements: Any) -> Iterator[Right]:
    """The rights of statements, of those that are there."""
    for statement in statements if isinstance(statements, list) else [statements]:
        if "Fn::If" in statement:
            condition, then, otherwise = statement["Fn::If"]
            yield from _granted(then if stack().holds(condition) else otherwise)
        elif "Action" in statement:
            assert statement["Effect"] == "Allow", "a Deny is not understood here"
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for resource in resources if isinstance(resources, list) else [resources]:
                    yield action, _own(resource)


def _own(node: Any) -> str:
    """The table (with its index) or queue of the template that something refers to; empty for none."""
    text = json.dumps(node)
    names = [name for name, each in stack().template["Resources"].items() if each["Type"] in _OWN_RESOURCES]
    found = next((name for name in names if re.search(rf"\b{name}\b", text)), "")
    index = re.search(r"/index/\w+", text)
    return found + (index[0] if found and index else "")
