"""SnapStart: what is done once, before the snapshot of a version, and what after each restore.

Source: AWS Lambda developer guide, "Lambda SnapStart runtime hooks for Python", "Handling uniqueness".
"""

import random
from collections.abc import Callable

try:
    from snapshot_restore_py import register_after_restore, register_before_snapshot
except ImportError:  # it is a part of Lambda's runtime, and of nothing else

    def register_before_snapshot(_: Callable[[], object]) -> None:
        """There is no snapshot."""

    def register_after_restore(_: Callable[[], object]) -> None:
        """There is no restore."""


def prepare(prime: Callable[[], object]) -> None:
    """Have a function called before the snapshot, and what all its clones must not share made anew after a restore.

    The SDK takes the jitter of its retries from `random`, which is seeded at import: restored clones would retry in
    step.
    """
    register_before_snapshot(prime)
    register_after_restore(random.seed)
