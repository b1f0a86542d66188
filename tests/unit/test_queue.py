"""Messages to the workers, on SQS as moto simulates it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import boto3
import pytest
from moto import mock_aws

import api
from idempotency.queue import Queue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def sqs() -> Iterator[SQSClient]:
    with mock_aws():
        client = boto3.client("sqs")
        yield client
        client.close()


@pytest.fixture
def queue(sqs: SQSClient) -> Queue:
    return Queue(lambda: sqs, sqs.create_queue(QueueName="recovery")["QueueUrl"])


def bodies(sqs: SQSClient, queue: Queue) -> list[str]:
    """What the messages say that can be received now."""
    found = []
    while messages := sqs.receive_message(QueueUrl=queue._url, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in messages]
    return found


def test_a_message_is_the_records_id_and_nothing_else(sqs: SQSClient, queue: Queue) -> None:
    queue.send("1f0c:1")

    [message] = sqs.receive_message(QueueUrl=queue._url, MessageAttributeNames=["All"])["Messages"]
    assert message["Body"] == "1f0c:1"
    assert "MessageAttributes" not in message


def test_a_message_may_be_delayed(sqs: SQSClient, queue: Queue) -> None:
    queue.send("1f0c:1", 900)

    assert bodies(sqs, queue) == []
    attributes = sqs.get_queue_attributes(QueueUrl=queue._url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesDelayed"] == "1"


@pytest.mark.parametrize(("number", "calls"), [(0, 0), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_many_are_sent_ten_at_a_time(sqs: SQSClient, queue: Queue, number: int, calls: int) -> None:
    seen = []
    sqs.meta.events.register("before-call.sqs.SendMessageBatch", lambda **_: seen.append(1))

    assert queue.send_all(f"{each}:1" for each in range(number)) == number

    assert sorted(bodies(sqs, queue)) == sorted(f"{each}:1" for each in range(number))
    assert len(seen) == calls


def test_only_what_the_queue_took_is_counted() -> None:
    replies: list[Any] = [{"Successful": [{}] * 9, "Failed": [{}]}, {"Failed": [{}]}]
    client = Mock(send_message_batch=Mock(side_effect=replies))

    assert Queue(lambda: client, "queue").send_all(map(str, range(11))) == 9


def test_the_functions_client_gives_up_soon() -> None:
    config: Any = api.sqs().meta.config

    assert config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout) <= 4
