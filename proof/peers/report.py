"""Tables, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_COLOURS = {"yes": "green", "no": "red", "not promised": "yellow"}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title: its heading.
        columns: headings of the columns.
        rows: one cell per column.
        note: what a reader must know to understand it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str

    def show(self, console: Console) -> None:
        """Print it."""
        table = RichTable(title=self.title, caption=self.note, box=box.SIMPLE_HEAD, title_style="bold")
        for column in self.columns:
            table.add_column(column)
        for row in self.rows:
            table.add_row(*(_coloured(cell) for cell in row))
        console.print(table)

    def markdown(self) -> str:
        """Write it for a page."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([f"### {self.title}", "", self.note, "", *rows])


def write(page: Path, introduction: str, tables: Sequence[Table]) -> None:
    """Replace what was measured last time on a page; everything around it stays, and tables that are not given.

    Raises:
        ValueError: if the page has no place for it.
    """
    text = page.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no place for the tables, between {_BEGIN} and {_END}")
    new = {table.title: table.markdown() for table in tables}
    old = {
        section.partition("\n")[0]: f"### {section.strip()}" for section in rest.partition(_END)[0].split("### ")[1:]
    }
    measured = "\n\n".join([begin, introduction, *(old | new).values(), end])
    page.write_text(before + measured + after)


def _coloured(cell: str) -> str:
    colour = _COLOURS.get(cell.partition(":")[0])
    return f"[{colour}]{escape(cell)}[/]" if colour else escape(cell)
