"""Clocks that tests set."""

from collections.abc import Callable
from math import ceil

from idempotency.clock import Clock


class SetClock(Clock):
    """Stands still until it is moved; a sleep moves it, and takes no time.

    It begins at the real time, since DynamoDB Local deletes what has really expired.

    Args:
        while_asleep: what happens in the world during each sleep.
    """

    def __init__(self, while_asleep: Callable[[], None] = lambda: None) -> None:
        self.time = super().now() // 1000 * 1000
        self.sleeps: list[float] = []
        self.while_asleep = while_asleep

    def now(self) -> int:
        """The time it was set to."""
        return self.time

    def sleep(self, milliseconds: float) -> None:
        """Move on at once."""
        self.sleeps.append(milliseconds)
        self.time += ceil(milliseconds)
        self.while_asleep()

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.time += round(seconds * 1000)
