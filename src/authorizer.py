"""Lambda entry point of the gateway's authorizer: a bearer token → the principal that every key is scoped by."""

import os
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

logger = Logger(serialize_stacktrace=False)  # the traceback is in each error once, as text

# Together less than the function's timeout.
dynamodb = boto3.client(
    "dynamodb",
    config=Config(connect_timeout=1, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 2}),
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001
    """Answer a TOKEN authorizer event with a policy for the whole stage, which the gateway caches by token.

    Raises:
        ClientError, BotoCoreError: if DynamoDB cannot tell; the gateway answers 500, and lets nobody in.

    Source: API Gateway, "Input to an API Gateway Lambda authorizer", "Output from an API Gateway Lambda authorizer".
    """
    token = _token(event["authorizationToken"])
    found = dynamodb.get_item(
        TableName=os.environ["TOKENS_TABLE"],
        Key={"id": {"S": sha256(token.encode(errors="replace")).hexdigest()}},
        ProjectionExpression="principal, expires_at, revoked_at",
    )
    principal = _principal(found.get("Item", {}))
    if principal is None:
        logger.info("token refused")
    return _policy(principal, event["methodArn"])


def _token(authorization: str) -> str:
    """The token of a header's value; empty if its scheme is another than Bearer (RFC 9110, section 11.4; RFC 6750)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def _principal(token: "dict[str, AttributeValueTypeDef]") -> str | None:
    """The token's principal; None if it is unknown, revoked or expired: DynamoDB deletes an expired one late."""
    if "principal" not in token or "revoked_at" in token or int(token["expires_at"]["N"]) <= time.time():
        return None
    return token["principal"]["S"]


def _policy(principal: str | None, method_arn: str) -> dict[str, Any]:
    # arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH
    api, stage = method_arn.split("/", 2)[:2]
    statement = {
        "Effect": "Allow" if principal else "Deny",
        "Action": "execute-api:Invoke",
        "Resource": f"{api}/{stage}/*",
    }
    # The gateway refuses an answer without a principal, even one that denies.
    return {"principalId": principal or "nobody", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}
