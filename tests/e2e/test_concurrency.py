"""Several requests at once under one key, on the deployed stack."""

from __future__ import annotations

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
UNAVAILABLE = (503, "unavailable")
PATIENCE = 10


def at_once(count: int, send: Callable[[int], Answer]) -> list[Answer]:
    """Send from this many threads, none of which begins before all are ready, and return all answers.

    On a busy machine DynamoDB may take longer than a client of it waits: then it is asked again, as the 503 says.
    """
    barrier = Barrier(count)

    def run(number: int) -> list[Answer]:
        barrier.wait()
        answers = [send(number)]
        while answers[-1].status == 503 and len(answers) < PATIENCE:
            sleep(int(answers[-1].headers["retry-after"][0]))
            answers.append(send(number))
        return answers

    with ThreadPoolExecutor(count) as pool:
        return [answer for answers in pool.map(run, range(count)) for answer in answers]


def assert_one_run(answers: Sequence[Answer]) -> Answer:
    """One answer is that of the run; every other has the same bytes, or says when to ask again.

    If the run's own client was told to ask again, all answers are replays: what had been kept, it could not know.
    """
    final = sorted((answer for answer in answers if answer.status == 201), key=lambda answer: answer.replayed)
    later = [answer for answer in answers if answer.status != 201]
    problems = {(answer.status, answer.problem) for answer in later}
    assert problems <= {UNAVAILABLE, (409, "in-progress")}, problems
    assert all(int(answer.headers["retry-after"][0]) >= 1 for answer in later)
    runs = sum(not answer.replayed for answer in final)
    assert runs == 1 or (runs == 0 and UNAVAILABLE in problems)
    assert {answer.body for answer in final} == {final[0].body}
    return final[0]


def assert_one_server(count: int, key: str, target: LocalCloud, stack: Stack) -> None:
    """This many requests at once under one key provision one server."""
    before = target.tables.ids()

    answers = at_once(count, lambda _: target.post(key))

    server = assert_one_run(answers).json
    record = record_id("id:alice", "POST", PROVISION, key)
    assert target.tables.ids() - before == {record, f"server#{server['id']}"}
    assert instances_of(stack, operation_of(target, record)) == [server["instance_id"]]


def test_duplicates_at_once_provision_one_server(local_cloud: LocalCloud, stack: Stack, key: str) -> None:
    assert_one_server(DUPLICATES, key, local_cloud, stack)


def test_waiting_duplicates_get_the_bytes_of_one_run(local_cloud: LocalCloud, key: str) -> None:
    answers = at_once(DUPLICATES, lambda _: local_cloud.probe(key, "answer", seconds=1, headers=WAIT))

    assert_one_run(answers)
    assert {answer.status for answer in answers} <= {201, 503}
