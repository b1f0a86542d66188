"""The body of a request: annotated fields, the schema that they make, and what is read and refused by it."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, field
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, NewType
from urllib.parse import unquote

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idempotency.body import Body
from idempotency.errors import Problem

DRAFT_4 = "http://json-schema.org/draft-04/schema#"


Sku = NewType("Sku", str)


class Item(Body):
    sku: Annotated[str, {"pattern": "^[A-Z]+$"}]
    count: int = 1


class Order(Body):
    items: Annotated[list[Item], {"minItems": 1}]
    by: Literal["sea", "air"] = "sea"
    note: Annotated[str | None, {"maxLength": 5}] = None
    stock: dict[str, Annotated[int, {"minimum": 0}]] = field(default_factory=dict)
    first: None | Item = None  # noqa: RUF036 - some people write it like this


class Open(Body):
    """A body that admits more than it reads."""

    name: str
    size: int | None = None

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "size": {"type": ["integer", "null"]}},
        "patternProperties": {"^x-": {"type": "string"}},
    }


class Closed(Body):
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def made(hint: Any, **members: Any) -> type[Body]:
    """A body with one field."""
    return type("Made", (Body,), {"__annotations__": {"it": hint}, "__module__": __name__, **members})


def refused(body: type[Body], value: Any) -> Problem:
    """Why a value is refused."""
    with pytest.raises(Problem) as problem:
        body.read(value)
    assert (problem.value.slug, problem.value.status) == ("body-invalid", 400)
    return problem.value


def errors(body: type[Body], value: Any) -> dict[str, str]:
    """What is wrong with a value, by pointer."""
    listed = refused(body, value).extensions["errors"]
    found = {error["pointer"]: error["detail"] for error in listed}
    assert len(found) == len(listed)
    return found


def at(value: Any, pointer: str) -> Any:
    """The value that a JSON Pointer in a URI fragment leads to (RFC 6901)."""
    names = [unquote(name).replace("~1", "/").replace("~0", "~") for name in pointer.removeprefix("#").split("/")[1:]]
    return reduce(lambda node, name: node[int(name) if isinstance(node, list) else name], names, value)


class TestClass:
    def test_is_a_frozen_dataclass(self) -> None:
        item = Item("A")

        assert item == Item(sku="A", count=1)
        assert asdict(item) == {"sku": "A", "count": 1}
        with pytest.raises(FrozenInstanceError):
            item.count = 2  # type: ignore[misc]

    def test_is_checked_by_mypy(self) -> None:
        # mypy --strict reports an ignore comment that suppresses nothing.
        with pytest.raises(TypeError):
            Item()  # type: ignore[call-arg]
        with pytest.raises(AttributeError):
            Item("A").colour  # type: ignore[attr-defined] # noqa: B018
        with pytest.raises(TypeError):
            Item("A", weight=1)  # type: ignore[call-arg]

    def test_inherits_fields(self) -> None:
        class Parcel(Item):
            weight: float = 1

        class Labelled(Open):
            label: str | None = None

        assert Parcel.SCHEMA["properties"] == {**Item.SCHEMA["properties"], "weight": {"type": "number"}}
        assert Labelled.SCHEMA["properties"] == {
            "name": {"type": "string"},
            "size": {"type": "integer"},
            "label": {"type": "string"},
        }

    @pytest.mark.parametrize(
        ("hint", "schema"),
        [
            (str, {"type": "string"}),
            (int, {"type": "integer"}),
            (float, {"type": "number"}),
            (bool, {"type": "boolean"}),
            ("str", {"type": "string"}),
            (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
            (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
            (list[str], {"type": "array", "items": {"type": "string"}}),
            (list["int"], {"type": "array", "items": {"type": "integer"}}),
            (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
            (Item, Item.SCHEMA),
            (list[list[Item]], {"type": "array", "items": {"type": "array", "items": Item.SCHEMA}}),
            (
                Annotated[str, {"minLength": 1}, {"maxLength": 2, "pattern": "^a"}],
                {"type": "string", "minLength": 1, "maxLength": 2, "pattern": "^a"},
            ),
            (Annotated[str, {"format": "date-time"}], {"type": "string", "format": "date-time"}),
            (Annotated[str, {"enum": ["a"]}], {"type": "string", "enum": ["a"]}),
            (
                Annotated[int, {"minimum": 0, "maximum": 9, "multipleOf": 3}],
                {"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3},
            ),
            (
                Annotated[list[int], {"minItems": 1, "maxItems": 2, "uniqueItems": True}],
                {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
            ),
            (
                Annotated[dict[str, int], {"minProperties": 1, "maxProperties": 2}],
                {
                    "type": "object",
                    "additionalProperties": {"type": "integer"},
                    "minProperties": 1,
                    "maxProperties": 2,
                },
            ),
        ],
        ids=str,
    )
    def test_makes_the_schema_of_each_field(self, hint: Any, schema: dict[str, Any]) -> None:
        assert {
            "type": "object",
            "required": ["it"],
            "additionalProperties": False,
            "properties": {"it": schema},
        } == made(hint).SCHEMA

    @pytest.mark.parametrize(
        ("hint", "default"),
        [
            (str, "a"),
            (str | None, None),
            (None | str, None),
            (Annotated[str | None, {}], None),
            (Annotated[str, {}], "a"),
            (str, field(default="a")),
            (str, field(default_factory=str)),
        ],
    )
    def test_does_not_require_what_has_a_default(self, hint: Any, default: Any) -> None:
        assert made(hint, it=default).SCHEMA == {
            "type": "object",
            "additionalProperties": False,
            "properties": {"it": {"type": "string"}},
        }

    def test_reads_only_what_its_constructor_takes(self) -> None:
        body = made(str, it=field(init=False, default="a"))

        assert body.SCHEMA["properties"] == {}
        assert asdict(body.read({})) == {"it": "a"}

    @pytest.mark.parametrize(
        ("hint", "why"),
        [
            (dt.datetime, "a field cannot be datetime"),
            (Any, "a field cannot be Any"),
            (object, "a field cannot be object"),
            (None, "a field cannot be NoneType"),
            (list, "a field cannot be list"),
            (dict, "a field cannot be dict"),
            (Body, "type object 'Body' has no attribute 'SCHEMA'"),
            (tuple[int, int], "a field cannot be tuple[int, int]"),
            (dict[int, str], "a field cannot be dict[int, str]"),
            (Mapping[str, int], "a field cannot be collections.abc.Mapping[str, int]"),
            (list[1], "a field cannot be 1"),  # type: ignore[valid-type]
            (Sku, "a field cannot be Sku"),
            (Literal["a", 1], "a field cannot be typing.Literal['a', 1]"),
            (Literal[True], "a field cannot be typing.Literal[True]"),
            (list[dt.date], "a field cannot be date"),
            (str | None, "the only union is T | None, and its default is None"),
            (list[str | None], "the only union is T | None, and its default is None"),
            (str | int, "the only union is T | None, and its default is None"),
            ("Unheard", "name 'Unheard' is not defined"),
            ("dt.unheard", "module 'datetime' has no attribute 'unheard'"),
            ("list[", "Forward reference must be an expression -- got 'list['"),
            (Annotated[str, "text"], "'text' is not a dict of JSON Schema keywords"),
            (
                Annotated[str, {"minLenght": 1}],
                "type string takes ['enum', 'format', 'maxLength', 'minLength', 'pattern'], not ['minLenght']",
            ),
            (
                Annotated[bool, {"type": "string", "enum": [True]}],
                "type boolean takes [], not ['type', 'enum']",
            ),
            (
                Annotated[float, {"exclusiveMinimum": 1}],
                "type number takes ['enum', 'maximum', 'minimum', 'multipleOf'], not ['exclusiveMinimum']",
            ),
            (
                Annotated[list[int], {"minLength": 1}],
                "type array takes ['maxItems', 'minItems', 'uniqueItems'], not ['minLength']",
            ),
            (
                Annotated[Item, {"required": []}],
                "type object takes ['maxProperties', 'minProperties'], not ['required']",
            ),
            (Annotated[str, {"format": "uuid"}], "nothing would check the format 'uuid'; a pattern can"),
        ],
        ids=str,
    )
    def test_refuses_any_other_field(self, hint: Any, why: str) -> None:
        with pytest.raises(TypeError) as error:
            made(hint)

        assert str(error.value) == f"Made.it: {why}"

    def test_refuses_a_union_of_several_even_with_none(self) -> None:
        with pytest.raises(TypeError, match=r"^Made\.it: the only union is"):
            made(str | int | None, it=None)

    @pytest.mark.parametrize("default", [[], {}])
    def test_refuses_a_default_that_all_bodies_would_share(self, default: Any) -> None:
        with pytest.raises(TypeError, match=r"^Made: mutable default .* for field it is not allowed"):
            made(list[str], it=default)

    def test_refuses_a_required_field_after_one_with_a_default(self) -> None:
        with pytest.raises(TypeError, match=r"^Late: non-default argument 'second' "):
            type("Late", (Body,), {"__annotations__": {"first": int, "second": int}, "first": 1})

    def test_refuses_a_field_that_would_hide_how_it_is_read(self) -> None:
        with pytest.raises(TypeError, match=r"^Made\.read: every body has something else by this name$"):
            type("Made", (Body,), {"__annotations__": {"read": bool}, "read": True})

    @pytest.mark.parametrize("schema", [{}, {"type": "array"}, {"type": "object"}, {"required": ["it"]}], ids=str)
    def test_refuses_a_schema_of_its_own_that_admits_what_cannot_be_read(self, schema: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=r"^Made\.SCHEMA: its type must be object, and it must require \['it'\]$"):
            made(str, SCHEMA=schema)

    @pytest.mark.parametrize(
        ("properties", "message"),
        [
            ({"it": {}, "more": {}}, "Made.SCHEMA: nobody reads its property 'more'; make it a field, or remove it"),
            ({"more": {}, "it": {}}, "Made.SCHEMA: nobody reads its property 'more'; make it a field, or remove it"),
            ({"item": {}}, "Made.SCHEMA: nobody reads its property 'item'; make it a field, or remove it"),
        ],
        ids=str,
    )
    def test_refuses_a_schema_of_its_own_with_other_properties(self, properties: Any, message: str) -> None:
        with pytest.raises(TypeError, match=rf"^{re.escape(message)}$"):
            made(str, SCHEMA={"type": "object", "required": ["it"], "properties": properties})

    def test_refuses_a_field_that_its_own_schema_does_not_have(self) -> None:
        schema = {"type": "object", "required": ["first"], "properties": {"first": {}}}
        fields = {"__annotations__": {"first": int, "second": int}, "second": 1}

        with pytest.raises(
            TypeError, match=r"^Late\.second: no property of SCHEMA; add it there, or remove the field$"
        ):
            type("Late", (Body,), {**fields, "SCHEMA": schema})

    @pytest.mark.parametrize(
        ("own", "where"),
        [
            ({"properties": {"it": {"type": "sting"}}}, "properties.it"),
            ({"properties": {"it": {"type": ["string", "sting"]}}}, "properties.it"),
            ({"properties": {"it": {"type": "array", "items": {"type": "sting"}}}}, "properties.it.items"),
            ({"properties": {"it": {"anyOf": [{"type": "string"}, {"type": "sting"}]}}}, "properties.it.anyOf"),
            ({"patternProperties": {"^type$": {"type": "sting"}}}, "patternProperties.^type$"),
            ({"additionalProperties": {"type": "sting"}}, "additionalProperties"),
        ],
        ids=str,
    )
    def test_refuses_a_type_that_there_is_not(self, own: dict[str, Any], where: str) -> None:
        with pytest.raises(
            TypeError, match=rf"^Made\.SCHEMA\.{re.escape(where)}: there is no type 'sting'; there are "
        ):
            made(str, SCHEMA={"type": "object", "required": ["it"], **own})

    def test_may_have_a_property_that_is_called_type(self) -> None:
        body: Any = type(
            "Typed",
            (Body,),
            {
                "__annotations__": {"type": str},
                "SCHEMA": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
            },
        )

        assert asdict(body.read({"type": "sting"})) == {"type": "sting"}

    def test_may_have_fields_of_any_type_with_a_schema_of_its_own(self) -> None:
        body = made(Any, SCHEMA={"type": "object", "required": ["it"]})

        assert asdict(body.read({"it": [1, {"a": None}]})) == {"it": [1, {"a": None}]}

    @pytest.mark.parametrize("value", [1, 1.5, "a", None, [1.5], {"a": 1}], ids=str)
    @pytest.mark.parametrize("hint", [int | float | None, str | dict[str, int], dict, list, None], ids=str)
    def test_leaves_unchanged_what_it_does_not_know(self, hint: Any, value: Any) -> None:
        body = made(hint, SCHEMA={"type": "object", "required": ["it"]})

        assert [*vars(body.read({"it": value})).values()] == [value]


class TestRead:
    def test_makes_bodies_of_nested_objects(self) -> None:
        value = {
            "items": [{"sku": "A"}, {"sku": "B", "count": 2}],
            "by": "air",
            "note": "é",
            "stock": {"A": 1},
            "first": {"sku": "C"},
        }

        assert Order.read(value) == Order([Item("A"), Item("B", 2)], "air", "é", {"A": 1}, Item("C"))
        assert Order.read({"items": [{"sku": "A"}]}) == Order([Item("A")])
        assert [*vars(made(dict[str, Item]).read({"it": {"a": {"sku": "A"}}})).values()] == [{"a": Item("A")}]

    @pytest.mark.parametrize("hint", [int, Literal[1], Annotated[int, {"minimum": 1}]], ids=str)
    def test_reads_an_integer_however_it_is_written(self, hint: Any) -> None:
        [value] = vars(made(hint).read({"it": 1.0})).values()

        assert (value, type(value)) == (1, int)

    def test_leaves_a_number_unchanged(self) -> None:
        assert [*vars(made(float).read({"it": 1.5})).values()] == [1.5]

    def test_leaves_out_members_that_are_not_fields(self) -> None:
        assert Open.read({"name": "a", "x-b": "c", "d": 1}) == Open("a")
        assert Open.read({"name": "a", "size": None}) == Open("a", None)
        assert Open.read({"name": "a", "size": 2.0}) == Open("a", 2)
        assert Closed.read({"x-a": 1}) == Closed()

    @pytest.mark.parametrize("value", [None, [], "{}", 1, True], ids=str)
    def test_accepts_only_objects(self, value: Any) -> None:
        assert errors(Order, value) == {"#": "must be object"}
        assert errors(Closed, value) == {"#": "must be object"}

    def test_says_for_each_field_what_is_wrong(self) -> None:
        value = {"items": [{"count": "1"}, {"sku": "A", "p/q": 1, "m~n": 2}, 3], "by": "road", "note": None, "no": 1}

        assert errors(Order, value) == {
            "#/items/0/sku": "is required",
            "#/items/0/count": "must be integer",
            "#/items/1/p~1q": "is not known here",
            "#/items/1/m~0n": "is not known here",
            "#/items/2": "must be object",
            "#/by": "must be one of ['sea', 'air']",
            "#/note": "must be string",
            "#/no": "is not known here",
        }
        assert errors(Order, {}) == {"#/items": "is required"}
        assert errors(Item, {"count": 2}) == {"#/sku": "is required"}

    def test_says_the_first_thing_that_is_wrong_with_a_field(self) -> None:
        body = made(Annotated[str, {"minLength": 2, "pattern": "^b"}])

        assert errors(body, {"it": "a"}) == {"#/it": "must be longer than or equal to 2 characters"}

    def test_knows_members_by_patterns_and_without_properties(self) -> None:
        assert errors(Closed, {"x-a": 1, "y": 2}) == {"#/y": "is not known here"}
        assert errors(Open, {"x-a": 1}) == {"#/name": "is required", "#/x-a": "must be string"}

    @pytest.mark.parametrize(
        "name", ["", ".", "a.b", "a[0]", "[0]", "p/q", "m~n", "~1", "é ü", "a%b", "{a}", '"', "\\"]
    )
    def test_points_at_a_member_of_any_name(self, name: str) -> None:
        class Stocks(Body):
            of: dict[str, dict[str, int]]

        value = {"of": {"a": {}, "a.b": {"c": 1}, name: {name: "wrong"}}}
        [pointer] = errors(Stocks, value)

        assert at(value, pointer) == "wrong"
        assert pointer.isascii()
        assert not set(pointer.removeprefix("#")) & set(' #"<>\\^`{|}')

    def test_tells_names_with_dots_from_paths(self) -> None:
        class Stocks(Body):
            of: dict[str, dict[str, int]]

        assert errors(Stocks, {"of": {"a.b": {}, "a": {"b": "wrong"}}}) == {"#/of/a/b": "must be integer"}
        assert errors(Stocks, {"of": {"a": {"b": 1}, "a.b": "wrong"}}) == {"#/of/a.b": "must be object"}
        assert errors(Stocks, {"of": {"a": "wrong", "a.b": "wrong"}}) == {
            "#/of/a": "must be object",
            "#/of/a.b": "must be object",
        }
        assert errors(Stocks, {"of": {"a": 1, "a[0]": 2}}) == {
            "#/of/a": "must be object",
            "#/of/a%5B0%5D": "must be object",
        }
        assert errors(Stocks, {"of": {"a": {"b": "wrong"}, "b": "wrong"}}) == {
            "#/of/a/b": "must be integer",
            "#/of/b": "must be object",
        }

    def test_is_not_misled_by_names_that_look_like_paths(self) -> None:
        body = made(dict[str, list[int]])

        assert errors(body, {"it": {"a": [], "a[0]": ["wrong"]}}) == {"#/it/a%5B0%5D/0": "must be integer"}
        assert len(errors(body, {"it": {"a": [], f"a[{'9' * 5_000}]": ["wrong"]}})) == 1

    def test_answers_names_that_no_url_can_hold(self) -> None:
        assert [*errors(Item, {"sku": "A", "\ud800": 1})] == ["#/?"]

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("value", "count"),
        [
            ({"items": [0] * 65_000}, 65_000),
            ({"items": [{"sku": "A"}], **{str(number): 0 for number in range(13_000)}}, 13_000),
            ({"items": [{"sku": "A"}], "stock": {"é" * 30_000 + str(number): -1 for number in range(2)}}, 2),
            ({"items": [{"sku": "A"}], "é" * 60_000: 0}, 1),
            ({"items": [{"sku": "A"}], "/" * 120_000: 0}, 1),
        ],
        ids=["items", "members", "long names", "long name", "long escapes"],
    )
    def test_is_brief_about_a_large_body(self, value: Any, count: int) -> None:
        problem = refused(Order, value)

        assert len(problem.extensions["errors"]) == min(count, 20)
        assert f"20 of its {count} errors" in problem.detail or count <= 20
        assert len(str(problem.response().body)) < 10_000

    def test_mentions_no_further_errors_if_there_are_none(self) -> None:
        value = {"items": [{"sku": "A"}], **{str(number): 0 for number in range(20)}}

        assert refused(Order, value).detail == "The body does not match its schema."
        assert refused(Order, {**value, "more": 0}).detail == (
            "The body does not match its schema; 20 of its 21 errors are listed."
        )

    def test_shortens_long_texts(self) -> None:
        body = made(Annotated[str, {"enum": ["a" * 50, "b" * 300]}])
        [detail] = errors(body, {"it": "c"}).values()
        [pointer] = errors(Item, {"sku": "A", "x" * 101: 0})

        assert len(detail) == 200
        assert detail.endswith("bbb…")
        assert unquote(pointer) == f"#/{'x' * 99}…"
        assert [*errors(Item, {"sku": "A", "x" * 100: 0})] == [f"#/{'x' * 100}"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-3, 12).map(float)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.[0]/~", max_size=3), inner, max_size=3),
    max_leaves=4,
)
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text(max_size=3)),
    (Annotated[str, {"minLength": 1, "maxLength": 2}], st.text(max_size=3)),
    (Annotated[str, {"pattern": "^a"}], st.text("ab", max_size=3)),
    (int, st.integers() | st.integers(-3, 3).map(float)),
    (Annotated[int, {"minimum": 0, "maximum": 9, "multipleOf": 3}], st.integers(-3, 12)),
    (float, st.floats(allow_nan=False, allow_infinity=False) | st.integers()),
    (Annotated[float, {"minimum": 0.5}], st.floats(0, 1)),
    (bool, st.booleans()),
    (Literal["a", "b"], st.sampled_from("abc")),
    (Literal[0, 1], st.sampled_from([0, 1, 2, True, False, 1.0])),
]
Typed = tuple[Any, st.SearchStrategy[Any]]


def loose(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly values of a type, and now and then any value."""
    return st.integers(0, 9).flatmap(lambda dice: JSON if dice == 0 else values)


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Types made of others, with values for them."""
    return st.one_of(
        inner.map(lambda typed: (list[typed[0]], st.lists(loose(typed[1]), max_size=3))),  # type: ignore[valid-type]
        inner.map(
            lambda typed: (
                Annotated[list[typed[0]], {"minItems": 1, "maxItems": 2, "uniqueItems": True}],  # type: ignore[valid-type]
                st.lists(loose(typed[1]), max_size=3),
            )
        ),
        inner.map(
            lambda typed: (
                dict[str, typed[0]],  # type: ignore[valid-type]
                st.dictionaries(st.text("ab.[0]/~", max_size=3), loose(typed[1]), max_size=3),
            )
        ),
        bodies_of(inner),
    )


def bodies_of(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Bodies, with values for them: some fields are left out, and other members are added."""

    def made_of(fields: list[tuple[Typed, bool]]) -> Typed:
        # Required fields come first.
        named = {f"f{number}": member for number, member in enumerate(sorted(fields, key=lambda member: not member[1]))}
        hints = {name: hint for name, ((hint, _), _) in named.items()}
        needed = {name: loose(values) for name, ((_, values), is_needed) in named.items() if is_needed}
        rest = {name: loose(values) for name, ((_, values), is_needed) in named.items() if not is_needed}
        defaults = {name: field(default=None) for name in rest}
        body = type("Made", (Body,), {"__annotations__": hints, "__module__": __name__, **defaults})
        right = st.fixed_dictionaries(needed, optional=rest)
        return body, right | right | st.fixed_dictionaries({}, optional={**needed, **rest, "unknown": JSON})

    return st.lists(st.tuples(inner, st.booleans()), max_size=3).map(made_of)


def without_none(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members that were sent."""
    return {name: member for name, member in members if member is not None}


TYPED = st.recursive(st.sampled_from(SCALARS), containers, max_leaves=6)


@pytest.mark.thorough
class TestAnyBody:
    @settings(max_examples=200)
    @given(bodies_of(TYPED), st.data())
    def test_reads_what_its_schema_admits_and_points_at_what_is_wrong(self, typed: Typed, data: st.DataObject) -> None:
        body, values = typed
        value = data.draw(loose(values))

        if jsonschema_rs.Draft202012Validator(body.SCHEMA).is_valid(value):
            assert asdict(body.read(value), dict_factory=without_none) == value
        else:
            for pointer, detail in errors(body, value).items():
                if detail != "is required":
                    at(value, pointer)

    @given(bodies_of(TYPED))
    def test_has_a_schema_that_the_gateway_understands(self, typed: Typed) -> None:
        body, _ = typed

        jsonschema_rs.meta.validate({"$schema": DRAFT_4, **body.SCHEMA})
        json.dumps(body.SCHEMA)
