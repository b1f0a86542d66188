"""An operation of one's own: `make new-operation NAME=feeds STEPS=2` writes all that it takes.

    python -m tools.start.new_operation feeds topic,queue

Nothing is written unless everything can be.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import subprocess
import sys
from pathlib import Path

from tools import contract, documents
from tools.errors import ToolError, run
from tools.setup import ROOT
from tools.start import operation
from tools.start.operation import Words

_API = ROOT / "src" / "api.py"
_TEMPLATE = ROOT / "template.yaml"
_DOCUMENT = ROOT / "openapi.yaml"
_EVENTS = ("Resources", "ApiFunction", "Properties", "Events")
_POLICY = ("Resources", "OperationPolicy", "Properties", "PolicyDocument")
_ANCHOR = "idempotency-key"
_KEY_REQUIRED = (
    f"&{_ANCHOR}\n      - method.request.header.Idempotency-Key:\n          Required: !If [IsEdge, true, false]"
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# What the code that is made calls other things.
_TAKEN = {
    "body",
    "event",
    "handler",
    "id",
    "key",
    "name",
    "operation",
    "principal",
    "representation",
    "resource",
    "row",
}


def written(words: Words) -> dict[Path, str]:
    """The files of an operation, each with the text that it gets.

    Raises:
        ToolError: if one of its own exists already, or one that has to be extended has no place for it.
    """
    new = {
        ROOT / "src" / "provisioning" / f"{words.plural}.py": operation.module(words),
        ROOT / "tests" / "unit" / f"test_{words.plural}.py": operation.tests(words),
        ROOT / "events" / f"{words.plural}.json": operation.event(words),
    }
    if existing := [path for path in new if path.exists()]:
        raise ToolError(f"{existing[0].relative_to(ROOT)} exists already; choose another NAME")
    return {**new, _API: _with_route(words), _TEMPLATE: _with_events(words), _DOCUMENT: _with_paths(words)}


def words(name: str, steps: str) -> Words:
    """Read what to call an operation and its steps.

    Args:
        name: what it makes, in the plural: ``feeds`` or ``price_alerts``.
        steps: how many steps it has, or their names with commas between them.

    Raises:
        ToolError: if one of them cannot be used.
    """
    singular = _singular(name)
    if not _NAME.fullmatch(name) or singular == name:
        raise ToolError(f"NAME={name}: name what it makes in the plural, such as feeds or price_alerts")
    names = _ORDINALS[: int(steps)] if re.fullmatch("[1-9]", steps) else tuple(steps.split(","))
    if len({*names}) < len(names) or not all(_NAME.fullmatch(step) for step in names):
        raise ToolError(f"STEPS={steps}: say how many steps there are, 1 to 9, or name each: STEPS=topic,queue")
    for word in (name, singular, *names):
        if keyword.iskeyword(word) or hasattr(builtins, word) or word in _TAKEN:
            raise ToolError(f"the code has another meaning for {word}; choose another word")
    if clash := {name, singular} & {*names}:
        raise ToolError(f"a step needs a name of its own, not {clash.pop()}")
    return Words(name, singular, names)


def _singular(plural: str) -> str:
    if plural.endswith("ies"):
        return f"{plural[:-3]}y"
    if re.search(r"(ss|sh|ch|x|z)es$", plural):
        return plural[:-2]
    return plural.removesuffix("s")


def _with_route(words: Words) -> str:
    lines = _API.read_text().splitlines(keepends=True)
    nodes = ast.parse("".join(lines)).body
    handler = next((node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "handler"), None)
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    if handler is None or not imports:
        raise ToolError("src/api.py has no function called handler, before which the routes are")
    at = min([handler.lineno, *(decorator.lineno for decorator in handler.decorator_list)]) - 1
    lines[at:at] = [operation.route(words)]
    after = imports[-1].end_lineno
    lines[after:after] = [f"from provisioning import {words.plural}\n"]
    return "".join(lines)


def _with_events(words: Words) -> str:
    text = _TEMPLATE.read_text()
    parameters = f"*{_ANCHOR}" if f"&{_ANCHOR}" in text else _KEY_REQUIRED
    text = documents.inserted(_TEMPLATE, text, _EVENTS, operation.events(words, parameters))
    return documents.inserted(_TEMPLATE, text, _POLICY, operation.rights(words))


def _with_paths(words: Words) -> str:
    text = _DOCUMENT.read_text()
    for place, block in (
        (("paths",), operation.paths(words)),
        (("components", "parameters"), operation.parameter(words)),
        (("components", "schemas"), operation.schema(words)),
        (("components", "examples"), operation.example(words)),
    ):
        text = documents.inserted(_DOCUMENT, text, place, block)
    return re.sub(r"^tags:\n", f"tags:\n  - name: {words.plural}\n", text, count=1, flags=re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write an operation: its code, entries and tests.")
    parser.add_argument("name", help="what it makes, in the plural: feeds")
    parser.add_argument("steps", help="how many steps it has, or their names: topic,queue")
    arguments = parser.parse_args()
    files = written(words(arguments.name, arguments.steps))
    for path, text in files.items():
        path.write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    python = [str(path) for path in files if path.suffix == ".py"]
    subprocess.run([*ruff, "check", "--quiet", "--select", "I", "--fix", *python], cwd=ROOT, check=True)
    subprocess.run([*ruff, "format", "--quiet", *python], cwd=ROOT, check=True)
    contract.write()
    for path in files:
        print(f"written: {path.relative_to(ROOT)}")
    print(f"next: fill in the steps in src/provisioning/{arguments.name}.py, and their rights in template.yaml")
    return 0


if __name__ == "__main__":
    run(main)
