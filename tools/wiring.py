"""Mistakes in what has to fit together: routes, template, contract, roles, refusals. Each is told in one line.

    python -m tools.wiring      part of `make lint`; exit 1 if there are any

The line says where the mistake is, what is wrong, and what mends it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.session
import yaml
from botocore import xform_name

from tools import contract
from tools.errors import ToolError, run
from tools.local import template
from tools.setup import ROOT

if TYPE_CHECKING:
    from idempotency.idempotent import Declaration

_SOURCE = ROOT / "src"
_EVENTS = "Resources.ApiFunction.Properties.Events"
_STATEMENTS = "Resources.OperationPolicy.Properties.PolicyDocument.Statement"
_KEY = [{"method.request.header.Idempotency-Key": {"Required": {"Fn::If": ["IsEdge", True, False]}}}]
_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# What IAM calls by another name than the API does.
_IAM_NAMES = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
}


class Route(NamedTuple):
    """A route of src/api.py.

    Args:
        function: what answers it.
        declaration: what it was declared with by `@idempotent`; None if it was not.
    """

    function: Callable[..., Any]
    declaration: Declaration | None


Key = tuple[str, str]
"""Method and path, such as ``GET /v1/feeds/{}``: what a path parameter is called does not count."""


def mistakes() -> list[str]:
    """Every mistake, one line each.

    Raises:
        ToolError: if src/ cannot be imported, or a file cannot be read: then nothing else can be told.
    """
    contract.bodies()
    document, stack = yaml.safe_load((ROOT / "openapi.yaml").read_text()), template.load()
    documented = {
        _key(method, path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    events = {
        _key(event["Properties"]["Method"], event["Properties"]["Path"]): event["Properties"]
        for event in stack["Resources"]["ApiFunction"]["Properties"]["Events"].values()
        if event["Type"] == "Api"
    }
    routes = _routes()
    return [
        *_missing(routes, events, documented),
        *_different_keys(routes, events, documented),
        *_different_bodies(routes, events, documented),
        *_not_recoverable(routes),
        *_without_examples(document, documented),
        *_without_rights(stack),
        *_refusals(document),
    ]


def _key(method: str, path: str) -> Key:
    return method.upper(), re.sub(r"[<{][^/]*[>}]", "{}", path)


def _routes() -> dict[Key, Route]:
    import api  # noqa: PLC0415 - importable by now

    try:
        api.idempotent.check_routes()
    except TypeError as error:
        raise ToolError(f"src/api.py: {error}") from error
    return {
        _key(route.method, route.path): Route(route.func, api.idempotent.declared.get(route.func))
        for route in (*api.app._static_routes, *api.app._dynamic_routes)
        if route.func.__module__ == api.__name__
    }


def _missing(routes: Iterable[Key], events: Iterable[Key], documented: Iterable[Key]) -> Iterator[str]:
    places = {
        "src/api.py": ({*routes}, "write a function under @app there, or run make new-operation"),
        "template.yaml": ({*events}, f"add an event under {_EVENTS}, as the other routes have"),
        "openapi.yaml": ({*documented}, "add it under paths, as the other routes are"),
    }
    for key in sorted({*routes, *events, *documented}):
        has = [name for name, (keys, _) in places.items() if key in keys]
        for name, (_, mend) in places.items():
            if name not in has:
                yield f"{name}: {' '.join(key)} is missing, which {' and '.join(has)} {_verb(has)}: {mend}"


def _different_keys(routes: dict[Key, Route], events: dict[Key, Any], documented: dict[Key, Any]) -> Iterator[str]:
    """Whether client and gateway are told that a key is needed where one is."""
    for key, (function, declaration) in routes.items():
        name, idempotent = " ".join(key), declaration is not None
        if key in documented:
            named = {parameter["$ref"].rpartition("/")[2] for parameter in _references(documented[key])}
            for parameter in sorted({"IdempotencyKey", "Prefer"}):
                if (parameter in named) is not idempotent:
                    what = "add" if idempotent else "remove"
                    yield f'openapi.yaml: {name}: {what} the parameter $ref "#/components/parameters/{parameter}"'
            if documented[key].get("operationId") != function.__name__:
                yield f"openapi.yaml: {name}: its operationId must be {function.__name__}, as in src/api.py"
        if key in events and events[key].get("RequestParameters", []) != _KEY * idempotent:
            what = "add" if idempotent else "remove"
            yield f"template.yaml: {name}: {what} RequestParameters: *idempotency-key"


def _references(operation: dict[str, Any]) -> list[dict[str, str]]:
    return [parameter for parameter in operation.get("parameters", []) if "$ref" in parameter]


def _different_bodies(routes: dict[Key, Route], events: dict[Key, Any], documented: dict[Key, Any]) -> Iterator[str]:
    """Whether a body is the same for client, gateway and function."""
    if stale := [path.name for path in contract.renewed()]:
        yield f"{' and '.join(stale)}: different from the bodies in src/: {contract.MEND}"
    for model in sorted(contract.orphans()):
        yield f"template.yaml: the model {model} has no class in src/: delete it under Resources.Api.Properties.Models"
    for key, (_, declaration) in routes.items():
        body = declaration.body.__name__ if declaration and declaration.body is not bytes else None
        checked = {"Model": body, "Required": True, "ValidateBody": True, "ValidateParameters": True} if body else None
        if key in events and events[key].get("RequestModel") != checked:
            yield f"template.yaml: {' '.join(key)}: its RequestModel must be {_flow(checked)}"
        if body and key in documented and _schema(documented[key]) != {"$ref": f"#/components/schemas/{body}"}:
            yield (
                f"openapi.yaml: {' '.join(key)}: the schema of its requestBody for application/json must be "
                f'{{$ref: "#/components/schemas/{body}"}}'
            )


def _schema(operation: dict[str, Any]) -> Any:
    return operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")


def _not_recoverable(routes: dict[Key, Route]) -> Iterator[str]:
    for key, (_, declaration) in routes.items():
        if declaration is None or declaration.policy.atomic or declaration.policy.recoverable is not None:
            continue
        if _takes_steps(declaration.business):
            yield (
                f"src/api.py: {' '.join(key)} has steps, and nobody finishes them if its client does not come back: "
                "declare it with Policy(recoverable=True), or recoverable=False if that is meant"
            )


def _takes_steps(function: Callable[..., Any]) -> bool:
    """Whether a function, or what it reaches in src/, calls ``step`` or ``reserve``."""
    seen, todo = set[int](), [inspect.unwrap(function)]
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, ModuleType) or not _in_source(each):
            continue
        seen.add(id(each))
        if isinstance(each, type):
            todo += [inspect.unwrap(member) for member in vars(each).values() if inspect.isfunction(member)]
        elif inspect.isfunction(each):
            names = {name for code in _codes(each.__code__) for name in code.co_names}
            if names & {"step", "reserve"}:
                return True
            found = [each.__globals__[name] for name in names if name in each.__globals__]
            members = [vars(module).get(name) for module in found if isinstance(module, ModuleType) for name in names]
            todo += [inspect.unwrap(item) for item in (*found, *members) if callable(item)]
    return False


def _in_source(item: Any) -> bool:
    module = sys.modules.get(getattr(item, "__module__", None) or "")
    file = getattr(module, "__file__", None) or ""
    return file.startswith(str(_SOURCE)) and not file.startswith(str(_SOURCE / "idempotency"))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _without_examples(document: dict[str, Any], documented: dict[Key, Any]) -> Iterator[str]:
    for key, operation in documented.items():
        for code, response in operation.get("responses", {}).items():
            if reference := response.get("$ref"):
                response = document["components"]["responses"].get(reference.rpartition("/")[2], {})  # noqa: PLW2901
            for media_type, content in response.get("content", {}).items():
                if not content.get("examples"):
                    yield f"openapi.yaml: {' '.join(key)}: add examples to its response {code} as {media_type}"


def _without_rights(stack: dict[str, Any]) -> Iterator[str]:
    """The actions that the operations' code calls, and their role lacks."""
    statements = stack["Resources"]["OperationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    allowed = [action for statement in statements for action in _allowed(statement)]
    for path, line, action in calls():
        if not any(fnmatchcase(action.lower(), pattern.lower()) for pattern in allowed):
            yield (
                f"{path.relative_to(ROOT)}:{line}: calls {action}, which the role lacks: add it to template.yaml "
                f"under {_STATEMENTS}"
            )


def calls() -> Iterator[tuple[Path, int, str]]:
    """Each call of AWS in the operations' code: its file, line and action."""
    for path in [_SOURCE / "api.py", *sorted((_SOURCE / "provisioning").rglob("*.py"))]:
        for line, action in sorted(_calls(ast.parse(path.read_text()))):
            yield path, line, action


def _allowed(statement: dict[str, Any]) -> list[str]:
    actions = statement.get("Fn::If", [None, statement])[1]["Action"]
    return [actions] if isinstance(actions, str) else actions


def _calls(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and action of each call of AWS: a method's name that is an operation of a client that the module has."""
    nodes = [*ast.walk(module)]
    texts = {
        node.args[0].value
        for node in nodes
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    }
    operations = {name: action for service in _services() & texts for name, action in _operations(service).items()}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in operations:
            yield node.lineno, operations[node.attr]


@cache
def _services() -> frozenset[str]:
    return frozenset(botocore.session.get_session().get_available_services())


@cache
def _operations(service: str) -> dict[str, str]:
    """The actions of a service, by the methods of its client."""
    model = botocore.session.get_session().get_service_model(service)
    actions = {xform_name(name): f"{model.signing_name}:{name}" for name in model.operation_names}
    return {method: _IAM_NAMES.get(action, action) for method, action in actions.items()}


def _refusals(document: dict[str, Any]) -> Iterator[str]:
    """Whether what operations refuse is in the contract."""
    headings = set(re.findall(r"^### (\S+)$", (ROOT / "docs" / "idempotency.md").read_text(), re.MULTILINE))
    examples = [example.get("value", {}) for example in document["components"]["examples"].values()]
    documented = {str(example.get("type", "")).rpartition("#")[2] for example in examples if isinstance(example, dict)}
    for path in sorted(_SOURCE.rglob("*.py")):
        for line, slug in _raised(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{line}: the refusal {slug!r}"
            if not _SLUG.fullmatch(slug):
                yield f"{where} is no slug: write it in lower case, with hyphens between words"
                continue
            if slug not in headings:
                yield f"{where} is not specified: add ### {slug} to docs/idempotency.md, with its status below it"
            if slug not in documented:
                yield f"{where} has no example: add one to openapi.yaml under components.examples, and to its response"


def _raised(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name("Problem" | "Rejected"), args=[ast.Constant(str(slug)), *_]):
                yield node.lineno, slug


def _verb(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip().removesuffix("\n...")


def main() -> int:
    found = mistakes()
    for mistake in found:
        print(mistake, file=sys.stderr)
    if found:
        raise ToolError("what is listed above does not fit together")
    return 0


if __name__ == "__main__":
    run(main)
