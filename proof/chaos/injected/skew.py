"""A wall clock that is wrong, from inside of a worker; nothing in the function knows of it."""

from __future__ import annotations

import os
import time
from random import Random


def inject() -> None:
    """Set this worker's clock wrong by up to CLOCK_SKEW_SECONDS, either way."""
    limit = float(os.environ["CLOCK_SKEW_SECONDS"])
    offset = round(Random(os.getpid()).uniform(-limit, limit) * 1_000_000_000)
    true_time = time.time_ns
    time.time_ns = lambda: true_time() + offset
