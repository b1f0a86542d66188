"""What an operator sees of unfinished operations, and can do about them."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import api
from idempotency.record import PARKED_UNTIL
from tests.clocks import SetClock
from tests.unit.campaigns import CAMPAIGN, Campaigns
from tools.errors import ToolError
from tools.ops import environments, unfinished
from tools.ops.environments import Environment
from tools.ops.recovery import recover

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def recovery() -> Mock:
    """The recovery function, as Lambda's client invokes it."""
    return Mock(return_value={"Payload": BytesIO(b'{"taken_up": 3, "completed": 2}')})


@pytest.fixture(autouse=True)
def environment(
    campaigns: Campaigns, dynamodb: DynamoDBClient, clock: SetClock, recovery: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the tool find the stack of these tests, at the time of their clock."""
    clients = {"dynamodb": dynamodb, "lambda": SimpleNamespace(invoke=recovery)}
    outputs = {"IdempotencyTable": "IdempotencyTable", "RecoveryFunctionName": "recovery"}
    monkeypatch.setattr(environments, "find", lambda _: Environment("", outputs, True, clients.__getitem__))
    monkeypatch.setattr(unfinished, "_clock", clock)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def stuck(campaigns: Campaigns, clock: SetClock) -> list[str]:
    """Ids of a parked operation, and of one that waits."""
    campaigns.myfunnel_fails(times=None)
    campaigns.launch()
    for _ in range(10):
        clock.advance(900)
        campaigns.recover()
    parked: str = campaigns.record["id"]
    campaigns.launch({**CAMPAIGN, "domain": "other.shop.example"}, key="other", principal="bob")
    return [parked, next(record["id"] for record in campaigns.api.records if record["id"] != parked)]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["unfinished", *arguments])
    unfinished.main()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that were shown, without the metrics of the functions."""
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line and not line.startswith('{"_aws"')]


class TestList:
    def test_says_what_is_unfinished_and_why_the_oldest_first(
        self, stuck: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(monkeypatch, "list")

        headings, first, second = [[cell for cell in line.split("  ") if cell] for line in lines(capsys)]
        assert [heading.strip() for heading in headings] == [
            "id", "operation", "principal", "attempt", "age", "state", "last error",
        ]  # fmt: skip
        error = "Retry: MyFunnelAPI answered 503."
        assert [cell.strip() for cell in first] == [
            stuck[0][:12], "POST /v1/campaigns", "id:alice", "11", "2 h", "parked", error,
        ]  # fmt: skip
        assert [cell.strip() for cell in second] == [
            stuck[1][:12], "POST /v1/campaigns", "id:bob", "1", "0 s", "due in 5 s", error,
        ]  # fmt: skip

    def test_leaves_out_what_has_completed(
        self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        campaigns.launch()

        run(monkeypatch, "list")

        assert lines(capsys) == ["every operation is finished"]


class TestRetry:
    def test_makes_a_parked_operation_due(
        self,
        stuck: list[str],
        campaigns: Campaigns,
        clock: SetClock,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        campaigns.myfunnel.faults.clear()
        run(monkeypatch, "retry", stuck[0][:6])
        assert stuck[0][:12] in lines(capsys)[0]

        clock.advance(0.001)
        assert campaigns.recover() == {"taken_up": 1, "completed": 1}

    @pytest.mark.parametrize(
        ("prefix", "message"), [("zz", "no unfinished operations"), ("PARKED", "is running, or already due")]
    )
    def test_of_anything_else_says_what_is_wrong(
        self, stuck: list[str], clock: SetClock, prefix: str, message: str
    ) -> None:
        if prefix == "PARKED":
            prefix = stuck[0]
            self.run_by_another(prefix, clock)

        with pytest.raises(ToolError, match=message):
            unfinished.retry(api.idempotent.lifecycle.store, prefix)

    def test_without_an_id_asks_for_one_before_it_looks_anywhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environments, "find", Mock(side_effect=AssertionError))

        with pytest.raises(ToolError, match=r"which operation\?"):
            run(monkeypatch, "retry", "")

    def test_of_more_than_one_is_refused(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails(times=None)
        for number in range(17):  # two of them begin with the same digit
            campaigns.launch({**CAMPAIGN, "domain": f"{number}.shop.example"}, key=f"key-{number}")
        digits = [record["id"][0] for record in campaigns.api.records]
        common = max(digits, key=digits.count)

        with pytest.raises(ToolError, match=f"{digits.count(common)} unfinished operations"):
            unfinished.retry(api.idempotent.lifecycle.store, common)

        assert all(record["lease_until"] < PARKED_UNTIL for record in campaigns.api.records)

    @staticmethod
    def run_by_another(id_: str, clock: SetClock) -> None:
        """Let another worker claim it."""
        store: Any = api.idempotent.lifecycle.store
        store.unpark(id_, clock.now())
        clock.advance(0.001)
        assert api.idempotent.lifecycle.resume(id_, api.recoverable, clock.now() + 28_000)


class TestRecover:
    def test_runs_the_deployed_function_once(
        self, recovery: Mock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(monkeypatch, "recover")

        recovery.assert_called_once_with(FunctionName="recovery", Qualifier="live")
        assert lines(capsys) == ["3 taken up, 2 completed"]

    def test_that_fails_says_so(self, recovery: Mock) -> None:
        error = BytesIO(json.dumps({"errorMessage": "Task timed out"}).encode())
        recovery.return_value = {"FunctionError": "Unhandled", "Payload": error}

        with pytest.raises(ToolError, match="recovery failed: Task timed out"):
            recover(SimpleNamespace(invoke=recovery), "recovery")
