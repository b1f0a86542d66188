"""What MiniStack leaves out when it imports an API: the gateway's own responses, and its binary media types.

It also ignores request validators. These have no substitute here: the function checks again everything that the gateway
checks, and a test checks what `template.yaml` tells the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import urllib3


def complete(gateway: Any, api_id: str, stage: str, template: Mapping[str, Any], specification_url: str) -> None:
    """Add what is missing, and deploy the stage again: a deployment includes the responses that are there at the time.

    Args:
        gateway: an API Gateway client of the local cloud.
        api_id: the REST API.
        stage: the stage's name.
        template: the template; its resource ``Api`` has what is missing.
        specification_url: the value of the template's parameter.
    """
    properties = template["Resources"]["Api"]["Properties"]
    for response_type, response in properties["GatewayResponses"].items():
        headers = response["ResponseParameters"]["Headers"]
        body = response["ResponseTemplates"]["application/json"]["Fn::Sub"]
        gateway.put_gateway_response(
            restApiId=api_id,
            responseType=response_type,
            responseParameters={f"gatewayresponse.header.{name}": value for name, value in headers.items()},
            responseTemplates={"application/json": body.replace("${SpecificationUrl}", specification_url)},
            **({"statusCode": str(response["StatusCode"])} if "StatusCode" in response else {}),
        )
    media_types = [media.replace("~1", "/") for media in properties["BinaryMediaTypes"] if isinstance(media, str)]
    _set_binary_media_types(gateway, api_id, media_types)
    gateway.create_deployment(restApiId=api_id, stageName=stage)


def _set_binary_media_types(gateway: Any, api_id: str, media_types: list[str]) -> None:
    # MiniStack wants the whole list at once, which the SDK would refuse, since the real API does not allow it.
    patch = {"op": "replace", "path": "/binaryMediaTypes", "value": media_types}
    urllib3.request(
        "PATCH", f"{gateway.meta.endpoint_url}/restapis/{api_id}", json={"patchOperations": [patch]}, timeout=10
    )
