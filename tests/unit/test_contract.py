"""The OpenAPI document, the gateway's template, the function and the specification say the same."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse

import api
from idempotency.errors import PROBLEMS, Problem, Retry
from idempotency.request import parse_key
from provisioning import ec2
from provisioning.servers import ServerRequest
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.messages import work
from tests.sample import NEVER, NOT_NOW, Samples
from tests.unit.campaigns import Campaigns
from tests.unit.service import JSON, SERVER, Api
from tools import wiring
from tools.local import template
from tools.local.client import Answer
from tools.setup import ROOT

pytestmark = pytest.mark.thorough

Operation = tuple[str, str]

DOCUMENT: dict[str, Any] = yaml.load((ROOT / "openapi.yaml").read_text(), yaml.CSafeLoader)
CONTRACT = OpenAPI.from_dict(
    DOCUMENT, config=Config(extra_media_type_deserializers={"application/problem+json": json.loads})
)
STACK = template.load()
SPECIFICATION = (ROOT / "docs" / "idempotency.md").read_text()

PROVISION: Operation = ("POST", "/v1/servers/provision")
SHOW_SERVER: Operation = ("GET", "/v1/servers/{id}")
SHOW_OPERATION: Operation = ("GET", "/v1/operations/{id}")
RESPOND_ASYNC = [JSON, ("Prefer", "respond-async")]
# example campaigns
LAUNCH: Operation = ("POST", "/v1/campaigns")
SHOW_CAMPAIGN: Operation = ("GET", "/v1/campaigns/{id}")
# end of example


def resolve(node: Any) -> Any:
    """Replace each reference by what it refers to."""
    match node:
        case {"$ref": str(reference)}:
            target: Any = DOCUMENT
            for name in reference.removeprefix("#/").split("/"):
                target = target[name]
            return resolve(target)
        case dict():
            return {name: resolve(member) for name, member in node.items()}
        case list():
            return [resolve(member) for member in node]
    return node


OPERATIONS: dict[Operation, Any] = {
    (method.upper(), path): resolve(operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
ROUTES: dict[Operation, Any] = {
    (route.method, re.sub(r"<\w+>", "{id}", route.path)): route
    for route in (*api.app._static_routes, *api.app._dynamic_routes)
    if route.func.__module__ == api.__name__  # the end-to-end tests add a probe of their own
}
GATEWAY: dict[str, Any] = STACK["Resources"]["Api"]["Properties"]["GatewayResponses"]


STAGE = "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/dev"


def conforms(operation: Operation, answer: Answer) -> None:
    """Check an answer against the document: its status, headers, media type and body, and nothing else."""
    method, path = operation
    [content_type] = answer.headers["content-type"]
    headers = {name: value for name, [value] in answer.headers.items()}
    CONTRACT.validate_response(
        MockRequest(STAGE, method, path.replace("{id}", "id")),
        MockResponse(answer.body, answer.status, headers, content_type),
    )
    responses = OPERATIONS[operation]["responses"]
    response = responses.get(str(answer.status)) or responses[f"{answer.status // 100}XX"]
    schema = response["content"][content_type]["schema"]
    assert headers.keys() - {"content-type"} <= {name.lower() for name in headers_of(response)}
    assert answer.json.keys() <= (schema.get("properties") or schema["allOf"][0]["properties"]).keys()


def headers_of(response: dict[str, Any]) -> dict[str, Any]:
    """The headers of a documented response."""
    headers: dict[str, Any] = response.get("headers", {})
    return headers


def slug(body: dict[str, Any]) -> str:
    """The last part of a problem's type; empty for anything else."""
    return str(body.get("type", "").partition("#")[2])


def test_everything_fits_together() -> None:
    assert wiring.mistakes() == []


class TestBodies:
    def test_of_servers_come_back_as_they_were_sent(self) -> None:
        schemas = DOCUMENT["components"]["schemas"]
        sent, shown = ServerRequest.SCHEMA["properties"], schemas["Server"]["properties"]

        assert {name: shown[name] for name in sent} == sent

    def test_may_be_as_large_as_the_document_says(self) -> None:
        limit = api.idempotent.declared[ROUTES[PROVISION].func].policy.max_body

        assert f"larger than {limit // 1024} KiB" in DOCUMENT["components"]["responses"]["BodyTooLarge"]["description"]


class TestKeys:
    pattern = re.compile(DOCUMENT["components"]["parameters"]["IdempotencyKey"]["schema"]["pattern"])

    @given(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=300)
        | st.from_regex(r'\A"?[!-~]{250,256}"?\Z')
        | st.from_regex(r'\A"([ -~]|\\["\\]){0,5}"\Z')
    )
    @example('"')
    @example('""')
    @example(r'"\""')
    @example(r'"\a"')
    @example("k" * 256)
    @example('"' + r"\\" * 255 + '"')
    @example('"k";a=1')
    def test_are_those_that_the_document_describes(self, value: str) -> None:
        key = None
        with suppress(Problem):
            key = parse_key([value])

        assert (key is not None) == bool(self.pattern.fullmatch(value.strip(" \t")))


class World:
    """The function, and the services that it calls.

    Args:
        service: the function.
        clock: the time.
        samples: samples, whose service fails when it is told to.
        monkeypatch: replaces the provider of servers.
    """

    def __init__(self, service: Api, clock: SetClock, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = service
        self.clock = clock
        self.samples = samples
        self._monkeypatch = monkeypatch

    def provision(self, error: BaseException | None = None, **request: Any) -> Answer:
        """Provision a server, or fail."""
        with self._monkeypatch.context() as patch:
            if error is not None:
                patch.setattr(api, "provider", lambda: FailingProvider(error))
                patch.setenv("SERVER_PROVIDER", "ec2")
            return self.service.post(**request)

    def provision_while_running(self) -> Answer:
        """Send the same request while the first one, cut off in the middle, seems to run."""
        with suppress(Killed):
            self.provision(Killed())
        return self.provision()

    def replay(self, send: Callable[[], Answer]) -> Answer:
        """Send the same request twice."""
        send()
        return send()

    def wait(self) -> Answer:
        """Let a duplicate wait until another request completes the operation."""

        def complete() -> None:
            self.clock.while_asleep = lambda: None
            self.clock.advance(31)
            self.provision()

        self.provision_while_running()
        self.clock.while_asleep = complete
        return self.provision(headers=[JSON, ("Prefer", "wait=20")])

    def accept(self, prefer: str = "respond-async", **request: Any) -> Answer:
        """Provision an EC2 instance without holding the connection."""
        with self._monkeypatch.context() as patch:
            patch.setenv("SERVER_PROVIDER", "ec2")
            return self.service.post(headers=[JSON, ("Prefer", prefer)], **request)

    def operation(self, call: str = "", error: BaseException | None = None) -> Answer:
        """Show the operation of a sample after a worker's attempt, in which a call may have failed."""
        if error:
            self.samples.service.fails(call, error)
        accepted = self.samples.create(headers=RESPOND_ASYNC)
        work(self.service.messages)
        return self.show(accepted)

    def show(self, made: Answer) -> Answer:
        """Show what was made."""
        _, _, version, kind, id_ = made.headers["location"][0].split("/")
        return self.service.get(f"/{version}/{kind}/{id_}", resource=f"/{version}/{kind}/{{id}}")


class FailingProvider:
    """A provider that fails.

    Args:
        error: the error that it fails with.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def provision(self, server: object, operation: object) -> dict[str, str]:
        """Fail."""
        raise self._error


def after(_: Answer, then: Answer) -> Answer:
    """The second of two answers."""
    return then


@pytest.fixture
def world(service: Api, clock: SetClock, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(service, clock, samples, monkeypatch)


# Every kind of answer of the function: what it is, and how to get it.
BY_THE_FUNCTION: dict[str, tuple[Operation, int, str, Callable[[World], Answer]]] = {
    "a server": (PROVISION, 201, "", lambda world: world.provision()),
    "a server again": (PROVISION, 201, "", lambda world: world.replay(world.provision)),
    "a server, waited for": (PROVISION, 201, "", World.wait),
    "no key": (PROVISION, 400, "key-missing", lambda world: world.provision(key=None)),
    "a bad key": (PROVISION, 400, "key-invalid", lambda world: world.provision(key="k" * 256)),
    "a bad body": (PROVISION, 400, "body-invalid", lambda world: world.provision(body={"region": "moon"})),
    "bad JSON": (PROVISION, 400, "body-invalid", lambda world: world.provision(body="{")),
    "nobody": (PROVISION, 401, "unauthorized", lambda world: world.provision(principal=None)),
    "in progress": (PROVISION, 409, "in-progress", World.provision_while_running),
    "a server that is gone": (PROVISION, 409, "server-terminated", lambda world: world.provision(ec2._terminated())),
    "a server that is gone, again": (
        PROVISION,
        409,
        "server-terminated",
        lambda world: world.replay(lambda: world.provision(ec2._terminated())),
    ),
    "a large body": (PROVISION, 413, "body-too-large", lambda world: world.provision(body=" " * 131_073)),
    "no JSON": (PROVISION, 415, "unsupported-media-type", lambda world: world.provision(headers=[])),
    "another body": (
        PROVISION,
        422,
        "key-reused",
        lambda world: after(world.provision(), world.provision(body={**SERVER, "size": "small"})),
    ),
    "a mistake in the code": (PROVISION, 500, "internal-error", lambda world: world.provision(RuntimeError())),
    # A Location too long for API Gateway.
    "nothing to store": (PROVISION, 500, "response-not-stored", lambda world: world.provision(stage="s" * 11_000)),
    "nothing to store, again": (
        PROVISION,
        500,
        "response-not-stored",
        lambda world: world.replay(lambda: world.provision(stage="s" * 11_000)),
    ),
    "not now": (PROVISION, 503, "unavailable", lambda world: world.provision(Retry("Not now.", retry_after=7))),
    "the server": (SHOW_SERVER, 200, "", lambda world: world.show(world.provision())),
    "another's server": (
        SHOW_SERVER,
        404,
        "not-found",
        lambda world: world.show(world.provision(principal="bob")),
    ),
    "a server, without its client": (PROVISION, 202, "", World.accept),
    "a server, without its client after a while": (
        PROVISION,
        202,
        "",
        lambda world: world.accept("respond-async, wait=2"),
    ),
    "an accepted operation": (SHOW_OPERATION, 200, "", lambda world: world.show(world.accept())),
    "an operation that waits": (SHOW_OPERATION, 200, "", lambda world: world.operation("make", NOT_NOW)),
    "an operation that succeeded": (SHOW_OPERATION, 200, "", World.operation),
    "an operation that failed": (SHOW_OPERATION, 200, "", lambda world: world.operation("label", NEVER)),
    "another's operation": (SHOW_OPERATION, 404, "not-found", lambda world: world.show(world.accept(principal="bob"))),
}


# example campaigns
def launch_where_there_are_none(campaigns: Campaigns) -> Answer:
    """Launch a campaign in the default stack."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNS_ZONE_ID", "")
        return campaigns.launch()


def launch_what_is_refused(campaigns: Campaigns) -> Answer:
    """Launch a campaign whose landing page MyFunnelAPI never accepts."""
    campaigns.myfunnel_fails(times=None, status=422)
    return campaigns.launch()


OF_CAMPAIGNS: dict[str, tuple[Operation, int, str, Callable[[Campaigns], Answer]]] = {
    "a campaign": (LAUNCH, 201, "", lambda campaigns: campaigns.launch()),
    "a campaign again": (LAUNCH, 201, "", lambda campaigns: after(campaigns.launch(), campaigns.launch())),
    "no campaigns": (LAUNCH, 404, "no-campaigns", launch_where_there_are_none),
    "a taken domain": (
        LAUNCH,
        409,
        "domain-taken",
        lambda campaigns: after(campaigns.launch(), campaigns.launch(key="k")),
    ),
    "a taken domain, again": (
        LAUNCH,
        409,
        "domain-taken",
        lambda campaigns: [campaigns.launch(key=key) for key in ("first", "k", "k")][-1],
    ),
    "a domain of another zone": (
        LAUNCH,
        422,
        "domain-rejected",
        lambda campaigns: campaigns.launch({"name": "Spring", "domain": "spring.example.org"}),
    ),
    "a landing page that is refused": (LAUNCH, 422, "funnel-rejected", launch_what_is_refused),
    "a campaign, without its client": (LAUNCH, 202, "", lambda campaigns: campaigns.launch(headers=RESPOND_ASYNC)),
    "the campaign": (SHOW_CAMPAIGN, 200, "", lambda campaigns: campaigns.get(campaigns.launch().json["id"])),
    "another's campaign": (
        SHOW_CAMPAIGN,
        404,
        "not-found",
        lambda campaigns: campaigns.get(campaigns.launch(principal="bob").json["id"]),
    ),
}
# end of example


# The responses that the gateway gives in place of the function, each with its status.
BY_THE_GATEWAY = [(name, response["StatusCode"]) for name, response in GATEWAY.items()]


def at_the_gateway(name: str, status: int) -> Answer:
    """One of the gateway's responses, as a client gets it."""
    variables = {
        "${SpecificationUrl}": STACK["Parameters"]["SpecificationUrl"]["Default"],
        "$context.error.messageString": '"Missing required request parameters: [Idempotency-Key]"',
    }
    body = GATEWAY[name]["ResponseTemplates"]["application/json"]["Fn::Sub"]
    for variable, value in variables.items():
        body = body.replace(variable, value)
    # Those with an intrinsic function are not there by default.
    declared = GATEWAY[name]["ResponseParameters"]["Headers"].items()
    headers = {header: value for header, value in declared if isinstance(value, str)}
    return Answer(status, body.encode(), {header.lower(): [value.strip("'")] for header, value in headers.items()})


class TestAnswers:
    @pytest.mark.parametrize("case", BY_THE_FUNCTION.values(), ids=BY_THE_FUNCTION)
    def test_of_the_function_are_documented(
        self, world: World, case: tuple[Operation, int, str, Callable[[World], Answer]]
    ) -> None:
        operation, status, problem, act = case

        answer = act(world)

        assert (answer.status, slug(answer.json)) == (status, problem)
        conforms(operation, answer)

    # example campaigns
    @pytest.mark.parametrize("case", OF_CAMPAIGNS.values(), ids=OF_CAMPAIGNS)
    def test_of_campaigns_are_documented(
        self, campaigns: Campaigns, case: tuple[Operation, int, str, Callable[[Campaigns], Answer]]
    ) -> None:
        operation, status, problem, act = case

        answer = act(campaigns)

        assert (answer.status, slug(answer.json)) == (status, problem)
        conforms(operation, answer)

    # end of example

    @pytest.mark.parametrize("header", ["idempotent-replayed", "preference-applied"])
    def test_have_every_header_that_is_documented(self, world: World, header: str) -> None:
        assert header in world.wait().headers

    @pytest.mark.parametrize(("name", "status"), BY_THE_GATEWAY)
    def test_of_the_gateway_are_documented(self, name: str, status: int) -> None:
        conforms(PROVISION, at_the_gateway(name, status))

    def test_that_are_documented_occur(self) -> None:
        by_the_function = {(status, problem) for _, status, problem, _ in BY_THE_FUNCTION.values()}
        by_the_function |= {(status, problem) for _, status, problem, _ in OF_CAMPAIGNS.values()}  # example campaigns
        by_the_gateway = {(status, slug(at_the_gateway(name, status).json)) for name, status in BY_THE_GATEWAY}

        assert {
            (status, problem) for _, status, problem, _ in documented_examples()
        } <= by_the_function | by_the_gateway


def documented_examples() -> Iterator[tuple[Operation, int, str, Answer]]:
    """Each example of a response: its operation, status and problem, and the answer that it stands for."""
    for operation, described in OPERATIONS.items():
        for code, response in described["responses"].items():
            for media_type, content in response["content"].items():
                for case in content.get("examples", {}).values():
                    body = case["value"]
                    status = int(code) if code.isdigit() else body["status"]
                    headers = {name.lower(): [str(header["example"])] for name, header in headers_of(response).items()}
                    answer = Answer(status, json.dumps(body).encode(), headers | {"content-type": [media_type]})
                    yield operation, status, slug(body), answer


class TestExamples:
    @pytest.mark.parametrize(("operation", "answer"), [(case[0], case[3]) for case in documented_examples()])
    def test_of_responses_are_valid(self, operation: Operation, answer: Answer) -> None:
        conforms(operation, answer)

    @pytest.mark.parametrize("operation", [each for each in OPERATIONS if each[0] == "POST"], ids=" ".join)
    def test_of_requests_are_valid(self, operation: Operation) -> None:
        described = OPERATIONS[operation]
        [content] = described["requestBody"]["content"].values()
        headers = {parameter["name"]: parameter["examples"].values() for parameter in described["parameters"]}

        for body in content["examples"].values():
            for key in headers["Idempotency-Key"]:
                sent = {"Idempotency-Key": key["value"], "Authorization": f"Bearer {'t' * 43}"}
                data = json.dumps(body["value"]).encode()
                CONTRACT.validate_request(MockRequest(STAGE, *operation, headers=sent, data=data))

    def test_of_problems_have_the_titles_of_the_function(self) -> None:
        for _, status, problem, answer in documented_examples():
            if problem in PROBLEMS and status not in {502, 504} and answer.status == PROBLEMS[problem][0]:
                assert answer.json["title"] == PROBLEMS[problem][1]


def raised() -> Iterator[str]:
    """The problems that the function's modules raise."""
    for module in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=ast.Name("Problem" | "Rejected"), args=[ast.Constant(str(problem)), *_]):
                    yield problem
                case ast.Call(func=ast.Name("NotFoundError")):
                    yield "not-found"


class TestProblems:
    def test_are_all_documented(self) -> None:
        by_the_gateway = {slug(at_the_gateway(name, status).json) for name, status in BY_THE_GATEWAY}
        documented = {problem for _, _, problem, _ in documented_examples()} - {""}

        assert documented == {*PROBLEMS, *raised(), *by_the_gateway}

    def test_have_one_title_each(self) -> None:
        titles: dict[str, set[str]] = {problem: {title} for problem, (_, title) in PROBLEMS.items()}
        answers = [answer for _, _, _, answer in documented_examples()]
        for answer in (*answers, *(at_the_gateway(*case) for case in BY_THE_GATEWAY)):
            if problem := slug(answer.json):
                titles.setdefault(problem, set()).add(answer.json["title"])

        assert {problem: len(named) for problem, named in titles.items() if len(named) > 1} == {}

    def test_are_headings_of_the_specification_with_their_statuses(self) -> None:
        documented: dict[str, set[int]] = {}
        for _, status, problem, _ in documented_examples():
            documented.setdefault(problem, set()).add(status)
        documented.pop("")

        headings = re.findall(r"^### ([a-z-]+)\n\n\*\*([\d, ]+)\*\*", SPECIFICATION, re.MULTILINE)

        assert {
            problem: {int(status) for status in statuses.split(", ")} for problem, statuses in headings
        } == documented
