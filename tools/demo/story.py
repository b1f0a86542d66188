"""How the story is told: scenes, requests and answers, and claims that are true or false."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tools.local.client import Answer

_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Story:
    """Tells what happens, and remembers the claims that turned out to be false.

    Args:
        picture: where to draw the terminal as SVG in the end; None for nowhere.
    """

    def __init__(self, picture: Path | None = None) -> None:
        self._picture = picture
        self._console = Console(highlight=False, record=bool(picture), width=110 if picture else None)
        self._scene = 0
        self.claims = 0
        self.broken: list[str] = []

    def act(self, title: str) -> None:
        """Open an act."""
        self._console.print()
        self._console.rule(f"[bold]{title}[/]", style="blue")

    def scene(self, title: str) -> None:
        """Open a scene."""
        self._scene += 1
        self._console.print(f"\n[bold blue]{self._scene}[/] [bold]{title}[/]")

    def sent(self, what: str, outcome: str) -> None:
        """Tell what a client sent, and what happened."""
        self._console.print(f"  [cyan]→[/] {what}")
        self._console.print(f"  [cyan]←[/] {outcome}")

    def answered(self, what: str, answer: Answer) -> None:
        """Tell what a client sent, and the answer."""
        marks = [
            f"{name}: {', '.join(answer.headers[name.lower()])}"
            for name in ("Retry-After",)
            if name.lower() in answer.headers
        ]
        marks += ["(replayed)"] if answer.replayed else []
        status = f"[{'green' if answer.status < 400 else 'yellow'}]{answer.status}[/]"
        self.sent(what, f"{status}  {escape('  '.join([_summary(answer), *marks]))}")

    def progress(self, line: str) -> None:
        """Tell how far something is."""
        self._console.print(f"  [dim]{line}[/]")

    def claim(self, claim: str, *, holds: bool, seen: Any = "") -> None:
        """Check a claim; if it is false, show what was seen instead."""
        self.claims += 1
        if holds:
            self._console.print(f"  [green]✓ {claim}[/]")
        else:
            self.broken.append(claim)
            self._console.print(f"  [bold red]✗ {claim}[/]  seen: {escape(repr(seen))}", soft_wrap=True)

    def table(self, rows: Mapping[str, str]) -> None:
        """Show names and their values."""
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(f"[dim]{escape(name)}[/]", Text(value))
        self._console.print(table)

    def end(self) -> None:
        """Tell how many claims were true."""
        self._console.print()
        self._console.rule(style="blue")
        if self.broken:
            self._console.print(f"[bold red]{len(self.broken)} of {self.claims} claims are false[/]")
        else:
            self._console.print(f"[bold green]all {self.claims} claims are true[/]")
        if self._picture:
            # Without the fonts that it would load from elsewhere: those of the reader's machine do.
            self._picture.write_text(_FONTS.sub("", self._console.export_svg(title="make demo")))


def _summary(answer: Answer) -> str:
    if "json" not in answer.headers.get("content-type", [""])[0]:
        return f"{len(answer.body)} bytes"
    body = answer.json
    return str(body.get("title") or "  ".join(str(body[name]) for name in ("id", "status") if name in body))
