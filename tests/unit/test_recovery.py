"""Recovery finishes what was abandoned, without the client, and knows when to give up."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

import api
from idempotency.record import PARKED_UNTIL
from idempotency.store import Due
from provisioning.funnels import Funnels
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import KEY
from tests.unit.campaigns import CAMPAIGN, DOMAIN, Campaigns
from tests.unit.service import JSON, restart
from tests.unit.test_campaigns import DNS_REJECTS, LEASE_SECONDS, nothing_is_left
from tools.local import template

TOKEN = "kq1vV0Z1Y2hlcmNoZXotbGEtZmVtbWUtY2hlcmNoZXo"
NOTHING = {"taken_up": 0, "completed": 0}
MAX_RECOVERIES = 10
LONGEST_PAUSE = 900

Abandon = Callable[..., None]


@pytest.fixture
def abandon(campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch) -> Abandon:
    """Function that launches a campaign, and is killed right after the landing page exists."""
    create = Funnels.create

    def create_and_die(funnels: Funnels, *args: str) -> Any:
        create(funnels, *args)
        raise Killed

    def abandon(body: Any = CAMPAIGN, **request: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Funnels, "create", create_and_die)
            with pytest.raises(Killed):
                campaigns.launch(body, **request)

    return abandon


def fails_from_now_on(campaigns: Campaigns) -> None:
    campaigns.myfunnel_fails(times=None)


def pause(campaigns: Campaigns, clock: SetClock) -> float:
    """Seconds until recovery tries the only operation again."""
    return float(campaigns.record["lease_until"] - clock.now()) / 1000


class TestAbandoned:
    def test_is_finished_once_its_lease_has_lapsed(
        self, campaigns: Campaigns, abandon: Abandon, clock: SetClock
    ) -> None:
        # Given a campaign whose function was killed
        abandon()
        assert (len(campaigns.funnels), campaigns.routes) == (1, {})

        # When recovery runs too early, and then again
        clock.advance(LEASE_SECONDS - 2)
        assert campaigns.recover() == NOTHING
        clock.advance(2)
        assert campaigns.recover() == {"taken_up": 1, "completed": 1}

        # Then the client that comes back nevertheless gets the answer, and there is one of everything
        answer = campaigns.launch()
        assert (answer.status, answer.replayed) == (201, True)
        assert answer.json["funnel_id"] == campaigns.funnels[0]
        assert len(campaigns.funnels) == 1
        assert campaigns.routes.keys() == {DOMAIN}
        assert campaigns.recover() == NOTHING

    def test_goes_on_under_its_own_principal(self, campaigns: Campaigns, abandon: Abandon, clock: SetClock) -> None:
        abandon(principal="bob")
        clock.advance(LEASE_SECONDS)

        campaigns.recover()

        id_ = campaigns.launch(principal="bob").json["id"]
        assert campaigns.get(id_, principal="bob").status == 200
        assert campaigns.get(id_, principal="alice").status == 404

    def test_ends_with_the_location_that_its_client_would_have_had(
        self, campaigns: Campaigns, abandon: Abandon, clock: SetClock
    ) -> None:
        abandon(stage="prod")
        clock.advance(LEASE_SECONDS)

        campaigns.recover()

        assert campaigns.launch(stage="prod").headers["location"][0].startswith("/prod/v1/campaigns/cmp-")

    def test_does_not_keep_recovery_from_another(self, campaigns: Campaigns, abandon: Abandon, clock: SetClock) -> None:
        for number in range(5):
            abandon({**CAMPAIGN, "domain": f"{number}.{DOMAIN}"}, key=f"key-{number}")
        clock.advance(LEASE_SECONDS)
        campaigns.dns_fails(RuntimeError("a bug"))

        assert campaigns.recover() == {"taken_up": 5, "completed": 4}

    @pytest.mark.parametrize("limit", ["MinValue", "MaxValue"])
    def test_is_finished_under_every_timeout_that_the_template_allows(
        self, campaigns: Campaigns, abandon: Abandon, clock: SetClock, monkeypatch: pytest.MonkeyPatch, limit: str
    ) -> None:
        timeout = template.load()["Parameters"]["FunctionTimeoutSeconds"][limit]
        monkeypatch.setenv("IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS", str(timeout))
        restart()
        abandon(seconds=timeout)
        clock.advance(timeout + 3)

        # Recovery has spent some of it already when it has found the operation.
        assert campaigns.recover(seconds=timeout - 0.5) == {"taken_up": 1, "completed": 1}

    def test_with_its_failure_decided_is_undone_to_the_end(
        self, campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaigns.dns_fails(DNS_REJECTS)
        with monkeypatch.context() as patch:
            patch.setattr(Funnels, "delete", Mock(side_effect=Killed))
            with pytest.raises(Killed):
                campaigns.launch()
        clock.advance(LEASE_SECONDS)

        assert campaigns.recover() == {"taken_up": 1, "completed": 1}

        assert nothing_is_left(campaigns)
        assert campaigns.launch().problem == "domain-rejected"


class TestIndexThatLags:
    def test_names_an_operation_that_has_completed(
        self, campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = campaigns.launch()
        self.shows(monkeypatch, campaigns.record["id"])
        clock.advance(LEASE_SECONDS)

        assert campaigns.recover() == NOTHING

        assert campaigns.launch().body == answer.body
        assert len(campaigns.myfunnel.calls) == 1

    def test_names_an_operation_that_runs_again(
        self, campaigns: Campaigns, abandon: Abandon, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        abandon()
        clock.advance(LEASE_SECONDS)
        abandon()
        self.shows(monkeypatch, campaigns.record["id"])

        assert campaigns.recover() == NOTHING

        assert campaigns.record["attempt"] == 2

    def test_names_an_operation_that_is_gone(self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shows(monkeypatch, "0" * 64)

        assert campaigns.recover() == NOTHING

        assert campaigns.api.records == []

    @staticmethod
    def shows(monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
        monkeypatch.setattr(api.idempotent.lifecycle.store, "due", lambda now: (Due(id_, now) for id_ in ids))


class TestPause:
    def test_grows_from_attempt_to_attempt(self, campaigns: Campaigns, clock: SetClock) -> None:
        fails_from_now_on(campaigns)
        campaigns.launch()

        pauses = []
        for _ in range(MAX_RECOVERIES):
            pauses.append(pause(campaigns, clock))
            clock.advance(pauses[-1] - 0.001)
            assert campaigns.recover() == NOTHING
            clock.advance(0.002)
            assert campaigns.recover() == {"taken_up": 1, "completed": 0}

        # MyFunnelAPI itself asks for 5 s
        assert pauses == [5, 5, 5, 8, 16, 32, 64, 128, 256, 512]

    def test_is_as_long_as_the_other_service_asks_for(self, campaigns: Campaigns, clock: SetClock) -> None:
        campaigns.myfunnel_fails(retry_after=120)

        campaigns.launch()

        assert pause(campaigns, clock) == 120

    def test_does_not_keep_the_client_from_retrying_at_once(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails(retry_after=120)

        assert [campaigns.launch().status for _ in range(2)] == [503, 201]


class TestParked:
    @staticmethod
    def park(campaigns: Campaigns, clock: SetClock) -> None:
        """Launch a campaign that recovery gives up on."""
        fails_from_now_on(campaigns)
        campaigns.launch()
        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            assert campaigns.recover()["taken_up"] == 1

    def test_is_an_operation_that_failed_too_often_and_says_so(
        self, campaigns: Campaigns, clock: SetClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.park(campaigns, clock)

        blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [blob["Parked"] for blob in blobs if "Parked" in blob] == [[1.0]]
        assert campaigns.record["lease_until"] == PARKED_UNTIL
        assert campaigns.record["last_error"] == "Retry: MyFunnelAPI answered 503."

        clock.advance(24 * 3600)
        assert campaigns.recover() == NOTHING

    def test_is_run_by_its_clients_retry(self, campaigns: Campaigns, clock: SetClock) -> None:
        self.park(campaigns, clock)
        campaigns.myfunnel.faults.clear()

        assert campaigns.launch().status == 201

    def test_can_be_made_due_by_an_operator(self, campaigns: Campaigns, clock: SetClock) -> None:
        self.park(campaigns, clock)
        campaigns.myfunnel.faults.clear()

        assert api.idempotent.lifecycle.store.unpark(campaigns.record["id"], clock.now())
        clock.advance(0.001)

        assert campaigns.recover() == {"taken_up": 1, "completed": 1}

    def test_then_has_all_its_attempts_again(self, campaigns: Campaigns, clock: SetClock) -> None:
        self.park(campaigns, clock)

        api.idempotent.lifecycle.store.unpark(campaigns.record["id"], clock.now())

        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            assert campaigns.recover()["taken_up"] == 1
        assert campaigns.record["lease_until"] == PARKED_UNTIL

    @staticmethod
    def kill_every_attempt(campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let recovery try until it gives up."""
        monkeypatch.setattr(Funnels, "create", Mock(side_effect=Killed))
        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            with pytest.raises(Killed):
                campaigns.recover()
        clock.advance(LONGEST_PAUSE)
        assert campaigns.recover() == NOTHING
        assert campaigns.record["lease_until"] == PARKED_UNTIL

    def test_is_an_operation_that_kills_every_worker(
        self, campaigns: Campaigns, abandon: Abandon, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        abandon()

        self.kill_every_attempt(campaigns, clock, monkeypatch)

        assert campaigns.record["last_error"] == "every attempt was cut off"

    def test_keeps_the_last_error_that_an_attempt_could_report(
        self, campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fails_from_now_on(campaigns)
        campaigns.launch()

        self.kill_every_attempt(campaigns, clock, monkeypatch)

        assert campaigns.record["last_error"] == "Retry: MyFunnelAPI answered 503."

    def test_is_an_operation_that_cannot_be_undone(self, campaigns: Campaigns, clock: SetClock) -> None:
        campaigns.dns_fails(DNS_REJECTS)
        campaigns.myfunnel_fails("DELETE", times=None, status=422)
        assert campaigns.launch().status == 503
        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            assert campaigns.recover() == {"taken_up": 1, "completed": 0}

        assert campaigns.record["lease_until"] == PARKED_UNTIL
        assert campaigns.record["last_error"].startswith("Retry: Cannot undo step 'landing page'")


class TestStoredRequest:
    def test_never_holds_the_token(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails()

        campaigns.launch(headers=[JSON, ("Authorization", f"Bearer {TOKEN}"), ("Cookie", TOKEN), ("X-Api-Key", TOKEN)])

        stored = zlib.decompress(bytes(campaigns.record["request"]))
        assert TOKEN.encode() not in stored
        assert TOKEN not in str(campaigns.record)
        assert set(json.loads(stored)) == {
            "principal",
            "method",
            "route",
            "path",
            "base_path",
            "query",
            "content_type",
            "body",
        }

    def test_is_compressed(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails()
        body = json.dumps(CAMPAIGN) + " " * 10_000

        campaigns.launch(body)

        assert len(bytes(campaigns.record["request"])) < 500

    @pytest.mark.parametrize("status", [201, 422])
    def test_goes_when_the_operation_completes(self, campaigns: Campaigns, status: int) -> None:
        campaigns.myfunnel_fails(status=status if status >= 400 else 503)
        campaigns.launch()

        assert campaigns.launch().status == status

        assert campaigns.record.keys() & {"request", "recovery_shard", "last_error", "failure"} == set()

    def test_is_not_stored_for_a_request_that_is_refused(self, campaigns: Campaigns) -> None:
        campaigns.launch({"name": "Spring"})

        assert campaigns.api.records == []


def test_the_key_is_never_stored(campaigns: Campaigns) -> None:
    campaigns.myfunnel_fails()
    campaigns.launch()

    assert KEY not in str(campaigns.record)
    assert KEY.encode() not in zlib.decompress(bytes(campaigns.record["request"]))
