"""Copies of the project, to change and to check."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.setup import ENVIRONMENTS, LOCAL, ROOT

_COPIED = (
    "Makefile",
    "README.md",
    "src",
    "tests",
    "tools",
    "docs",
    "events",
    "openapi.yaml",
    "pyproject.toml",
    "samconfig.toml",
    "template.yaml",
    "uv.lock",
)


class Copy:
    """A copy of the project, without its environments.

    Args:
        path: the directory to copy into.
        source: what to copy.
    """

    def __init__(self, path: Path, source: Path = ROOT) -> None:
        self.path = path
        for name in _COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source / name, path)

    def changed(self, source: Path) -> set[str]:
        """The files that are not what they are in another copy, or not there at all."""
        files = [path for name in _COPIED for path in [self.path / name, *(self.path / name).rglob("*")]]
        return {
            str(name)
            for path in files
            if path.is_file() and "__pycache__" not in path.parts
            for name in [path.relative_to(self.path)]
            if not (source / name).exists() or not filecmp.cmp(path, source / name, shallow=False)
        }

    def run(self, module: str, *arguments: str, fails: bool = False) -> str:
        """Run a Python module in the copy, and return what it printed.

        Args:
            module: the module.
            arguments: its command line.
            fails: whether it is to fail.

        Raises:
            AssertionError: if it does not end as it is to; with what it printed.
        """
        finished = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=self.path, capture_output=True, text=True, check=False
        )
        assert bool(finished.returncode) is fails, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr


def link_environments(copy: Path) -> None:
    """Give a copy the environments of the project."""
    for environment in (*ENVIRONMENTS.values(), LOCAL / "uv"):
        link = copy / environment.relative_to(ROOT)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(environment)


def files(without: str = "") -> Iterator[Path]:
    """The files of the repository, or of its next commit, but for those in a folder."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    yield from (name for name in map(Path, names) if name.parts[0] != without and (ROOT / name).is_file())


def whole(path: Path, without: str = "") -> Path:
    """Copy all that is in the repository, or in its next commit, to where the same environments are used.

    Args:
        path: the directory to make.
        without: a folder that is left out.
    """
    for name in files(without):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    link_environments(path)
    subprocess.run(["git", "init", "--quiet"], cwd=path, check=True)
    return path


def terminal() -> dict[str, str]:
    """The variables of a terminal: pytest's own, and those of the make that runs it, are no command's business."""
    foreign = ("MAKE", "MFLAGS", "PYTEST_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def run(directory: Path, *command: str) -> str:
    """Run a command there, as from a terminal, and return what it printed.

    Raises:
        AssertionError: if it fails; with what it printed.
    """
    finished = subprocess.run(command, cwd=directory, env=terminal(), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
