"""The targets of the black-box suite, each started at its first use; those that are servers, once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import pytest

import api
import authorizer
from tests.clocks import SetClock
from tests.dynamodb_local import dynamodb_client as dynamodb_client
from tests.dynamodb_local import dynamodb_local as dynamodb_local
from tests.e2e import sam_local, variant
from tests.e2e.faults import Faults
from tests.e2e.probe import probe
from tests.e2e.targets import Died, InProcess, LocalCloud, SamLocal, Tables, Target
from tests.tables import create_table
from tests.unit.service import restart
from tools import stack as local_stack
from tools import tokens
from tools.errors import ToolError
from tools.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

# Where tests.events.Answer expects every problem's type to lead.
_SPECIFICATION = f"SpecificationUrl={os.environ['SPECIFICATION_URL']}"


@pytest.fixture(
    params=[
        pytest.param("in_process", id="in process"),
        pytest.param("local_cloud", id="local cloud", marks=pytest.mark.e2e),
        pytest.param("sam_local_api", id="sam local", marks=pytest.mark.docker),
    ]
)
def target(request: pytest.FixtureRequest) -> Target:
    """The API, at each of the targets."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def key() -> str:
    """A key that nobody has used."""
    return str(uuid4())


@pytest.fixture
def in_process(
    dynamodb_client: DynamoDBClient, tables: Tables, table_tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcess]:
    """The handlers in this process, just started, on DynamoDB Local."""
    clock = SetClock()
    monkeypatch.setenv("IDEMPOTENCY_TABLE", tables.records)
    monkeypatch.setenv("RESOURCES_TABLE", tables.rows)
    monkeypatch.setenv("TOKENS_TABLE", "TokensTable")
    monkeypatch.setattr(api, "dynamodb", dynamodb_client)
    monkeypatch.setattr(authorizer, "dynamodb", dynamodb_client)
    monkeypatch.setattr(api, "Clock", lambda: clock)
    monkeypatch.setattr(probe, "die", _die)
    monkeypatch.setattr(probe, "sleep", clock.advance)
    restart()
    yield InProcess(tables, table_tokens, clock)
    restart()


@pytest.fixture(scope="session")
def local_cloud(stack: Stack) -> LocalCloud:
    """The stack deployed to the local cloud."""
    tables = Tables(stack.client("dynamodb"), stack.idempotency_table, stack.resources_table)
    return LocalCloud(stack.api_url, tables, {"alice": stack.token, "bob": stack.other_token})


@pytest.fixture(scope="session")
def sam_local_build(dynamodb_local: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sam build` built, with the probe, for `sam local`."""
    built = variant.with_probe(local_stack.build(), tmp_path_factory.mktemp("sam") / "build")
    variant.for_sam_local(built, sam_local.from_container(dynamodb_local))
    return built


@pytest.fixture(scope="session")
def sam_local_api(
    sam_local_build: Path, tables: Tables, table_tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SamLocal]:
    """The built functions in Docker."""
    log = tmp_path_factory.mktemp("sam") / "sam.log"
    with ExitStack() as cleanup:
        url = _started(cleanup, sam_local.serving(sam_local_build, log, [_SPECIFICATION, "ServerProvider=record"]))
        yield SamLocal(url, tables, table_tokens)


@pytest.fixture(scope="session")
def tables(dynamodb_client: DynamoDBClient) -> Tables:
    """The stack's tables in DynamoDB Local, under the names that `sam local` gives them."""
    for resource in ("IdempotencyTable", "ResourcesTable", "TokensTable"):
        create_table(dynamodb_client, resource, resource)
    return Tables(dynamodb_client, "IdempotencyTable", "ResourcesTable")


@pytest.fixture(scope="session")
def table_tokens(tables: Tables) -> dict[str, str]:
    """Tokens in DynamoDB Local."""
    return {name: tokens.issue(tables.dynamodb, "TokensTable", name) for name in ("alice", "bob")}


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """Faults that may happen to calls of the deployed stack."""
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def stack(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the probe beside its own routes, deployed to a local cloud of this test session's own."""
    scratch = tmp_path_factory.mktemp("stack")
    name, _, value = _SPECIFICATION.partition("=")
    with ExitStack() as cleanup:
        running = local_stack.running(
            scratch / "cloud",
            parameters={name: value},
            environment=faults.environment,
            variant=lambda built: variant.with_probe(built, scratch / "build"),
        )
        yield _started(cleanup, running)


def _started(cleanup: ExitStack, server: AbstractContextManager[T]) -> T:
    """Start what a target needs; where that cannot be the test is skipped, but on CI it fails."""
    try:
        return cleanup.enter_context(server)
    except (ToolError, FileNotFoundError) as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


def _die() -> None:
    raise Died
