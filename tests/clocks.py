"""Clocks that tests set."""

from collections.abc import Callable

from idempotency import testing


class SetClock(testing.SetClock):
    """Stands still until it is moved; a sleep moves it, and takes no time.

    Args:
        while_asleep: what happens in the world during each sleep.
    """

    def __init__(self, while_asleep: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sleeps: list[float] = []
        self.while_asleep = while_asleep

    def sleep(self, milliseconds: float) -> None:
        """Move on at once."""
        self.sleeps.append(milliseconds)
        super().sleep(milliseconds)
        self.while_asleep()
