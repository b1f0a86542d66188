"""What a request costs: calls of DynamoDB, and the capacity that it charges for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Problem, Retry
from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from tests.clocks import SetClock
from tests.integration.conftest import NewWorker
from tests.integration.worker import Worker, created, inserting


class Meter:
    """Adds up the capacity that DynamoDB charges a worker for what succeeds."""

    def __init__(self, worker: Worker) -> None:
        self.units: Counter[str] = Counter()
        events = worker.client.meta.events
        events.register("provide-client-params.dynamodb.*", self._ask)
        events.register("after-call.dynamodb.*", self._read)

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _read(self, parsed: dict[str, Any], model: Any, **_: object) -> None:
        charged = parsed.get("ConsumedCapacity", [])
        for each in charged if isinstance(charged, list) else [charged]:
            self.units[model.name] += each["CapacityUnits"]


class TestFirstRequest:
    def test_is_two_writes_of_one_unit(self, worker: NewWorker) -> None:
        one = worker()
        meter = Meter(one)

        one.run()

        assert one.calls == {"UpdateItem": 2}
        assert meter.units == {"UpdateItem": 2}

    def test_with_a_row_is_a_write_and_a_transaction_of_two(self, worker: NewWorker, rows: str) -> None:
        one = worker()
        meter = Meter(one)

        one.run(inserting(rows, "one"))

        assert one.calls == {"UpdateItem": 1, "TransactWriteItems": 1}
        # A transaction's write costs double: once to prepare, once to commit.
        assert meter.units == {"UpdateItem": 1, "TransactWriteItems": 4}

    @pytest.mark.parametrize("steps", [1, 3])
    def test_with_steps_is_a_write_more_for_each(self, worker: NewWorker, steps: int) -> None:
        def run(operation: Operation) -> Response[Any]:
            for number in range(steps):
                operation.step(f"step {number}", lambda _: "x" * 100)
            return created(operation)

        one = worker()
        meter = Meter(one)

        one.run(run)

        assert one.calls == {"UpdateItem": 2 + steps}
        assert meter.units == {"UpdateItem": 2 + steps}

    def test_that_fails_for_now_is_two_writes(self, worker: NewWorker) -> None:
        def run(_: Operation) -> Response[Any]:
            raise Retry("later")

        one = worker()

        one.run(run)

        assert one.calls == {"UpdateItem": 2}

    def test_of_an_expired_record_is_a_write_more(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run()
        clock.advance(Settings().ttl)
        one.calls.clear()

        one.run()

        assert one.calls == {"UpdateItem": 2, "PutItem": 1}

    def test_that_recovery_could_finish_pays_for_its_place_in_the_index(self, worker: NewWorker) -> None:
        one = worker()
        meter = Meter(one)

        one.run(policy=Policy(recoverable=True))

        # Into the index with the claim, out of it with the completion.
        assert one.calls == {"UpdateItem": 2}
        assert meter.units == {"UpdateItem": 4}


class TestReplay:
    def test_is_one_write_that_fails_and_no_read(self, worker: NewWorker) -> None:
        worker().run()
        other = worker()
        meter = Meter(other)

        assert other.run().replayed
        assert other.calls == {"UpdateItem": 1}
        assert meter.units == {}

    def test_from_the_cache_is_nothing(self, worker: NewWorker) -> None:
        one = worker(cache_bytes=100_000)
        one.run()
        one.calls.clear()

        assert one.run().replayed
        assert one.calls == {}

    @pytest.mark.parametrize("body", [b'{"n":1}', b'{"n":2}'], ids=["running", "another request"])
    def test_refused_is_one_write_that_fails(self, worker: NewWorker, body: bytes) -> None:
        def run(operation: Operation) -> Response[Any]:
            refused.append(other.refused(body=body))
            return created(operation)

        refused: list[Problem] = []
        other = worker()

        worker().run(run)

        assert other.calls == {"UpdateItem": 1}
        assert [problem.status for problem in refused] in ([409], [422])
