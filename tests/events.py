"""Events of API Gateway as a REST API's Lambda proxy integration sends them.

Source: API Gateway, "Input format of a Lambda function for proxy integration".
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
"""The example of draft-ietf-httpapi-idempotency-key-header."""

Headers = Iterable[tuple[str, str]]


def proxy_event(
    method: str,
    path: str,
    *,
    resource: str | None = None,
    headers: Headers = (),
    body: str | bytes | None = None,
    query: Sequence[tuple[str, str]] = (),
    authorizer: dict[str, Any] | None = None,
    caller: str | None = None,
    stage: str = "dev",
) -> dict[str, Any]:
    """Build an event.

    Args:
        method: the HTTP method.
        path: the path below the stage.
        resource: the resource of the API that matched; the path if there are no parameters in it.
        headers: names and values as the client sent them; a name may occur more than once.
        body: text, or bytes for one of the API's binary media types.
        query: parameters as the client sent them.
        authorizer: what the authorizer returned.
        caller: the caller, as IAM identifies it.
        stage: the stage.
    """
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    parameters: dict[str, list[str]] = {}
    for name, value in query:
        parameters.setdefault(name, []).append(value)
    return {
        "resource": resource or path,
        "path": path,
        "httpMethod": method,
        "headers": {name: all_[-1] for name, all_ in values.items()} or None,
        "multiValueHeaders": values or None,
        "queryStringParameters": {name: all_[-1] for name, all_ in parameters.items()} or None,
        "multiValueQueryStringParameters": parameters or None,
        "pathParameters": _path_parameters(resource or path, path),
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": "abcdef1234.execute-api.eu-west-1.amazonaws.com",
            "httpMethod": method,
            "identity": {"caller": caller, "sourceIp": "192.0.2.1", "userAgent": "tests"},
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTimeEpoch": 1_800_000_000_000,
            "resourcePath": resource or path,
            "stage": stage,
            **({"authorizer": authorizer} if authorizer is not None else {}),
        },
        "body": base64.b64encode(body).decode() if isinstance(body, bytes) else body,
        "isBase64Encoded": isinstance(body, bytes),
    }


def _path_parameters(resource: str, path: str) -> dict[str, str] | None:
    names = resource.split("/")
    segments = path.rstrip("/").split("/")[-len(names) :]
    return {name[1:-1]: segment for name, segment in zip(names, segments, strict=True) if name[:1] == "{"} or None


class Context(LambdaContext):
    """An invocation's context with a deadline that does not move.

    Args:
        seconds: how much time is left.
    """

    def __init__(self, seconds: float = 28) -> None:
        self._function_name = "api"
        self._function_version = "1"
        self._invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:api:live"
        self._memory_limit_in_mb = 1024
        self._aws_request_id = "52fdfc07-2182-454f-963f-5f0f9a621d72"
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override] # Powertools declares it static
        """How much time is left."""
        return round(self._seconds * 1000)
