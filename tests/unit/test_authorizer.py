"""Bearer token → principal."""

from __future__ import annotations

import logging
import re
import secrets
import time
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError

import authorizer
from tests.events import Context
from tests.unit.service import scan
from tools import tokens
from tools.local import template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_AUTHORIZERS = template.load()["Resources"]["Api"]["Properties"]["Auth"]["Authorizers"]
AT_THE_GATEWAY = re.compile(_AUTHORIZERS["BearerToken"]["Identity"]["ValidationExpression"])
METHOD = "arn:aws:execute-api:eu-west-1:123456789012:abcdef1234/dev/POST/v1/servers/provision"


@pytest.fixture(autouse=True)
def table(dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> DynamoDBClient:
    """The table of tokens."""
    monkeypatch.setenv("TOKENS_TABLE", "TokensTable")
    return dynamodb


def answer(authorization: str, method: str = METHOD) -> dict[str, Any]:
    """The authorizer's answer to an event as the gateway sends it to a TOKEN authorizer."""
    event = {"type": "TOKEN", "methodArn": method, "authorizationToken": authorization}
    return authorizer.handler(event, Context())


def effect(reply: dict[str, Any]) -> str:
    [statement] = reply["policyDocument"]["Statement"]
    assert statement["Action"] == "execute-api:Invoke"
    return str(statement["Effect"])


class TestValidToken:
    def test_stands_for_its_principal(self, table: DynamoDBClient) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)

        reply = answer(f"Bearer {token}")

        assert (reply["principalId"], effect(reply)) == ("alice", "Allow")
        assert reply["policyDocument"]["Version"] == "2012-10-17"

    @pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer    "])
    def test_comes_under_a_scheme_in_any_case_after_any_number_of_spaces(
        self, table: DynamoDBClient, scheme: str
    ) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)

        assert effect(answer(f"{scheme}{token}")) == "Allow"
        assert AT_THE_GATEWAY.search(f"{scheme}{token}")

    def test_is_valid_for_the_whole_stage_since_the_gateway_caches_the_answer(self, table: DynamoDBClient) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)
        [statement] = answer(f"Bearer {token}")["policyDocument"]["Statement"]

        api, stage = METHOD.split("/")[:2]
        assert fnmatch(METHOD, statement["Resource"])
        assert fnmatch(f"{api}/{stage}/GET/v1/servers/srv-1", statement["Resource"])
        assert not fnmatch(f"{api}/prod/GET/v1/servers/srv-1", statement["Resource"])

    def test_is_stored_only_as_a_hash(self, table: DynamoDBClient) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)

        assert token not in str(scan(table, "TokensTable"))


class TestRefusedToken:
    def refused(self, authorization: str) -> None:
        reply = answer(authorization)
        assert effect(reply) == "Deny"
        assert reply["principalId"] != "alice"

    @pytest.mark.parametrize(
        "authorization", [f"Bearer {'A' * 43}", "Bearer ", "Bearer", "Basic YTpi", "Bearer \ud800"]
    )
    def test_is_one_that_was_never_issued(self, authorization: str) -> None:
        self.refused(authorization)

    @pytest.mark.parametrize(
        "scheme", ["", " ", "Basic ", "Token ", "Bearers ", "xBearer ", "Bearer", "Bearer\t", "Bearer x "]
    )
    def test_is_one_that_comes_under_no_scheme_of_ours(self, table: DynamoDBClient, scheme: str) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)

        self.refused(f"{scheme}{token}")
        assert not AT_THE_GATEWAY.search(f"{scheme}{token}")

    def test_is_one_that_was_revoked(self, table: DynamoDBClient) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)
        tokens.revoke(table, "TokensTable", token)

        self.refused(f"Bearer {token}")

    @pytest.mark.parametrize(("seconds", "expected"), [(-1, "Allow"), (0, "Deny"), (1, "Deny")])
    def test_is_one_that_has_expired_deleted_or_not(
        self, table: DynamoDBClient, monkeypatch: pytest.MonkeyPatch, seconds: int, expected: str
    ) -> None:
        token = tokens.issue(table, "TokensTable", "alice", 1)
        [item] = scan(table, "TokensTable")
        monkeypatch.setattr(time, "time", lambda: int(item["expires_at"]) + seconds)

        assert effect(answer(f"Bearer {token}")) == expected

    def test_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        token = secrets.token_urlsafe(32)

        with caplog.at_level(logging.DEBUG):
            self.refused(f"Bearer {token}")

        logged = " ".join(str(vars(record)) for record in caplog.records)
        assert "token refused" in logged
        assert token not in logged


def test_nobody_gets_in_if_dynamodb_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://dynamodb.eu-west-1.amazonaws.com")

    monkeypatch.setattr(authorizer.dynamodb, "get_item", cut_off)

    with pytest.raises(EndpointConnectionError):
        answer(f"Bearer {secrets.token_urlsafe(32)}")
