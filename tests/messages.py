"""The queue of recovery in tests, and recovery with it: the sweep, then a worker for each message that is due."""

from __future__ import annotations

import json
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import boto3

import api
import recovery
from idempotency import Outcome
from idempotency.clock import Clock
from tests.events import Context

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_RECOVERIES = 3
"""After how many attempts recovery gives up, where a test lets it: the tenth would show no more than the third."""


class Messages:
    """A queue in memory behind a client of SQS: keeps what is sent until it is due by the test's clock.

    Attributes:
        waiting: for each message, when it is due (epoch milliseconds), and what it says.
        calls: how often it was called.
        down: what a call fails with.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: list[tuple[int, str]] = []
        self.calls = 0
        self.down: Exception | None = None

    @cached_property
    def client(self) -> SQSClient:
        """A real one, so that it checks its parameters, and tests of the roles see its calls; nothing is sent."""
        client = boto3.client("sqs")
        client.meta.events.register("before-call.sqs.*", self._answer)  # type: ignore[arg-type]  # it may answer
        return client

    def _answer(self, model: Any, params: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.calls += 1
        if self.down:
            raise self.down
        body = json.loads(params["body"])
        entries = body.get("Entries", [body])
        assert len(entries) <= 10
        self.waiting += [
            (self._clock.now() + entry.get("DelaySeconds", 0) * 1000, entry["MessageBody"]) for entry in entries
        ]
        sent = {"Successful": [{"Id": entry["Id"]} for entry in entries]} if "Entries" in body else {}
        return SimpleNamespace(status_code=200), sent

    def receive(self) -> list[str]:
        """Take the messages that are due."""
        due = [body for at, body in self.waiting if at <= self._clock.now()]
        self.waiting = [message for message in self.waiting if message[0] > self._clock.now()]
        return due


def event(*bodies: str) -> dict[str, Any]:
    """What a worker is invoked with; source: Lambda developer guide, "Using Lambda with Amazon SQS"."""
    return {"Records": [{"messageId": f"message-{number}", "body": body} for number, body in enumerate(bodies)]}


def work(messages: Messages, seconds: float = 28) -> list[Outcome]:
    """Have workers carry on what is in the queue, and return how each attempt ended that there was."""
    outcomes = []
    resume = api.idempotent.resume

    def seen(id_: str, context: Any) -> Outcome | None:
        outcome = resume(id_, context)
        if outcome is not None:
            outcomes.append(outcome)
        return outcome

    with patch.object(api.idempotent, "resume", seen):
        for id_ in messages.receive():
            recovery.worker(event(id_), Context(seconds))
    return outcomes


def recover(messages: Messages, seconds: float = 28) -> dict[str, int]:
    """Sweep, then work; how many operations were taken up, and how many of them completed."""
    recovery.sweep({}, Context())
    outcomes = work(messages, seconds)
    return {"taken_up": len(outcomes), "completed": outcomes.count(Outcome.EXECUTED)}
