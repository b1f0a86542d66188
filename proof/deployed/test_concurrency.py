"""Many requests at once under one key, on the deployed stack."""

from __future__ import annotations

import time
from collections import Counter
from uuid import uuid4

import pytest

from idempotency.request import record_id
from proof.conftest import Report
from tests.e2e.faults import Faults
from tests.e2e.targets import PROBE, LocalCloud
from tests.e2e.test_concurrency import WAIT, assert_one_run, assert_one_server, at_once
from tools.local.stack import Stack

THREADS = 30
WAITERS = 40
WARM_UP_SECONDS = 120


@pytest.fixture(scope="module", autouse=True)
def _warm_workers(local_cloud: LocalCloud) -> None:
    """As many warm workers as there will be requests, so that none has to wait for its worker to start."""
    assert local_cloud.get("/v1/servers/none").status == 404, "the gateway should know the token by now"
    deadline = time.monotonic() + WARM_UP_SECONDS
    while any(
        answers[-1].status != 201
        for answers in at_once(WAITERS, lambda _: local_cloud.probe(str(uuid4()), "answer", seconds=2))
    ):
        assert time.monotonic() < deadline


def test_30_threads_and_one_key_provision_one_server(local_cloud: LocalCloud, stack: Stack, key: str) -> None:
    assert_one_server(THREADS, key, local_cloud, stack)


def test_40_waiting_duplicates_get_the_bytes_of_one_run(
    local_cloud: LocalCloud, faults: Faults, key: str, report: Report
) -> None:
    # When they ask to wait while the operation runs for two seconds
    clients = at_once(WAITERS, lambda _: local_cloud.probe(key, "answer", seconds=2, headers=WAIT))

    # Then all get the answer of one run
    run = assert_one_run(clients)
    answers = [answers[-1] for answers in clients]
    waited = [answer for answer in answers if "preference-applied" in answer.headers]
    assert Counter(answer.status for answer in answers) == {201: WAITERS}
    assert run.json["attempt"] == 1
    assert len(waited) == WAITERS - 1
    assert {answer.headers["preference-applied"][0] for answer in waited} == {"wait=20"}

    # And each has looked at the record only a few times
    calls = Counter(faults.calls(record_id("id:alice", "POST", PROBE, key)))
    reads = calls["dynamodb.GetItem"] / len(waited)
    report(f"a duplicate that waits for 2 s reads its record {reads:.1f} times, and writes it once")
    assert calls["dynamodb.PutItem"] == WAITERS
    assert 1 <= reads <= 8
