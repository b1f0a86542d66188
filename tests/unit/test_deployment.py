"""What AWS gets to see: the template as SAM transforms it, with one value or another of its parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from provisioning.servers import REGIONS, SIZES
from tests.transformed import deployed
from tools.local import template
from tools.local.deployed import Deployed
from tools.local.release import release
from tools.local.samconfig import deploy_parameters
from tools.local.transform import transform
from tools.ops import deploy

pytestmark = pytest.mark.thorough

_STACK = template.load()
_PARAMETERS: dict[str, Any] = _STACK["Parameters"]
_FUNCTIONS = [name for name, made in _STACK["Resources"].items() if made["Type"] == "AWS::Serverless::Function"]
_ENVIRONMENTS = ["default", "dev", "staging", "prod", "local"]

_NO_VALUE = {"Ref": "AWS::NoValue"}
_KEY = "arn:aws:kms:eu-west-1:123456789012:key/8c778f4c"
_BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
_OTHERS = {
    "CorsOrigin": "https://shop.example.com",
    "DomainName": "api.example.com",
    "Environment": "other",
    "KmsKeyArn": _KEY,
    "PermissionsBoundaryArn": _BOUNDARY,
}

Resources = dict[str, Any]


@cache
def transformed(*parameters: tuple[str, str], code: str = "code") -> Resources:
    """The resources that a deployment with these values makes."""
    resources: Resources = transform(_STACK, dict(parameters), code)["Resources"]
    return resources


def of_type(type_: str, resources: Resources) -> Resources:
    return {name: made["Properties"] for name, made in resources.items() if made["Type"] == type_}


def referred_to(node: Any) -> Iterator[str]:
    """The names in each Ref, Fn::GetAtt and Fn::Sub of a part of the template."""
    match node:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [str(name), _]}:
            yield name
        case {"Fn::Sub": str(text)}:
            yield from re.findall(r"\$\{(\w+)", text)
        case dict():
            for member in node.values():
                yield from referred_to(member)
        case list():
            for member in node:
                yield from referred_to(member)


def another(parameter: str) -> str:
    """A value of a parameter that is not its default."""
    described = _PARAMETERS[parameter]
    default = str(described["Default"])
    if parameter in _OTHERS:
        return _OTHERS[parameter]
    if "AllowedValues" in described:
        return next(str(value) for value in described["AllowedValues"] if str(value) != default)
    return "61" if described["Type"] == "Number" else f"{default}.another.example"


def versions(resources: Resources) -> set[str]:
    """The versions of functions, and the deployments of the API; what is named anew is made anew."""
    return {*of_type("AWS::Lambda::Version", resources), *of_type("AWS::ApiGateway::Deployment", resources)}


def built(directory: Path, *, code: str = "handler = None", stack: Any = None) -> Path:
    """What `sam build` leaves behind."""
    directory.mkdir()
    template.dump(_STACK if stack is None else stack, directory / "template.yaml")
    for function in _FUNCTIONS:
        (directory / function).mkdir()
        (directory / function / "api.py").write_text(code)
    return directory


class TestARelease:
    @pytest.mark.parametrize("parameter", sorted(set(_PARAMETERS) - {"Release"}))
    def test_takes_each_changed_parameter_to_the_running_functions_and_to_the_stage(
        self, parameter: str, tmp_path: Path
    ) -> None:
        # Given a deployment, and the next one, of the same code with one parameter changed
        artifact = built(tmp_path / "built")
        before = release(artifact, ["Environment=dev"])
        after = release(artifact, ["Environment=dev", f"{parameter}={another(parameter)}"])

        # When both are transformed
        first = transformed(("Release", before))
        second = transformed(("Release", after), (parameter, another(parameter)))

        # Then no version of a function and no deployment of the API is the one from before
        assert len(versions(second)) == len(_FUNCTIONS) + 1
        assert not versions(first) & versions(second)

    def test_of_something_unchanged_changes_nothing(self, tmp_path: Path) -> None:
        overrides = ["Environment=dev", "IdempotencyTtlSeconds=60"]
        once = release(built(tmp_path / "once"), overrides)
        again = release(built(tmp_path / "again"), reversed(overrides))

        assert once == again
        assert transform(_STACK, {"Release": once}) == transform(_STACK, {"Release": again})

    def test_changes_with_the_code_and_with_the_template(self, tmp_path: Path) -> None:
        changed = {**_STACK, "Description": "Another"}
        made = [
            release(built(tmp_path / "a"), []),
            release(built(tmp_path / "b", code="handler = 1"), []),
            release(built(tmp_path / "c", stack=changed), []),
        ]

        assert len(set(made)) == 3
        assert all(re.fullmatch(_PARAMETERS["Release"]["AllowedPattern"], each) for each in made)
        assert len({each[:10] for each in made}) == 3, "SAM looks at the first ten digits"

    def test_that_is_not_named_still_publishes_changed_code(self) -> None:
        before, after = of_type("AWS::Lambda::Version", transformed()), transformed(code="other")

        assert len(before) == len(_FUNCTIONS)
        assert not before.keys() & of_type("AWS::Lambda::Version", after).keys()

    @pytest.mark.parametrize("environment", _ENVIRONMENTS)
    def test_is_what_make_deploy_deploys_with_all_that_samconfig_says(self, environment: str, tmp_path: Path) -> None:
        artifact = built(tmp_path / "built")
        overrides = deploy_parameters(environment)["parameter_overrides"]

        command = deploy.command(environment, artifact)

        said = command[command.index("--parameter-overrides") + 1 :]
        assert said == [*overrides, f"Release={release(artifact, overrides)}"]
        assert command[command.index("--config-env") + 1] == environment


class TestTheLogRole:
    def test_waits_for_an_api_and_only_the_stage_waits_for_it(self) -> None:
        resources = transformed(("ApiGatewayLogRole", "create"))
        waiting = {
            name
            for name, made in resources.items()
            if "'ApiGatewayAccount'" in str([*referred_to(made.get("Properties")), made.get("DependsOn")])
        }

        assert resources["ApiGatewayAccount"]["DependsOn"] == "Api"
        assert waiting == {"ApiStage"}

    def test_is_one_stack_s_of_those_in_an_account(self) -> None:
        # Given the environments that deploy with the credentials of one account
        makers = {
            deploy_parameters(environment)["stack_name"]
            for environment in set(_ENVIRONMENTS) - {"local"}
            if "ApiGatewayLogRole=create" in deploy_parameters(environment)["parameter_overrides"]
        }

        assert _PARAMETERS["ApiGatewayLogRole"]["Default"] == "exists"
        assert len(makers) == 1


class TestSnapshots:
    def test_are_only_of_functions_that_clients_wait_for(self) -> None:
        functions = of_type("AWS::Lambda::Function", transformed(("SnapStart", "PublishedVersions")))
        taken = {name for name, properties in functions.items() if "SnapStart" in properties}

        assert taken == {"ApiFunction", "AuthorizerFunction"}

    def test_are_none_unless_somebody_asks_for_them(self) -> None:
        assert _PARAMETERS["SnapStart"]["Default"] == "None"

    def test_of_versions_before_do_not_outlive_them(self) -> None:
        made = [each for each in transformed().values() if each["Type"] == "AWS::Lambda::Version"]

        assert {each["DeletionPolicy"] for each in made} == {"Delete"}


class TestTheGateway:
    API = _STACK["Resources"]["Api"]["Properties"]
    RESPONSES: dict[str, Any] = API["GatewayResponses"]
    # The types that can be customized, with the statuses that they have by default.
    # Source: API Gateway developer guide, "Gateway response types for API Gateway".
    DEFAULTS = {  # noqa: RUF012 - read only
        "ACCESS_DENIED": 403,
        "API_CONFIGURATION_ERROR": 500,
        "AUTHORIZER_CONFIGURATION_ERROR": 500,
        "AUTHORIZER_FAILURE": 500,
        "BAD_REQUEST_BODY": 400,
        "BAD_REQUEST_PARAMETERS": 400,
        "DEFAULT_4XX": None,
        "DEFAULT_5XX": None,
        "EXPIRED_TOKEN": 403,
        "INTEGRATION_FAILURE": 504,
        "INTEGRATION_TIMEOUT": 504,
        "INVALID_API_KEY": 403,
        "INVALID_SIGNATURE": 403,
        "MISSING_AUTHENTICATION_TOKEN": 403,
        "QUOTA_EXCEEDED": 429,
        "RESOURCE_NOT_FOUND": 404,
        "THROTTLED": 429,
        "UNAUTHORIZED": 401,
        "WAF_FILTERED": 403,
    }

    def test_customizes_only_what_can_be_and_happens(self) -> None:
        assert self.RESPONSES.keys() <= self.DEFAULTS.keys()

    @pytest.mark.parametrize(
        ("type_", "status"),
        [("RESOURCE_NOT_FOUND", 404), ("QUOTA_EXCEEDED", 429), ("AUTHORIZER_FAILURE", 503)],
    )
    def test_has_the_status_that_fits(self, type_: str, status: int) -> None:
        body = self.RESPONSES[type_]["ResponseTemplates"]["application/json"]["Fn::Sub"]

        assert self.RESPONSES[type_]["StatusCode"] == status
        assert f'"status":{status}' in body
        assert ("Retry-After" in self.RESPONSES[type_]["ResponseParameters"]["Headers"]) is (status != 404)

    def test_repeats_nothing_that_a_client_sent(self) -> None:
        # Names of parameters are all that the gateway's message about missing ones contains.
        repeating = {name for name, made in self.RESPONSES.items() if "context.error" in json.dumps(made)}

        assert repeating == {"BAD_REQUEST_PARAMETERS"}

    @pytest.mark.parametrize(("endpoint", "demanded"), [("EDGE", True), ("REGIONAL", False)])
    def test_demands_the_key_only_where_its_name_is_known_to_arrive_as_it_is_declared(
        self, endpoint: str, demanded: bool
    ) -> None:
        paths = transformed()["Api"]["Properties"]["Body"]["paths"]
        posts = [methods["post"] for methods in paths.values() if "post" in methods]
        demands = [
            parameter["required"]
            for post in posts
            for parameter in post.get("parameters", [])
            if parameter["name"] == "Idempotency-Key"
        ]

        assert _STACK["Conditions"]["IsEdge"] == {"Fn::Equals": [{"Ref": "EndpointType"}, "EDGE"]}
        assert posts
        assert demands == [{"Fn::If": ["IsEdge", True, False]}] * len(posts)
        assert demands[0]["Fn::If"][1 if endpoint == "EDGE" else 2] is demanded

    def test_leaves_no_answer_to_what_a_client_accepts(self) -> None:
        # With */* every answer that says that it is binary is decoded, with no type none is; any other list decodes it
        # for those clients alone that name the type first.
        types = [media for media in self.API["BinaryMediaTypes"] if isinstance(media, str)]

        assert types in ([], ["*/*"])


def resources_with(**parameters: str) -> Resources:
    """The resources that there are with these values, with each condition decided and each reference filled in."""
    made = deployed(parameters)
    return {
        name: _decided(each.get("Properties", {}), made)
        for name, each in made.template["Resources"].items()
        if "Condition" not in each or made.holds(each["Condition"])
    }


def _decided(node: Any, made: Deployed) -> Any:
    match node:
        case {"Fn::If": [condition, then, otherwise]}:
            return _decided(then if made.holds(condition) else otherwise, made)
        case {"Ref": str(name)} if name in made.references:
            return made.references[name]
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: made.references.get(found[1], found[0]), text)
        case dict():
            members = {name: _decided(member, made) for name, member in node.items()}
            return {name: member for name, member in members.items() if member != _NO_VALUE}
        case list():
            return [each for member in node if (each := _decided(member, made)) != _NO_VALUE]
    return node


class TestParametersThatAreOffByDefault:
    RAW = transformed()

    @pytest.mark.parametrize(
        "parameter",
        [
            "ApiConcurrency",
            "ClientRequestsPerFiveMinutes",
            "CorsOrigin",
            "DomainName",
            "Ec2LaunchTemplate",
            "KmsKeyArn",
            "PermissionsBoundaryArn",
        ],
    )
    def test_are_off(self, parameter: str) -> None:
        assert _PARAMETERS[parameter]["Default"] in ("", 0)

    def test_bound_every_role(self) -> None:
        bounded = of_type("AWS::IAM::Role", self.RAW).keys()
        without, within = resources_with(), resources_with(PermissionsBoundaryArn=_BOUNDARY)

        assert bounded >= {"ApiFunctionRole", "CodeDeployRole", "RecoveryFunctionRole"}
        for role in bounded & within.keys():
            assert "PermissionsBoundary" not in without[role]
            assert within[role]["PermissionsBoundary"] == _BOUNDARY

    def test_encrypt_everything_that_keeps_something_with_a_key(self) -> None:
        properties: dict[str, Callable[[Any], Any]] = {
            "AWS::DynamoDB::Table": lambda made: made["SSESpecification"].get("KMSMasterKeyId"),
            "AWS::Lambda::Function": lambda made: made.get("KmsKeyArn"),
            "AWS::Logs::LogGroup": lambda made: made.get("KmsKeyId"),
        }
        without, within = resources_with(), resources_with(KmsKeyArn=_KEY)
        for type_, key_of in properties.items():
            for name in of_type(type_, self.RAW):
                assert (name, key_of(without[name]), key_of(within[name])) == (name, None, _KEY)
        for function in _FUNCTIONS:
            assert "KeyPolicy" not in without[f"{function}Role"].get("ManagedPolicyArns", [])
            assert "arn:aws:iam::123456789012:policy/KeyPolicy" in within[f"{function}Role"]["ManagedPolicyArns"]

    def test_let_a_browser_call(self) -> None:
        header = "method.response.header.Access-Control-Allow-Origin"
        for origin, said in (("", None), ("https://shop.example.com", "'https://shop.example.com'")):
            body = resources_with(CorsOrigin=origin)["Api"]["Body"]
            for methods in body["paths"].values():
                assert "security" not in methods["options"]
                answer = methods["options"]["x-amazon-apigateway-integration"]["responses"]["default"]
                assert answer["responseParameters"].get(header) == said
            for type_, answer in body["x-amazon-apigateway-gateway-responses"].items():
                allowed = answer["responseParameters"].get("gatewayresponse.header.Access-Control-Allow-Origin")
                assert (type_, allowed) == (type_, said)

    @pytest.mark.parametrize(
        ("endpoint", "certificate"), [("EDGE", "CertificateArn"), ("REGIONAL", "RegionalCertificateArn")]
    )
    def test_give_the_api_a_domain(self, endpoint: str, certificate: str) -> None:
        named = resources_with(DomainName="api.example.com", CertificateArn="arn:aws:acm", EndpointType=endpoint)

        certificates = {name: value for name, value in named["Domain"].items() if "Certificate" in name}
        assert certificates == {certificate: "arn:aws:acm"}
        assert named["DomainMapping"]["Stage"] == "ApiStage"
        assert not resources_with().keys() & {"Domain", "DomainMapping"}

    def test_limit_clients_by_token_and_by_address(self) -> None:
        limited = resources_with(ClientRequestsPerFiveMinutes="300")

        rules = {rule["Name"]: rule["Statement"]["RateBasedStatement"] for rule in limited["ClientLimit"]["Rules"]}
        [key] = rules["token"]["CustomKeys"]
        assert key["Header"]["Name"] == "authorization"
        assert rules["address"]["AggregateKeyType"] == "IP"
        assert {str(rule["Limit"]) for rule in rules.values()} == {"300"}
        assert limited["ClientLimitOfApi"]["ResourceArn"].endswith("/restapis/Api/stages/ApiStage")
        assert not resources_with().keys() & {"ClientLimit", "ClientLimitOfApi"}

    def test_reserve_concurrency(self) -> None:
        assert "ReservedConcurrentExecutions" not in resources_with()["ApiFunction"]
        assert str(resources_with(ApiConcurrency="50")["ApiFunction"]["ReservedConcurrentExecutions"]) == "50"


class TestRightsToInstances:
    @pytest.fixture
    def statements(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = resources_with(ServerProvider="ec2")["OperationPolicy"]["PolicyDocument"][
            "Statement"
        ]
        return [each for each in listed if "ec2:" in str(each["Action"])]

    def test_are_for_our_regions(self, statements: list[dict[str, Any]]) -> None:
        regions = [each["Condition"]["StringEquals"]["aws:RequestedRegion"] for each in statements]

        assert len(statements) == 6
        assert all(sorted(each) == sorted(REGIONS.values()) for each in regions)

    def test_to_run_them_are_for_our_sizes_owners_and_metadata(self, statements: list[dict[str, Any]]) -> None:
        [instance, image, _] = [each for each in statements if each["Action"] == "ec2:RunInstances"]

        wanted = instance["Condition"]["StringEquals"]
        assert sorted(wanted["ec2:InstanceType"]) == sorted(SIZES.values())
        assert wanted["ec2:MetadataHttpTokens"] == "required"
        assert image["Condition"]["StringEquals"]["ec2:Owner"] == "amazon"


class TestRules:
    def holds(self, node: Any, values: dict[str, str]) -> bool:
        """A rule's condition or assertion."""
        match node:
            case {"Fn::Equals": [{"Ref": name}, value]}:
                return values[str(name)] == str(value)
            case {"Fn::Not": [inner]}:
                return not self.holds(inner, values)
        raise AssertionError(node)

    def refused(self, **values: str) -> list[str]:
        """What CloudFormation says to these values, before it does anything."""
        given = {name: str(each["Default"]) for name, each in _PARAMETERS.items()} | values
        return [
            assertion["AssertDescription"]
            for rule in _STACK["Rules"].values()
            if self.holds(rule["RuleCondition"], given)
            for assertion in rule["Assertions"]
            if not self.holds(assertion["Assert"], given)
        ]

    def test_let_any_other_environment_be_deployed_as_it_is(self) -> None:
        assert self.refused() == []
        assert self.refused(Environment="staging") == []

    def test_let_production_be_deployed_only_if_somebody_hears_it_and_clients_find_the_specification(self) -> None:
        topic, page = "arn:aws:sns:eu-west-1:123456789012:on-call", "https://docs.example.com/idempotency"

        assert len(self.refused(Environment="prod")) == 2
        assert len(self.refused(Environment="prod", AlarmTopicArn=topic)) == 1
        assert self.refused(Environment="prod", AlarmTopicArn=topic, SpecificationUrl=page) == []

    def test_let_no_domain_be_without_its_certificate(self) -> None:
        assert len(self.refused(DomainName="api.example.com")) == 1
        assert self.refused(DomainName="api.example.com", CertificateArn="arn:aws:acm") == []

    def test_are_what_is_deployed(self) -> None:
        assert transform(_STACK, {})["Rules"] == _STACK["Rules"]


@pytest.mark.parametrize("environment", _ENVIRONMENTS)
def test_each_environment_names_its_region_and_its_tags(environment: str) -> None:
    settings = deploy_parameters(environment)
    [stage] = [each for each in settings["parameter_overrides"] if each.startswith("Environment=")]

    assert re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", settings["region"])
    if environment != "local":
        assert f"environment={stage.removeprefix('Environment=')}" in settings["tags"].split()
