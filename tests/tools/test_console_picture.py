# example campaigns
"""The picture of the console in README."""

from __future__ import annotations

from tools.demo import console_picture
from tools.setup import ROOT


def test_is_current() -> None:
    picture = (ROOT / "docs" / "images" / "console.png").read_bytes()

    assert console_picture.made_of(picture) == console_picture.source(), "make picture draws it again"
