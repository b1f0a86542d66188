"""What MiniStack leaves out when it imports an API: the authorizer, put on by the API's own calls.

It also ignores request validators and gateway responses. For these there is no substitute here: the function checks
again all that the gateway checks, and `template.yaml` is tested for what the gateway is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.aws import REGION


def add_authorizer(gateway: Any, api_id: str, function_arn: str, auth: Mapping[str, Any]) -> None:
    """Put the API's default authorizer on every method.

    Args:
        gateway: an API Gateway client of the local cloud.
        api_id: the REST API.
        function_arn: the authorizer's function.
        auth: the ``Auth`` property of the ``AWS::Serverless::Api``.
    """
    name = auth["DefaultAuthorizer"]
    authorizer = auth["Authorizers"][name]
    identity = authorizer["Identity"]
    created = gateway.create_authorizer(
        restApiId=api_id,
        name=name,
        type=authorizer["FunctionPayloadType"],
        authorizerUri=f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function_arn}/invocations",
        identitySource=f"method.request.header.{identity['Header']}",
        identityValidationExpression=identity["ValidationExpression"],
        authorizerResultTtlInSeconds=identity["ReauthorizeEvery"],
    )
    settings = {"/authorizationType": "CUSTOM", "/authorizerId": created["id"]}
    for resource in gateway.get_resources(restApiId=api_id, limit=500)["items"]:
        for method in resource.get("resourceMethods", {}):
            gateway.update_method(
                restApiId=api_id,
                resourceId=resource["id"],
                httpMethod=method,
                patchOperations=[{"op": "replace", "path": path, "value": value} for path, value in settings.items()],
            )
