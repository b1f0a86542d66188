"""A team that does not change the engine may delete this folder: nothing outside refers to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project import files, run, whole
from tests.tools import test_make
from tools.setup import ROOT

# These work without it, or only say how strict the linters are with it. Pages for people may describe it.
MAY_NAME_IT = {"Makefile", "pyproject.toml", ".ci/run"}
REFERENCE = re.compile(r"(?<!docs/)\bproof[./]|\bimport proof\b")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without the proof, in the same environments."""
    return whole(tmp_path_factory.mktemp("without") / "project", without="proof")


def test_nothing_outside_refers_to_it() -> None:
    others = [path for path in files("proof") if path.suffix != ".md" and str(path) not in MAY_NAME_IT]

    referring = [str(path) for path in others if REFERENCE.search((ROOT / path).read_text(errors="replace"))]

    assert len(others) > 100
    assert referring == []


def test_make_lists_its_targets_only_where_it_is(copy: Path) -> None:
    without, within = run(copy, "make", "help"), run(ROOT, "make", "help")

    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "proof" / "proof.mk").read_text(), re.MULTILINE)
    assert "prove" in targets
    for target in targets:
        assert f"  {target} " in within
        assert f"  {target} " not in without
    assert "  test " in without


def test_the_pages_show_no_other_target_that_makes_own_file_lacks() -> None:
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "proof" / "proof.mk").read_text(), re.MULTILINE)

    assert {command.split()[0] for command in test_make.SHOWN} <= {*test_make.TARGETS, *targets}


@pytest.mark.slow
def test_without_it_the_linters_pass(copy: Path) -> None:
    run(copy, "make", "lint")


@pytest.mark.slow
def test_without_it_all_tests_are_found_and_those_of_the_tools_pass(copy: Path) -> None:
    found = run(copy, ".venv/bin/python", "-m", "pytest", "--collect-only", "-q")
    passed = run(copy, ".venv/bin/python", "-m", "pytest", "-q", "-m", "not slow", "tests/tools")

    assert all(f"tests/{room}/" in found for room in ("unit", "tools", "integration", "e2e"))
    assert " passed" in passed
