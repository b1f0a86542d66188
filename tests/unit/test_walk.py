"""docs/adding-an-endpoint.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest

from tools.local import template
from tools.setup import ROOT

PAGE = ROOT / "docs" / "adding-an-endpoint.md"
COPIED = ("src", "tests", "tools", "docs", "openapi.yaml", "pyproject.toml", "samconfig.toml", "template.yaml")
_BLOCK = re.compile(r"^```\w+\n# (\S+?)(?:: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the endpoint of the page."""
    copy = tmp_path_factory.mktemp("walk")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    for path, place, block in _BLOCK.findall(PAGE.read_text()):
        file = copy / path
        file.write_text("".join(_put(file.read_text().splitlines(keepends=True), place, block)) if place else block)
    subprocess.run([sys.executable, "-m", "tools.contract"], cwd=copy, check=True)  # make contract
    return copy


def test_touches_one_new_module_with_its_test_one_route_the_template_and_the_contract() -> None:
    touched = {path for path, _, _ in _BLOCK.findall(PAGE.read_text())}
    new = {"src/provisioning/feeds.py", "tests/unit/test_feeds.py"}

    assert touched == new | {"src/api.py", "template.yaml", "openapi.yaml"}
    assert not [path for path in new if (ROOT / path).exists()]


def test_gives_the_operation_the_rights_that_its_steps_use(copy: Path) -> None:
    statements = template.load(copy / "template.yaml")["Resources"]["OperationPolicy"]["Properties"]["PolicyDocument"]
    allowed = {action for statement in statements["Statement"][:2] for action in _as_list(statement["Action"])}

    assert allowed == {"sns:CreateTopic", "sns:DeleteTopic", "sqs:CreateQueue"}


def test_makes_an_endpoint_that_runs_once_and_agrees_with_its_contract(copy: Path) -> None:
    tests = [f"tests/unit/{name}.py" for name in ("test_feeds", "walk_feeds", "test_contract", "test_template")]

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests], cwd=copy, capture_output=True, text=True, check=False
    )

    assert finished.returncode == 0, finished.stdout


def _put(lines: list[str], place: str, block: str) -> Iterator[str]:
    """Insert a block where the page says: with the imports, after a function, before a member, or under a name."""
    how, _, names = place.partition(" ")
    if how == "with":
        at = max(number for number, line in enumerate(lines, start=1) if line.startswith("from provisioning"))
    elif how == "after":
        start = _find(lines, f"def {names}(")
        at = next(number for number, line in enumerate(lines) if number > start and not line.startswith((" ", "\n")))
        block = f"{block}\n\n"
    else:
        at = -1
        for name in names.split(", "):
            at = _find(lines, f"{name}:\n", after=at)
        at += how == "under"
        block = indent(block, " " * (len(lines[at]) - len(lines[at].lstrip())))
    yield from [*lines[:at], block, *lines[at:]]


def _find(lines: list[str], beginning: str, after: int = -1) -> int:
    return next(n for n, line in enumerate(lines) if n > after and line.lstrip().startswith(beginning))


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
