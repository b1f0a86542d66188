# example campaigns
"""Leave campaigns behind as a function leaves them that is killed while MyFunnelAPI answers.

    python abandon.py STACK NUMBER PREFIX

STACK is the description of a stack as JSON. It runs the API's own handler in this process, which stops at nothing once
the landing page is there: no release, no answer. It has to run with versions of the code before this one, too.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

_TIMEOUT_SECONDS = 10


class Killed(BaseException):
    """The process is gone."""


def abandon(stack: dict[str, Any], number: int, prefix: str) -> None:
    os.environ.update(
        AWS_ENDPOINT_URL=stack["aws_endpoint_url"],
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION=stack["region"],
        IDEMPOTENCY_TABLE=stack["idempotency_table"],
        RESOURCES_TABLE=stack["resources_table"],
        IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS=str(_TIMEOUT_SECONDS),
        MYFUNNEL_API_URL=stack["myfunnel_url"],
        MYFUNNEL_SECRET_ID="provision-once/myfunnel",
        DNS_ZONE_ID=stack["dns_zone_id"],
        DNS_SUBTREE="",
        RECOVERY_QUEUE_URL=f"{stack['aws_endpoint_url']}/000000000000/nowhere",  # nothing is sent: nothing is released
        POWERTOOLS_SERVICE_NAME="heal",
        POWERTOOLS_METRICS_NAMESPACE="Heal",
        POWERTOOLS_LOG_LEVEL="CRITICAL",
    )
    import api  # noqa: PLC0415 - it reads the environment
    from provisioning.funnels import Funnels  # noqa: PLC0415

    create = Funnels.create

    def create_and_die(*args: Any) -> Any:
        create(*args)
        raise Killed

    setattr(Funnels, "create", create_and_die)  # noqa: B010 - a type checker would not have it
    for each in range(number):
        domain = f"{prefix}-{each}.{os.environ['ZONE']}"
        try:
            api.handler(_event({"name": "Spring", "domain": domain}, domain), _context())
        except Killed:
            continue
        raise SystemExit(f"{domain} was not abandoned")


def _context() -> Any:
    return SimpleNamespace(
        get_remaining_time_in_millis=lambda: _TIMEOUT_SECONDS * 1000,
        function_name="api",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn",
        aws_request_id="id",
    )


def _event(body: dict[str, str], key: str) -> dict[str, Any]:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    path = "/v1/campaigns"
    return {
        "resource": path,
        "path": path,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "requestContext": {"path": f"/local{path}", "authorizer": {"principalId": "alice"}},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


if __name__ == "__main__":
    abandon(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
