"""The targets of the black-box suite, each started at its first use; those that are servers, once per session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import pytest

import api
import authorizer
from tests.clocks import SetClock
from tests.conftest import NEEDS
from tests.crashes import Killed
from tests.e2e import variant
from tests.e2e.faults import Faults
from tests.e2e.in_process import InProcess
from tests.e2e.probe import probe
from tests.e2e.targets import LocalCloud, SamLocal, Tables, Target
from tests.unit.service import restart
from tools import tokens
from tools.errors import ToolError
from tools.local import sam_local as docker
from tools.local import stack as local_stack
from tools.local.aws import local_client
from tools.local.client import Client
from tools.local.samconfig import deploy_parameters
from tools.local.stack import Stack
from tools.local.tables import create_table
from tools.setup import LOCAL

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

# The clients of the tests expect every problem's type to lead here.
_SPECIFICATION = f"SpecificationUrl={os.environ['SPECIFICATION_URL']}"


@pytest.fixture(
    params=[
        pytest.param("in_process", id="in process", marks=NEEDS["dynamodb_local"]),
        pytest.param("local_cloud", id="local cloud", marks=NEEDS["stack"]),
        pytest.param("sam_local", id="sam local", marks=NEEDS["sam_local"]),
    ]
)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The API, at each of the targets."""
    found: Target = request.getfixturevalue(request.param)
    yield found
    found.tables.empty()


@pytest.fixture
def key() -> str:
    """A new key."""
    return str(uuid4())


@pytest.fixture
def in_process(
    dynamodb_client: DynamoDBClient,
    tables: Tables,
    issued: dict[str, str],
    clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[InProcess]:
    """The handlers in this process, freshly started, on DynamoDB Local."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", tables.records)
    monkeypatch.setenv("RESOURCES_TABLE", tables.rows)
    monkeypatch.setenv("TOKENS_TABLE", "TokensTable")
    monkeypatch.setattr(api, "dynamodb", dynamodb_client)
    monkeypatch.setattr(authorizer, "dynamodb", dynamodb_client)
    monkeypatch.setattr("idempotency.lifecycle.Clock", lambda: clock)
    monkeypatch.setattr(probe, "die", _die)
    monkeypatch.setattr(probe, "sleep", clock.advance)
    target = InProcess(tables, issued, clock)
    monkeypatch.setattr(api, "sqs", lambda: target.messages.client)
    restart()
    yield target
    restart()


@pytest.fixture(scope="session")
def local_cloud(stack: Stack) -> LocalCloud:
    """The stack deployed to the local cloud."""
    tables = Tables(stack.client("dynamodb"), stack.idempotency_table, stack.resources_table)
    return LocalCloud(stack.api_url, tables, {"alice": stack.token, "bob": stack.other_token})


@pytest.fixture(scope="session")
def sam_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamLocal]:
    """The built functions in Docker, with the probe."""
    scratch = tmp_path_factory.mktemp("sam")
    settings = deploy_parameters("local")["parameter_overrides"]
    with ExitStack() as cleanup:
        parameters = [*settings, _SPECIFICATION, "ServerProvider=record"]
        functions = _started(cleanup, docker.ready(parameters=parameters, variant=_with_probe(scratch)))
        url = _started(cleanup, functions.serving(scratch / "sam.log"))
        tables = Tables(local_client("dynamodb", functions.dynamodb_url), "IdempotencyTable", "ResourcesTable")
        yield SamLocal(url, tables, _issue_tokens(tables))


@pytest.fixture(scope="session")
def tables(dynamodb_client: DynamoDBClient) -> Tables:
    """The stack's tables in DynamoDB Local, under the names that `sam local` gives them."""
    for resource in ("IdempotencyTable", "ResourcesTable", "TokensTable"):
        create_table(dynamodb_client, resource, resource)
    return Tables(dynamodb_client, "IdempotencyTable", "ResourcesTable")


@pytest.fixture(scope="session")
def issued(tables: Tables) -> dict[str, str]:
    """Tokens in DynamoDB Local."""
    return _issue_tokens(tables)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """Faults at the calls of the deployed stack."""
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def stack(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, with the probe besides its own routes, deployed to a local cloud for this test session."""
    scratch = tmp_path_factory.mktemp("stack")
    name, _, value = _SPECIFICATION.partition("=")
    with ExitStack() as cleanup:
        running = local_stack.running(
            scratch / "cloud",
            parameters={name: value},
            environment=faults.environment,
            variant=_with_probe(scratch),
        )
        yield _started(cleanup, running)


@pytest.fixture(scope="session")
def alice(stack: Stack) -> Client:
    """A client of the deployed stack, of the principal ``alice``."""
    return Client(stack.api_url, stack.token)


@pytest.fixture(scope="session")
def bob(stack: Stack) -> Client:
    """A client of another principal."""
    return Client(stack.api_url, stack.other_token)


@contextmanager
def building() -> Iterator[None]:
    """Make other test processes wait for the length of a `with` block: sam builds everything in one directory."""
    with (LOCAL / "build.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def _started(cleanup: ExitStack, server: AbstractContextManager[T]) -> T:
    """Start what a target needs; where that cannot be the test is skipped, but on CI it fails."""
    with building():
        try:
            return cleanup.enter_context(server)
        except (ToolError, FileNotFoundError) as error:
            if "CI" in os.environ:
                raise
            pytest.skip(str(error))


def _with_probe(scratch: Path) -> Callable[[Path], Path]:
    return lambda built: variant.with_probe(built, scratch / "build")


def _issue_tokens(tables: Tables) -> dict[str, str]:
    return {name: tokens.issue(tables.dynamodb, "TokensTable", name) for name in ("alice", "bob")}


def _die() -> None:
    raise Killed
