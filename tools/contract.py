"""The models in template.yaml and the request schemas in openapi.yaml, made from the classes of the bodies.

    python -m tools.contract           write them
    python -m tools.contract --check   change nothing; exit 1 if something would change

An entry that is already right stays as it is, and so does everything else in both files. In openapi.yaml, the first
paragraph of a class's docstring and its Args become descriptions; titles, examples and the like that people wrote are
kept.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor

from tools.errors import ToolError, run
from tools.setup import ROOT

if TYPE_CHECKING:
    from idempotency.body import Body

MEND = "run: make contract"
_SOURCE = ROOT / "src"
_TEMPLATE = ROOT / "template.yaml"
_MODELS = ("Resources", "Api", "Properties", "Models")
_DOCUMENT = ROOT / "openapi.yaml"
_SCHEMAS = ("components", "schemas")
_WIDTH = 110
_REMARKS = frozenset({"title", "description", "examples", "example", "deprecated", "externalDocs", "$comment"})
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)

Entries = list[tuple[yaml.Node, yaml.Node]]


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and repeats what occurs twice instead of using an anchor."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def renewed() -> dict[Path, str]:
    """The files that differ from what the bodies say, each with the text that it should have.

    Raises:
        ToolError: if the bodies cannot be imported, or a file cannot be edited in place.
    """
    found = bodies()
    models = {name: body.SCHEMA for name, body in found.items()}
    names = {id(body.SCHEMA): name for name, body in found.items()}
    schemas = {name: described(body, names) for name, body in found.items()}
    texts = {
        _TEMPLATE: rewritten(_TEMPLATE, _MODELS, models),
        _DOCUMENT: rewritten(_DOCUMENT, _SCHEMAS, schemas, keep_remarks=True),
    }
    return {path: text for path, text in texts.items() if text != _text(path)}


def orphans() -> set[str]:
    """The names of models in the template for which there is no class in src/."""
    _, entries = _find(_TEMPLATE, _text(_TEMPLATE), _MODELS)
    return {name.value for name, _ in entries} - {found.__name__ for found in _classes()}


def bodies() -> dict[str, type[Body]]:
    """The bodies in src/, by name.

    Raises:
        ToolError: if src/ cannot be imported, or has two bodies of one name.
    """
    classes = [*_classes()]
    from idempotency.body import Body  # noqa: PLC0415 - src is on the path by now

    found: dict[str, type[Body]] = {}
    for body in classes:
        if issubclass(body, Body) and body is not Body and found.setdefault(body.__name__, body) is not body:
            raise ToolError(f"src/ has two bodies called {body.__name__}; a model has the name of its class")
    return found


def described(body: type[Body], names: Mapping[int, str]) -> dict[str, Any]:
    """The schema of a body for openapi.yaml: with descriptions, defaults, and references to other bodies.

    Args:
        body: the body.
        names: names of other bodies, by the ``id`` of their schemas.
    """
    summary, arguments = "", dict[str, str]()
    for base in reversed(body.__mro__):
        documentation = inspect.cleandoc(base.__doc__ or "")
        summary = documentation.partition("\n\n")[0]
        arguments.update(_ARGUMENT.findall(documentation))
    # A dataclass without a docstring is given its signature as one.
    remarks = {} if summary.startswith(f"{body.__name__}(") else {"description": _sentence(summary)}
    schema: dict[str, Any] = remarks | _with_references(body.SCHEMA, names)
    for name, member in schema.get("properties", {}).items():
        if name in arguments:
            member.setdefault("description", _sentence(arguments[name]))
        field = body.__dataclass_fields__.get(name)
        if field and isinstance(field.default, str | int | float):
            member.setdefault("default", field.default)
    return schema


def rewritten(path: Path, place: tuple[str, ...], schemas: Mapping[str, Any], *, keep_remarks: bool = False) -> str:
    """The text of a YAML file with these schemas in it; new ones come before the existing ones.

    Args:
        path: the file.
        place: the keys that lead to the mapping of schemas.
        schemas: the schemas to write, by name.
        keep_remarks: whether an old title, example or the like stays if the new schema has none.

    Raises:
        ToolError: if the file is not valid, or has no such place in block style.
    """
    text = _text(path)
    key, entries = _find(path, text, place)
    column = entries[0][0].start_mark.column if entries else key.start_mark.column + 2
    lines = text.splitlines(keepends=True)
    missing = dict(schemas)
    # From the end, so that the numbers of the lines above stay right.
    for name, node in reversed(entries):
        if name.value in schemas:
            old = None
            with suppress(yaml.YAMLError):  # a value that CloudFormation computes is never what the body says
                old = SafeConstructor().construct_document(node)
            schema = missing.pop(name.value)
            schema = _with_remarks(schema, old) if keep_remarks else schema
            if schema != old:
                lines[name.start_mark.line : _end(node)] = [_entry(name.value, schema, column)]
    beginning = key.start_mark.line + 1
    lines[beginning:beginning] = [_entry(name, schema, column) for name, schema in missing.items()]
    _find(path, "".join(lines), place)  # other places that refer to an entry by its anchor must still find it
    return "".join(lines)


def _classes() -> Iterator[type]:
    """Every class that the modules of src/ define."""
    if str(_SOURCE) not in sys.path:
        sys.path.insert(0, str(_SOURCE))
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")  # a client is made at import
    try:
        import_module("api")
    except Exception as error:
        raise ToolError(f"src/api.py cannot be imported: {error}") from error
    for module in [*sys.modules.values()]:
        if Path(getattr(module, "__file__", None) or "").is_relative_to(_SOURCE):
            yield from (it for it in vars(module).values() if isinstance(it, type) and it.__module__ == module.__name__)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _with_references(node: Any, names: Mapping[int, str]) -> Any:
    match node:
        case dict():
            return {
                key: {"$ref": f"#/components/schemas/{names[id(member)]}"}
                if id(member) in names
                else _with_references(member, names)
                for key, member in node.items()
            }
        case list():
            return [_with_references(member, names) for member in node]
    return node


def _with_remarks(new: Any, old: Any, *, named: bool = False) -> Any:
    """A schema, with the remarks of the old one that it does not replace; `named`: the keys are names of properties."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return new
    kept = {} if named else {key: old[key] for key in old if key in _REMARKS and key not in new}
    members = {key: _with_remarks(new[key], old.get(key), named=key == "properties" and not named) for key in new}
    return kept | members


def _text(path: Path) -> str:
    return path.read_bytes().decode()  # unchanged, with the line endings that it has


def _find(path: Path, text: str, place: tuple[str, ...]) -> tuple[yaml.Node, Entries]:
    """A mapping's own key, and its entries."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ToolError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    found: Entries = []
    entries = _members(node)
    for name in place:
        found = [(key, value) for key, value in entries if key.value == name]
        entries = [entry for _, value in found for entry in _members(value)]
    if not found or getattr(found[0][1], "flow_style", False):
        raise ToolError(f"{path.name} has no {'.'.join(place)} in block style")
    return found[0][0], entries


def _members(node: yaml.Node | None) -> Entries:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _end(node: yaml.Node) -> int:
    """The line after an entry. YAML ends a block where the next one begins, after the comments between them."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node.end_mark.line + (node.end_mark.column > 0)


def _entry(name: str, schema: Any, column: int) -> str:
    text = yaml.dump({name: schema}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH - column)
    return indent(text, " " * column)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bodies in src/ into template.yaml and openapi.yaml.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    check = parser.parse_args().check
    stale = renewed()
    names = " and ".join(path.name for path in stale)
    if check and stale:
        print(f"error: {names}: different from the bodies in src/; {MEND}", file=sys.stderr)
        return 1
    for path, text in stale.items():
        path.write_bytes(text.encode())
    if gone := orphans():
        raise ToolError(f"template.yaml has models without a class in src/: {', '.join(sorted(gone))}; delete them")
    print(f"written: {names}" if stale else "template.yaml and openapi.yaml are up to date")
    return 0


if __name__ == "__main__":
    run(main)
