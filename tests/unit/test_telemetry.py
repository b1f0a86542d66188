"""Metrics for each outcome; logs and metrics that reveal no secrets."""

import json
import logging
from io import StringIO
from typing import Any
from unittest.mock import Mock

import pytest

import api
from idempotency.errors import Rejected, Retry
from idempotency.telemetry import Outcome, Telemetry
from provisioning import servers
from tests.clocks import SetClock
from tests.events import KEY
from tests.record import RECORD
from tests.unit.service import JSON, SERVER, Api, restart

TOKEN = "Bearer kq1vV0Z1Y2hlcmNoZXotbGEtZmVtbWUtY2hlcmNoZXo"


def metrics_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The metrics of all invocations so far, as CloudWatch extracts them from the log."""
    found: dict[str, Any] = {}
    for line in capsys.readouterr().out.splitlines():
        blob = json.loads(line)
        [directive] = blob["_aws"]["CloudWatchMetrics"]
        names = {metric["Name"] for metric in directive["Metrics"]}
        dimensions = ["service", "version"] if names == {"Failed"} else ["service"]
        assert (directive["Namespace"], directive["Dimensions"]) == ("ProvisionOnce", [dimensions])
        found |= {name: sum(blob[name]) for name in names}
    return found


class TestMetrics:
    @pytest.mark.parametrize("outcome", Outcome)
    def test_are_named_after_their_outcomes(self, outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
        Telemetry(api.metrics, api.logger).emit(outcome, milliseconds=250)
        api.metrics.flush_metrics()

        assert metrics_of(capsys) == {outcome.value: 1, f"{outcome.value}Milliseconds": 250}

    def test_count_how_requests_ended(
        self, service: Api, clock: SetClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        provider = Mock()
        provider.provision.side_effect = [Retry("later"), KeyboardInterrupt, *2 * [{"status": "provisioned"}]]
        monkeypatch.setattr(api, "provider", lambda: provider)
        monkeypatch.setenv("SERVER_PROVIDER", "ec2")

        service.post()
        assert metrics_of(capsys) == {"Released": 1, "Failed": 1}

        clock.advance(1)
        with pytest.raises(KeyboardInterrupt):  # like a crash, it ends the function where it is
            service.post()
        service.post(headers=[JSON, ("Prefer", "wait=2")])
        assert metrics_of(capsys) == {"TakenOver": 1, "InProgress": 1, "Waited": 1, "WaitedMilliseconds": 2_000}

        clock.advance(30)
        service.post()
        assert metrics_of(capsys) == {"TakenOver": 1, "Executed": 1}

        service.post()
        assert metrics_of(capsys) == {"ReplayedFromCache": 1}

        restart()
        service.post()
        assert metrics_of(capsys) == {"ReplayedFromTable": 1}

        service.post({**SERVER, "size": "small"})
        assert metrics_of(capsys) == {"KeyReused": 1}

        clock.advance(24 * 3600)
        service.post()
        assert metrics_of(capsys) == {"Expired": 1, "Executed": 1}


class TestCutOff:
    """An attempt that is cut off tells nobody: the next one says so."""

    @pytest.mark.parametrize(
        ("outcome", "releases", "warnings"),
        [
            (Outcome.TAKEN_OVER, 0, 1),
            (Outcome.TAKEN_OVER, 1, 0),
            (Outcome.FENCED, 0, 0),
        ],
    )
    def test_is_told_by_whoever_takes_over(self, outcome: Outcome, releases: int, warnings: int) -> None:
        logger = Mock()

        Telemetry(Mock(), logger).emit(outcome, RECORD._replace(attempt=2, releases=releases))

        assert logger.warning.call_count == warnings

    @pytest.mark.parametrize(("outcome", "lines"), [(Outcome.EXECUTED, 1), (None, 0)])
    def test_recovery_tells_only_of_what_there_was_to_do(self, outcome: Outcome | None, lines: int) -> None:
        logger = Mock()

        Telemetry(Mock(), logger).recovered("id", outcome)

        assert logger.info.call_count == lines


class TestLogs:
    def entries(self, logs: StringIO) -> list[dict[str, Any]]:
        return [json.loads(line) for line in logs.getvalue().splitlines()]

    def test_carry_operation_attempt_and_outcome(self, service: Api, logs: StringIO) -> None:
        service.post()
        service.post()

        first, second = self.entries(logs)
        [record] = service.records
        assert (first["outcome"], second["outcome"]) == ("Executed", "ReplayedFromCache")
        for entry in (first, second):
            assert (entry["operation_id"], entry["attempt"]) == (record["operation_id"], 1)
            assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/v1/servers/provision", 201)

    def test_of_one_invocation_say_nothing_about_the_one_before(self, service: Api, logs: StringIO) -> None:
        service.post()
        service.get("/v1/servers/srv-0", resource="/v1/servers/{id}")

        assert not {"outcome", "operation_id", "attempt"} & self.entries(logs)[1].keys()

    def test_of_an_unexpected_error_have_its_trace(
        self, service: Api, logs: StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "provider", lambda: 1 / 0)

        service.post()

        error, request = self.entries(logs)
        assert (error["level"], request["status"]) == ("ERROR", 500)
        assert "ZeroDivisionError" in error["exception"]


class TestPrivacy:
    def test_of_key_token_and_body(
        self,
        service: Api,
        clock: SetClock,
        logs: StringIO,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        # Given everything that is logged, at level DEBUG
        monkeypatch.setattr(api.logger._logger, "level", logging.DEBUG)
        secrets = KEY, TOKEN.removeprefix("Bearer "), "swordfish"
        headers = [JSON, ("Authorization", TOKEN)]
        bodies: list[Any] = [
            SERVER,
            SERVER,
            {**SERVER, "size": "swordfish"},
            {**SERVER, "swordfish": 1},
            '{"swordfish":NaN}',
            '{"swordfish":1,"swordfish":2}',
            '{"swordfish',
        ]

        # When requests succeed, are replayed and refused, and their operation fails in every way
        for body in bodies:
            service.post(body, headers=headers)
        service.post({**SERVER, "size": "small"}, headers=headers)
        service.post(key=f"{KEY} swordfish", headers=headers)
        for error in (Retry("later"), ZeroDivisionError(), Rejected("no", "no", status=422)):

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(servers, "provision", fail)
            clock.advance(24 * 3600)
            service.post(headers=headers)

        # Then no secret is in logs or metrics, nor is the key or the token in a table
        written = logs.getvalue() + capsys.readouterr().out
        assert "KeyReused" in written
        assert "ZeroDivisionError" in written
        assert [secret for secret in secrets if secret in written] == []
        assert [secret for secret in secrets[:2] if secret in str(service.records + service.rows)] == []
