# example campaigns
"""Makes the wall clock of a worker wrong; nothing in the function knows about it."""

from __future__ import annotations

import os
import time
from random import Random


def inject() -> None:
    """Make this worker's clock fast or slow by up to CLOCK_SKEW_SECONDS."""
    limit = float(os.environ["CLOCK_SKEW_SECONDS"])
    offset = round(Random(os.getpid()).uniform(-limit, limit) * 1_000_000_000)
    true_time = time.time_ns
    time.time_ns = lambda: true_time() + offset
