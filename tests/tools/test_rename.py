"""`make rename` gives a copy of the project another name, in every spelling and in every file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.project import Copy
from tools.setup import ENVIRONMENTS, ROOT
from tools.start.rename import renamed

pytestmark = pytest.mark.slow

NEW = "a-name-of-24-letters-ok-"[:-1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("renamed"))
    copy.run("tools.start.rename", NEW)
    return copy


def test_leaves_the_old_name_nowhere(copy: Copy) -> None:
    files = [path for path in copy.path.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = re.compile(r"provision-once|ProvisionOnce|Provision Once")

    assert len(files) > 100
    assert [path for path in files if path.name != "LICENSE" and names.search(path.read_text(errors="replace"))] == []


def test_leaves_what_passes_every_check(copy: Copy) -> None:
    copy.run("ruff", "check", ".")
    copy.run("ruff", "format", "--check", ".")
    copy.run("tools.wiring")
    copy.run("pytest", "-q", *(f"tests/unit/test_{name}.py" for name in ("template", "ec2", "telemetry")))


def test_leaves_a_lock_file_of_that_project(copy: Copy) -> None:
    locked = tomllib.loads((copy.path / "uv.lock").read_text())
    project = next(package for package in locked["package"] if package["source"] == {"virtual": "."})

    assert project["name"] == NEW
    assert f"extra == 'group-{len(NEW)}-{NEW}-dev'" in (copy.path / "uv.lock").read_text()


def test_can_be_done_again() -> None:
    text = "a-shop AShop # A Shop group-6-a-shop-dev a-shop:operation"

    there = renamed(text, "a-shop", "orders-api")

    assert there == "orders-api OrdersApi # Orders Api group-10-orders-api-dev orders-api:operation"
    assert renamed(there, "orders-api", "a-shop") == text


@pytest.mark.parametrize("name", ["", "Orders", "orders_api", "orders--api", "-orders", "7", "o" * 25])
def test_says_in_one_line_what_is_no_name(name: str) -> None:
    command = [sys.executable, "-m", "tools.start.rename", "--", name]

    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: NAME={name}: a name is lower case .*\n", finished.stderr)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
@pytest.mark.skipif(not (ENVIRONMENTS["sam"] / "bin" / "sam").exists(), reason="needs sam")
def test_begins_with_sam_init(tmp_path: Path) -> None:
    command = ["init", "--location", f"git+file://{ROOT}", "--name", "orders-api", "--no-interactive"]

    subprocess.run(
        [ENVIRONMENTS["sam"] / "bin" / "sam", *command],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        check=True,
    )

    copied = {path.name for path in (tmp_path / "orders-api").iterdir()}
    assert {"Makefile", "pyproject.toml", "src", "template.yaml", "tests", "tools", "uv.lock"} <= copied
