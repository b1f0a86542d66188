"""The events for `sam local invoke`: each does what its name says, in turn, on the same tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import authorizer
from tests.events import Context
from tests.unit.service import Api
from tools import tokens
from tools.local.client import Answer
from tools.setup import ROOT

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EVENTS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "events").glob("*.json")}


class TestProvision:
    def test_runs_once_and_its_retry_replays(self, service: Api) -> None:
        first, retry = service.call(EVENTS["provision"]), service.call(EVENTS["provision-retry"])

        assert (first.status, retry.status) == (201, 201)
        assert (first.replayed, retry.replayed) == (False, True)
        assert first.body == retry.body

    @pytest.mark.parametrize(
        ("name", "status", "problem"),
        [
            ("provision-other-body", 422, "key-reused"),
            ("provision-missing-key", 400, "key-missing"),
            ("provision-bad-body", 400, "body-invalid"),
        ],
    )
    def test_is_refused_for_its_reason(self, service: Api, name: str, status: int, problem: str) -> None:
        service.call(EVENTS["provision"])

        answer: Answer = service.call(EVENTS[name])

        assert (answer.status, answer.problem) == (status, problem)


def test_the_status_of_an_operation_that_nobody_began_is_not_found(service: Api) -> None:
    answer: Answer = service.call(EVENTS["unknown-operation"])

    assert (answer.status, answer.problem) == (404, "not-found")


class TestAuthorizer:
    def answer(self, event: dict[str, Any]) -> str:
        return str(authorizer.handler(event, Context())["policyDocument"]["Statement"][0]["Effect"])

    def test_denies_the_events_own_token_and_allows_one_that_was_issued(
        self, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKENS_TABLE", "TokensTable")
        token = tokens.issue(dynamodb, "TokensTable", "alice", 1)
        event = EVENTS["authorizer"]

        assert self.answer(event) == "Deny"
        assert self.answer({**event, "authorizationToken": f"Bearer {token}"}) == "Allow"


def test_every_event_is_tested() -> None:
    """Here, or by the tests of its operation."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))

    assert [name for name in EVENTS if f'"{name}"' not in tests and f'"{name}.json"' not in tests] == []
