"""The picture of the demo shows the story as it is told now, with every claim true."""

from __future__ import annotations

import ast
import html
import re

from tools.setup import ROOT

_PICTURE = ROOT / "docs" / "demo.svg"


def told() -> list[str]:
    """The titles of all acts and scenes."""
    calls = [
        node
        for path in sorted((ROOT / "tools" / "demo").glob("act_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"act", "scene"}
    ]
    return [node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)]  # type: ignore[misc]


def test_the_picture_is_current() -> None:
    shown = re.sub(r"<[^>]+>", "", html.unescape(_PICTURE.read_text())).replace("\xa0", " ")

    assert len(told()) >= 5
    assert [title for title in told() if title not in shown] == [], "make demo PICTURE=docs/demo.svg"
    assert re.search(r"all \d+ claims are true", shown)
