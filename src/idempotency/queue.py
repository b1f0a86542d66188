"""The queue between finding an operation that has to go on, and carrying it on."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LONGEST_DELAY = 900
"""Seconds by which a message can be delayed."""

_BATCH = 10


class Queue:
    """Messages to the workers; each is the id of a record, and nothing else.

    A message is only a hint, since the record decides. One that comes twice, late or out of order, or whose record has
    completed or gone, does nothing; one that is lost is made good by the sweep.

    Args:
        client: makes a client of SQS when it is needed, which for most requests it is not.
        url: the queue's URL.

    Source: SQS developer guide, "Amazon SQS delay queues", and API reference, `SendMessageBatch`.
    """

    def __init__(self, client: Callable[[], "SQSClient"], url: str) -> None:
        self._client = client
        self._url = url

    def send(self, id_: str, delay: int = 0) -> None:
        """Have an operation carried on: 1 message.

        Args:
            id_: the record's id.
            delay: seconds after which, at most `LONGEST_DELAY`.
        """
        self._client().send_message(QueueUrl=self._url, MessageBody=id_, DelaySeconds=delay)

    def send_all(self, ids: Iterable[str]) -> int:
        """Have many operations carried on at once: a call for ten messages.

        Returns:
            How many messages the queue took.
        """
        return sum(self._send_batch(batch) for batch in _batches(ids))

    def _send_batch(self, ids: list[str]) -> int:
        entries = [{"Id": str(number), "MessageBody": id_} for number, id_ in enumerate(ids)]
        reply = self._client().send_message_batch(QueueUrl=self._url, Entries=entries)  # type: ignore[arg-type]
        return len(reply.get("Successful", []))


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
