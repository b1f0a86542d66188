"""Large bodies: in parts, which are items of their own, belong to one attempt and expire with the record."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from idempotency.operation import Operation
from idempotency.policy import Policy, Settings
from idempotency.response import Completion
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.integration import faults
from tests.integration.conftest import NewWorker
from tests.integration.worker import LEASE_SECONDS, Run, Worker, created, killed, same

NOISE = Random(1).randbytes(1_000_000)
LIST = [{"id": number, "name": f"server {number}", "note": "ü" * 10} for number in range(45_000)]
DENSE = {"image": base64.b64encode(Random(2).randbytes(4_200_000)).decode()}


def answering(body: Any, content_type: str = "application/json") -> Run:
    return lambda _: Completion(200, body, content_type=content_type)


def as_json(value: Any) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    assert len(body) > 4_500_000
    return body


def parts(worker: Worker) -> list[dict[str, Any]]:
    return [item for item in worker.scan() if "#" in item["id"]]


class TestReplay:
    @pytest.mark.parametrize(
        ("body", "content_type", "expected", "count"),
        [
            (LIST, "application/json", as_json(LIST), 1),
            (DENSE, "application/json", as_json(DENSE), 11),
            (NOISE, "image/png", NOISE, 3),
            (NOISE[:3_000], "image/png", NOISE[:3_000], 0),
            (NOISE[:3_001], "image/png", NOISE[:3_001], 1),
            ("a" * 1_000_000, "text/plain", b"a" * 1_000_000, 0),
        ],
        ids=["4.7 MB of JSON", "5.6 MB of dense JSON", "1 MB binary", "in the record", "just beyond", "compressible"],
    )
    def test_has_the_same_bytes(
        self, worker: NewWorker, body: Any, content_type: str, expected: bytes, count: int
    ) -> None:
        first, other = worker(), worker()

        replies = [first.run(answering(body, content_type)), other.run(), other.run()]

        assert replies[0].response.body == expected
        assert same(replies)
        assert [reply.replayed for reply in replies] == [False, True, True]
        assert len(parts(first)) == count

    def test_costs_no_more_than_reading_it(self, worker: NewWorker) -> None:
        worker().run(answering(NOISE, "image/png"))
        other = worker()
        consistent: list[bool] = []

        def note(params: dict[str, Any], **_: object) -> None:
            consistent.extend(batch["ConsistentRead"] for batch in params["RequestItems"].values())

        other.client.meta.events.register("provide-client-params.dynamodb.BatchGetItem", note)

        other.run()

        # An eventually consistent read might not show a part yet.
        assert consistent == [True]

        # Every duplicate's failed claim is charged by the record's size, so the record stays small.
        assert other.calls == {"PutItem": 1, "BatchGetItem": 1}
        [record] = [item for item in other.scan() if "#" not in item["id"]]
        assert len(str(record)) < 2_000


class TestParts:
    def test_have_no_effect_before_completion(self, worker: NewWorker) -> None:
        # Given an attempt that has written its parts, but not its completion
        one, seen = worker(), []

        def peek() -> None:
            seen.append((len(parts(one)), worker().refused().slug, one.record().response))

        def run(_: Operation) -> Response[Any]:
            faults.meanwhile(one, "UpdateItem", peek)
            return Response(200, "image/png", NOISE)

        one.run(run)

        assert seen == [(3, "in-progress", None)]

    def test_of_a_dead_attempt_are_not_mixed_with_those_of_the_next(self, worker: NewWorker, clock: SetClock) -> None:
        # Given an attempt that was killed between its parts and its completion
        one = worker()

        def dies(_: Operation) -> Response[Any]:
            faults.meanwhile(one, "UpdateItem", die)
            return Response(200, "image/png", NOISE[::-1])

        def die() -> None:
            raise Killed

        with suppress(Killed):
            one.run(dies)
        dead = parts(one)

        # When the next one answers with something different
        clock.advance(LEASE_SECONDS + 0.001)
        reply = one.run(answering(NOISE, "image/png"))

        # Then that is what is replayed
        assert reply.response.body == NOISE
        assert same([reply, worker().run()])
        assert (len(dead), len(parts(one))) == (3, 6)

    def test_expire_with_their_record(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()

        one.run(answering(NOISE, "image/png"), policy=Policy(ttl=600))

        assert {item["expires_at"] for item in one.scan()} == {clock.now() // 1000 + 600}

    def test_that_dynamodb_did_not_write_at_first_are_sent_again(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        faults.process_only(one, "BatchWriteItem", 1)

        reply = one.run(answering(NOISE, "image/png"))

        assert same([reply, worker().run()])
        assert one.calls["BatchWriteItem"] == 3
        assert clock.sleeps == [20, 50]

    def test_that_dynamodb_did_not_return_at_first_are_requested_again(
        self, worker: NewWorker, clock: SetClock
    ) -> None:
        reply = worker().run(answering(NOISE, "image/png"))
        other = worker()
        faults.process_only(other, "BatchGetItem", 1)

        assert same([reply, other.run()])
        assert other.calls["BatchGetItem"] == 3

    def test_that_dynamodb_never_writes_make_a_retry_necessary(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        faults.process_only(one, "BatchWriteItem", 0)

        assert one.run(answering(NOISE, "image/png")).response.status == 503
        assert one.calls["BatchWriteItem"] == 5

    def test_that_are_gone_make_it_unavailable_and_not_half_a_body(self, worker: NewWorker) -> None:
        one = worker()
        one.run(answering(NOISE, "image/png"))
        one.client.delete_item(TableName=one.table, Key={"id": {"S": parts(one)[0]["id"]}})

        assert worker().refused().slug == "unavailable"


class TestExpired:
    def test_body_is_not_the_next_operations(self, worker: NewWorker, clock: SetClock) -> None:
        one = worker()
        one.run(answering(NOISE, "image/png"))
        clock.advance(Settings().ttl)
        with suppress(Killed):
            one.run(killed)
        clock.advance(LEASE_SECONDS + 0.001)

        reply = one.run(created)

        assert same([reply, worker().run()])
