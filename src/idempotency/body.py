"""The body of a request: a class of annotated fields, from which its schema is made and by which it is read."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field
from functools import cache
from itertools import islice
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import quote

from idempotency.errors import Problem

if TYPE_CHECKING:
    from fastjsonschema import JsonSchemaValueException

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_JSON_TYPES = frozenset({*_TYPES.values(), "array", "object", "null"})
_OF_NUMBERS = frozenset({"minimum", "maximum", "multipleOf", "enum"})
# Those that draft 4 (the gateway), draft 7 (the function) and 2020-12 (OpenAPI 3.1) read alike. exclusiveMinimum, for
# one, is true or false in draft 4, and a number since.
_KEYWORDS: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "enum"}),
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "boolean": frozenset(),
    "array": frozenset({"minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"minProperties", "maxProperties"}),
}

_UNIONS = (Union, UnionType)
# RFC 3986, section 3.5, besides what `quote` always leaves as it is.
_IN_FRAGMENTS = "!$&'()*+,;=:@/?"

_MOST_ERRORS = 20
_LONGEST_DETAIL = 200
_LONGEST_NAME = 100


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Body:
    """What the JSON body of a request is read as. A subclass annotates fields, which makes it a frozen dataclass.

        class OrderRequest(Body):
            sku: Annotated[str, {"pattern": "^[A-Z]{3}-[0-9]+$"}]
            quantity: Annotated[int, {"minimum": 1}] = 1
            greeting: Annotated[str | None, {"maxLength": 200}] = None

    A field is a ``str``, ``int``, ``float`` or ``bool``, a ``Literal`` of strings or of integers, another body, or a
    ``list[T]`` or ``dict[str, T]`` of these; ``Annotated`` adds keywords of JSON Schema. A client may leave out a field
    that has a default; ``T | None = None`` shows whether it did, and ``Annotated`` goes around ``T | None``. A JSON
    ``null`` is never admitted: the gateway drops it from models, and it would be a second way to send the same request.

    `SCHEMA` is made from the fields, unless the class writes its own. The properties of that one are the fields; by
    ``patternProperties`` or ``additionalProperties`` it may admit further members, which are not read.

    Raises:
        TypeError: when the class is made, if a field is anything else; one line, with the class and the field.

    Source: Amazon API Gateway, data models for REST APIs (JSON Schema draft 4).
    """

    SCHEMA: ClassVar[dict[str, Any]]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        try:
            dataclasses.dataclass(frozen=True)(cls)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{cls.__name__}: {error}") from error
        for field in _fields(cls):
            with _telling(cls, field):
                field.type = _resolved(cls, field)
        required = [field.name for field in _fields(cls) if field.default is field.default_factory is MISSING]
        if (own := cls.__dict__.get("SCHEMA")) is None:
            cls.SCHEMA = _schema_of(cls, required)
        else:
            _check(cls, own, required)

    @classmethod
    def prime(cls) -> None:
        """Make what the first `read` would make."""
        _validator(cls)  # type: ignore[arg-type] # mypy takes the __hash__ of instances for the class's
        _constructor(cls)  # type: ignore[arg-type] # as above

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read a JSON value, with each body that is in it.

        Raises:
            Problem: ``body-invalid`` (400) if the value does not match `SCHEMA`, with an error for each field.
        """
        if errors := _validator(cls)(value):  # type: ignore[arg-type] # as above
            raise _problem(value, errors)
        body: Self = _constructor(cls)(value)  # type: ignore[arg-type] # as above
        return body


def _check(body: type[Body], own: dict[str, Any], required: list[str]) -> None:
    """See that a schema that the class writes itself admits nothing that it does not read."""
    name = body.__name__
    if own.get("type") != "object" or not {*required} <= {*own.get("required", ())}:
        raise TypeError(f"{name}.SCHEMA: its type must be object, and it must require {required}")
    if properties := own.get("properties"):
        fields = {field.name for field in _fields(body)}
        for lost in sorted({*properties} - fields):
            raise TypeError(f"{name}.SCHEMA: nobody reads its property {lost!r}; make it a field, or remove it")
        for lost in sorted(fields - {*properties}):
            raise TypeError(f"{name}.{lost}: no property of SCHEMA; add it there, or remove the field")
    _check_types(own, f"{name}.SCHEMA")


def _check_types(schema: Any, where: str) -> None:
    """See that each type in a schema is one."""
    if not isinstance(schema, dict):
        return
    types = schema.get("type", [])
    for name in [types] if isinstance(types, str) else types:
        if name not in _JSON_TYPES:
            raise TypeError(f"{where}: there is no type {name!r}; there are {', '.join(sorted(_JSON_TYPES))}")
    for keyword, inner in schema.items():
        if keyword in {"properties", "patternProperties"}:
            for name, member in inner.items():
                _check_types(member, f"{where}.{keyword}.{name}")
        else:
            for member in inner if isinstance(inner, list) else [inner]:
                _check_types(member, f"{where}.{keyword}")


@contextmanager
def _telling(body: type[Body], field: "Field[Any]") -> Iterator[None]:
    """Say where an error in an annotation is."""
    try:
        yield
    except (AttributeError, NameError, SyntaxError, TypeError) as error:
        raise TypeError(f"{body.__name__}.{field.name}: {error}") from error


def _resolved(body: type[Body], field: "Field[Any]") -> Any:
    """The type that an annotation stands for, be it a string (``from __future__ import annotations``) or not."""
    if hasattr(Body, field.name):
        raise TypeError("every body has something else by this name")
    alone = type(body.__name__, (), {"__annotations__": {field.name: field.type}, "__module__": body.__module__})
    return get_type_hints(alone, include_extras=True)[field.name]


def _fields(body: type[Body]) -> list["Field[Any]"]:
    return [field for field in dataclasses.fields(body) if field.init]


def _schema_of(body: type[Body], required: list[str]) -> dict[str, Any]:
    properties = {}
    for field in _fields(body):
        with _telling(body, field):
            properties[field.name] = _schema(field.type, optional=field.default is None)
    # In draft 4, `required` is not empty.
    needed = {"required": required} if required else {}
    return {"type": "object", **needed, "additionalProperties": False, "properties": properties}


def _schema(hint: Any, *, optional: bool = False) -> dict[str, Any]:
    origin, of = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _constrained(_schema(of[0], optional=optional), of[1:])
    if origin in _UNIONS:
        if optional and (inner := _inner(hint)):
            return _schema(inner)
        raise TypeError("the only union is T | None, and its default is None")
    if origin is not None:
        return _generic(hint, origin, of)
    if isinstance(hint, type) and issubclass(hint, Body):
        return hint.SCHEMA
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    raise TypeError(f"a field cannot be {getattr(hint, '__name__', hint)}")


def _inner(hint: Any) -> Any:
    """What ``Annotated[T, …]`` and ``T | None`` are made of; None if it is neither."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return of[0]
    members = [member for member in of if member is not NoneType]
    return members[0] if origin in _UNIONS and len(members) == 1 else None


def _generic(hint: Any, origin: Any, of: tuple[Any, ...]) -> dict[str, Any]:
    if origin is Literal and {*map(type, of)} in ({str}, {int}):
        return {**_schema(type(of[0])), "enum": [*of]}
    if origin is list:
        return {"type": "array", "items": _schema(of[0])}
    if origin is dict and of[0] is str:
        return {"type": "object", "additionalProperties": _schema(of[1])}
    raise TypeError(f"a field cannot be {hint}")


def _constrained(schema: dict[str, Any], metadata: tuple[Any, ...]) -> dict[str, Any]:
    for keywords in metadata:
        if not isinstance(keywords, dict):
            raise TypeError(f"{keywords!r} is not a dict of JSON Schema keywords")
        known = _KEYWORDS[schema["type"]]
        if unknown := [keyword for keyword in keywords if keyword not in known]:
            raise TypeError(f"type {schema['type']} takes {sorted(known)}, not {unknown}")
        _check_format(keywords.get("format"))
        _check_pattern(keywords.get("pattern", ""))
        schema = {**schema, **keywords}
    return schema


def _check_format(name: str | None) -> None:
    if name is None:
        return
    from fastjsonschema.draft07 import CodeGeneratorDraft07

    if name not in CodeGeneratorDraft07.FORMAT_REGEXS:
        raise TypeError(f"nothing would check the format {name!r}; a pattern can")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise TypeError(f"{pattern!r} is no pattern: {error}") from error


@cache
def _validator(body: type[Body]) -> Callable[[Any], Sequence["JsonSchemaValueException"]]:
    """What finds all that is wrong with a value."""
    import fastjsonschema

    validate = fastjsonschema.compile(body.SCHEMA, use_default=False, fast_fail=False)

    def errors(value: Any) -> Sequence["JsonSchemaValueException"]:
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValuesException as invalid:
            return invalid.errors
        return ()

    return errors


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    """What turns a value that matches the schema of a type into that type; None if it is the same."""
    origin, of = get_origin(hint), get_args(hint)
    if inner := _inner(hint):
        return _reader(inner)
    if hint is int or origin is Literal:
        return lambda value: int(value) if isinstance(value, float) else value  # 1.0 and 1 are one number in JSON
    if origin is list and (item := _reader(of[0])):
        return lambda value: [item(each) for each in value]
    if origin is dict and (member := _reader(of[1])):
        return lambda value: {name: member(each) for name, each in value.items()}
    if isinstance(hint, type) and issubclass(hint, Body):
        return _constructor(hint)  # type: ignore[arg-type] # as above
    return None


@cache
def _constructor(body: type[Body]) -> Callable[[Any], Any]:
    readers = {field.name: _reader(field.type) for field in _fields(body)}

    def construct(value: dict[str, Any]) -> Any:
        known = {name: each for name, each in value.items() if name in readers}
        return body(**{name: read(each) if (read := readers[name]) else each for name, each in known.items()})

    return construct


def _problem(body: Any, errors: Iterable["JsonSchemaValueException"]) -> Problem:
    found: dict[tuple[str, ...], tuple[JsonSchemaValueException, str]] = {}
    for error in errors:
        for member, detail in _details(error):
            found.setdefault((str(error.name), *member), (error, detail))
    listed = [
        {"pointer": _pointer([*_path(body, error), *member]), "detail": _shortened(detail, _LONGEST_DETAIL)}
        for (_, *member), (error, detail) in islice(found.items(), _MOST_ERRORS)
    ]
    more = f"; {len(listed)} of its {len(found)} errors are listed" if len(found) > len(listed) else ""
    return Problem("body-invalid", f"The body does not match its schema{more}.", errors=listed)


def _details(error: "JsonSchemaValueException") -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a value, or with which of its members."""
    match error.rule:
        case "required":
            for name in error.rule_definition:
                if name not in error.value:
                    yield (name,), "is required"
        case "additionalProperties":
            known = error.definition.get("properties", {})
            patterns = error.definition.get("patternProperties", {})
            for name in error.value:
                if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                    yield (name,), "is not known here"
        case _:
            yield (), error.message.removeprefix(str(error.name)).strip()


def _path(body: Any, error: "JsonSchemaValueException") -> list[str]:
    """The names that lead to a value. `error.path` takes a name with a dot or a bracket in it for several."""
    paths = _paths(str(error.name).removeprefix("data"), body)
    return next((path for path, value in paths if value is error.value), [])


def _paths(name: str, value: Any) -> Iterator[tuple[list[str], Any]]:
    """Whatever a name such as ``.a[0].b`` may lead to."""
    if not name:
        yield [], value
    steps: list[tuple[str, str, Any]] = []
    if isinstance(value, dict):
        steps = [(member, f".{member}", value[member]) for member in value if name.startswith(f".{member}")]
    elif isinstance(value, list) and (index := re.match(r"\[(\d{1,9})\]", name)):
        steps = [(index[1], index[0], item) for item in value[int(index[1]) :][:1]]
    for member, written, inner in steps:
        for path, found in _paths(name.removeprefix(written), inner):
            yield [member, *path], found


def _pointer(path: list[str]) -> str:
    """A JSON Pointer as a URI fragment (RFC 6901, section 6), as in RFC 9457's own example."""
    names = (_shortened(name, _LONGEST_NAME).replace("~", "~0").replace("/", "~1") for name in path)
    return "#" + "".join(f"/{quote(name, safe=_IN_FRAGMENTS, errors='replace')}" for name in names)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
