"""Each mistake that is easily made in an operation is told in one line, before anything reaches AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, cast
from unittest.mock import Mock

import pytest

import api
from idempotency import Completion, Operation, Rejected
from tests.clocks import SetClock
from tests.conftest import MYPY
from tests.project import Copy
from tests.unit.service import Api
from tools.errors import ToolError
from tools.local import stack
from tools.setup import ROOT

pytestmark = [pytest.mark.slow, MYPY]

_TITLED = """\
    SCHEMA = {
        "type": "object",
        "required": ["region", "size"],
        "properties": {"region": {"type": "string"}, "size": {"type": "string"}},
    }
    region: Region
    size: Size
"""
_FIELDS = "    region: Region\n    size: Size\n"
_MODEL = """\
            RequestModel:
              Model: BlunderRequest
              Required: true
              ValidateBody: true
              ValidateParameters: true
"""
_SHOWN = """\
        GetBlunder:
          Type: Api
          Properties:
            RestApiId: !Ref Api
            Method: GET
            Path: /v1/blunders/{id}
"""


class Mistake(NamedTuple):
    """A mistake.

    Args:
        file: where it is made.
        right: what is there before.
        wrong: what is there instead; of several places, in the first.
        told: the line that tells, as a pattern.
    """

    file: str
    right: str
    wrong: str
    told: str


OF_WIRING = {
    "a model that differs from its class": Mistake(
        "template.yaml",
        "minLength: 1, maxLength: 100",
        "minLength: 1, maxLength: 99",
        r"template\.yaml: different from the bodies in src/: run: make contract",
    ),
    "a schema that differs from its class": Mistake(
        "openapi.yaml",
        "enum: [eu-west, eu-central, us-east, us-west]",
        "enum: [eu-west, eu-central, us-east]",
        r"openapi\.yaml: different from the bodies in src/: run: make contract",
    ),
    "the model of another route": Mistake(
        "template.yaml",
        "Model: BlunderRequest",
        "Model: ServerRequest",
        r"template\.yaml: POST /v1/blunders: its RequestModel must be \{Model: BlunderRequest, Required: true, .*\}",
    ),
    "no model": Mistake(
        "template.yaml",
        _MODEL,
        "",
        r"template\.yaml: POST /v1/blunders: its RequestModel must be \{Model: BlunderRequest, .*\}",
    ),
    "a model without a class": Mistake(
        "template.yaml",
        "        BlunderRequest:\n",
        "        Gone: {type: object}\n        BlunderRequest:\n",
        r"template\.yaml: the model Gone has no class in src/: delete it under Resources\.Api\.Properties\.Models",
    ),
    "the schema of another route": Mistake(
        "openapi.yaml",
        'schema: {$ref: "#/components/schemas/BlunderRequest"}',
        'schema: {$ref: "#/components/schemas/ServerRequest"}',
        r"openapi\.yaml: POST /v1/blunders: the schema of its requestBody .* must be .*/BlunderRequest.*",
    ),
    "a key that the document does not ask for": Mistake(
        "openapi.yaml",
        '        - $ref: "#/components/parameters/IdempotencyKey"\n',
        "",
        r'openapi\.yaml: POST /v1/servers/provision: add the parameter \$ref "#/components/parameters/IdempotencyKey"',
    ),
    "a key that the gateway does not ask for": Mistake(
        "template.yaml",
        "            Path: /v1/blunders\n            RequestParameters: *idempotency-key\n",
        "            Path: /v1/blunders\n",
        r"template\.yaml: POST /v1/blunders: add RequestParameters: \*idempotency-key",
    ),
    "a property that is no field": Mistake(
        "src/provisioning/servers.py",
        _FIELDS,
        _TITLED.replace('"size": {', '"colour": {"type": "string"}, "size": {'),
        r".*ServerRequest\.SCHEMA: nobody reads its property 'colour'; make it a field, or remove it",
    ),
    "a field that is no property": Mistake(
        "src/provisioning/servers.py",
        _FIELDS,
        f'{_TITLED}    colour: str = "red"\n',
        r".*ServerRequest\.colour: no property of SCHEMA; add it there, or remove the field",
    ),
    "a type that is none": Mistake(
        "src/provisioning/servers.py",
        _FIELDS,
        _TITLED.replace('"size": {"type": "string"}', '"size": {"type": "sting"}'),
        r".*ServerRequest\.SCHEMA\.properties\.size: there is no type 'sting'; there are array, boolean, .*",
    ),
    "a pattern that is none": Mistake(
        "src/provisioning/blunders.py",
        '{"minLength": 1, "maxLength": 100}',
        '{"pattern": "["}',
        r".*BlunderRequest\.name: '\[' is no pattern: .*",
    ),
    "an action that the role lacks": Mistake(
        "template.yaml",
        "Action: ec2:DescribeInstances",
        "Action: ec2:DescribeImages",
        r"src/provisioning/ec2\.py:\d+: calls ec2:DescribeInstances, which the role lacks: add it .*Statement",
    ),
    "steps that nobody finishes": Mistake(
        "src/api.py",
        "@idempotent(recoverable)\ndef create_blunder",
        "@idempotent(Policy())\ndef create_blunder",
        r"src/api\.py: POST /v1/blunders has steps, and nobody .*: declare it with Policy\(recoverable=True\), .*",
    ),
    "a route that is not idempotent": Mistake(
        "src/api.py",
        "@idempotent(recoverable)\ndef create_blunder",
        "def create_blunder",
        r"error: src/api\.py: create_blunder takes an operation: write @idempotent\(…\) directly above it, .*",
    ),
    "decorators in the wrong order": Mistake(
        "src/api.py",
        '@app.post("/v1/blunders")\n@idempotent(recoverable)\n',
        '@idempotent(recoverable)\n@app.post("/v1/blunders")\n',
        r"error: src/api\.py: create_blunder takes an operation: .* below the resolver's decorator of .*",
    ),
    "a route without an event": Mistake(
        "template.yaml",
        _SHOWN,
        "",
        r"template\.yaml: GET /v1/blunders/\{\} is missing, which src/api\.py and openapi\.yaml have: add an .*",
    ),
    "a route that nobody wrote": Mistake(
        "src/api.py",
        '@app.post("/v1/blunders")',
        '@app.post("/v1/blunder")',
        r"src/api\.py: POST /v1/blunders is missing, which template\.yaml and openapi\.yaml have: write a function .*",
    ),
    "a route that is not documented": Mistake(
        "openapi.yaml",
        "  /v1/servers/{id}:\n",
        "  /v1/server/{id}:\n",
        r"openapi\.yaml: GET /v1/servers/\{\} is missing, which src/api\.py and template\.yaml have: add it .*",
    ),
    "a slug that is none": Mistake(
        "src/provisioning/ec2.py",
        '"server-terminated"',
        '"Server gone"',
        r"src/provisioning/ec2\.py:\d+: the refusal 'Server gone' is no slug: write it in lower case, with hyphens .*",
    ),
    "a refusal that is not specified": Mistake(
        "src/provisioning/ec2.py",
        '"server-terminated"',
        '"server-gone"',
        r"src/.*: the refusal 'server-gone' is not specified: add ### server-gone to docs/idempotency\.md, .*",
    ),
    "a refusal without an example": Mistake(
        "src/provisioning/ec2.py",
        '"server-terminated"',
        '"server-gone"',
        r"src/.*: the refusal 'server-gone' has no example: add one to openapi\.yaml under components\.examples, .*",
    ),
    "a response without examples": Mistake(
        "openapi.yaml",
        '              examples:\n                created: {$ref: "#/components/examples/CreatedBlunder"}\n',
        "",
        r"openapi\.yaml: POST /v1/blunders: add examples to its response 201 as application/json",
    ),
    "no syntax": Mistake(
        "src/provisioning/blunders.py",
        "def create(",
        "def create((",
        r"error: src/api\.py cannot be imported: .*blunders\.py, line \d+.*",
    ),
}

OF_TYPES = {
    "a forgotten return": Mistake(
        "src/api.py",
        "    return blunders.create(",
        "    blunders.create(",
        r"src/api\.py:\d+: error: Missing return .*",
    ),
    "JSON where rows were meant": Mistake(
        "src/provisioning/servers.py",
        "    return Completion(\n        201,",
        "    return representation\n    return Completion(\n        201,",
        r'src/provisioning/servers\.py:\d+: error: Incompatible return value type .*, expected "Completion"\) .*',
    ),
    "JSON in the place of a row": Mistake(
        "src/provisioning/blunders.py",
        'rows=[resources.row("blunder", representation, operation.principal)]',
        "rows=[representation]",
        r'src/provisioning/blunders\.py:\d+: error: List item 0 has incompatible type .*; expected "Row" .*',
    ),
    "a value in the place of a step's call": Mistake(
        "src/provisioning/ec2.py",
        "lambda key: self._provision(client, server, operation, key)",
        "self._provision(client, server, operation, operation.id)",
        r'src/provisioning/ec2\.py:\d+: error: No overload variant of "step" .*',
    ),
}


@contextmanager
def made(copy: Copy, *mistakes: Mistake) -> Iterator[None]:
    """Make mistakes, for the length of a `with` block."""
    before = {mistake.file: (copy.path / mistake.file).read_text() for mistake in mistakes}
    for file, right, wrong, _ in mistakes:
        text = (copy.path / file).read_text()
        assert right in text
        (copy.path / file).write_text(text.replace(right, wrong, 1))
    yield
    for file, text in before.items():
        (copy.path / file).write_text(text)


def is_told(mistake: Mistake, output: str) -> None:
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if re.fullmatch(mistake.told, line)], output


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy with an operation of its own, in which most mistakes are made."""
    copy = Copy(tmp_path_factory.mktemp("mistakes"))
    copy.run("tools.start.new_operation", "blunders", "topic,queue")
    return copy


@pytest.mark.parametrize("mistake", OF_WIRING.values(), ids=OF_WIRING)
def test_is_told_by_the_check_of_wiring(copy: Copy, mistake: Mistake) -> None:
    with made(copy, mistake):
        is_told(mistake, copy.run("tools.wiring", fails=True))


@pytest.fixture(scope="module")
def types(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of all mistakes of types at once."""
    with made(copy, *OF_TYPES.values()):
        return copy.run("mypy", "--cache-dir", str(ROOT / ".mypy_cache"), "src", fails=True)


@pytest.mark.parametrize("mistake", OF_TYPES.values(), ids=OF_TYPES)
def test_is_told_by_the_check_of_types(types: str, mistake: Mistake) -> None:
    is_told(mistake, types)


def test_is_checked_by_make_lint() -> None:
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]

    assert "tools.wiring" in lint
    assert "mypy" in lint


def provision(run: Callable[[Operation], object]) -> Any:
    """A provider of servers that does something else."""
    return lambda: SimpleNamespace(provision=lambda _, operation: run(operation))


def refuse_after_a_step(operation: Operation) -> object:
    def undo() -> None:
        raise KeyError("the network")

    operation.step("network", lambda key: key, undo=undo)
    return operation.step("server", lambda _: raising(Rejected("no-room", "Full.", status=422)))


def raising(error: BaseException) -> NoReturn:
    raise error


WHILE_RUNNING: dict[str, tuple[Callable[[Operation], object], str]] = {
    "a value in the place of a step's call": (
        lambda operation: operation.step("server", cast("Any", {"id": "1"})),
        "StepError: the call of step 'server' is a value (dict): write lambda …: before it",
    ),
    "a value in the place of an undo": (
        lambda operation: operation.step("server", lambda key: key, undo=cast("Any", 7)),
        "StepError: the undo of step 'server' is a value (int): write lambda …: before it",
    ),
    "JSON in the place of a row": (
        lambda _: Completion(201, {}, rows=[cast("Any", {"id": "1"})]),
        "TypeError: rows are what Rows.row(…) returns, not dict",
    ),
    "a slug that is none": (
        lambda _: raising(Rejected("No room", "Full.", status=422)),
        "ValueError: 'No room' is no slug: write it in lower case, with hyphens between words",
    ),
    "an undo that raises": (refuse_after_a_step, "UndoFailed: Cannot undo step 'network': KeyError('the network')"),
}


@pytest.mark.parametrize(("run", "told"), WHILE_RUNNING.values(), ids=WHILE_RUNNING)
def test_is_told_by_the_log(
    service: Api, logs: StringIO, monkeypatch: pytest.MonkeyPatch, run: Callable[[Operation], object], told: str
) -> None:
    monkeypatch.setenv("SERVER_PROVIDER", "ec2")
    monkeypatch.setattr(api, "provider", provision(run))

    assert service.post().status >= 500

    assert told in [line for entry in logs.getvalue().splitlines() for line in exception_in(entry)]


def exception_in(entry: str) -> list[str]:
    return [line.removeprefix("idempotency.errors.") for line in json.loads(entry).get("exception", "").splitlines()]


def test_the_operation_of_a_worker_that_died_is_told_by_the_log(
    service: Api, clock: SetClock, logs: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_PROVIDER", "ec2")
    monkeypatch.setattr(api, "provider", provision(lambda _: raising(KeyboardInterrupt())))
    with suppress(KeyboardInterrupt):
        service.post()
    [record] = service.records
    clock.advance(31)
    monkeypatch.setattr(api, "provider", provision(lambda _: {"status": "running"}))

    assert service.post().status == 201

    [told] = [entry for line in logs.getvalue().splitlines() if (entry := json.loads(line))["level"] == "WARNING"]
    assert (told["message"], told["record"]) == ("an earlier attempt was cut off", record["id"])
    assert (told["operation_id"], told["attempt"]) == (record["operation_id"], 2)


def test_a_refusal_that_an_earlier_version_kept_is_read_whatever_its_slug() -> None:
    kept = json.dumps({"slug": "No room", "detail": "Full.", "title": "T", "status": 422, "retry_after": None})

    assert Rejected.unpack(kept).slug == "No room"


def test_a_module_that_cannot_be_imported_is_told_before_a_stack_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_start", Mock(side_effect=AssertionError("started")))
    monkeypatch.setattr("tools.contract.import_module", Mock(side_effect=SyntaxError("invalid syntax")))

    with pytest.raises(ToolError, match=r"^src/api\.py cannot be imported: invalid syntax"):
        stack.up(0)
