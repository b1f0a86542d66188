"""A clock that tests set."""

from collections.abc import Callable

from idempotency import testing


class SetClock(testing.SetClock):
    """Stands still until it is moved; a sleep moves it, and takes no time.

    Args:
        while_asleep: called during each sleep, for what happens elsewhere meanwhile.
    """

    def __init__(self, while_asleep: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sleeps: list[float] = []
        self.while_asleep = while_asleep

    def sleep(self, milliseconds: float) -> None:
        """Move the time forward, without waiting."""
        self.sleeps.append(milliseconds)
        super().sleep(milliseconds)
        self.while_asleep()
