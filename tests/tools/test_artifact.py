"""What `sam build` makes of `src`: small, and with the bytecode that a function cannot write."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.setup import ROOT

_MEGABYTE = 1_000_000
# With the bytecode of one version of Python. Lambda's limit is 250 MB; what is loaded at a cold start is what counts.
_MOST_BYTES = 12 * _MEGABYTE
# Bits of the flags in the head of a file of bytecode (PEP 552): by hash, and not checked.
_HASHED, _CHECKED = 0b01, 0b10


def build(folder: Path, python: str, path: str) -> str:
    """Build the artifact with another Python as the runtime's; returns what is said."""
    done = subprocess.run(
        ["make", "-C", "src", "build-ApiFunction", f"ARTIFACTS_DIR={folder}", f"PYTHON_VERSION={python}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact, where the runtime's Python is this one."""
    here, folder = f"{sys.version_info.major}.{sys.version_info.minor}", tmp_path_factory.mktemp("artifact")
    (tmp_path_factory.getbasetemp() / "bin").mkdir(exist_ok=True)
    name = tmp_path_factory.getbasetemp() / "bin" / f"python{here}"
    name.symlink_to(sys.executable)
    build(folder, here, f"{name.parent}:{os.environ['PATH']}")
    return folder


def test_has_bytecode_that_is_used_as_it_is(artifact: Path) -> None:
    sources = list(artifact.rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        head = Path(importlib.util.cache_from_source(str(source))).read_bytes()[:8]
        assert head[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(head[4:], "little") == _HASHED & ~_CHECKED, source


def test_is_small(artifact: Path) -> None:
    assert sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file()) < _MOST_BYTES


def test_says_so_if_there_is_no_such_python(tmp_path: Path) -> None:
    said = build(tmp_path, "3.13", ":".join(_without(os.environ["PATH"], "python3.13")))

    assert "will compile their modules at each cold start" in said
    assert list(tmp_path.rglob("*.pyc")) == []


def _without(path: str, program: str) -> list[str]:
    return [folder for folder in path.split(":") if not (Path(folder) / program).exists()]
