"""YAML files edited in place: what a person laid out by hand stays as it is, comments included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from tools.errors import ToolError

Entries = list[tuple[yaml.Node, yaml.Node]]

_WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and repeats what occurs twice instead of using an anchor."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def find(path: Path, text: str, place: tuple[str, ...]) -> tuple[yaml.Node, Entries]:
    """A mapping's own key, and its entries.

    Args:
        path: the file, for what an error says.
        text: its text.
        place: the keys that lead to the mapping.

    Raises:
        ToolError: if the text is not valid YAML, or has no such place in block style.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ToolError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    found: Entries = []
    entries = members(node)
    for name in place:
        found = [(key, value) for key, value in entries if key.value == name]
        entries = [entry for _, value in found for entry in members(value)]
    if not found or getattr(found[0][1], "flow_style", False):
        raise ToolError(f"{path.name} has no {'.'.join(place)} in block style")
    return found[0][0], entries


def members(node: yaml.Node | None) -> Entries:
    """The entries of a mapping; none if it is something else."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def end(node: yaml.Node) -> int:
    """The line after an entry. YAML ends a block where the next one begins, after the comments between them."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node.end_mark.line + (node.end_mark.column > 0)


def entry(name: str, value: Any, column: int) -> str:
    """An entry in block style, indented by so many columns."""
    text = yaml.dump({name: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH - column)
    return indent(text, " " * column)


def inserted(
    path: Path, text: str, place: tuple[str, ...], block: str, before: Callable[[str], bool] = lambda _: False
) -> str:
    """A text with further entries in a mapping: before the first one whose name is `before`, or at the end.

    Args:
        path: the file, for what an error says.
        text: its text.
        place: the keys that lead to the mapping.
        block: the entries, with their own line ends, not indented.
        before: tells by its name whether an entry comes after the new ones.

    Raises:
        ToolError: see `find`.
    """
    key, entries = find(path, text, place)
    column = entries[0][0].start_mark.column if entries else key.start_mark.column + 2
    last = end(entries[-1][1]) if entries else key.start_mark.line + 1
    at = next((name.start_mark.line for name, _ in entries if before(name.value)), last)
    lines = text.splitlines(keepends=True)
    lines[at:at] = [indent(block, " " * column)]
    changed = "".join(lines)
    find(path, changed, place)  # what refers to an anchor must still find it above
    return changed
