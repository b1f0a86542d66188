"""The models in template.yaml and the request schemas in openapi.yaml, made from the classes of the bodies.

    python -m tools.contract           write them
    python -m tools.contract --check   change nothing; exit 1 if something would change

An entry that is already right stays as it is, and so does everything else in both files. In openapi.yaml, the first
paragraph of a class's docstring and its Args become descriptions; titles, examples and the like that people wrote are
kept. The responses that all operations of a kind have are added to those operations that say nothing of them.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor

from tools import documents
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
_REMARKS = frozenset({"title", "description", "examples", "example", "deprecated", "externalDocs", "$comment"})
_IDEMPOTENCY_KEY = {"$ref": "#/components/parameters/IdempotencyKey"}
_ALWAYS = {
    "401": "Unauthorized",
    "403": "Forbidden",
    "429": "TooManyRequests",
    "500": "InternalError",
    "502": "GatewayFailed",
    "503": "Unavailable",
    "504": "GatewayTimeout",
    "4XX": "RefusedByGateway",
}
_WITH_A_KEY = {
    "202": "Accepted",
    "400": "BadRequest",
    "409": "InProgress",
    "413": "BodyTooLarge",
    "415": "UnsupportedMediaType",
    "422": "KeyReused",
}
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)


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
        _DOCUMENT: with_responses(rewritten(_DOCUMENT, _SCHEMAS, schemas, keep_remarks=True)),
    }
    return {path: text for path, text in texts.items() if text != _text(path)}


def write() -> list[str]:
    """Write the files that differ, and tell their names."""
    stale = renewed()
    for path, text in stale.items():
        path.write_bytes(text.encode())
    return [path.name for path in stale]


def orphans() -> set[str]:
    """The names of models in the template for which there is no class in src/."""
    _, entries = documents.find(_TEMPLATE, _text(_TEMPLATE), _MODELS)
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
    key, entries = documents.find(path, text, place)
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
                lines[name.start_mark.line : documents.end(node)] = [documents.entry(name.value, schema, column)]
    beginning = key.start_mark.line + 1
    lines[beginning:beginning] = [documents.entry(name, schema, column) for name, schema in missing.items()]
    documents.find(path, "".join(lines), place)  # other places that refer to an entry by its anchor must still find it
    return "".join(lines)


def with_responses(text: str) -> str:
    """The text of openapi.yaml, each operation with all responses of its kind: those that it names are its own.

    Raises:
        ToolError: if an operation has no responses at all.
    """
    for path, operations in yaml.safe_load(text).get("paths", {}).items():
        for method, operation in operations.items():
            own = operation.get("responses", {})
            with_key = _IDEMPOTENCY_KEY in operation.get("parameters", [])
            shared = _ALWAYS | (_WITH_A_KEY if with_key else {"404": "NotFound"} if "{" in path else {})
            for code in sorted(shared.keys() - own.keys()):
                written = f'"{code}"' if code.isdigit() else code
                reference = f'{written}: {{$ref: "#/components/responses/{shared[code]}"}}\n'
                place = ("paths", path, method, "responses")
                text = documents.inserted(_DOCUMENT, text, place, reference, before=_follower_of(code))
    return text


def _follower_of(code: str) -> Callable[[str], bool]:
    """Whether another response comes after this one: by its status, those of a whole class last."""
    return lambda other: (not code.isdigit(), code) < (not other.isdigit(), other)


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


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bodies in src/ into template.yaml and openapi.yaml.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    check = parser.parse_args().check
    stale = [path.name for path in renewed()] if check else write()
    if check and stale:
        print(f"error: {' and '.join(stale)}: different from the bodies in src/; {MEND}", file=sys.stderr)
        return 1
    if gone := orphans():
        raise ToolError(f"template.yaml has models without a class in src/: {', '.join(sorted(gone))}; delete them")
    print(f"written: {' and '.join(stale)}" if stale else "template.yaml and openapi.yaml are up to date")
    return 0


if __name__ == "__main__":
    run(main)
