"""A team that does not change the engine may delete this folder: nothing outside refers to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.setup import ENVIRONMENTS, ROOT

# These work without it, or only say how strict the linters are with it. Pages for people may describe it.
MAY_NAME_IT = {"Makefile", "pyproject.toml", ".ci/run"}
REFERENCE = re.compile(r"(?<!docs/)\bproof[./]|\bimport proof\b")


def files() -> Iterator[Path]:
    """The files of the repository, or of the next commit, without the proof."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    yield from (path for path in map(Path, names) if path.parts[0] != "proof" and (ROOT / path).is_file())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without the proof, in the same environments."""
    copy = tmp_path_factory.mktemp("without") / "project"
    for path in files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    for environment in ENVIRONMENTS.values():
        link = copy / environment.relative_to(ROOT)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(environment)
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    return copy


def run(copy: Path, *command: str) -> str:
    """Run a command in the copy, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    finished = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_nothing_outside_refers_to_it() -> None:
    others = [path for path in files() if path.suffix != ".md" and str(path) not in MAY_NAME_IT]

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


@pytest.mark.slow
def test_without_it_the_linters_pass(copy: Path) -> None:
    run(copy, "make", "lint")


@pytest.mark.slow
def test_without_it_all_tests_are_found_and_those_without_servers_pass(copy: Path) -> None:
    found = run(copy, ".venv/bin/python", "-m", "pytest", "--collect-only", "-q")
    passed = run(copy, "make", "test-unit")

    assert all(f"tests/{room}/" in found for room in ("unit", "tools", "integration", "e2e"))
    assert " passed" in passed
