"""Calls that begin at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from idempotency.errors import Problem

T = TypeVar("T")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | Problem]:
    """Make all calls, each in its own thread; return what each returned, or the problem that it raised."""
    start = Barrier(len(calls))

    def make(call: Callable[[], T]) -> T | Problem:
        start.wait()
        try:
            return call()
        except Problem as problem:
            return problem

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))
