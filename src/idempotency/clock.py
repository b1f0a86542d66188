"""Time, as one small object, so that tests can set it."""

import time
from random import SystemRandom

# The default generator is seeded at import, and SnapStart would give every clone the same jitter.
_random = SystemRandom()


class Clock:
    """The wall clock: leases are compared between machines, so a monotonic clock does not serve."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def sleep(self, milliseconds: float) -> None:
        """Pause for about this long: a quarter more or less, so that waiting workers spread out."""
        time.sleep(milliseconds / 1000 * _random.uniform(0.75, 1.25))
