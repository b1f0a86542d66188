"""Mutants of src/idempotency: its conditions, fences and comparisons, removed one at a time.

Python is mutated as a syntax tree: an operand of `and`/`or` dropped, a condition taken as always or never true, a
comparison's boundary moved. DynamoDB's condition expressions are text, and lose one clause at a time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_CLAUSE = re.compile(r"attribute_\w+\([^)]*\)|[\w#:.]+ (?:=|<>|<|>) [\w#:.]+")

_UPDATE = re.compile(r"\bSET\b|^\W*,")


@dataclass(frozen=True)
class Mutant:
    """A module with one condition removed or changed.

    Args:
        path: the module.
        place: the function or the constant that it is in.
        lines: the lines that run it: those that it is on, or those that use its constant.
        before: the original text.
        after: the text that replaces it.
        source: the text of the whole module.
    """

    path: Path
    place: str
    lines: Sequence[int]
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """Its name in reports: without a line number, so that it survives edits elsewhere."""
        return " ".join(f"{self.path.name} {self.place}: {self.before} → {self.after}".split())


def mutants(path: Path, source: str | None = None) -> Iterator[Mutant]:
    """Every mutant of a module; or of another version of it, of which this is the text."""
    source = path.read_text() if source is None else source
    tree = ast.parse(source)
    # An inner function comes after the one that contains it.
    places = {line: node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for line in _lines(node)}
    for node in ast.walk(tree):
        for before, after in _changes(node):
            place = places.get(before.lineno, "")
            yield Mutant(path, place, _lines(before), ast.unparse(before), after, _replaced(source, before, after))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from _clauses(path, source, tree, node)


def _lines(node: ast.expr | ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.BoolOp(values=values):
            for dropped in values:
                kept = [value for value in values if value is not dropped]
                yield node, _joined(node, kept)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            text = ast.unparse(test)
            if text != "TYPE_CHECKING":
                yield from ((test, value) for value in ("True", "False") if value != text)
        case ast.comprehension(ifs=tests):
            yield from ((test, "True") for test in tests)
        case ast.Compare(ops=[operator]) if type(operator) in _BOUNDARIES:
            moved = ast.Compare(node.left, [_BOUNDARIES[type(operator)]()], node.comparators)
            yield node, f"({ast.unparse(moved)})"


def _joined(node: ast.BoolOp, values: list[ast.expr]) -> str:
    return f"({ast.unparse(ast.BoolOp(node.op, values)) if len(values) > 1 else ast.unparse(values[0])})"


def _clauses(path: Path, source: str, tree: ast.Module, node: ast.Assign) -> Iterator[Mutant]:
    """Take each clause of a condition expression as always or never true."""
    text = ast.get_source_segment(source, node.value) or ""
    if _UPDATE.search(text):
        return
    name = ast.unparse(node.targets[0])
    uses = [use.lineno for use in ast.walk(tree) if isinstance(use, ast.Name) and use.id == name]
    for clause in _CLAUSE.finditer(text):
        # The names stay, whatever is true of the item: DynamoDB refuses values that no expression mentions.
        for word, operator in (("true", "OR"), ("false", "AND")):
            changed = f"{text[: clause.start()]}({clause[0]} {operator} NOT {clause[0]}){text[clause.end() :]}"
            yield Mutant(path, name, uses, clause[0], word, source.replace(text, changed, 1))


def _replaced(source: str, node: ast.expr, after: str) -> str:
    lines = source.splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    # Columns count bytes of UTF-8.
    head = lines[first].encode()[: node.col_offset].decode()
    tail = lines[last].encode()[node.end_col_offset or 0 :].decode()
    return "".join([*lines[:first], head + after + tail, *lines[last + 1 :]])
