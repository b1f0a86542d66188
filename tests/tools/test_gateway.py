"""The local gateway keeps to the documented rules; each class names the pages of API Gateway's developer guide."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from tests.transformed import ACCOUNT, deployed
from tools.local import gateway
from tools.local.aws import REGION
from tools.local.gateway import FunctionFailed, FunctionTimeout, FunctionUnavailable, Gateway, Request, Response
from tools.local.rest_api import Api, Authorizer, Method

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:api:live"
AUTHORIZER = "arn:aws:lambda:eu-west-1:123456789012:function:authorizer:live"
TOKEN = ("Authorization", "Bearer t")
JSON = ("Content-Type", "application/json")
SCHEMA = {"$ref": "#/definitions/thing", "definitions": {"thing": {"type": "object", "required": ["size"]}}}

_AUTHORIZED = Authorizer("Authorization", AUTHORIZER, "^Bearer [a-z]+$", 300)
_POST = Method(
    "/v1/things",
    FUNCTION,
    _AUTHORIZED,
    ["Idempotency-Key"],
    {"application/json": jsonschema_rs.Draft4Validator(SCHEMA)},
)
API = Api(
    "abcdef1234",
    "123456789012",
    "eu-west-1",
    "dev",
    {
        ("/v1/things", "POST"): _POST,
        ("/v1/things/{id}", "GET"): Method("/v1/things/{id}", FUNCTION),
        ("/v1/things/new", "GET"): Method("/v1/things/new", FUNCTION),
        ("/v1/{rest+}", "ANY"): Method("/v1/{rest+}", FUNCTION),
    },
    binary_media_types=["image/png"],
)


class Functions:
    """Lambda: what each function returns or raises, and what it was invoked with."""

    def __init__(self) -> None:
        self.reply: Any = {"statusCode": 201, "body": "made"}
        self.says: Any = self.policy("Allow")
        self.events: list[Mapping[str, Any]] = []
        self.authorized: list[Mapping[str, Any]] = []
        self.waits: list[float] = []

    @staticmethod
    def policy(effect: str, resource: str = "*", **more: Any) -> dict[str, Any]:
        statement = {"Effect": effect, "Action": "execute-api:Invoke", "Resource": resource}
        return {"principalId": "alice", "policyDocument": {"Statement": [statement]}, **more}

    def invoke(self, function: str, event: Mapping[str, Any], seconds: float) -> bytes:
        self.waits.append(seconds)
        said = self.says if function == AUTHORIZER else self.reply
        (self.authorized if function == AUTHORIZER else self.events).append(event)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, bytes) else json.dumps(said).encode()


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
def send(functions: Functions) -> Callable[..., Response]:
    """Sends a request to one gateway, which keeps its cache."""
    clock = {"now": 0.0}
    serving = {"api": API, "gateway": Gateway(API, functions.invoke, lambda: clock["now"])}

    def send(
        method: str = "POST",
        path: str = "/v1/things",
        *,
        headers: Sequence[tuple[str, str]] = (TOKEN, JSON, ("Idempotency-Key", "k")),
        body: bytes = b'{"size": 1}',
        api: Api = API,
        after: float = 0,
    ) -> Response:
        clock["now"] += after
        if api is not serving["api"]:
            serving.update(api=api, gateway=Gateway(api, functions.invoke, lambda: clock["now"]))
        answering: Any = serving["gateway"]
        answer: Response = answering.answer(Request(method, f"/dev{path}", headers, body))
        return answer

    return send


Send = Callable[..., Response]


def message(response: Response) -> Any:
    return json.loads(response.body)["message"]


def header(response: Response, name: str) -> list[str]:
    return [value for sent, value in response.headers if sent == name]


class TestRouting:
    """See "Set up API methods"; "Gateway response types": an unsupported method or resource."""

    @pytest.mark.parametrize(
        ("path", "resource", "parameters"),
        [
            ("/v1/things/7", "/v1/things/{id}", {"id": "7"}),
            ("/v1/things/7/", "/v1/things/{id}", {"id": "7"}),
            ("/v1/things/a%20b", "/v1/things/{id}", {"id": "a b"}),
            ("/v1/things/new", "/v1/things/new", None),
            ("/v1/things/7/parts", "/v1/{rest+}", {"rest": "things/7/parts"}),
        ],
    )
    def test_leads_to_the_resource_that_says_most(
        self, send: Send, functions: Functions, path: str, resource: str, parameters: Mapping[str, str] | None
    ) -> None:
        send("GET", path)

        [event] = functions.events
        assert (event["resource"], event["pathParameters"], event["path"]) == (resource, parameters, path)

    @pytest.mark.parametrize(("method", "path"), [("GET", "/v2/things"), ("PUT", "/"), ("POST", "/v1")])
    def test_to_nowhere_is_a_missing_authentication_token(self, send: Send, method: str, path: str) -> None:
        answer = send(method, path, headers=[])

        assert (answer.status, message(answer)) == (403, "Missing Authentication Token")

    def test_to_nowhere_takes_a_token_for_a_signature_and_repeats_it(self, send: Send) -> None:
        answer = send("GET", "/v2/things", headers=[("Authorization", "Bearer secret")])

        assert answer.status == 403
        assert "missing equal-sign" in message(answer)
        assert "secret" in message(answer)

    def test_to_another_stage_is_forbidden(self, functions: Functions) -> None:
        answer = Gateway(API, functions.invoke).answer(Request("GET", "/prod/v1/things/7"))

        assert (answer.status, message(answer)) == (403, "Forbidden")


class TestAuthorizer:
    """See "Use API Gateway Lambda authorizers"; its input, its output, and its cache."""

    def test_is_told_token_and_method_and_tells_the_principal(self, send: Send, functions: Functions) -> None:
        functions.says = functions.policy("Allow", context={"plan": 7})

        send()

        arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:abcdef1234/dev/POST/v1/things"
        assert functions.authorized == [{"type": "TOKEN", "authorizationToken": "Bearer t", "methodArn": arn}]
        assert functions.events[0]["requestContext"]["authorizer"] == {"principalId": "alice", "plan": "7"}

    @pytest.mark.parametrize("headers", [[], [("Authorization", "")], [("Authorization", "Basic t")]])
    def test_is_not_asked_about_what_cannot_be_a_token(
        self, send: Send, functions: Functions, headers: list[tuple[str, str]]
    ) -> None:
        answer = send(headers=headers)

        assert (answer.status, message(answer), functions.authorized) == (401, "Unauthorized", [])

    @pytest.mark.parametrize(
        ("says", "status"),
        [
            (Functions.policy("Deny"), 403),
            (Functions.policy("Allow", "arn:aws:execute-api:*:*:*/dev/GET/*"), 403),
            (Functions.policy("Allow", "arn:aws:execute-api:*:*:*/dev/*"), 201),
            (FunctionFailed("Unauthorized"), 401),
            (FunctionFailed("ZeroDivisionError"), 500),
            (FunctionTimeout(), 500),
            (FunctionUnavailable(), 500),
            ({"policyDocument": {}}, 500),
            (b"no JSON", 500),
        ],
        ids=str,
    )
    def test_decides_who_gets_in(self, send: Send, functions: Functions, says: Any, status: int) -> None:
        functions.says = says

        assert send().status == status
        assert len(functions.events) == (status == 201)

    def test_is_asked_once_per_token_until_its_answer_is_too_old(self, send: Send, functions: Functions) -> None:
        for after in (0, 299, 2):
            send(after=after)
        send(headers=[("Authorization", "Bearer other")])

        asked = [event["authorizationToken"] for event in functions.authorized]
        assert asked == ["Bearer t", "Bearer t", "Bearer other"]

    def test_is_asked_once_by_requests_that_come_at_once(self, functions: Functions) -> None:
        def invoke(function: str, event: Mapping[str, Any], seconds: float) -> bytes:
            time.sleep(0.1)  # long enough for all of them to be there
            return functions.invoke(function, event, seconds)

        sending = Gateway(API, invoke)
        request = Request("POST", "/dev/v1/things", [TOKEN, JSON, ("Idempotency-Key", "k")], b'{"size": 1}')
        with ThreadPoolExecutor(5) as clients:
            answers = list(clients.map(lambda _: sending.answer(request).status, range(5)))

        assert (answers, len(functions.authorized), len(functions.events)) == ([201] * 5, 1, 5)

    def test_is_always_asked_without_a_cache(self, send: Send, functions: Functions) -> None:
        uncached = replace(_POST, authorizer=replace(_AUTHORIZED, ttl=0))
        api = replace(API, methods={("/v1/things", "POST"): uncached})

        for _ in range(2):
            send(api=api)

        assert len(functions.authorized) == 2


class TestValidation:
    """See "Request validation for REST APIs"; "Important notes": names of headers are told apart by case."""

    @pytest.mark.parametrize(
        "sent", [[], [("Idempotency-Key", "")], [("Idempotency-Key", "  ")], [("idempotency-key", "k")]], ids=str
    )
    def test_requires_a_header_that_is_not_blank_under_its_very_name(
        self, send: Send, functions: Functions, sent: list[tuple[str, str]]
    ) -> None:
        answer = send(headers=[TOKEN, JSON, *sent])

        assert (answer.status, message(answer)) == (400, "Missing required request parameters: [Idempotency-Key]")
        assert functions.events == []

    @pytest.mark.parametrize("body", [b"", b"{", b"{}", b"7", b"[" * 15_000], ids=lambda body: ascii(body)[:9])
    @pytest.mark.parametrize("declared", [[JSON], [], [("content-type", "Application/JSON; charset=utf-8")]], ids=str)
    def test_refuses_json_against_its_model(
        self, send: Send, functions: Functions, body: bytes, declared: list[tuple[str, str]]
    ) -> None:
        answer = send(headers=[TOKEN, ("Idempotency-Key", "k"), *declared], body=body)

        assert (answer.status, message(answer), functions.events) == (400, "Invalid request body", [])

    def test_lets_a_body_of_another_media_type_pass(self, send: Send, functions: Functions) -> None:
        assert send(headers=[TOKEN, ("Idempotency-Key", "k"), ("Content-Type", "text/plain")], body=b"{").status == 201
        assert functions.events[0]["body"] == "{"

    def test_looks_at_parameters_first_and_at_neither_before_the_token(self, send: Send, functions: Functions) -> None:
        assert message(send(headers=[TOKEN], body=b"{")).startswith("Missing required")
        functions.says = functions.policy("Deny")
        assert send(headers=[("Authorization", "Bearer other")], body=b"{").status == 403


class TestEvent:
    """See "Lambda proxy integrations": the input format."""

    def test_has_every_line_of_a_header_and_the_last_one(self, send: Send, functions: Functions) -> None:
        send("GET", "/v1/things/7", headers=[("X-A", "1"), ("X-A", "2"), ("x-a", "3")])

        [event] = functions.events
        assert {name: event["multiValueHeaders"][name] for name in ("X-A", "x-a")} == {"X-A": ["1", "2"], "x-a": ["3"]}
        assert {name: event["headers"][name] for name in ("X-A", "x-a")} == {"X-A": "2", "x-a": "3"}

    def test_has_names_of_headers_with_capitals_at_an_edge_optimised_endpoint(
        self, send: Send, functions: Functions
    ) -> None:
        """See "API endpoint types for REST APIs"."""
        headers = [("authorization", "Bearer t"), ("idempotency-key", "a"), ("IDEMPOTENCY-KEY", "b")]

        assert send(headers=headers, api=replace(API, edge=True)).status == 201
        assert functions.events[0]["multiValueHeaders"]["Idempotency-Key"] == ["a", "b"]

    def test_has_every_query_parameter(self, send: Send, functions: Functions) -> None:
        send("GET", "/v1/things/7?a=1&a=2&b=%C3%A9&c=")

        [event] = functions.events
        assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": ["é"], "c": [""]}
        assert event["queryStringParameters"] == {"a": "2", "b": "é", "c": ""}

    def test_has_stage_and_path(self, send: Send, functions: Functions) -> None:
        send("GET", "/v1/things/7")

        context = functions.events[0]["requestContext"]
        assert (context["path"], context["stage"], context["resourcePath"]) == (
            "/dev/v1/things/7",
            "dev",
            "/v1/things/{id}",
        )

    @pytest.mark.parametrize(
        ("media_type", "body", "seen"),
        [
            ("image/png", b"\x89PNG", ("iVBORw==", True)),
            ("text/plain", b"\xff", ("\ufffd", False)),
            ("text/plain", b"", (None, False)),
        ],
    )
    def test_has_binary_media_types_in_base64(
        self, send: Send, functions: Functions, media_type: str, body: bytes, seen: tuple[str | None, bool]
    ) -> None:
        send("GET", "/v1/things/7", headers=[("Content-Type", media_type)], body=body)

        [event] = functions.events
        assert (event["body"], event["isBase64Encoded"]) == seen


class TestReply:
    """See "Lambda proxy integrations": the output format; "Binary media types for REST APIs"; "Important notes"."""

    def test_has_its_headers_merged(self, send: Send, functions: Functions) -> None:
        functions.reply = {
            "headers": {"X-A": "1", "x-b": "2", "X-C": "3"},
            "multiValueHeaders": {"X-A": ["1", "4"], "X-B": ["5"]},
        }

        answer = send()

        assert (answer.status, answer.body) == (200, b"")
        seen = {name: header(answer, name) for name in ("X-A", "X-B", "X-C", "Content-Type")}
        assert seen == {"X-A": ["1", "4"], "X-B": ["5", "2"], "X-C": ["3"], "Content-Type": ["application/json"]}

    def test_has_headers_that_only_the_gateway_may_send_under_another_name(
        self, send: Send, functions: Functions
    ) -> None:
        functions.reply = {"statusCode": 401, "headers": {"WWW-Authenticate": "Bearer"}}

        answer = send()

        assert header(answer, "WWW-Authenticate") == []
        assert header(answer, "x-amzn-Remapped-WWW-Authenticate") == ["Bearer"]

    @pytest.mark.parametrize(
        ("accept", "types", "decoded"),
        [
            ("image/png", ["image/png"], True),
            ("image/png, */*", ["image/png"], True),
            ("image/png;q=0.8", ["image/png"], True),
            ("*/*", ["image/png"], False),
            ("image/webp, image/png", ["image/png"], False),
            (None, ["image/png"], False),
            ("image/jpeg", ["image/*"], True),
            ("text/html", ["*/*"], True),
            (None, ["*/*"], True),
        ],
    )
    def test_is_decoded_if_the_first_media_type_that_is_accepted_is_binary(
        self, send: Send, functions: Functions, accept: str | None, types: list[str], decoded: bool
    ) -> None:
        encoded = base64.b64encode(b"\x89PNG").decode()
        functions.reply = {"body": encoded, "isBase64Encoded": True}

        headers = [("Accept", accept)] if accept else []
        answer = send("GET", "/v1/things/7", headers=headers, api=replace(API, binary_media_types=types))

        assert answer.body == (b"\x89PNG" if decoded else encoded.encode())

    def test_that_says_base64_and_is_not_is_a_configuration_error(self, send: Send, functions: Functions) -> None:
        functions.reply = {"body": "no base64!", "isBase64Encoded": True}

        assert send("GET", "/v1/things/7", headers=[("Accept", "image/png")]).status == 500

    @pytest.mark.parametrize(
        "reply",
        [
            b"no JSON",
            b"[]",
            {"statusCode": 200, "body": {"not": "text"}},
            {"statusCode": "two hundred"},
            {"statusCode": 200, "errorMessage": "an error of its own"},
            FunctionFailed("the worker died"),
            FunctionUnavailable("throttled"),
        ],
        ids=ascii,
    )
    def test_of_another_form_or_none_is_a_bad_gateway(self, send: Send, functions: Functions, reply: Any) -> None:
        functions.reply = reply

        answer = send()

        assert (answer.status, message(answer)) == (502, "Internal server error")

    def test_that_does_not_come_in_time_is_a_timeout(self, send: Send, functions: Functions) -> None:
        functions.reply = FunctionTimeout()

        answer = send()

        assert (answer.status, message(answer)) == (504, "Endpoint request timed out")
        assert functions.waits[-1] == 29


class TestQuotas:
    """See "Quotas" of API Gateway (10 MB, 29 s) and Lambda (6 MB each way), "Throttle requests to your REST APIs"."""

    def test_refuse_a_request_over_10_mb_with_an_answer_that_nobody_can_change(
        self, send: Send, functions: Functions
    ) -> None:
        api = replace(API, responses={"REQUEST_TOO_LARGE": {"statusCode": "400"}, "DEFAULT_4XX": {"statusCode": "400"}})

        answer = send(body=b" " * (gateway.MAX_REQUEST_BYTES + 1), api=api)

        assert (answer.status, message(answer), functions.events) == (413, "Request Too Long", [])

    @pytest.mark.parametrize(("size", "status"), [(6_200_000, 201), (6_300_000, 502)])
    def test_keep_an_event_over_6_mb_from_the_function(
        self, send: Send, functions: Functions, size: int, status: int
    ) -> None:
        assert send(body=b'{"size": 1}' + b" " * size).status == status
        assert len(functions.events) == (status == 201)

    @pytest.mark.parametrize(("size", "status"), [(6_291_500, 200), (6_291_560, 502)])
    def test_keep_a_reply_over_6_mb_from_the_client(
        self, send: Send, functions: Functions, size: int, status: int
    ) -> None:
        functions.reply = b'{"body": "' + b"x" * (size - 12) + b'"}'

        assert send().status == status

    def test_throttle_each_method_by_rate_and_burst(self, send: Send) -> None:
        api = replace(API, rate=2, burst=3)

        def statuses(count: int, after: float = 0) -> list[int]:
            return [send(api=api, after=after if number == 0 else 0).status for number in range(count)]

        assert statuses(5) == [201, 201, 201, 429, 429]
        assert statuses(3, after=1) == [201, 201, 429]
        assert send("GET", "/v1/things/7", api=api).status == 201


class TestGatewayResponses:
    """See "Gateway response types"; "Set up gateway responses to customize error responses"."""

    def test_have_status_headers_and_template_of_their_own(self, send: Send) -> None:
        members = [
            '"detail": $context.error.messageString',
            '"type": "$context.error.responseType"',
            '"status": "$context.status"',
        ]
        custom = {
            "statusCode": "404",
            "responseParameters": {"gatewayresponse.header.Content-Type": "'application/problem+json'"},
            "responseTemplates": {"application/json": f"{{{', '.join(members)}}}"},
        }

        answer = send(
            "GET", "/nowhere", headers=[], api=replace(API, responses={"MISSING_AUTHENTICATION_TOKEN": custom})
        )

        assert (answer.status, header(answer, "Content-Type")) == (404, ["application/problem+json"])
        assert json.loads(answer.body) == {
            "detail": "Missing Authentication Token",
            "type": "MISSING_AUTHENTICATION_TOKEN",
            "status": "",
        }

    def test_fall_back_on_the_default_of_their_class(self, send: Send, functions: Functions) -> None:
        functions.reply = FunctionTimeout()
        defaults: dict[str, dict[str, Any]] = {
            "DEFAULT_4XX": {"statusCode": "418", "responseTemplates": {"application/json": "four"}},
            "DEFAULT_5XX": {"responseTemplates": {"application/json": "five"}},
        }
        api = replace(API, responses=defaults)

        assert (send("GET", "/nowhere", api=api).status, send("GET", "/nowhere", api=api).body) == (418, b"four")
        assert (send(api=api).status, send(api=api).body) == (504, b"five")


class TestOfTheTemplate:
    """What is enforced is what SAM makes of the template: no second list says it."""

    API = Api.of(deployed({"Environment": "dev", "SpecificationUrl": "https://docs.example/it"}))

    def test_has_its_routes_with_authorizer_and_function(self) -> None:
        method = self.API.methods["/v1/servers/provision", "POST"]

        assert self.API.stage == "dev"
        assert method.function == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:ApiFunction:live"
        assert method.authorizer is not None
        assert method.authorizer.function.endswith(":AuthorizerFunction:live")
        assert (method.authorizer.header, method.authorizer.ttl) == ("Authorization", 300)

    def test_has_its_models(self) -> None:
        model = self.API.methods["/v1/servers/provision", "POST"].models["application/json"]

        assert model.is_valid({"region": "eu-west", "size": "large"})
        assert not model.is_valid({"region": "mars", "size": "large"})

    def test_has_its_gateway_responses_with_parameters_filled_in(self) -> None:
        [body] = self.API.responses["UNAUTHORIZED"]["responseTemplates"].values()

        assert json.loads(body)["type"] == "https://docs.example/it#unauthorized"

    @pytest.mark.parametrize(("type_", "edge"), [("EDGE", True), ("REGIONAL", False)])
    def test_has_its_endpoint(self, type_: str, edge: bool) -> None:
        assert Api.of(deployed({"EndpointType": type_})).edge is edge

    def test_has_its_limits(self) -> None:
        assert (self.API.rate, self.API.burst) == (200, 400)
