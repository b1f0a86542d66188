"""`make new-operation`, and docs/adding-an-endpoint.md followed to the letter, in a copy of the project."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from textwrap import indent

import pytest

from tests.conftest import MYPY
from tests.project import Copy
from tools.local import template
from tools.setup import ROOT

PAGE = ROOT / "docs" / "adding-an-endpoint.md"
MODULE, TESTS = "src/provisioning/feeds.py", "tests/unit/test_feeds.py"
pytestmark = [
    pytest.mark.slow,
    MYPY,
    pytest.mark.skipif((ROOT / MODULE).exists(), reason="the page's operation is there already, as a team's own"),
]
_COMMAND = re.compile(r"^    make new-operation NAME=(\S+) STEPS=(\S+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```\w+\n# (\S+?)(?:: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the project with the operation that the page's command writes."""
    copy = Copy(tmp_path_factory.mktemp("made"))
    [(name, steps)] = _COMMAND.findall(PAGE.read_text())
    copy.run("tools.start.new_operation", name, steps)
    return copy


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, made: Copy) -> Copy:
    """The same, with all that the page goes on to say."""
    copy = Copy(tmp_path_factory.mktemp("walked"), made.path)
    for path, place, block in _BLOCK.findall(PAGE.read_text()):
        file = copy.path / path
        file.write_text("".join(_put(file.read_text().splitlines(keepends=True), place, block)) if place else block)
    copy.run("tools.contract")
    copy.run("ruff", "check", "--select", "I", "--fix", ".")
    copy.run("ruff", "format", ".")
    return copy


def test_writes_files_of_its_own_and_entries_in_three(made: Copy) -> None:
    assert made.changed(ROOT) == {
        MODULE,
        TESTS,
        "events/feeds.json",
        "src/api.py",
        "template.yaml",
        "openapi.yaml",
    }


def test_is_explained_file_by_file(made: Copy) -> None:
    explained = set(re.findall(r"^\| `(\S+)` \|", PAGE.read_text(), re.MULTILINE))

    assert explained == made.changed(ROOT)


@pytest.mark.parametrize("stage", ["made", "walked"])
def test_passes_every_check_of_style_and_types(stage: str, request: pytest.FixtureRequest) -> None:
    copy: Copy = request.getfixturevalue(stage)

    copy.run("ruff", "check", ".")
    copy.run("ruff", "format", "--check", ".")
    copy.run("mypy", "--cache-dir", str(ROOT / ".mypy_cache"), "src/api.py", MODULE, TESTS)
    copy.run("tools.contract", "--check")


@pytest.mark.parametrize("stage", ["made", "walked"])
def test_makes_an_endpoint_that_runs_once_whatever_crashes(stage: str, request: pytest.FixtureRequest) -> None:
    copy: Copy = request.getfixturevalue(stage)

    copy.run("pytest", "-q", TESTS, *(["tests/unit/walk_feeds.py"] if stage == "walked" else []))


def test_makes_an_endpoint_that_agrees_with_its_contract(made: Copy) -> None:
    made.run("pytest", "-q", *(f"tests/unit/test_{name}.py" for name in ("contract", "template", "events")))


@pytest.mark.parametrize("stage", ["made", "walked"])
def test_leaves_the_projects_own_tests_green(stage: str, request: pytest.FixtureRequest) -> None:
    copy: Copy = request.getfixturevalue(stage)

    copy.run("pytest", "-q", "-m", "not slow and not e2e", "tests/unit/test_roles.py", "tests/unit/test_start.py")


def test_gives_the_operation_the_rights_that_its_steps_use(walked: Copy) -> None:
    statements = template.load(walked.path / "template.yaml")["Resources"]["OperationPolicy"]["Properties"]
    listed = statements["PolicyDocument"]["Statement"][:2]

    assert {action for statement in listed for action in statement["Action"]} == {
        "sns:CreateTopic",
        "sns:DeleteTopic",
        "sqs:CreateQueue",
        "sqs:DeleteQueue",
        "sqs:GetQueueUrl",
    }


@pytest.mark.parametrize(
    ("name", "steps", "told"),
    [
        ("feed", "2", "NAME=feed: name what it makes in the plural"),
        ("", "2", "NAME=: name what it makes in the plural"),
        ("Feeds", "2", "NAME=Feeds: name what it makes in the plural"),
        ("servers", "2", "src/provisioning/servers.py exists already"),
        ("classes", "2", "the code has another meaning for class"),
        ("inputs", "2", "the code has another meaning for input"),
        ("events", "2", "the code has another meaning for event"),
        ("feeds", "", "STEPS=: say how many steps there are"),
        ("feeds", "0", "STEPS=0: say how many steps there are"),
        ("feeds", "topic,topic", "STEPS=topic,topic: say how many"),
        ("feeds", "topic,feed", "a step needs a name of its own, not feed"),
    ],
)
def test_says_in_one_line_what_it_cannot_use(name: str, steps: str, told: str) -> None:
    command = [sys.executable, "-m", "tools.start.new_operation", "--", name, steps]

    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert re.fullmatch(f"error: {re.escape(told)}.*\n", finished.stderr)


def _put(lines: list[str], place: str, block: str) -> Iterator[str]:
    """Insert a block where the page says: with the imports, under a name, or instead of functions."""
    how, names = place.split(" ", 2)[0], place.split(" ", 2)[-1].split(", ")
    if how == "instead":
        functions = {node.name: node for node in ast.parse("".join(lines)).body if isinstance(node, ast.FunctionDef)}
        first, last = functions[names[0]], functions[names[-1]]
        yield from [*lines[: first.lineno - 1], block, *lines[last.end_lineno :]]
        return
    if how == "with":
        at = max(number for number, line in enumerate(lines, start=1) if line.startswith("from "))
    else:
        at = -1
        for name in place.removeprefix("under ").split(", "):
            at = _find(lines, f"{name}:\n", after=at)
        at += 1
        block = indent(block, " " * (len(lines[at]) - len(lines[at].lstrip())))
    yield from [*lines[:at], block, *lines[at:]]


def _find(lines: list[str], beginning: str, after: int = -1) -> int:
    return next(n for n, line in enumerate(lines) if n > after and line.lstrip().startswith(beginning))
