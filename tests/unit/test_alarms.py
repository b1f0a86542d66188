"""Alarms and the dashboard: what they watch is emitted, the right ones ring, and none rings on a new stack."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import api
from idempotency.errors import Retry
from idempotency.telemetry import FAILED, Outcome, Telemetry
from tests.clocks import SetClock
from tests.events import Context
from tests.unit.service import Api, request
from tests.unit.test_deployment import transformed
from tools.local import template

pytestmark = pytest.mark.thorough

_STACK = template.load()
_RESOURCES: dict[str, Any] = _STACK["Resources"]
_RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
_OWN = "ProvisionOnce"

Dimensions = dict[str, str]
Seen = dict[str, float | None]
"""A period's value of each metric of an alarm, by id; None where there is no data."""

# What AWS emits of itself, with the sets of dimensions under which it does.
_LAMBDA = [("FunctionName",), ("FunctionName", "Resource", "ExecutedVersion")]
_AWS: dict[str, tuple[set[str], list[tuple[str, ...]]]] = {
    # Lambda developer guide, "Types of metrics for Lambda functions"
    "AWS/Lambda": ({"Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions"}, _LAMBDA),
    # API Gateway developer guide, "Amazon API Gateway dimensions and metrics"
    "AWS/ApiGateway": ({"Count", "4XXError", "5XXError", "Latency", "IntegrationLatency"}, [("ApiName", "Stage")]),
    # DynamoDB developer guide, "DynamoDB Metrics and dimensions"
    "AWS/DynamoDB": (
        {
            "ConsumedReadCapacityUnits",
            "ConsumedWriteCapacityUnits",
            "ReadThrottleEvents",
            "WriteThrottleEvents",
        },
        [("TableName",)],
    ),
    # SQS developer guide, "Available CloudWatch metrics for Amazon SQS"
    "AWS/SQS": ({"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}, [("QueueName",)]),
    # CloudWatch Logs user guide, "Monitoring with CloudWatch metrics"
    "AWS/Logs": ({"IncomingBytes"}, [("LogGroupName",)]),
}
# What the value of a dimension must name.
_NAMED_BY = {
    "FunctionName": "AWS::Serverless::Function",
    "TableName": "AWS::DynamoDB::Table",
    "QueueName": "AWS::SQS::Queue",
    "LogGroupName": "AWS::Logs::LogGroup",
}


def alarms() -> dict[str, Any]:
    """Each alarm, its metrics as a list in any case."""
    found = {}
    for name, made in _RESOURCES.items():
        if made["Type"] == "AWS::CloudWatch::Alarm":
            properties = made["Properties"]
            own = {"Id": "rings", "MetricStat": {"Metric": properties}} if "MetricName" in properties else None
            found[name] = {**properties, "Metrics": properties.get("Metrics", [own])}
    return found


def dashboard() -> list[dict[str, Any]]:
    """The dashboard's widgets."""
    body = _RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    return [widget["properties"] for widget in widgets]


def watched_by_alarms() -> Iterator[tuple[str, str, Dimensions]]:
    for alarm in alarms().values():
        for metric in (each["MetricStat"]["Metric"] for each in alarm["Metrics"] if "MetricStat" in each):
            dimensions = {each["Name"]: name_in(each["Value"]) for each in metric["Dimensions"]}
            yield metric["Namespace"], metric["MetricName"], dimensions


def watched_by_the_dashboard() -> Iterator[tuple[str, str, Dimensions]]:
    for widget in dashboard():
        for metric in widget.get("metrics", []):
            texts = [part for part in metric if isinstance(part, str)]
            if texts:
                namespace, name, *pairs = texts
                values = [value.removeprefix("${").removesuffix("}").partition(".")[0] for value in pairs[1::2]]
                yield namespace, name, dict(zip(pairs[::2], values, strict=True))


def name_in(value: Any) -> str:
    """The name that a Ref, Fn::GetAtt or Fn::Sub is about."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), str()]}:
            return name
        case {"Fn::Sub": str(text)}:
            return text
    raise AssertionError(value)


WATCHED = sorted({repr(each) for each in [*watched_by_alarms(), *watched_by_the_dashboard()]})


def emitted(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]]:
    """What the functions have written in embedded metric format: metric and dimensions → each line's members."""
    found: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for line in capsys.readouterr().out.splitlines():
        members = json.loads(line)
        for directive in members["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == _OWN
            for dimensions in directive["Dimensions"]:
                for metric in directive["Metrics"]:
                    found.setdefault((metric["Name"], tuple(sorted(dimensions))), []).append(members)
    return found


class TestWhatIsWatched:
    @pytest.mark.parametrize("watched", WATCHED)
    def test_is_emitted_under_these_dimensions(
        self, watched: str, capsys: pytest.CaptureFixture[str], service: Api
    ) -> None:
        namespace, metric, dimensions = ast.literal_eval(watched)
        if namespace == _OWN:
            # Given the lines of one invocation that counts everything that can be counted
            telemetry = Telemetry(api.metrics, api.logger)
            for outcome in Outcome:
                telemetry.emit(outcome, milliseconds=1 if outcome is Outcome.WAITED else None)
            telemetry.failed("7")
            telemetry.backlog(1_000)
            telemetry.backlog(0)
            api.metrics.flush_metrics()

            # Then the metric is among them
            assert (metric, tuple(sorted(dimensions))) in emitted(capsys)
            assert dimensions["service"] == "AWS::StackName"
            variables = _STACK["Globals"]["Function"]["Environment"]["Variables"]
            assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
            assert variables["POWERTOOLS_METRICS_NAMESPACE"] == _OWN
        else:
            metrics, sets = _AWS[namespace]
            assert metric in metrics
            assert tuple(dimensions) in sets
            for name, value in dimensions.items():
                if name in _NAMED_BY:
                    assert _RESOURCES[value]["Type"] == _NAMED_BY[name]

    def test_is_each_outcome_that_there_is(self) -> None:
        shown = {metric for namespace, metric, _ in watched_by_the_dashboard() if namespace == _OWN}

        assert set(Outcome) <= shown

    @pytest.mark.parametrize("outcome", Outcome)
    def test_is_emitted_by_the_engine(self, outcome: Outcome) -> None:
        sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "src").rglob("*.py"))

        assert re.search(rf"Outcome\.{outcome.name}\b(?! =)", sources)

    def test_in_the_logs_is_in_a_log_group_of_the_stack(self) -> None:
        [query] = [widget["query"] for widget in dashboard() if "query" in widget]
        [group] = re.findall(r"\$\{(\w+)\}", query)

        assert _RESOURCES[group]["Type"] == "AWS::Logs::LogGroup"

    def test_of_the_stage_has_the_names_of_the_api_and_the_stage(self) -> None:
        properties = _RESOURCES["Api"]["Properties"]
        of_the_stage = [dimensions for namespace, _, dimensions in watched_by_alarms() if namespace == "AWS/ApiGateway"]

        assert (properties["Name"], properties["StageName"]) == ({"Ref": "AWS::StackName"}, {"Ref": "Environment"})
        assert of_the_stage
        assert all(each == {"ApiName": "AWS::StackName", "Stage": "Environment"} for each in of_the_stage)


_COMPARED: dict[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
}
_COMPUTED: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
}


def evaluate(expression: str, seen: Seen) -> float | None:
    """Metric math on one period, as far as the alarms use it; None if there is no data.

    Source: CloudWatch user guide, "Using math expressions with CloudWatch metrics".
    """
    return _value(ast.parse(expression.replace(" AND ", " and "), mode="eval").body, seen)


def _value(node: ast.AST, seen: Seen) -> float | None:  # noqa: PLR0911 - a case for each kind of node
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return seen[name]
        case ast.Call(func=ast.Name(id="FILL"), args=[filled, filling]):
            value = _value(filled, seen)
            return _value(filling, seen) if value is None else value
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            holds = _value(condition, seen)
            return None if holds is None else _value(then if holds else otherwise, seen)
        case ast.BoolOp(op=ast.And(), values=conditions):
            values = [_value(condition, seen) for condition in conditions]
            return None if None in values else float(all(values))
        case ast.BinOp(left=left, op=operation, right=right):
            return _both(_COMPUTED[type(operation)], _value(left, seen), _value(right, seen))
        case ast.Compare(left=left, ops=[comparison], comparators=[right]):
            return _both(_COMPARED[type(comparison)], _value(left, seen), _value(right, seen))
    raise AssertionError(f"metric math that this test does not know: {ast.unparse(node)}")


def _both(apply: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else float(apply(left, right))


def rings(name: str, **seen: float | None) -> bool:
    """Whether an alarm would be set off by periods that all look like this one."""
    alarm = alarms()[name]
    [shown] = [each for each in alarm["Metrics"] if each.get("ReturnData", True)]
    ids = {each["Id"]: None for each in alarm["Metrics"] if "MetricStat" in each}
    value = evaluate(shown["Expression"], {**ids, **seen}) if "Expression" in shown else seen.get(shown["Id"])
    if value is None:
        return bool(alarm["TreatMissingData"] == "breaching")
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    return bool(value >= alarm["Threshold"])


class TestAlarms:
    @pytest.mark.parametrize("alarm", alarms())
    def test_do_not_ring_on_a_new_stack(self, alarm: str) -> None:
        assert not rings(alarm)

    @pytest.mark.parametrize("alarm", alarms())
    def test_are_in_the_runbook(self, alarm: str) -> None:
        assert f"| `{alarm}` | " in _RUNBOOK

    @pytest.mark.parametrize("alarm", sorted(set(alarms()) - {"NewVersionFailures", "NewVersionErrors"}))
    def test_say_when_it_begins_and_when_it_is_over(self, alarm: str) -> None:
        to = [{"Fn::If": ["HasAlarmTopic", {"Ref": "AlarmTopicArn"}, {"Ref": "AWS::NoValue"}]}]

        assert (alarms()[alarm]["AlarmActions"], alarms()[alarm]["OKActions"]) == (to, to)

    @pytest.mark.parametrize(
        ("alarm", "quiet", "loud"),
        [
            ("ApiFunctionErrors", {"errors": 1, "invocations": 1000}, {"errors": 20, "invocations": 1000}),
            ("ApiFunctionErrors", {"errors": 0, "invocations": 1}, {"errors": 1, "invocations": 1}),
            ("ApiFunctionThrottles", {"throttles": 1, "invocations": 1000}, {"throttles": 5, "invocations": None}),
            ("ApiServerErrors", {"failures": 2, "requests": 2}, {"failures": 3, "requests": 3}),
            ("ApiServerErrors", {"failures": 40, "requests": 1000}, {"failures": 60, "requests": 1000}),
            ("ApiLatency", {"latency": 4999}, {"latency": 5001}),
            ("AuthorizerFunctionErrors", {"errors": 1, "invocations": 500}, {"errors": 1, "invocations": 1}),
            ("DynamoDBThrottles", {"records": 9}, {"records": 5, "rows": 5}),
            ("NewVersionFailures", {"failures": 5, "invocations": 100}, {"failures": 6, "invocations": 100}),
            ("NewVersionErrors", {"errors": 0, "invocations": 10}, {"errors": 10, "invocations": 10}),
            ("RecoveryNotRun", {"requests": 10, "runs": 5}, {"requests": 10}),
            ("RecoveryFailed", {"rings": 0}, {"rings": 1}),
            ("RecoveryParked", {"rings": 0}, {"rings": 1}),
            ("OperationInDoubt", {"rings": 0}, {"rings": 1}),
        ],
    )
    def test_ring_by_what_share_of_the_traffic_fails(
        self, alarm: str, quiet: dict[str, float | None], loud: dict[str, float | None]
    ) -> None:
        assert not rings(alarm, **quiet)
        assert rings(alarm, **loud)

    @pytest.mark.parametrize("outcome", Outcome)
    def test_may_be_set_on_any_metric_that_the_runbook_explains(self, outcome: Outcome) -> None:
        assert f"`{outcome}`" in _RUNBOOK

    def test_need_no_detailed_metrics(self) -> None:
        [settings] = _RESOURCES["Api"]["Properties"]["MethodSettings"]

        assert settings["MetricsEnabled"] == {"Ref": "DetailedMetrics"}
        assert _STACK["Parameters"]["DetailedMetrics"]["Default"] == "false"


class TestARollBack:
    VERSION = "7"

    @pytest.fixture
    def answers(
        self, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[[int, Exception | None], Seen]:
        """Function that lets the new version answer some requests, and says what CloudWatch sees of it in a minute."""

        def answer(requests: int, error: Exception | None) -> Seen:
            monkeypatch.setattr(Context, "function_version", self.VERSION)
            if error:
                monkeypatch.setattr(api, "provider", lambda: (_ for _ in ()).throw(error))
            statuses = [api.handler(request(key=f"key-{n}"), Context())["statusCode"] for n in range(requests)]
            assert (min(statuses) >= 500) is (error is not None)
            lines = emitted(capsys).get((FAILED, ("service", "version")), [])
            assert {line["version"] for line in lines} <= {self.VERSION}
            # Lambda counts the invocations; none of them is an error to it, since the function answers.
            return {"failures": sum(line[FAILED][0] for line in lines) or None, "invocations": requests}

        return answer

    @pytest.mark.parametrize("requests", [1, 20])
    @pytest.mark.parametrize("error", [ZeroDivisionError(), Retry("DynamoDB is denied")], ids=["500", "503"])
    def test_follows_if_the_new_version_fails(
        self, answers: Callable[[int, Exception | None], Seen], requests: int, error: Exception
    ) -> None:
        assert rings("NewVersionFailures", **answers(requests, error))

    def test_does_not_follow_if_it_answers(self, answers: Callable[[int, Exception | None], Seen]) -> None:
        assert not rings("NewVersionFailures", **answers(20, None))

    def test_is_told_to_codedeploy(self) -> None:
        groups = transformed()
        watched = {
            name: [each["Name"]["Ref"] for each in group["Properties"]["AlarmConfiguration"]["Fn::If"][1]["Alarms"]]
            for name, group in groups.items()
            if group["Type"] == "AWS::CodeDeploy::DeploymentGroup"
        }

        assert watched == {
            "ApiFunctionDeploymentGroup": [
                "NewVersionFailures",
                "NewVersionErrors",
                "ApiServerErrors",
                "AuthorizerFunctionErrors",
            ],
            "AuthorizerFunctionDeploymentGroup": ["AuthorizerFunctionErrors", "ApiServerErrors"],
        }
        for group in watched:
            rolled_back_on = groups[group]["Properties"]["AutoRollbackConfiguration"]["Events"]
            assert "DEPLOYMENT_STOP_ON_ALARM" in rolled_back_on

    def test_is_of_the_newest_version(self) -> None:
        resources = transformed(("Release", "feedface00"))
        [version] = [
            each["Value"]
            for metric in resources["NewVersionFailures"]["Properties"]["Metrics"]
            for each in metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", [])
            if each["Name"] == "version"
        ]

        assert version == {"Fn::GetAtt": ["ApiFunctionVersionfeedface00", "Version"]}
        assert resources["ApiFunctionAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"][
            "BeforeAllowTrafficHook"
        ] == {"Ref": "PreTrafficFunction"}

    def test_can_be_switched_off_for_a_correction(self) -> None:
        assert _STACK["Conditions"]["RollsBackOnAlarm"] == {"Fn::Equals": [{"Ref": "RollBackOnAlarm"}, "true"]}
        for function in ("ApiFunction", "AuthorizerFunction"):
            preference = _RESOURCES[function]["Properties"]["DeploymentPreference"]
            assert preference["Alarms"]["Fn::If"][2] == [{"Ref": "AWS::NoValue"}]
