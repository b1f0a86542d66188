"""2,000 duplicates of one key, 50 at a time: one run, and a call each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools.event_handler import Response
from botocore.config import Config

from idempotency.errors import Problem
from idempotency.operation import Operation
from idempotency.policy import Policy
from proof.conftest import Report
from tests.clocks import SetClock
from tests.integration.worker import Worker, inserting
from tools.local.tables import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DUPLICATES = 2_000
AT_ONCE = 50
OTHERS = 400

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Crowd:
    """Workers that serve requests, as many at a time as there are of them.

    Args:
        client: makes a client of DynamoDB.
        clock: their clock.
        records: the table of records.
        rows: the table of business rows.
    """

    def __init__(self, client: Callable[[], DynamoDBClient], clock: SetClock, records: str, rows: str) -> None:
        self.workers = [Worker(client(), records, clock) for _ in range(AT_ONCE)]
        self.runs = 0
        self._rows = rows
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.workers:
            self._free.put(worker)

    @property
    def calls(self) -> Counter[str]:
        """The calls of all of them."""
        return sum((worker.calls for worker in self.workers), Counter[str]())

    def send(self, keys: list[str], policy: Policy) -> list[tuple[int, bytes, float]]:
        """Send a request for each key; the status and body of each, and the seconds that it took."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda key: self._send(key, policy), keys))

    def _send(self, key: str, policy: Policy) -> tuple[int, bytes, float]:
        worker = self._free.get()
        begun = time.perf_counter()
        try:
            response = worker.run(self._run, key=key, policy=policy).response
            return response.status, response.body, time.perf_counter() - begun
        except Problem as problem:
            return problem.status, b"", time.perf_counter() - begun
        finally:
            self._free.put(worker)

    def _run(self, operation: Operation) -> Response[Any]:
        self.runs += 1
        return inserting(self._rows, operation.id)(operation)


@pytest.fixture
def crowd(dynamodb_local: str, clock: SetClock) -> Iterator[Crowd]:
    def client() -> DynamoDBClient:
        return boto3.client("dynamodb", endpoint_url=dynamodb_local, config=Config(retries={"mode": "standard"}))

    owner = client()
    tables = [create_table(owner, name, f"{name}-{uuid4()}") for name in ("IdempotencyTable", "ResourcesTable")]
    crowd = Crowd(client, clock, *tables)
    yield crowd
    for worker in crowd.workers:
        worker.client.close()
    for table in tables:
        owner.delete_table(TableName=table)
    owner.close()


def test_duplicates_of_an_operation_make_one_call_each(crowd: Crowd, report: Report) -> None:
    others = crowd.send([f"other {number}" for number in range(OTHERS)], Policy())
    runs, calls = crowd.runs, crowd.calls

    answers = crowd.send(["hot"] * DUPLICATES, Policy())

    assert crowd.runs - runs == 1
    assert {status for status, _, _ in answers} <= {201, 409}
    assert len({body for status, body, _ in answers if status == 201}) == 1
    assert crowd.calls - calls == {"PutItem": DUPLICATES, "TransactWriteItems": 1}
    usual, slowest = median(seconds for *_, seconds in others), max(seconds for *_, seconds in answers)
    assert slowest <= 3 * usual
    report(
        f"{DUPLICATES} duplicates, {AT_ONCE} at a time: the slowest took {slowest / usual:.1f} times the median of a "
        "request with a key of its own under the same load"
    )


def test_duplicates_of_an_atomic_operation_commit_once(crowd: Crowd, report: Report) -> None:
    answers = crowd.send(["hot"] * DUPLICATES, Policy(atomic=True))

    assert Counter(status for status, _, _ in answers).keys() <= {201, 503}
    assert len({body for status, body, _ in answers if status == 201}) == 1
    assert len(crowd.workers[0].scan(crowd._rows)) == 1
    calls = sum(crowd.calls.values()) - 1
    report(f"{DUPLICATES} duplicates of an atomic operation: {calls / DUPLICATES:.2f} calls each")
