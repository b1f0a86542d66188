"""The deployed local stack, one a test session, with workers at whose calls faults can be injected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults import Faults
from tools import stack as local_stack
from tools.client import Client
from tools.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them all, and keep them in one process: there is one stack."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.xdist_group("e2e"))


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """What happens to the calls of the stack's functions."""
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, faults: Faults) -> Iterator[Stack]:
    """The stack."""
    home = tmp_path_factory.mktemp("cloud")
    with local_stack.running(home, environment=faults.environment) as deployed:
        yield deployed


@pytest.fixture(scope="session")
def alice(stack: Stack) -> Client:
    """A client of the principal ``alice``."""
    return Client(stack.api_url, stack.token)


@pytest.fixture(scope="session")
def bob(stack: Stack) -> Client:
    """A client of another principal."""
    return Client(stack.api_url, stack.other_token)
