"""What a type checker tells a team about a route, before anything runs."""

import re
from pathlib import Path

import pytest
from mypy import api as mypy

from tests.conftest import MYPY
from tools.setup import ROOT

pytestmark = [MYPY, pytest.mark.thorough]

_PREAMBLE = """
from typing import Annotated
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from idempotency import Body, Completion, Idempotent, Lifecycle, Operation, Policy, Telemetry

app = APIGatewayRestResolver()
def telemetry() -> Telemetry: ...
def lifecycle() -> Lifecycle: ...
idempotent = Idempotent(app, telemetry(), lifecycle)

class Thing(Body):
    name: str

class Other(Body):
    size: str

class NoBody:
    name: str

def make(thing: Thing, operation: Operation) -> Completion: ...

"""
GOOD = {
    "a body, an operation": "@idempotent(Policy())\ndef f(thing: Thing, operation: Operation) -> Completion: return make(thing, operation)",
    "JSON alone": "@idempotent(Policy())\ndef f(thing: Thing, operation: Operation) -> dict[str, str]: return {'name': thing.name}",
    "a path parameter": "@idempotent(Policy())\ndef f(thing: Thing, operation: Operation, id_: str) -> Completion: ...\nf(id_='7')",
    "bytes": "@idempotent(Policy())\ndef f(body: bytes, operation: Operation) -> Completion: ...",
    "a step": "def f(operation: Operation) -> int: return operation.step('s', lambda key: len(key), undo=lambda n: n + 1)",
}
BAD = {
    "a wrong body class": (
        "@idempotent(Policy())\ndef f(other: Other, operation: Operation) -> Completion: return make(other, operation)",
        "arg-type",
    ),
    "a misspelt field of the body": ("def f(thing: Thing) -> str: return thing.name_", "attr-defined"),
    "a misspelt attribute of the operation": ("def f(operation: Operation) -> str: return operation.principle", "attr-defined"),
    "the engine's half of the operation": ("def f(operation: Operation) -> None: operation.undo()", "attr-defined"),
    "a class that is not a Body": ("@idempotent(Policy())\ndef f(body: NoBody, operation: Operation) -> Completion: ...", "type-var"),
    "a body of another type": ("@idempotent(Policy())\ndef f(body: dict[str, str], operation: Operation) -> Completion: ...", "type-var"),
    "a handler without an operation": ("@idempotent(Policy())\ndef f(thing: Thing) -> Completion: ...", "arg-type"),
    "an operation of another type": ("@idempotent(Policy())\ndef f(thing: Thing, operation: str) -> Completion: ...", "arg-type"),
    "a handler that returns nothing": ("@idempotent(Policy())\ndef f(thing: Thing, operation: Operation) -> None: ...", "arg-type"),
    "a step that takes no key": ("def f(operation: Operation) -> int: return operation.step('s', lambda: 1)", "arg-type"),
    "a value in place of a step's call": ("def f(operation: Operation) -> int: return operation.step('s', 1)", "call-overload"),
    "an undo of another type": (
        "def text(_: str) -> None: ...\ndef f(operation: Operation) -> int: return operation.step('s', lambda _: 1, undo=text)",
        "misc",
    ),
    "a body made without a field": ("Thing()", "call-arg"),
    "an unknown choice of a route": ("Policy(guard=4)", "call-arg"),
}  # fmt: skip


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The codes of the errors that mypy reports, by the name of the example: one run for all of them."""
    folder = tmp_path_factory.mktemp("typing")
    examples = {**GOOD, **{name: code for name, (code, _) in BAD.items()}}
    paths = {name: folder / f"example_{number}.py" for number, name in enumerate(examples)}
    for name, path in paths.items():
        path.write_text(f"{_PREAMBLE}{examples[name]}\n")
    config = folder / "mypy.ini"
    config.write_text(
        f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\n"
        f"disable_error_code = empty-body\ncache_dir = {ROOT / '.mypy_cache'}\n"
    )
    told, _, _ = mypy.run(["--config-file", str(config), "--no-error-summary", *map(str, paths.values())])
    found = re.findall(r"^(.*?\.py):\d+: error: .*\[([\w-]+)\]$", told, re.MULTILINE)
    return {name: {code for file, code in found if Path(file).name == path.name} for name, path in paths.items()}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(errors: dict[str, set[str]], name: str) -> None:
    assert errors[name] == set()


@pytest.mark.parametrize("name", BAD)
def test_rejects(errors: dict[str, set[str]], name: str) -> None:
    assert BAD[name][1] in errors[name]
