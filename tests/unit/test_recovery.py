"""Recovery finishes what was abandoned, without the client, and knows when to give up."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

import api
from idempotency import Retry, Settings
from idempotency.record import PARKED_UNTIL
from idempotency.store import Due
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import KEY
from tests.messages import MAX_RECOVERIES
from tests.sample import LONGEST_PAUSE, NAME, NEVER, SAMPLE, Samples
from tests.unit.service import JSON, restart
from tools.local import template

TOKEN = "kq1vV0Z1Y2hlcmNoZXotbGEtZmVtbWUtY2hlcmNoZXo"
NOTHING = {"taken_up": 0, "completed": 0}
LEASE_SECONDS = 31

Abandon = Callable[..., None]


@pytest.fixture
def abandon(samples: Samples) -> Abandon:
    """Function that creates a sample, and is killed right after its part exists."""

    def abandon(body: Any = SAMPLE, **request: Any) -> None:
        samples.service.fails("make", Killed(), acts=True)
        with pytest.raises(Killed):
            samples.create(body, **request)

    return abandon


def fails_from_now_on(samples: Samples) -> None:
    samples.service.fails("make", times=inf)


def pause(samples: Samples, clock: SetClock) -> float:
    """Seconds until recovery tries the only operation again."""
    return float(samples.record["lease_until"] - clock.now()) / 1000


class TestAbandoned:
    def test_is_finished_once_its_lease_has_lapsed(self, samples: Samples, abandon: Abandon, clock: SetClock) -> None:
        # Given a sample whose function was killed
        abandon()
        assert samples.labels == [""]

        # When recovery runs too early, and then again
        clock.advance(LEASE_SECONDS - 2)
        assert samples.recover() == NOTHING
        clock.advance(2)
        assert samples.recover() == {"taken_up": 1, "completed": 1}

        # Then the client that comes back nevertheless gets the answer, and there is one of everything
        answer = samples.create()
        assert (answer.status, answer.replayed) == (201, True)
        assert [answer.json["part_id"]] == [*samples.service.parts.values()]
        assert samples.labels == [NAME]
        assert samples.recover() == NOTHING

    def test_goes_on_under_its_own_principal(self, samples: Samples, abandon: Abandon, clock: SetClock) -> None:
        abandon(principal="bob")
        clock.advance(LEASE_SECONDS)

        samples.recover()

        id_ = samples.create(principal="bob").json["id"]
        assert samples.get(id_, principal="bob").status == 200
        assert samples.get(id_, principal="alice").status == 404

    def test_ends_with_the_location_that_its_client_would_have_had(
        self, samples: Samples, abandon: Abandon, clock: SetClock
    ) -> None:
        abandon(stage="prod")
        clock.advance(LEASE_SECONDS)

        samples.recover()

        assert samples.create(stage="prod").headers["location"][0].startswith("/prod/v1/samples/smp-")

    def test_does_not_keep_recovery_from_another(self, samples: Samples, abandon: Abandon, clock: SetClock) -> None:
        for number in range(5):
            abandon({"name": f"{number}"}, key=f"key-{number}")
        clock.advance(LEASE_SECONDS)
        samples.service.fails("label", RuntimeError("a bug"))

        assert samples.recover() == {"taken_up": 5, "completed": 4}

    @pytest.mark.parametrize("limit", ["MinValue", "MaxValue"])
    def test_is_finished_under_every_timeout_that_the_template_allows(
        self, samples: Samples, abandon: Abandon, clock: SetClock, monkeypatch: pytest.MonkeyPatch, limit: str
    ) -> None:
        timeout = template.load()["Parameters"]["FunctionTimeoutSeconds"][limit]
        monkeypatch.setenv("IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS", str(timeout))
        restart()
        abandon(seconds=timeout)
        clock.advance(timeout + 3)

        # Recovery has spent some of it already when it has found the operation.
        assert samples.recover(seconds=timeout - 0.5) == {"taken_up": 1, "completed": 1}

    def test_with_its_failure_decided_is_undone_to_the_end(self, samples: Samples, clock: SetClock) -> None:
        samples.service.fails("label", NEVER)
        samples.service.fails("remove", Killed())
        with pytest.raises(Killed):
            samples.create()
        clock.advance(LEASE_SECONDS)

        assert samples.recover() == {"taken_up": 1, "completed": 1}

        assert samples.nothing_is_left()
        assert samples.create().problem == "label-rejected"


class TestIndexThatLags:
    def test_names_an_operation_that_has_completed(
        self, samples: Samples, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = samples.create()
        self.shows(monkeypatch, samples.record["id"])
        clock.advance(LEASE_SECONDS)

        assert samples.recover() == NOTHING

        assert samples.create().body == answer.body
        assert [call for call, _ in samples.service.calls] == ["make", "label"]

    def test_names_an_operation_that_runs_again(
        self, samples: Samples, abandon: Abandon, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        abandon()
        clock.advance(LEASE_SECONDS)
        abandon()
        self.shows(monkeypatch, samples.record["id"])

        assert samples.recover() == NOTHING

        assert samples.record["attempt"] == 2

    def test_names_an_operation_that_is_gone(self, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shows(monkeypatch, "0" * 64)

        assert samples.recover() == NOTHING

        assert samples.api.records == []

    @staticmethod
    def shows(monkeypatch: pytest.MonkeyPatch, *ids: str) -> None:
        monkeypatch.setattr(api.idempotent.lifecycle.store, "due", lambda now: (Due(id_, now) for id_ in ids))


@pytest.mark.thorough
class TestPause:
    def test_grows_from_attempt_to_attempt(self, samples: Samples, clock: SetClock) -> None:
        fails_from_now_on(samples)
        samples.create()

        pauses = []
        for _ in range(Settings().max_recoveries):
            pauses.append(pause(samples, clock))
            clock.advance(pauses[-1] - 0.001)
            assert samples.recover() == NOTHING
            clock.advance(0.002)
            assert samples.recover() == {"taken_up": 1, "completed": 0}

        # The service itself asks for 5 s
        assert pauses == [5, 5, 5, 8, 16, 32, 64, 128, 256, 512]
        assert samples.record["lease_until"] == PARKED_UNTIL

    def test_is_as_long_as_the_other_service_asks_for(self, samples: Samples, clock: SetClock) -> None:
        samples.service.fails("make", Retry("Not so soon.", retry_after=120))

        samples.create()

        assert pause(samples, clock) == 120

    def test_does_not_keep_the_client_from_retrying_at_once(self, samples: Samples) -> None:
        samples.service.fails("make", Retry("Not so soon.", retry_after=120))

        assert [samples.create().status for _ in range(2)] == [503, 201]


@pytest.mark.thorough
class TestParked:
    @pytest.fixture(autouse=True)
    def after_few_attempts(self, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
        lifecycle = api.idempotent.lifecycle
        monkeypatch.setattr(lifecycle, "settings", replace(lifecycle.settings, max_recoveries=MAX_RECOVERIES))

    def test_is_an_operation_that_failed_too_often_and_says_so(
        self, samples: Samples, clock: SetClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        samples.give_up(clock)

        blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [blob["Parked"] for blob in blobs if "Parked" in blob] == [[1.0]]
        assert samples.record["lease_until"] == PARKED_UNTIL
        assert samples.record["last_error"] == "Retry: The service is busy."

        clock.advance(24 * 3600)
        assert samples.recover() == NOTHING

    def test_is_run_by_its_clients_retry(self, samples: Samples, clock: SetClock) -> None:
        samples.give_up(clock)
        samples.service.behaves()

        assert samples.create().status == 201

    def test_can_be_made_due_by_an_operator(self, samples: Samples, clock: SetClock) -> None:
        samples.give_up(clock)
        samples.service.behaves()

        assert api.idempotent.lifecycle.store.unpark(samples.record["id"], clock.now())
        clock.advance(0.001)

        assert samples.recover() == {"taken_up": 1, "completed": 1}

    def test_then_has_all_its_attempts_again(self, samples: Samples, clock: SetClock) -> None:
        samples.give_up(clock)

        api.idempotent.lifecycle.store.unpark(samples.record["id"], clock.now())

        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            assert samples.recover()["taken_up"] == 1
        assert samples.record["lease_until"] == PARKED_UNTIL

    @staticmethod
    def kill_every_attempt(samples: Samples, clock: SetClock) -> None:
        """Let recovery try until it gives up."""
        samples.service.behaves()
        samples.service.fails("make", Killed(), times=inf)
        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            with pytest.raises(Killed):
                samples.recover()
        clock.advance(LONGEST_PAUSE)
        assert samples.recover() == NOTHING
        assert samples.record["lease_until"] == PARKED_UNTIL

    def test_is_an_operation_that_kills_every_worker(self, samples: Samples, abandon: Abandon, clock: SetClock) -> None:
        abandon()

        self.kill_every_attempt(samples, clock)

        assert samples.record["last_error"] == "every attempt was cut off"

    def test_keeps_the_last_error_that_an_attempt_could_report(self, samples: Samples, clock: SetClock) -> None:
        fails_from_now_on(samples)
        samples.create()

        self.kill_every_attempt(samples, clock)

        assert samples.record["last_error"] == "Retry: The service is busy."

    def test_is_an_operation_that_cannot_be_undone(self, samples: Samples, clock: SetClock) -> None:
        samples.service.fails("label", NEVER)
        samples.service.fails("remove", NEVER, times=inf)
        assert samples.create().status == 503
        for _ in range(MAX_RECOVERIES):
            clock.advance(LONGEST_PAUSE)
            assert samples.recover() == {"taken_up": 1, "completed": 0}

        assert samples.record["lease_until"] == PARKED_UNTIL
        assert samples.record["last_error"].startswith("Retry: Cannot undo step 'part'")


class TestStoredRequest:
    def test_never_holds_the_token(self, samples: Samples) -> None:
        samples.service.fails("make")

        samples.create(headers=[JSON, ("Authorization", f"Bearer {TOKEN}"), ("Cookie", TOKEN), ("X-Api-Key", TOKEN)])

        stored = zlib.decompress(bytes(samples.record["request"]))
        assert TOKEN.encode() not in stored
        assert TOKEN not in str(samples.record)
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

    def test_is_compressed(self, samples: Samples) -> None:
        samples.service.fails("make")
        body = json.dumps(SAMPLE) + " " * 10_000

        samples.create(body)

        assert len(bytes(samples.record["request"])) < 500

    @pytest.mark.parametrize("status", [201, 422])
    def test_goes_when_the_operation_completes(self, samples: Samples, status: int) -> None:
        samples.service.fails("make")
        if status == 422:
            samples.service.fails("label", NEVER)
        samples.create()

        assert samples.create().status == status

        assert samples.record.keys() & {"request", "recovery_shard", "last_error", "failure"} == set()

    def test_is_not_stored_for_a_request_that_is_refused(self, samples: Samples) -> None:
        samples.create({"title": NAME})

        assert samples.api.records == []


def test_the_key_is_never_stored(samples: Samples) -> None:
    samples.service.fails("make")
    samples.create()

    assert KEY not in str(samples.record)
    assert KEY.encode() not in zlib.decompress(bytes(samples.record["request"]))
