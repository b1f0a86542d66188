"""What an item of 400 KB has room for, what its content costs, and that its numbers come out as they were."""

from __future__ import annotations

import json
import math
import sys
from decimal import Context, Decimal, Inexact, Overflow, Rounded, localcontext, setcontext
from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.errors import Rejected, Retry
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.record import Status
from idempotency.request import Request
from idempotency.response import Completion, Row
from idempotency.store import Rows
from tests.clocks import SetClock
from tests.integration.conftest import NewWorker
from tests.integration.test_cost import Bench, Cost, Meter, bench  # noqa: F401 - a fixture
from tests.integration.worker import Run

KB = 1024
LONGEST_NAME = "😀" * 100
RECOVERABLE = Policy(recoverable=True, max_body=1_000_000)
NUMBERS: list[float | Decimal] = [
    0,
    -0.0,
    1,
    -1,
    10,
    10.0,
    0.1,
    1.5,
    -1e-5,
    1e22,
    1e23,
    1.5e100,
    1e125,
    1e-130,
    math.pi,
    sys.float_info.epsilon,
    2**53 + 1,
    123456789012345678,
    10**37 + 1,
    -(10**37),
    Decimal("1.10"),
    Decimal("1E-130"),
    Decimal("0.12345678901234567890123456789012345678"),
    Decimal("-98765432109876543210.123456789"),
]


def exact(number: Any) -> Decimal:
    """The number that its text is."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def test_every_number_comes_out_of_a_row_as_it_was(worker: NewWorker, rows: str) -> None:
    table = Rows(worker().client, rows)
    item = {"id": "a", "list": NUMBERS, "nested": {"deep": [{str(n): number} for n, number in enumerate(NUMBERS)]}}

    worker().run(lambda _: Completion(201, {}, rows=[table.row(item)]))

    found = table.get("a")
    assert found
    assert [exact(number) for number in found["list"]] == [exact(number) for number in NUMBERS]
    assert [exact(*each.values()) for each in found["nested"]["deep"]] == [exact(number) for number in NUMBERS]
    # What went in as an int or a float comes out as a number that json writes.
    plain = [number for number in NUMBERS if not isinstance(number, Decimal)]
    assert [exact(number) for number in json.loads(json.dumps(found["list"][: len(plain)]))] == list(map(exact, plain))


def test_every_number_is_kept_whatever_arithmetic_the_code_has_chosen(worker: NewWorker, rows: str) -> None:
    table = Rows(worker().client, rows)
    item = {"id": "a", "list": NUMBERS}

    def run(_: Operation) -> Response[Any]:
        setcontext(Context(prec=3, Emax=9, Emin=-9, traps=[Inexact, Rounded, Overflow]))
        return Completion(201, {}, rows=[table.row(item)])

    with localcontext():
        reply = worker().run(run)

    found = table.get("a")
    assert found
    assert (reply.response.status, list(map(exact, found["list"]))) == (201, list(map(exact, NUMBERS)))


@pytest.mark.parametrize(
    "value",
    ["x" * 400 * KB, ["x"] * 300_000, json.loads("[" * 40 + "]" * 40), ""],
    ids=["too large", "too many", "too deep", "no id"],
)
def test_a_row_that_dynamodb_refuses_is_final(worker: NewWorker, rows: str, value: Any) -> None:
    # Given rows that no retry makes any better
    undone: list[int] = []
    one = worker()

    def run(operation: Operation) -> Response[Any]:
        operation.step("page", lambda _: 1, undo=undone.append)
        item = {"id": "a", "value": value} if value else {"id": ""}
        return Completion(201, {}, rows=[Row(rows, item)])

    reply = one.run(run)

    assert (reply.response.status, one.record().status, undone) == (500, Status.COMPLETED, [1])
    assert b"response-not-stored" in reply.response.body
    assert one.scan(rows) == []


class TestResults:
    def test_of_twenty_steps_are_paid_for_by_no_replay(self, bench: Bench) -> None:  # noqa: F811
        # Given an operation of twenty steps with results of 15 KB
        worker = bench.worker()

        def run(operation: Operation) -> Response[Any]:
            for number in range(20):
                operation.step(f"step {number}", lambda _: "x" * 15 * KB)
            return Completion(201, {})

        worker.run(run)

        [record] = worker.scan()
        assert len(str(record)) < KB
        assert bench.cost_of_run(worker, run) == Cost(calls=1, wru=1)


class TestRoom:
    """The largest request, results, refusals and failure together."""

    @staticmethod
    def fill(undo_fails: bool) -> Run:
        noise = Random(1)

        def run(operation: Operation) -> Response[Any]:
            def refuse(_: str) -> str:
                raise Rejected(
                    "s" * 9_000, "😀" * 9_000, status=409, title="é" * 9_000, more=noise.randbytes(7_000).hex()
                )

            def undo(_: Any) -> None:
                if undo_fails:
                    raise Retry("😀" * 1_000)

            for number in range(10_000):
                try:
                    operation.step(
                        f"{LONGEST_NAME[:-8]}{number:08}",
                        refuse if number % 5 == 0 else lambda _: "x" * 15_000,
                        undo=undo,
                    )
                except Rejected:
                    continue
                except Exception:  # noqa: BLE001 - there is no room left
                    break
            headers = {"Location": "/" + noise.randbytes(4_900).hex()}
            return Completion(409, noise.randbytes(9_500).hex(), headers=headers, content_type="text/plain")

        return run

    @pytest.mark.parametrize("undo_fails", [True, False], ids=["released", "completed"])
    def test_is_enough_for_all(self, worker: NewWorker, undo_fails: bool) -> None:
        one = worker()
        body = json.dumps({"text": Random(2).randbytes(14_000).hex()}).encode()

        reply = one.run(self.fill(undo_fails), policy=RECOVERABLE, body=body)

        assert one.telemetry.errors == []
        assert reply.response.status == (503 if undo_fails else 409)
        record = one.record()
        assert record.status is (Status.RELEASED if undo_fails else Status.COMPLETED)
        assert (record.failure is not None) is undo_fails
        if undo_fails:
            [item] = one.scan()
            assert len(str(item).encode()) > 300_000


@pytest.mark.parametrize("blanks", [0, 130_000])
def test_blanks_in_a_body_cost_nothing(bench: Bench, clock: SetClock, blanks: int) -> None:  # noqa: F811
    worker = bench.worker()
    body = b'{"n":' + b" " * blanks + b"1}"
    request = Request("alice", "POST", "/v1/things", "/v1/things", "", {}, "application/json", body)

    def run(_: Operation) -> Response[Any]:
        raise Retry("later")

    invocation = worker.invocation(run, request.normal, RECOVERABLE)
    with Meter(worker.client, bench._other) as cost:
        assert worker.lifecycle.run(invocation, "key").response.status == 503

    # A claim (record and index), a release (record, and the index twice).
    assert cost == Cost(calls=2, wru=5)
