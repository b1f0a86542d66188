"""What the stack promises of itself: alarms that can ring, rights that are used, a step for the local cloud."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from idempotency.telemetry import Outcome
from tools.local import template
from tools.local.samconfig import deploy_parameters

_STACK = template.load()
_RESOURCES: dict[str, Any] = _STACK["Resources"]
_RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
_SOURCES = Path(__file__).parents[2] / "src"


def of_type(type_: str) -> dict[str, Any]:
    return {name: resource["Properties"] for name, resource in _RESOURCES.items() if resource["Type"] == type_}


class TestAlarms:
    ALARMS = of_type("AWS::CloudWatch::Alarm")

    @pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
    def test_watch_a_metric_that_something_in_the_stack_emits(self, alarm: dict[str, Any]) -> None:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
        match alarm["Namespace"]:
            case "AWS/Lambda":
                (name,) = dimensions
                assert name == "FunctionName"
                assert dimensions[name]["Ref"] in of_type("AWS::Serverless::Function")
            case "AWS/SQS":
                (name,) = dimensions
                assert name == "QueueName"
                assert dimensions[name]["Fn::GetAtt"] == ["RecoveryDeadLetters", "QueueName"]
            case "AWS/ApiGateway":
                api = _RESOURCES["Api"]["Properties"]
                assert dimensions == {"ApiName": api["Name"], "Stage": api["StageName"]}
                assert api["MethodSettings"][0]["MetricsEnabled"]
            case namespace:
                variables = _STACK["Globals"]["Function"]["Environment"]["Variables"]
                assert namespace == variables["POWERTOOLS_METRICS_NAMESPACE"]
                assert dimensions == {"service": variables["POWERTOOLS_SERVICE_NAME"]}
                assert alarm["MetricName"] in list(Outcome)

    @pytest.mark.parametrize("alarm", ALARMS)
    def test_are_in_the_runbook(self, alarm: str) -> None:
        assert f"| `{alarm}` | " in _RUNBOOK

    @pytest.mark.parametrize("outcome", Outcome)
    def test_may_be_set_on_any_metric_that_the_runbook_explains(self, outcome: Outcome) -> None:
        assert f"`{outcome}`" in _RUNBOOK


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
        """Every statement of the operations' policy, those under a condition too."""
        listed = _RESOURCES["OperationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        return [statement["Fn::If"][1] if "Fn::If" in statement else statement for statement in listed]

    def test_name_no_action_by_a_wildcard(self) -> None:
        for statement in self.statements():
            actions = statement["Action"]
            assert "*" not in "".join([actions] if isinstance(actions, str) else actions)

    def test_reach_every_resource_only_where_nothing_narrower_exists(self) -> None:
        everywhere = [statement["Action"] for statement in self.statements() if statement["Resource"] == "*"]
        assert everywhere == ["ec2:DescribeInstances"]

    def test_to_servers_and_services_are_given_only_with_these(self) -> None:
        listed = _RESOURCES["OperationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        unconditional = str([statement["Action"] for statement in listed if "Fn::If" not in statement])
        assert [service for service in ("ec2:", "route53:", "secretsmanager:") if service in unconditional] == []


class TestEnvironments:
    @pytest.mark.parametrize("environment", ["default", "dev", "prod", "local"])
    def test_set_parameters_that_exist_to_values_that_are_allowed(self, environment: str) -> None:
        for override in deploy_parameters(environment)["parameter_overrides"]:
            name, value = override.split("=", 1)
            parameter = _STACK["Parameters"][name]
            assert value in map(str, parameter.get("AllowedValues", [value]))
            assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value)

    def test_default_is_dev(self) -> None:
        assert deploy_parameters("default") == deploy_parameters("dev")


def test_dropping_deployment_preferences_leaves_all_else_as_it_is() -> None:
    # Given the template, which has them for all functions and for one
    adapted = copy.deepcopy(_STACK)

    # When they are dropped
    template.drop_deployment_preferences(adapted)

    # Then putting them back makes it the template again
    assert adapted != _STACK
    globals_ = _STACK["Globals"]["Function"]
    adapted["Globals"]["Function"]["DeploymentPreference"] = globals_["DeploymentPreference"]
    function = _RESOURCES["ApiFunction"]["Properties"]
    adapted["Resources"]["ApiFunction"]["Properties"]["DeploymentPreference"] = function["DeploymentPreference"]
    assert adapted == _STACK
