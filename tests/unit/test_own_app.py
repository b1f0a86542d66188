"""docs/own-app.md: the engine in an application of another kind, behind each front door of Lambda."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aws_lambda_powertools.event_handler import (
    ALBResolver,
    APIGatewayHttpResolver,
    APIGatewayRestResolver,
    BedrockAgentResolver,
    LambdaFunctionUrlResolver,
    VPCLatticeV2Resolver,
)
from aws_lambda_powertools.event_handler.api_gateway import ApiGatewayResolver

from idempotency import DeclarationError, Idempotent, Lifecycle, Operation, Policy, Retry, principal
from idempotency.response import Completion
from tests.clocks import SetClock
from tests.events import KEY, Context, proxy_event
from tests.telemetry import RecordedTelemetry
from tests.unit.service import Api, scan
from tools.setup import ROOT

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PAGE = (ROOT / "docs" / "own-app.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ISSUER = "https://issuer.example"
HEADERS = {"content-type": "application/json", "idempotency-key": KEY}


def rest(path: str, body: str, who: str) -> dict[str, Any]:
    """An event of a REST API."""
    return proxy_event(
        "POST", path, resource="/v1/things/{id}", headers=HEADERS.items(), body=body, authorizer={"principalId": who}
    )


def payload_2(path: str, body: str, authorizer: dict[str, Any], stage: str = "$default") -> dict[str, Any]:
    """An event with payload 2.0. Source: API Gateway, "Create AWS Lambda proxy integrations for HTTP APIs"."""
    prefix = "" if stage == "$default" else f"/{stage}"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": f"{prefix}{path}",
        "rawQueryString": "a=1&a=2",
        "headers": HEADERS,
        "queryStringParameters": {"a": "1,2"},
        "requestContext": {
            "authorizer": authorizer,
            "http": {"method": "POST", "path": f"{prefix}{path}", "sourceIp": "192.0.2.1"},
            "stage": stage,
        },
        "body": base64.b64encode(body.encode()).decode(),
        "isBase64Encoded": True,
    }


def http(path: str, body: str, who: str) -> dict[str, Any]:
    """An event of an HTTP API with a JWT authorizer, below a stage."""
    return payload_2(path, body, {"jwt": {"claims": {"iss": ISSUER, "sub": who}, "scopes": None}}, "dev")


def url(path: str, body: str, who: str) -> dict[str, Any]:
    """An event of a function URL with IAM."""
    return payload_2(path, body, {"iam": {"callerId": f"{who}:session", "userArn": "arn:aws:sts::1:assumed-role/r/s"}})


def alb(path: str, body: str, who: str) -> dict[str, Any]:
    """An event of an ALB. Source: Elastic Load Balancing, "Lambda functions as targets"."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/t/1"}},
        "httpMethod": "POST",
        "path": path,
        "queryStringParameters": {"a": "1"},
        "headers": HEADERS,
        "body": body,
        "isBase64Encoded": False,
    }


def alb_with_lists(path: str, body: str, who: str) -> dict[str, Any]:
    """An event of an ALB whose target group has multi-value headers: then there is no other form of either."""
    event = alb(path, body, who)
    del event["headers"], event["queryStringParameters"]
    lists = {name: [value] for name, value in HEADERS.items()}
    return {**event, "multiValueHeaders": lists, "multiValueQueryStringParameters": {"a": ["1", "2"]}}


Event = Callable[[str, str, str], dict[str, Any]]
DOORS: dict[str, tuple[type[ApiGatewayResolver], Event, str]] = {
    "REST API": (APIGatewayRestResolver, rest, "id:alice"),
    "HTTP API": (APIGatewayHttpResolver, http, f"sub:{ISSUER} alice"),
    "function URL": (LambdaFunctionUrlResolver, url, "iam:alice"),
    "ALB": (ALBResolver, alb, ""),
    "ALB with lists": (ALBResolver, alb_with_lists, ""),
}
each_door = pytest.mark.parametrize(("resolver", "event", "who"), DOORS.values(), ids=DOORS)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page asks for, and nothing that only the template sets."""
    monkeypatch.delenv("RECOVERY_QUEUE_URL")


class Things:
    """``POST /v1/things/{id}`` in an application of its own."""

    def __init__(self, resolver: type[ApiGatewayResolver], dynamodb: DynamoDBClient) -> None:
        self.app = resolver()
        self.telemetry = RecordedTelemetry()
        self.idempotent = Idempotent(
            self.app, self.telemetry, lambda: Lifecycle.from_environment(dynamodb, self.telemetry)
        )
        self.seen: list[tuple[str, bytes, str, str]] = []
        self.failures: list[BaseException] = []

        @self.app.post("/v1/things/<id_>")
        @self.idempotent(Policy(recoverable=True, anonymous=True))
        def create(body: bytes, operation: Operation, id_: str) -> Completion:
            if self.failures:
                raise self.failures.pop()
            self.seen.append((operation.principal, body, id_, principal(self.app.current_event)))
            return Completion(201, {"path": operation.request.path}, headers={"Location": operation.request.base_path})

    def send(self, event: dict[str, Any]) -> Any:
        """Send an event."""
        reply = self.idempotent.resolve(event, Context())
        headers = reply.get("multiValueHeaders") or {name: [value] for name, value in reply["headers"].items()}
        return SimpleNamespace(
            status=reply["statusCode"], body=reply["body"], replayed="Idempotent-Replayed" in headers, headers=headers
        )


@each_door
class TestDoors:
    def test_run_a_request_once_for_its_principal(
        self, service: Api, dynamodb: DynamoDBClient, resolver: type[ApiGatewayResolver], event: Event, who: str
    ) -> None:
        things = Things(resolver, dynamodb)

        first, again = (things.send(event("/v1/things/7", '{"n": 1.0}', "alice")) for _ in range(2))

        assert (first.status, again.status, again.replayed, again.body) == (201, 201, True, first.body)
        assert json.loads(first.body) == {"path": "/v1/things/7"}
        assert things.seen == [(who, b'{"n":1}', "7", who)]

    def test_tell_requests_apart(
        self, service: Api, dynamodb: DynamoDBClient, resolver: type[ApiGatewayResolver], event: Event, who: str
    ) -> None:
        things = Things(resolver, dynamodb)
        things.send(event("/v1/things/7", "{}", "alice"))

        assert things.send(event("/v1/things/7", "[]", "alice")).status == 422
        assert things.send(event("/v1/things/8", "{}", "alice")).status == 422
        assert things.send(event("/v1/things/8", "{}", "bob")).status == (201 if who else 422)

    def test_are_not_needed_to_finish_what_was_abandoned(
        self,
        service: Api,
        dynamodb: DynamoDBClient,
        clock: SetClock,
        resolver: type[ApiGatewayResolver],
        event: Event,
        who: str,
    ) -> None:
        things = Things(resolver, dynamodb)
        things.failures = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            things.send(event("/v1/things/7", "{}", "alice"))
        clock.advance(31)
        [record] = service.records

        worked = things.idempotent.work({"Records": [{"messageId": "1", "body": record["id"]}]}, Context())

        assert worked == {"batchItemFailures": []}
        assert things.seen == [(who, b"{}", "7", who)]
        assert things.send(event("/v1/things/7", "{}", "alice")).replayed

    def test_need_no_queue(
        self, service: Api, dynamodb: DynamoDBClient, resolver: type[ApiGatewayResolver], event: Event, who: str
    ) -> None:
        things = Things(resolver, dynamodb)
        things.failures = [Retry("later")]

        answers = [things.send(event("/v1/things/7", "{}", "alice")) for _ in range(2)]

        assert [answer.status for answer in answers] == [503, 201]
        assert things.telemetry.errors == []

    def test_refuse_events_of_another_kind(
        self, dynamodb: DynamoDBClient, resolver: type[ApiGatewayResolver], event: Event, who: str
    ) -> None:
        things = Things(resolver, dynamodb)
        alike = next(kind for kind in ({rest}, {http, url}, {alb, alb_with_lists}) if event in kind)

        for other in {rest, http, url, alb} - alike:
            with pytest.raises(
                DeclarationError, match=f"^{resolver.__name__} got an event that is none of a .*; there"
            ):
                things.send(other("/v1/things/7", "{}", "alice"))


def test_a_parameter_that_occurs_twice_is_not_one_with_a_comma(service: Api, dynamodb: DynamoDBClient) -> None:
    things = Things(APIGatewayHttpResolver, dynamodb)
    twice = http("/v1/things/7", "{}", "alice")
    things.send(twice)

    assert things.send(twice).replayed
    assert things.send({**twice, "rawQueryString": "a=1%2C2"}).status == 422


@pytest.mark.parametrize("resolver", [BedrockAgentResolver, VPCLatticeV2Resolver])
def test_other_resolvers_are_refused_at_start(resolver: Any, dynamodb: DynamoDBClient) -> None:
    with pytest.raises(DeclarationError, match=r"^\w+Resolver is for events .*; there are .*ALBResolver \(ALB\)$"):
        Things(resolver, dynamodb)


@pytest.mark.parametrize("broken", [{}, {"requestContext": None}, {"requestContext": "dev"}, {"requestContext": {}}])
def test_an_event_of_no_kind_is_refused(dynamodb: DynamoDBClient, broken: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=r"^\w+ got an event that is none of a HTTP API"):
        Things(APIGatewayHttpResolver, dynamodb).send(broken)


def test_the_base_path_is_what_precedes_the_route(service: Api, dynamodb: DynamoDBClient) -> None:
    below_a_stage = Things(APIGatewayHttpResolver, dynamodb).send(http("/v1/things/7", "{}", "alice"))
    behind_an_alb = Things(ALBResolver, dynamodb).send(alb("/v1/things/7", "{}", "alice"))

    assert [each.headers["Location"] for each in (below_a_stage, behind_an_alb)] == [["/dev"], [""]]


def test_every_door_is_on_the_page() -> None:
    assert {resolver.__name__ for resolver, _, _ in DOORS.values()} == set(re.findall(r"`(\w+Resolver)` \|", PAGE))


def test_a_lambda_authorizer_and_an_identity_pool_identify_clients_of_an_http_api() -> None:
    app = APIGatewayHttpResolver()
    authorizers: list[dict[str, Any]] = [
        {"lambda": {"principalId": "7"}},
        {"iam": {"cognitoIdentity": {"identityId": "eu:1"}}},
        {},
    ]

    events = [app._to_proxy_event(payload_2("/", "", authorizer)) for authorizer in authorizers]

    assert [principal(event) for event in events] == ["id:7", "identity:eu:1", ""]


@pytest.mark.parametrize("context", [{}, {"requestContext": None}, {"requestContext": {"authorizer": None}}])
def test_an_event_that_was_made_by_hand_is_nobodys(context: dict[str, Any]) -> None:
    made = {**alb("/v1/things/7", "{}", ""), **context}
    if not context:
        del made["requestContext"]

    assert principal(ALBResolver()._to_proxy_event(made)) == ""


@pytest.fixture
def table(dynamodb: DynamoDBClient) -> Any:
    """The table of the page, empty."""
    [properties] = [each["Properties"] for each in yaml.safe_load(BLOCKS["template.yaml"]).values()]
    properties.pop("TimeToLiveSpecification")
    dynamodb.create_table(TableName="Own", **properties)
    yield "Own"
    dynamodb.delete_table(TableName="Own")


def order(monkeypatch: pytest.MonkeyPatch, table: str) -> Any:
    """Send an order to the application of the page."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", table)
    own: dict[str, Any] = {"__name__": "own"}
    exec(compile(BLOCKS["app.py"], "app.py", "exec", dont_inherit=True), own)
    event = payload_2("/orders", '{"sku": "ABC-1"}', {"jwt": {"claims": {"iss": ISSUER, "sub": "alice"}}})
    return own["handler"](event, Context())


def test_the_page_is_an_application(table: str, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = order(monkeypatch, table), order(monkeypatch, table)

    assert (first["statusCode"], again["body"]) == (201, first["body"])
    assert json.loads(first["body"])["id"].startswith("ABC-1/")
    assert again["headers"]["Idempotent-Replayed"] == "true"
    assert len(scan(dynamodb, table)) == 1


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (None, "there is no table 'Odd' in this account and region"),
        ([("pk", "HASH")], "the table 'Odd' must have the partition key id (S), and no sort key"),
        ([("id", "HASH"), ("sk", "RANGE")], "the table 'Odd' must have the partition key id (S), and no sort key"),
    ],
)
def test_a_table_that_does_not_fit_is_told_at_the_first_request(
    schema: list[tuple[str, Any]] | None,
    told: str,
    dynamodb: DynamoDBClient,
    monkeypatch: pytest.MonkeyPatch,
    logs: StringIO,
) -> None:
    if schema:
        dynamodb.create_table(
            TableName="Odd",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in schema],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in schema],
        )
    try:
        answer = order(monkeypatch, "Odd")
    finally:
        if schema:
            dynamodb.delete_table(TableName="Odd")

    assert (answer["statusCode"], json.loads(answer["body"])["type"].partition("#")[2]) == (500, "internal-error")
    assert told in logs.getvalue()


def test_what_is_installed_is_the_engine_alone_and_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    source = ROOT / setuptools["package-dir"][""]

    assert setuptools["packages"] == ["idempotency"]
    assert [
        path.name for path in (source / "idempotency").iterdir() if path.is_dir() and path.name != "__pycache__"
    ] == []
    assert (source / "idempotency" / setuptools["package-data"]["idempotency"][0]).name == "py.typed"
    assert (source / "idempotency" / "py.typed").exists()
