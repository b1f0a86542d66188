"""A worker: one execution environment of a function, without HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import Response
from boto3.dynamodb.types import TypeDeserializer

from idempotency.clock import Clock
from idempotency.errors import Problem, Rejected, as_problem
from idempotency.lifecycle import Lifecycle, Reply
from idempotency.operation import Invocation, Operation
from idempotency.policy import Policy, Settings
from idempotency.record import Record
from idempotency.request import Request, record_id
from idempotency.response import Completion, Row, StoredResponse, Verdict
from idempotency.store import Store
from tests.crashes import Killed
from tests.messages import MAX_RECOVERIES
from tests.telemetry import RecordedTelemetry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DEADLINE_SECONDS = 28
LEASE_SECONDS = DEADLINE_SECONDS + Settings().clock_skew

Run = Callable[[Operation], Response[Any]]


def created(operation: Operation) -> Response[Any]:
    """Answer with something that is different in every attempt."""
    return Completion(201, {"operation": operation.id, "attempt": operation.attempt, "owner": operation._record.owner})


def killed(_: Operation) -> Response[Any]:
    """Be killed in the middle."""
    raise Killed


class Worker:
    """Runs requests, and counts its calls to DynamoDB.

    Args:
        client: its client.
        table: the table of records.
        clock: its clock.
        cache_bytes: memory for completed records.
    """

    def __init__(self, client: DynamoDBClient, table: str, clock: Clock, cache_bytes: int = 0) -> None:
        self.client = client
        self.table = table
        self.clock = clock
        self.telemetry = RecordedTelemetry()
        self.store = Store(client, table, clock)
        settings = Settings(cache_bytes=cache_bytes, max_recoveries=MAX_RECOVERIES)
        self.lifecycle = Lifecycle(self.store, self.telemetry, settings, clock)
        self.calls: Counter[str] = Counter()
        client.meta.events.register("before-send.dynamodb.*", self._count)

    def run(
        self,
        run: Run = created,
        *,
        key: str = "key",
        principal: str = "alice",
        body: bytes = b'{"n":1}',
        seconds: float = DEADLINE_SECONDS,
        wait: int = 0,
        policy: Policy | None = None,
    ) -> Reply:
        """Answer a request, as the decorator does."""
        policy = policy or Policy()
        request = Request(principal, "POST", "/v1/things", "/v1/things", "/dev", {}, "application/json", body)
        return self.lifecycle.run(self.invocation(run, request, policy, seconds), key, wait)

    def invocation(self, run: Run, request: Request, policy: Policy, seconds: float = DEADLINE_SECONDS) -> Invocation:
        """Make an invocation, as the decorator does."""

        def show(error: Exception) -> Response[Any]:
            problem = as_problem(error)
            if problem.slug == "internal-error":
                self.telemetry.error(error)
            return problem.response()

        deadline = self.clock.now() + round(seconds * 1000)
        return Invocation(request, policy, deadline, lambda attempt: Verdict.of(run(attempt), policy), show)

    def complete(self, record: Record, response: StoredResponse) -> Record:
        """Complete an operation as its owner, however late, with a response that is kept for a minute."""
        return self.store.complete(record, response, expires_at_seconds=self.clock.now() // 1000 + 60)

    def refused(self, run: Run = created, **request: Any) -> Problem:
        """Send a request that is refused, and return the problem."""
        try:
            reply = self.run(run, **request)
        except Problem as problem:
            return problem
        raise AssertionError(reply)

    def record(self, key: str = "key", principal: str = "alice") -> Record:
        """Read the record of a key."""
        record = self.store.get(record_id(principal, "POST", "/v1/things", key))
        assert record is not None
        return record

    def scan(self, table: str | None = None) -> list[dict[str, Any]]:
        """Read a whole table; by default, the table of records."""
        deserialize = TypeDeserializer().deserialize
        pages = self.client.get_paginator("scan").paginate(TableName=table or self.table)
        return [{name: deserialize(value) for name, value in item.items()} for page in pages for item in page["Items"]]

    def _count(self, event_name: str, **_: object) -> None:
        self.calls[event_name.rpartition(".")[2]] += 1


def inserting(table: str, *ids: str, conflict: Rejected | None = None, **item: Any) -> Run:
    """An operation that inserts rows with its completion."""

    def run(operation: Operation) -> Response[Any]:
        rows = [Row(table, {"id": id_, **item}, conflict) for id_ in ids]
        return Completion(201, {"operation": operation.id}, rows=rows)

    return run


def same(replies: Sequence[Reply]) -> bool:
    """Whether all replies are the same response, byte for byte."""
    return all(reply.response == replies[0].response for reply in replies)
