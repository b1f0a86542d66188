"""What MiniStack leaves out when it imports an API: the gateway's own responses, put on by the API's own calls.

It also ignores request validators. For these there is no substitute here: the function checks again all that the
gateway checks, and `template.yaml` is tested for what the gateway is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def put_gateway_responses(gateway: Any, api_id: str, stage: str, template: Mapping[str, Any]) -> None:
    """Put an API's gateway responses, and deploy the stage again: a deployment keeps those that it finds.

    Args:
        gateway: an API Gateway client of the local cloud.
        api_id: the REST API.
        stage: the stage's name.
        template: the template, whose resource ``Api`` has the responses.
    """
    specification_url = template["Parameters"]["SpecificationUrl"]["Default"]
    for response_type, response in template["Resources"]["Api"]["Properties"]["GatewayResponses"].items():
        headers = response["ResponseParameters"]["Headers"]
        body = response["ResponseTemplates"]["application/json"]["Fn::Sub"]
        gateway.put_gateway_response(
            restApiId=api_id,
            responseType=response_type,
            responseParameters={f"gatewayresponse.header.{name}": value for name, value in headers.items()},
            responseTemplates={"application/json": body.replace("${SpecificationUrl}", specification_url)},
            **({"statusCode": str(response["StatusCode"])} if "StatusCode" in response else {}),
        )
    gateway.create_deployment(restApiId=api_id, stageName=stage)
