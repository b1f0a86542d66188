"""What every proof relies on: the environment, servers and marks of the project's tests; and what proofs measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clocks import SetClock
from tests.conftest import dynamodb_client, dynamodb_local, pytest_collection_modifyitems
from tests.e2e.conftest import alice, faults, in_process, issued, key, local_cloud, stack, tables

__all__ = [
    "alice",
    "dynamodb_client",
    "dynamodb_local",
    "faults",
    "in_process",
    "issued",
    "key",
    "local_cloud",
    "pytest_collection_modifyitems",
    "stack",
    "tables",
]

Report = Callable[[str], None]


@pytest.fixture
def clock() -> SetClock:
    """The clock of all workers, at which walks and crowds look as often as they like."""
    return SetClock()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have measured."""
    passed = terminalreporter.getreports("passed")
    for measured in [value for report in passed for name, value in report.user_properties if name == "measured"]:
        terminalreporter.write_line(f"measured: {measured}")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Keeps what a test has measured, and shows it at the end of the session."""
    return lambda measured: record_property("measured", measured)
