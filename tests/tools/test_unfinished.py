"""What an operator sees of unfinished operations, and can do about them."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import api
from idempotency import Retry
from idempotency.record import PARKED_UNTIL
from idempotency.telemetry import Outcome
from recovery import sweep
from tests.clocks import SetClock
from tests.events import Context
from tests.messages import work
from tests.sample import PATH, Samples
from tests.tools.test_record import rewritten
from tools.errors import ToolError
from tools.ops import environments, unfinished
from tools.ops.environments import Environment
from tools.ops.recovery import recover

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def recovery() -> Mock:
    """The recovery function, as Lambda's client invokes it."""
    return Mock(side_effect=lambda **_: {"Payload": BytesIO(json.dumps(sweep({}, Context())).encode())})


@pytest.fixture(autouse=True)
def environment(
    samples: Samples, dynamodb: DynamoDBClient, clock: SetClock, recovery: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the tool find the stack of these tests, at the time of their clock."""
    clients = {"dynamodb": dynamodb, "lambda": SimpleNamespace(invoke=recovery), "sqs": samples.api.messages.client}
    outputs = {
        "IdempotencyTable": "IdempotencyTable",
        "RecoveryFunctionName": "recovery",
        "RecoveryQueueUrl": "https://queue.example/recovery",
    }
    monkeypatch.setattr(environments, "find", lambda _: Environment("", outputs, True, clients.__getitem__))
    monkeypatch.setattr(unfinished, "_clock", clock)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def stuck(samples: Samples, clock: SetClock) -> list[str]:
    """Ids of a parked operation, and of one that waits."""
    samples.give_up(clock)
    parked: str = samples.record["id"]
    samples.create({"name": "other"}, key="other", principal="bob")
    return [parked, next(record["id"] for record in samples.api.records if record["id"] != parked)]


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

        error = "              Retry: The service is busy."
        assert lines(capsys) == [
            f"{stuck[0][:12]}  POST {PATH}  id:alice",
            "              parked; attempt 4; 45 min old",
            error,
            f"{stuck[1][:12]}  POST {PATH}  id:bob",
            "              due in 5 s; attempt 1; 0 s old",
            error,
        ]

    def test_fits_80_columns(
        self, stuck: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")

        run(monkeypatch, "list")

        shown = lines(capsys)
        assert len(shown) == 6
        assert max(map(len, shown)) <= 80

    def test_shows_what_looks_like_markup_as_it_is(
        self, samples: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        samples.service.fails("make", Retry("[red]not[/] now[/x]"))
        samples.create(principal="[red]alice[/x]")

        run(monkeypatch, "list")

        shown = lines(capsys)
        assert (shown[0].endswith("id:[red]alice[/x]"), shown[2].strip()) == (True, "Retry: [red]not[/] now[/x]")

    def test_shows_one_whose_request_another_version_wrote(
        self,
        stuck: list[str],
        dynamodb: DynamoDBClient,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        rewritten(dynamodb, stuck[0])

        run(monkeypatch, "list")

        shown = lines(capsys)
        assert (shown[0], len(shown)) == (f"{stuck[0][:12]}  made by another version", 6)

    def test_leaves_out_what_has_completed(
        self, samples: Samples, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        samples.create()

        run(monkeypatch, "list")

        assert lines(capsys) == ["every operation is finished"]


class TestRetry:
    def test_makes_a_parked_operation_due(
        self,
        stuck: list[str],
        samples: Samples,
        clock: SetClock,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        samples.service.behaves()
        samples.api.messages.waiting.clear()

        run(monkeypatch, "retry", stuck[0][:6])

        assert lines(capsys) == [f"{stuck[0][:12]} is carried on now"]
        assert work(samples.api.messages) == [Outcome.EXECUTED]

    def test_of_all_is_of_all_that_are_parked(
        self,
        stuck: list[str],
        samples: Samples,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        samples.service.behaves()
        samples.api.messages.waiting.clear()

        run(monkeypatch, "retry", "all")

        assert lines(capsys) == ["1 parked operations are carried on"]
        assert work(samples.api.messages) == [Outcome.EXECUTED]
        assert {record["id"]: record["status"] for record in samples.api.records}[stuck[0]] == "COMPLETED"

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
            unfinished.retry(api.idempotent.lifecycle.store, Mock(), prefix)

    def test_without_an_id_asks_for_one_before_it_looks_anywhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environments, "find", Mock(side_effect=AssertionError))

        with pytest.raises(ToolError, match=r"which operation\?"):
            run(monkeypatch, "retry", "")

    def test_of_more_than_one_is_refused(self, samples: Samples) -> None:
        samples.service.fails("make", times=inf)
        for number in range(17):  # two of them begin with the same digit
            samples.create({"name": f"{number}"}, key=f"key-{number}")
        digits = [record["id"][0] for record in samples.api.records]
        common = max(digits, key=digits.count)

        with pytest.raises(ToolError, match=f"{digits.count(common)} unfinished operations"):
            unfinished.retry(api.idempotent.lifecycle.store, Mock(), common)

        assert all(record["lease_until"] < PARKED_UNTIL for record in samples.api.records)

    @staticmethod
    def run_by_another(id_: str, clock: SetClock) -> None:
        """Let another worker claim it."""
        store: Any = api.idempotent.lifecycle.store
        store.unpark(id_, clock.now())
        clock.advance(0.001)
        assert api.idempotent.lifecycle.resume(id_, api.recoverable, clock.now() + 28_000)


class TestRecover:
    def test_sweeps_and_watches_until_everything_due_is_taken_up(
        self,
        recovery: Mock,
        stuck: list[str],
        samples: Samples,
        clock: SetClock,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        # Given an operation that is due, whose message is lost, and workers that come after a while
        samples.api.messages.waiting.clear()
        clock.advance(60)
        pauses = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if pauses.count(1) == 3:
                work(samples.api.messages)

        monkeypatch.setattr("tools.ops.unfinished.time.sleep", sleep)

        run(monkeypatch, "recover")

        recovery.assert_called_once_with(FunctionName="recovery", Qualifier="live")
        assert lines(capsys) == ["1 were due, and are taken up"]
        assert pauses.count(1) == 3

    def test_gives_up_if_no_worker_comes(
        self, stuck: list[str], clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock.advance(60)
        monkeypatch.setattr("tools.ops.unfinished.time.sleep", lambda _: None)

        with pytest.raises(ToolError, match="1 are due, and no worker takes them up"):
            run(monkeypatch, "recover")

    def test_with_nothing_due_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(monkeypatch, "recover")

        assert lines(capsys) == ["nothing is due"]

    def test_that_fails_says_so(self, recovery: Mock) -> None:
        error = BytesIO(json.dumps({"errorMessage": "Task timed out"}).encode())
        recovery.side_effect = [{"FunctionError": "Unhandled", "Payload": error}]

        with pytest.raises(ToolError, match="recovery failed: Task timed out"):
            recover(SimpleNamespace(invoke=recovery), "recovery")
