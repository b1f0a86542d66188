"""The template: alarms that can go off, rights that are used, and how it is adapted to the local cloud."""

from __future__ import annotations

import copy
import json
import re
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from idempotency import Rejected
from provisioning.campaigns import CampaignRequest
from provisioning.dns import Dns
from provisioning.ec2 import OPERATION_TAG
from tools.local import template
from tools.local.samconfig import deploy_parameters

_STACK = template.load()
_RESOURCES: dict[str, Any] = _STACK["Resources"]
_SOURCES = Path(__file__).parents[2] / "src"


def of_type(type_: str) -> dict[str, Any]:
    return {name: resource["Properties"] for name, resource in _RESOURCES.items() if resource["Type"] == type_}


class TestFunctions:
    FUNCTIONS = of_type("AWS::Serverless::Function")

    @pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
    def test_have_entry_points(self, function: dict[str, Any]) -> None:
        module, name = function["Handler"].split(".")
        assert f"def {name}(" in (_SOURCES / f"{module}.py").read_text()

    def test_have_every_variable_that_the_source_reads_without_a_default(self) -> None:
        read = {
            variable
            for path in _SOURCES.rglob("*.py")
            for variable in re.findall(r'os\.environ\["(\w+)"\]', path.read_text())
        }
        declared = set(_STACK["Globals"]["Function"]["Environment"]["Variables"])
        for function in self.FUNCTIONS.values():
            declared |= set(function.get("Environment", {}).get("Variables", {}))
        assert read
        assert read <= declared


class TestRights:
    def statements(self) -> list[dict[str, Any]]:
        """Every statement of the operations' policy, conditional ones included."""
        listed = _RESOURCES["OperationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        return [statement["Fn::If"][1] if "Fn::If" in statement else statement for statement in listed]

    def test_name_every_action_without_wildcards(self) -> None:
        for statement in self.statements():
            actions = statement["Action"]
            assert "*" not in "".join([actions] if isinstance(actions, str) else actions)

    def test_cover_all_resources_only_where_nothing_narrower_exists(self) -> None:
        everywhere = [statement["Action"] for statement in self.statements() if statement["Resource"] == "*"]
        assert everywhere == ["ec2:DescribeInstances"]

    def test_to_end_an_instance_reach_only_those_with_the_operations_tag(self) -> None:
        [given] = [each for each in self.statements() if each["Action"] == "ec2:TerminateInstances"]

        assert given["Condition"]["Null"] == {f"aws:ResourceTag/{OPERATION_TAG}": "false"}

    # example campaigns
    @pytest.mark.parametrize(
        ("domain", "inside"),
        [
            ("shop.example.com", True),
            ("spring.shop.example.com", True),
            ("a.spring.shop.example.com", True),
            ("example.com", False),
            ("www.example.com", False),
            ("workshop.example.com", False),
            ("shop.example.com.example.org", False),
        ],
    )
    def test_to_change_dns_reach_a_subtree_where_there_is_one_as_the_function_does(
        self, domain: str, inside: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given the names that the role lets the function change
        [given] = [each for each in self.statements() if each["Action"] == "route53:ChangeResourceRecordSets"]
        condition, names, without = given["Condition"]["ForAllValues:StringLike"]["Fn::If"]
        [patterns] = names.values()
        subtree = {"Ref": "DnsSubtree"}, {"Fn::Sub": "*.${DnsSubtree}"}
        by_the_role = dict(zip(map(str, subtree), ["shop.example.com", "*.shop.example.com"], strict=True))

        # When the function is to route a domain
        changed: list[str] = []
        monkeypatch.setattr(Dns, "_change", lambda _, __, domain, ___: changed.append(domain))
        with nullcontext() if inside else pytest.raises(Rejected):
            Dns("Z1", "shop.example.com").route(domain, "fnl-1.pages.myfunnel.example")

        # Then it may, and does, or neither
        assert (condition, without) == ("HasDnsSubtree", {"Ref": "AWS::NoValue"})
        assert [*names] == ["route53:ChangeResourceRecordSetsNormalizedRecordNames"]
        assert any(fnmatchcase(domain, by_the_role[str(pattern)]) for pattern in patterns) is inside
        assert changed == [domain] * inside

    def test_to_change_dns_have_a_subtree_written_as_domains_are(self) -> None:
        domain = CampaignRequest.SCHEMA["properties"]["domain"]["pattern"]

        assert _STACK["Parameters"]["DnsSubtree"]["AllowedPattern"] == f"({domain.strip('^$')})?"

    # end of example

    def test_to_servers_and_services_are_given_only_with_these(self) -> None:
        listed = _RESOURCES["OperationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        unconditional = str([statement["Action"] for statement in listed if "Fn::If" not in statement])
        assert [service for service in ("ec2:", "route53:", "secretsmanager:") if service in unconditional] == []


class TestEnvironments:
    @pytest.mark.parametrize("environment", ["default", "dev", "staging", "prod", "local"])
    def test_set_parameters_that_exist_to_values_that_are_allowed(self, environment: str) -> None:
        for override in deploy_parameters(environment)["parameter_overrides"]:
            name, value = override.split("=", 1)
            parameter = _STACK["Parameters"][name]
            assert value in map(str, parameter.get("AllowedValues", [value]))
            assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value)

    def test_default_is_dev(self) -> None:
        assert deploy_parameters("default") == deploy_parameters("dev")


def without(node: Any, keys: set[str]) -> Any:
    """The same without some members of objects, wherever they are."""
    match node:
        case dict():
            return {name: without(member, keys) for name, member in node.items() if name not in keys}
        case list():
            return [without(member, keys) for member in node]
    return node


def test_adapting_the_template_to_the_local_cloud_leaves_all_else_as_it_is() -> None:
    # Given the template, with CodeDeploy for two functions, alarms on metric math, images of no account, a number, and
    # conditions that the local cloud's IAM does not know
    adapted = copy.deepcopy(_STACK)

    # When it is adapted
    template.adapt(adapted)

    # Then putting these back makes it the template again
    dropped = {name: made for name, made in _RESOURCES.items() if name not in adapted["Resources"]}
    assert {made["Type"] for made in dropped.values()} == {"AWS::CloudWatch::Alarm"}
    assert all("Metrics" in made["Properties"] for made in dropped.values())
    for function in ("ApiFunction", "AuthorizerFunction"):
        changed = adapted["Resources"][function]["Properties"]
        assert "DeploymentPreference" not in changed
        changed["DeploymentPreference"] = _RESOURCES[function]["Properties"]["DeploymentPreference"]
    scaling = adapted["Resources"]["WorkerMessages"]["Properties"]["ScalingConfig"]
    assert scaling == {"MaximumConcurrency": _STACK["Parameters"]["RecoveryConcurrency"]["Default"]}
    scaling["MaximumConcurrency"] = {"Ref": "RecoveryConcurrency"}
    text = json.dumps(adapted)
    for here, there in template._RIGHTS.items():
        text = text.replace(there, here)
    restored = json.loads(text)
    conditions = {"aws:RequestedRegion", "ec2:InstanceType", "ec2:MetadataHttpTokens", "ec2:Owner"}
    assert {**restored["Resources"], **dropped} == without(_RESOURCES, conditions)
    assert {**restored, "Resources": 0} == json.loads(json.dumps({**_STACK, "Resources": 0}))
