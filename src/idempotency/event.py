"""The front doors of Lambda: what each sends, in the form that the engine reads, a REST API's proxy event."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from aws_lambda_powertools.event_handler import ApiGatewayResolver
from aws_lambda_powertools.event_handler.api_gateway import ProxyEventType
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.data_classes.common import BaseProxyEvent

from idempotency.request import StoredEvent, path_parameters, principal_of


class Door(NamedTuple):
    """What calls the function.

    Args:
        name: what it is called.
        resolver: Powertools' class for it.
        mark: what its events have and others lack, as the way to a member.
    """

    name: str
    resolver: str
    mark: tuple[str, ...]


_DOORS = {
    ProxyEventType.APIGatewayProxyEvent: Door("REST API", "APIGatewayRestResolver", ("resource",)),
    ProxyEventType.APIGatewayProxyEventV2: Door(
        "HTTP API (payload 2.0)", "APIGatewayHttpResolver", ("requestContext", "http")
    ),
    ProxyEventType.LambdaFunctionUrlEvent: Door(
        "function URL", "LambdaFunctionUrlResolver", ("requestContext", "http")
    ),
    ProxyEventType.ALBEvent: Door("ALB", "ALBResolver", ("requestContext", "elb")),
}
_SUPPORTED = "; there are " + ", ".join(f"{door.resolver} ({door.name})" for door in _DOORS.values())


def door_of(app: ApiGatewayResolver) -> Door:
    """The front door that a resolver is for.

    Raises:
        TypeError: if the engine cannot read its events.
    """
    door = _DOORS.get(getattr(app, "_proxy_type", None))  # type: ignore[arg-type] # None is no key
    if door is None:
        raise TypeError(f"{type(app).__name__} is for events that cannot be read here{_SUPPORTED}")
    return door


def check(event: Mapping[str, Any], door: Door) -> None:
    """See that an event came through a front door.

    Raises:
        TypeError: if it did not.
    """
    found: Any = event
    for name in door.mark:
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is None:
        raise TypeError(f"{door.resolver} got an event that is none of a {door.name}{_SUPPORTED}")


def readable(event: StoredEvent, door: Door) -> StoredEvent:
    """A stored request, with what the resolver for another front door finds its path and method by."""
    if "http" in door.mark:
        event["rawPath"] = event["path"]
        event["requestContext"] |= {"stage": "$default", "http": {"method": event["httpMethod"], "path": event["path"]}}
    return event


def as_rest(event: BaseProxyEvent, rule: str = "") -> APIGatewayProxyEvent:
    """An event in the form of a REST API's, which names the route that matched.

    Args:
        event: the event, as its resolver reads it.
        rule: the resolver's route, such as ``/v1/things/<id>``: only REST APIs send one that identifies it.
    """
    raw = event.raw_event
    if isinstance(event, APIGatewayProxyEvent):
        return event
    if isinstance(raw, StoredEvent):
        return APIGatewayProxyEvent(raw)
    route = re.sub(r"<(\w+)>", r"{\1}", rule)
    query = event.resolved_query_string_parameters
    if "rawQueryString" in raw:  # the other form has commas for what occurs twice
        query = parse_qs(raw["rawQueryString"], keep_blank_values=True)
    return APIGatewayProxyEvent(
        {
            "resource": route,
            "path": event.path,
            "httpMethod": event.http_method,
            "headers": raw.get("headers"),
            "multiValueHeaders": raw.get("multiValueHeaders"),
            "multiValueQueryStringParameters": query,
            "pathParameters": path_parameters(route, event.path),
            "requestContext": {
                "path": raw.get("rawPath"),
                **_identified((raw.get("requestContext") or {}).get("authorizer") or {}),
            },
            "body": raw.get("body"),
            "isBase64Encoded": raw.get("isBase64Encoded", False),
        }
    )


def principal(event: BaseProxyEvent) -> str:
    """Who sent the request, as the front door authenticated it; empty if it did not. See `principal_of`.

    Of an HTTP API, the ``sub`` of a JWT comes with its issuer, and a Lambda authorizer puts ``principalId`` into its
    context. An ALB authenticates nobody here: what it says comes in headers, and would have to be verified.
    """
    return principal_of(as_rest(event))


def _identified(authorizer: Mapping[str, Any]) -> dict[str, Any]:
    """What payload 2.0 says of the client, where a REST API says it."""
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    iam = authorizer.get("iam") or {}
    return {
        "authorizer": {
            "claims": {"sub": f"{claims.get('iss', '')} {claims['sub']}"} if claims.get("sub") else None,
            "principalId": (authorizer.get("lambda") or {}).get("principalId"),
        },
        "identity": {
            "cognitoIdentityId": (iam.get("cognitoIdentity") or {}).get("identityId"),
            "caller": iam.get("callerId"),
        },
    }
