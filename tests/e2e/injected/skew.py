"""A wall clock that is wrong, from inside of a worker; nothing in the function knows of it."""

from __future__ import annotations

import os
import time
from random import Random


def shift(limit: float) -> None:
    """Set this worker's clock wrong by up to so many seconds, either way."""
    offset = round(Random(os.getpid()).uniform(-limit, limit) * 1_000_000_000)
    true_time = time.time_ns
    time.time_ns = lambda: true_time() + offset
