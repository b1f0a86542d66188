"""The engine's front door: entry points, business logic and pages import from it, and from nothing behind it."""

import ast
import re

import pytest

import idempotency
from tools.setup import ROOT

ENTRIES = [*(ROOT / "src").glob("*.py"), *(ROOT / "src" / "provisioning").glob("*.py")]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def imported(source: str) -> set[str]:
    """The modules of the engine that a source imports from."""
    return {
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "idempotency"
    }


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.name)
def test_is_the_only_way_in(path: object) -> None:
    assert imported(path.read_text()) <= {"idempotency"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_is_what_the_pages_show(path: object) -> None:
    shown = re.findall(r"^\s*from (idempotency[.\w]*) import", path.read_text(), re.MULTILINE)  # type: ignore[attr-defined]

    assert set(shown) <= {"idempotency", "idempotency.testing"}


def test_has_everything_that_it_names() -> None:
    assert all(hasattr(idempotency, name) for name in idempotency.__all__)
    assert len(set(idempotency.__all__)) == len(idempotency.__all__)


def test_names_everything_that_entry_points_use() -> None:
    used = {
        alias.name
        for path in ENTRIES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "idempotency"
        for alias in node.names
    }

    assert used <= {*idempotency.__all__}
