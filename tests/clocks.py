"""A clock that tests set."""

import sys
from collections.abc import Callable

from idempotency import testing


class SetClock(testing.SetClock):
    """Stands still until it is moved; a sleep moves it, and takes no time.

    Args:
        while_asleep: called during each sleep, for what happens elsewhere meanwhile.

    Attributes:
        patience: how often it may be looked at without being moved on in between. A test of code that looks for ever
            then fails, instead of hanging.
    """

    def __init__(self, while_asleep: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sleeps: list[float] = []
        self.while_asleep = while_asleep
        self.patience = sys.maxsize
        self._latest = self._looks = 0

    def now(self) -> int:
        """The time it was set to.

        Raises:
            AssertionError: if its patience is at an end.
        """
        now = super().now()
        self._looks = self._looks + 1 if now <= self._latest else 0
        self._latest = max(now, self._latest)
        assert self._looks < self.patience, "the code looks at the clock again and again, and nobody moves it on"
        return now

    def sleep(self, milliseconds: float) -> None:
        """Move the time forward, without waiting."""
        self.sleeps.append(milliseconds)
        super().sleep(milliseconds)
        self.while_asleep()
