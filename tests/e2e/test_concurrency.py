"""Several requests at once under one key, on the deployed stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

from idempotency.request import record_id
from tests.e2e.targets import JSON, PROVISION, LocalCloud
from tests.e2e.test_servers import instances_of, operation_of
from tools.local.client import Answer
from tools.local.stack import Stack

WAIT = [JSON, ("Prefer", "wait=20")]
DUPLICATES = 6
PATIENCE = 10


def at_once(count: int, send: Callable[[int], Answer]) -> list[list[Answer]]:
    """Send from this many threads, none of which begins before all are ready, and return the answers of each.

    On a busy machine DynamoDB may take longer than a client of it waits: then it is asked again, as the 503 says.
    """
    barrier = Barrier(count)

    def run(number: int) -> list[Answer]:
        barrier.wait()
        answers = [send(number)]
        while answers[-1].status == 503 and answers[-1].problem == "unavailable" and len(answers) < PATIENCE:
            sleep(int(answers[-1].headers["retry-after"][0]))
            answers.append(send(number))
        return answers

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def assert_one_run(clients: Sequence[Sequence[Answer]]) -> Answer:
    """One client's last answer is that of the run; every other has the same bytes, or is 409 with a `Retry-After`.

    If the run's own client was told to ask again, all of them are replays: what had been kept, it could not know.
    """
    answers = [answers[-1] for answers in clients]
    statuses = Counter(answer.status for answer in answers)
    assert statuses[201], statuses
    assert statuses.keys() <= {201, 409}, statuses
    first, *others = sorted(answers, key=lambda answer: (answer.status, answer.replayed))
    assert not first.replayed or any(len(answers) > 1 for answers in clients)
    for answer in others:
        if answer.status == 409:
            assert answer.problem == "in-progress"
            assert int(answer.headers["retry-after"][0]) >= 1
        else:
            assert (answer.replayed, answer.body) == (True, first.body)
    return first


def assert_one_server(count: int, key: str, target: LocalCloud, stack: Stack) -> None:
    """This many requests at once under one key provision one server."""
    before = target.tables.ids()

    clients = at_once(count, lambda _: target.post(key))

    server = assert_one_run(clients).json
    record = record_id("id:alice", "POST", PROVISION, key)
    assert target.tables.ids() - before == {record, f"server#{server['id']}"}
    assert instances_of(stack, operation_of(target, record)) == [server["instance_id"]]


def test_duplicates_at_once_provision_one_server(local_cloud: LocalCloud, stack: Stack, key: str) -> None:
    assert_one_server(DUPLICATES, key, local_cloud, stack)


def test_waiting_duplicates_get_the_bytes_of_one_run(local_cloud: LocalCloud, key: str) -> None:
    clients = at_once(DUPLICATES, lambda _: local_cloud.probe(key, "answer", seconds=1, headers=WAIT))

    assert_one_run(clients)
    assert {answers[-1].status for answers in clients} == {201}
