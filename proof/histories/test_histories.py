"""A load of duplicates on the deployed stack; one execution per key explains its history."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from proof.conftest import Report
from proof.histories import history
from proof.histories.history import FINAL, KEY_REUSED, NO_ANSWER, outcome
from proof.histories.load import Load, Request, duplicates, new_key
from tests.e2e.targets import PROBE, PROVISION, LocalCloud

SEED = 20260101
KEYS = 60
THREADS = 12

ATTEMPTS = [["answer"], ["answer"], ["retry", "answer"], ["fail", "retry", "answer"], ["refuse"]]


def server(random: Random) -> tuple[str, str, str]:
    """A path, and two bodies that make different requests."""
    sizes = random.sample(["small", "medium", "large"], 2)
    large, small = (json.dumps({"region": "eu-west", "size": size}) for size in sizes)
    return PROVISION, large, small


def probe(random: Random) -> tuple[str, str, str]:
    """The same for an operation that takes some time and may fail."""
    body = {"attempts": random.choice(ATTEMPTS), "seconds": random.choice([0, 0.2, 0.6])}
    return PROBE, json.dumps(body), json.dumps({**body, "size": 17})


@pytest.mark.slow
def test_one_execution_of_each_key_explains_every_answer(
    local_cloud: LocalCloud, tmp_path: Path, report: Report
) -> None:
    # Given clients of two principals that share keys, send duplicates and other bodies, wait, and hang up
    random = Random(SEED)
    rivals: list[tuple[Request, Request]] = []
    requests: list[Request] = []
    for _ in range(KEYS):
        key = new_key(random)
        path, body, other_body = random.choice([server, probe])(random)
        for principal in random.sample(["alice", "bob"], random.choice([1, 1, 2])):
            one = Request(principal, path, key, body)
            other = replace(one, body=other_body)
            rivals.append((one, other))
            requests += duplicates(one, other, random)

    # When they are done, and for each key and body, one client has retried until it knows whether it is served
    with history.recording(tmp_path / "history.jsonl") as recorded:
        load = Load(local_cloud, recorded)
        load.send_all(requests, THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            settled = list(pool.map(lambda two: [load.send_until_settled(one, within=90) for one in two], rivals))

    # Then one of the two bodies is served, and one execution explains every answer
    exchanges = history.load(tmp_path / "history.jsonl")
    counts = Counter(exchange.outcome for exchange in exchanges)
    report(f"history of {len(exchanges)} requests under {len(rivals)} keys: {dict(counts)}")
    for answers in settled:
        assert sorted(outcome(answer) if answer else NO_ANSWER for answer in answers) == [FINAL, KEY_REUSED], answers
    assert {FINAL, KEY_REUSED, NO_ANSWER, "in-progress", "internal-error", "unavailable"} <= counts.keys()
    assert history.check(exchanges) == []
