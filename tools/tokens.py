"""Bearer tokens: only their SHA-256 is stored, in the table of the stack that they are for."""

from __future__ import annotations

import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from tools.errors import ToolError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_SECONDS_PER_DAY = 24 * 3600
DEFAULT_DAYS = 90


def issue(dynamodb: DynamoDBClient, table: str, principal: str, days: float = DEFAULT_DAYS) -> str:
    """Make a token of 256 random bits, and store its hash.

    Args:
        dynamodb: a client.
        table: the table of tokens.
        principal: the principal that the token stands for.
        days: the number of days for which it is valid.
    """
    token = secrets.token_urlsafe(32)
    put(dynamodb, table, token, principal, days)
    return token


def put(dynamodb: DynamoDBClient, table: str, token: str, principal: str, days: float = DEFAULT_DAYS) -> None:
    """Store a token's hash; the arguments are those of `issue`."""
    expires_at = int(time.time() + days * _SECONDS_PER_DAY)
    dynamodb.put_item(
        TableName=table,
        Item={"id": {"S": _hash(token)}, "principal": {"S": principal}, "expires_at": {"N": str(expires_at)}},
    )


def revoke(dynamodb: DynamoDBClient, table: str, token: str) -> None:
    """Revoke a token; the gateway may still accept it for 300 s, from its cache.

    Raises:
        ToolError: if there is no such token.
    """
    try:
        dynamodb.update_item(
            TableName=table,
            Key={"id": {"S": _hash(token)}},
            UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :now)",
            ConditionExpression="attribute_exists(id)",
            ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        raise ToolError("there is no such token") from None


def delete(dynamodb: DynamoDBClient, table: str, token: str) -> None:
    """Delete a token that nobody will ask for any more."""
    dynamodb.delete_item(TableName=table, Key={"id": {"S": _hash(token)}})


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()
