"""The threat model names, for each threat, tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tools.setup import ROOT

_PAGE = (ROOT / "docs" / "security.md").read_text()
_ROWS = [[cell.strip() for cell in line.split(" | ")] for line in _PAGE.splitlines() if line.startswith("| **")]
_THREATS = {
    "a stolen key",
    "a guessed key",
    "replay across tenants",
    "a poisoned record",
    "replay after revocation",
    "leaks in logs",
    "oversized input",
    "a confused deputy",
    "dns is a shared name space",  # example campaigns
    "ec2 is a shared name space",
}


def threat(row: list[str]) -> str:
    return row[0].split("**")[1].rstrip(".")


@cache
def declared_in(path: str) -> frozenset[str]:
    """The tests of a module: `test_…`, or `Test…::test_…`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {f"{prefix}{member.name}" for member in members if isinstance(member, ast.FunctionDef)}
    return frozenset(name for name in found if "test_" in name)


def test_has_every_threat_that_it_must_have() -> None:
    named = " ".join(threat(row).lower() for row in _ROWS)

    assert [wanted for wanted in _THREATS if wanted not in named] == []


@pytest.mark.parametrize("row", _ROWS, ids=threat)
def test_names_tests_that_exist(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:*]+)`", row[-1])

    assert len(row) == 4
    assert named
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert (test == "*" and declared_in(path)) or test in declared_in(path), f"{path}::{test}"
