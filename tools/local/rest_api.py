"""A REST API of API Gateway, as the deployed stack defines it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from tools.local.deployed import Deployed

JSON = "application/json"
TIMEOUT_SECONDS = 29
_DEFAULT_TTL_SECONDS = 300


@dataclass(frozen=True)
class Authorizer:
    """A TOKEN authorizer.

    Args:
        header: the header with the token.
        function: the function's ARN.
        expression: what a token must match; None for anything.
        ttl: seconds for which a policy is kept; 0 for not at all.
    """

    header: str
    function: str
    expression: str | None
    ttl: float


@dataclass(frozen=True)
class Method:
    """A method of a resource.

    Args:
        resource: the path of the resource, such as ``/v1/servers/{id}``.
        function: the function's ARN.
        authorizer: who tells whether a request is allowed; None for anybody.
        required_headers: names of the headers that a request must have.
        models: checks a body, by media type.
        timeout: seconds to wait for the function.
    """

    resource: str
    function: str
    authorizer: Authorizer | None = None
    required_headers: Sequence[str] = ()
    models: Mapping[str, jsonschema_rs.Draft4Validator] = field(default_factory=dict)
    timeout: float = TIMEOUT_SECONDS


@dataclass(frozen=True)
class Api:
    """A REST API as it is deployed.

    Args:
        id: its id.
        account: the account, and
        region: the region that it is in.
        stage: the stage's name.
        methods: its methods, by path of the resource and HTTP method; ``ANY`` for all.
        responses: its gateway responses, by type.
        binary_media_types: its binary media types.
        edge: whether requests come through CloudFront, which writes names of headers with capitals.
        rate: how many requests a second each method takes in the long run; None for any number.
        burst: how many it takes at once.
    """

    id: str
    account: str
    region: str
    stage: str
    methods: Mapping[tuple[str, str], Method]
    responses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    binary_media_types: Sequence[str] = ()
    edge: bool = False
    rate: float | None = None
    burst: float = 0

    @classmethod
    def of(cls, stack: Deployed) -> Api:
        """Read the one REST API of a stack.

        Raises:
            ToolError: if its definition has a function that cannot be resolved.
        """
        [(name, properties)] = stack.of_type("AWS::ApiGateway::RestApi").items()
        [stage] = stack.of_type("AWS::ApiGateway::Stage").values()
        body = stack.resolve(properties["Body"])
        settings: dict[str, Any] = next(iter(stack.resolve(stage.get("MethodSettings", []))), {})
        rate = settings.get("ThrottlingRateLimit")
        return cls(
            stack.references[name],
            stack.references["AWS::AccountId"],
            stack.references["AWS::Region"],
            stack.resolve(stage["StageName"]),
            dict(_methods(body)),
            body.get("x-amazon-apigateway-gateway-responses", {}),
            body.get("x-amazon-apigateway-binary-media-types", []),
            stack.resolve(properties.get("EndpointConfiguration", {})).get("Types") == ["EDGE"],
            None if rate is None else float(rate),
            float(settings.get("ThrottlingBurstLimit", 0)),
        )


def _methods(body: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Method]]:
    authorizers = {
        name: _authorizer(definition)
        for name, definition in body.get("securityDefinitions", {}).items()
        if "x-amazon-apigateway-authorizer" in definition
    }
    for path, operations in body["paths"].items():
        for verb, operation in operations.items():
            integration = operation.get("x-amazon-apigateway-integration", {})
            if integration.get("type") == "aws_proxy":
                names = [name for requirement in operation.get("security", []) for name in requirement]
                method = "ANY" if verb == "x-amazon-apigateway-any-method" else verb.upper()
                yield (
                    (path, method),
                    Method(
                        path,
                        _function(integration["uri"]),
                        authorizers[names[0]] if names else None,
                        *_validation(operation, body),
                        timeout=integration.get("timeoutInMillis", TIMEOUT_SECONDS * 1000) / 1000,
                    ),
                )


def _authorizer(definition: Mapping[str, Any]) -> Authorizer:
    settings = definition["x-amazon-apigateway-authorizer"]
    return Authorizer(
        definition["name"],
        _function(settings["authorizerUri"]),
        settings.get("identityValidationExpression"),
        settings.get("authorizerResultTtlInSeconds", _DEFAULT_TTL_SECONDS),
    )


def _function(uri: str) -> str:
    return uri.partition("/functions/")[2].removesuffix("/invocations")


def _validation(
    operation: Mapping[str, Any], body: Mapping[str, Any]
) -> tuple[Sequence[str], Mapping[str, jsonschema_rs.Draft4Validator]]:
    """What a method's validator looks at: names of required headers, and models by media type."""
    validators = body.get("x-amazon-apigateway-request-validators", {})
    validator = validators.get(operation.get("x-amazon-apigateway-request-validator"), {})
    parameters = operation.get("parameters", []) if validator else []
    headers = [
        each["name"] for each in parameters if each["in"] == "header" and str(each.get("required")).lower() == "true"
    ]
    models = [each["schema"] for each in parameters if each["in"] == "body"]
    media_types = operation.get("consumes", [JSON])
    definitions = {"definitions": body.get("definitions", {})}
    return (
        headers if validator.get("validateRequestParameters") else [],
        {
            media_type: jsonschema_rs.Draft4Validator({**definitions, **model})
            for model in models
            for media_type in media_types
            if validator.get("validateRequestBody")
        },
    )
