"""DynamoDB's expressions, compiled once into functions over items in wire format (`{"name": {"S": "…"}}`).

Items and values are never changed in place: an update returns a new item that shares what it left alone.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from itertools import combinations
from typing import Any, NoReturn, TypeAlias, TypeVar

Value: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, Value]
Values: TypeAlias = Mapping[str, Value]
Path: TypeAlias = tuple[str | int, ...]
Operand: TypeAlias = Callable[[Item, Values], Value | None]
Condition: TypeAlias = Callable[[Item, Values], bool]
T = TypeVar("T")

DIGITS = 38
ARITHMETIC = Context(prec=4 * DIGITS)
SETS = ("SS", "NS", "BS")
ORDERED = ("S", "N", "B")
COMPARATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TOKEN = re.compile(r"\s*(?:(?P<word>[:#]?[A-Za-z0-9_]+)|(?P<sign><>|<=|>=|[=<>+\-(),.\[\]]))")


class Invalid(Exception):
    """What DynamoDB answers with a ValidationException."""


@dataclass(frozen=True)
class Compiled:
    """What every compiled expression has: the placeholders it uses, so that unused ones can be refused."""

    names: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True)
class CompiledCondition(Compiled):
    holds: Condition


@dataclass(frozen=True)
class CompiledProjection(Compiled):
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Clause:
    """One action of an update expression; `REMOVE` has no operand."""

    verb: str
    path: Path
    operand: Operand | None = None


@dataclass(frozen=True)
class CompiledUpdate(Compiled):
    clauses: tuple[Clause, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(clause.path for clause in self.clauses)

    def apply(self, item: Item, values: Values) -> Item:
        """The item after the update; every operand sees the item as it was before.

        Raises:
            Invalid: a path or an operand does not fit the item.
        """
        operands = [clause.operand and _required(clause.operand(item, values)) for clause in self.clauses]
        updated = item
        removals = []
        for clause, operand in zip(self.clauses, operands, strict=True):
            if operand is None:
                removals.append(clause.path)
            elif clause.verb == "SET":
                updated = _put(updated, clause.path, operand)
            elif clause.verb == "ADD":
                updated = _put(updated, clause.path, _added(lookup(item, clause.path), operand))
            else:
                updated = _without_elements(updated, clause.path, operand)
        # From the last list index to the first: positions are those of the item before the update.
        for path in sorted(removals, key=lambda path: [(isinstance(step, int), step) for step in path], reverse=True):
            updated = _removed(updated, path)
        return updated


def condition(expression: str, names: Mapping[str, str]) -> CompiledCondition:
    """A condition, key condition or filter expression."""
    return _condition(expression, frozenset(names.items()))


def update(expression: str, names: Mapping[str, str]) -> CompiledUpdate:
    """An update expression."""
    return _update(expression, frozenset(names.items()))


def projection(expression: str, names: Mapping[str, str]) -> CompiledProjection:
    """A projection expression."""
    return _projection(expression, frozenset(names.items()))


def normal(value: Value) -> Value:
    """The value as DynamoDB gives it back, so that equal values are equal objects: numbers trimmed, sets sorted."""
    ((kind, content),) = value.items()
    return {kind: NORMAL[kind](content)} if kind in NORMAL else value


def normal_item(item: Mapping[str, Value]) -> Item:
    return {name: normal(value) for name, value in item.items()}


def lookup(item: Item, path: Path) -> Value | None:
    """The value at a document path, or None."""
    value: Value | None = item.get(path[0])  # type: ignore[arg-type]  # a path starts with a name
    for step in path[1:]:
        if value is None:
            return None
        if isinstance(step, int):
            elements = value.get("L", ())
            value = elements[step] if step < len(elements) else None
        else:
            value = value.get("M", {}).get(step)
    return value


def project(item: Item, paths: Iterable[Path]) -> Item:
    """The parts of an item at the given paths, nested as in the item; list elements close up."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        if lookup(item, path) is not None:
            node = tree
            for step in path:
                node = node.setdefault(step, {})
    return {str(name): _pruned(item[str(name)], branch) for name, branch in tree.items()}


def _pruned(value: Value, branch: dict[str | int, Any]) -> Value:
    if not branch:
        return value
    if "L" in value:
        return {"L": [_pruned(value["L"][index], branch[index]) for index in sorted(branch)]}
    return {"M": {name: _pruned(value["M"][name], inner) for name, inner in branch.items()}}


@lru_cache(maxsize=4096)
def _condition(expression: str, names: frozenset[tuple[str, str]]) -> CompiledCondition:
    parser = _Parser(expression, dict(names))
    holds = parser.whole(parser.disjunction)
    return CompiledCondition(frozenset(parser.used_names), frozenset(parser.used_values), holds)


@lru_cache(maxsize=4096)
def _update(expression: str, names: frozenset[tuple[str, str]]) -> CompiledUpdate:
    parser = _Parser(expression, dict(names))
    clauses = parser.whole(parser.update)
    _refuse_overlap([clause.path for clause in clauses])
    return CompiledUpdate(frozenset(parser.used_names), frozenset(parser.used_values), tuple(clauses))


@lru_cache(maxsize=4096)
def _projection(expression: str, names: frozenset[tuple[str, str]]) -> CompiledProjection:
    parser = _Parser(expression, dict(names))
    paths = parser.whole(lambda: parser.separated(parser.path))
    _refuse_overlap(paths)
    return CompiledProjection(frozenset(parser.used_names), frozenset(parser.used_values), tuple(paths))


def _refuse_overlap(paths: list[Path]) -> None:
    for one, other in combinations(paths, 2):
        shared = min(len(one), len(other))
        if one[:shared] == other[:shared]:
            raise Invalid("Two document paths overlap with each other")
        if any(isinstance(a, int) != isinstance(b, int) for a, b in _first_difference(one, other)):
            raise Invalid("Two document paths conflict with each other")


def _first_difference(one: Path, other: Path) -> list[tuple[str | int, str | int]]:
    return [(a, b) for a, b in zip(one, other, strict=False) if a != b][:1]


class _Parser:
    """Recursive descent over the tokens of one expression; each rule returns a closure."""

    def __init__(self, expression: str, names: Mapping[str, str]) -> None:
        self.tokens = _tokens(expression)
        self.position = 0
        self.names = names
        self.used_names: set[str] = set()
        self.used_values: set[str] = set()

    def whole(self, rule: Callable[[], T]) -> T:
        parsed = rule()
        if self.peek():
            self.refuse()
        return parsed

    def peek(self) -> str:
        return self.tokens[self.position]

    def next(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1]

    def accept(self, *wanted: str) -> str | None:
        return self.next() if self.peek().upper() in wanted else None

    def expect(self, wanted: str) -> None:
        if not self.accept(wanted):
            self.refuse()

    def refuse(self) -> NoReturn:
        raise Invalid(f'Syntax error; token: "{self.peek() or "<EOF>"}"')

    def separated(self, rule: Callable[[], T]) -> list[T]:
        parsed = [rule()]
        while self.accept(","):
            parsed.append(rule())
        return parsed

    # Conditions

    def disjunction(self) -> Condition:
        return self._joined("OR", self._conjunction, any)

    def _conjunction(self) -> Condition:
        return self._joined("AND", self._negation, all)

    def _joined(
        self, word: str, rule: Callable[[], Condition], quantifier: Callable[[Iterable[bool]], bool]
    ) -> Condition:
        parts = [rule()]
        while self.accept(word):
            parts.append(rule())
        if len(parts) == 1:
            return parts[0]
        return lambda item, values: quantifier(part(item, values) for part in parts)

    def _negation(self) -> Condition:
        if self.accept("NOT"):
            inner = self._negation()
            return lambda item, values: not inner(item, values)
        return self._primary()

    def _primary(self) -> Condition:
        if self.accept("("):
            inner = self.disjunction()
            self.expect(")")
            return inner
        if self.tokens[self.position + 1 : self.position + 2] == ["("] and self.peek() != "size":
            return self._function()
        return self._comparison()

    def _function(self) -> Condition:
        name = self.next()
        self.expect("(")
        if name in ("attribute_exists", "attribute_not_exists"):
            path = self.path()
            self.expect(")")
            wanted = name == "attribute_exists"
            return lambda item, _values: (lookup(item, path) is not None) is wanted
        functions = {"begins_with": _begins_with, "contains": _contains, "attribute_type": _has_type}
        if name not in functions:
            raise Invalid(f"Invalid function name; function: {name}")
        left = self._operand()
        self.expect(",")
        right = self._operand()
        self.expect(")")
        return _binary(functions[name], left, right)

    def _comparison(self) -> Condition:
        left = self._operand()
        if self.accept("BETWEEN"):
            low = self._operand()
            self.expect("AND")
            high = self._operand()
            at_least, at_most = _binary(_ordering(">="), left, low), _binary(_ordering("<="), left, high)
            return lambda item, values: at_least(item, values) and at_most(item, values)
        if self.accept("IN"):
            self.expect("(")
            equals = [_binary(operator.eq, left, choice) for choice in self.separated(self._operand)]
            self.expect(")")
            return lambda item, values: any(equal(item, values) for equal in equals)
        sign = self.next()
        if sign == "=":
            return _binary(operator.eq, left, self._operand())
        if sign == "<>":
            right = self._operand()
            equal = _binary(operator.eq, left, right)
            return lambda item, values: not equal(item, values)
        if sign in COMPARATORS:
            return _binary(_ordering(sign), left, self._operand())
        self.position -= 1
        return self.refuse()

    def _operand(self) -> Operand:
        if self.peek() == "size":
            self.next()
            self.expect("(")
            measured = self.path()
            self.expect(")")
            return lambda item, _values: _size(lookup(item, measured))
        return self._value_or_path()

    def _value_or_path(self) -> Operand:
        if self.peek().startswith(":"):
            return self._placeholder()
        path = self.path()
        if len(path) == 1:
            name = path[0]
            return lambda item, _values: item.get(name)  # type: ignore[arg-type]  # a path starts with a name
        return lambda item, _values: lookup(item, path)

    def _placeholder(self) -> Operand:
        name = self.next()
        self.used_values.add(name)
        return lambda _item, values: values[name]

    def path(self) -> Path:
        steps: list[str | int] = [self._name()]
        while sign := self.accept(".", "["):
            if sign == ".":
                steps.append(self._name())
            else:
                if not self.peek().isdecimal():
                    self.refuse()
                steps.append(int(self.next()))
                self.expect("]")
        return tuple(steps)

    def _name(self) -> str:
        word = self.peek()
        if word.startswith("#"):
            self.used_names.add(word)
            if word not in self.names:
                raise Invalid(f"An expression attribute name used in the document path is not defined: {word}")
            return self.names[self.next()]
        if not (word[:1].isalpha() or word[:1] == "_"):
            self.refuse()
        return self.next()

    # Updates

    def update(self) -> list[Clause]:
        clauses: list[Clause] = []
        verbs: set[str] = set()
        while verb := self.accept("SET", "REMOVE", "ADD", "DELETE"):
            verb = verb.upper()
            if verb in verbs:
                raise Invalid(f'The "{verb}" section can only be used once in an update expression')
            verbs.add(verb)
            clauses += self.separated({"SET": self._assignment, "REMOVE": self._removal}.get(verb, self._change(verb)))
        return clauses or self.refuse()

    def _assignment(self) -> Clause:
        path = self.path()
        self.expect("=")
        left = self._term()
        if sign := self.accept("+", "-"):
            return Clause("SET", path, _sum(left, self._term(), sign))
        return Clause("SET", path, left)

    def _removal(self) -> Clause:
        return Clause("REMOVE", self.path())

    def _change(self, verb: str) -> Callable[[], Clause]:
        def rule() -> Clause:
            path = self.path()
            if not self.peek().startswith(":"):
                self.refuse()
            return Clause(verb, path, self._placeholder())

        return rule

    def _term(self) -> Operand:
        if self.tokens[self.position + 1 : self.position + 2] != ["("]:
            return self._value_or_path()
        function = self.next()
        self.expect("(")
        if function == "if_not_exists":
            path = self.path()
            self.expect(",")
            fallback = self._term()
            self.expect(")")
            return lambda item, values: lookup(item, path) or fallback(item, values)
        if function == "list_append":
            head = self._term()
            self.expect(",")
            tail = self._term()
            self.expect(")")
            return lambda item, values: {
                "L": [*_content(head(item, values), "L"), *_content(tail(item, values), "L")],
            }
        raise Invalid(f"Invalid function name; function: {function}")


def _tokens(expression: str) -> list[str]:
    """The tokens, with an empty one at the end."""
    tokens = []
    position = 0
    end = len(expression.rstrip())
    while position < end:
        match = TOKEN.match(expression, position)
        if match is None:
            raise Invalid(f'Syntax error; token: "{expression[position:].strip()[0]}"')
        tokens.append(match["word"] or match["sign"])
        position = match.end()
    return [*tokens, ""]


def _binary(function: Callable[[Value, Value], bool], left: Operand, right: Operand) -> Condition:
    """A test of two operands that fails if either is missing."""

    def holds(item: Item, values: Values) -> bool:
        one, other = left(item, values), right(item, values)
        return one is not None and other is not None and function(one, other)

    return holds


def _ordering(sign: str) -> Callable[[Value, Value], bool]:
    compare = COMPARATORS[sign]

    def holds(one: Value, other: Value) -> bool:
        ((kind, content),) = one.items()
        if kind not in ORDERED or kind not in other:
            return False
        if kind == "N":
            return compare(Decimal(content), Decimal(other["N"]))
        return compare(content, other[kind])

    return holds


def _begins_with(value: Value, prefix: Value) -> bool:
    return any(kind in value and kind in prefix and value[kind].startswith(prefix[kind]) for kind in ("S", "B"))


def _contains(value: Value, wanted: Value) -> bool:
    ((kind, content),) = value.items()
    if kind in SETS:
        return kind[0] in wanted and wanted[kind[0]] in content
    if kind == "L":
        return wanted in content
    return kind in ("S", "B") and kind in wanted and wanted[kind] in content


def _has_type(value: Value, kind: Value) -> bool:
    return kind.get("S") in value


def _size(value: Value | None) -> Value | None:
    if value is None or {"N", "BOOL", "NULL"} & value.keys():
        return None
    (content,) = value.values()
    return {"N": str(len(content))}


def _sum(left: Operand, right: Operand, sign: str) -> Operand:
    def operand(item: Item, values: Values) -> Value:
        one = Decimal(_content(left(item, values), "N"))
        other = Decimal(_content(right(item, values), "N"))
        return {"N": _number(str(ARITHMETIC.add(one, other if sign == "+" else -other)))}

    return operand


def _content(value: Value | None, kind: str) -> Any:
    value = _required(value)
    if kind not in value:
        raise Invalid("An operand in the update expression has an incorrect data type")
    return value[kind]


def _required(value: Value | None) -> Value:
    if value is None:
        raise Invalid("The provided expression refers to an attribute that does not exist in the item")
    return value


def _added(current: Value | None, operand: Value) -> Value:
    ((kind, content),) = operand.items()
    if kind != "N" and kind not in SETS:
        raise Invalid(f"Incorrect operand type for operator or function; operator: ADD, operand type: {kind}")
    if current is None:
        return operand
    present = _content(current, kind)
    if kind == "N":
        return {"N": _number(str(ARITHMETIC.add(Decimal(present), Decimal(content))))}
    return {kind: sorted({*present, *content})}


def _without_elements(item: Item, path: Path, operand: Value) -> Item:
    ((kind, content),) = operand.items()
    if kind not in SETS:
        raise Invalid(f"Incorrect operand type for operator or function; operator: DELETE, operand type: {kind}")
    current = lookup(item, path)
    if current is None:
        return item
    kept = [element for element in _content(current, kind) if element not in content]
    return _put(item, path, {kind: kept}) if kept else _removed(item, path)


def _put(item: Item, path: Path, value: Value) -> Item:
    """A copy of the item with a value at a path whose parent exists; past a list's end, it is appended."""
    name, rest = str(path[0]), path[1:]
    return {**item, name: _put_inside(item.get(name), rest, value) if rest else value}


def _put_inside(parent: Value | None, path: Path, value: Value) -> Value:
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        elements = list(_container(parent, "L"))
        inner = elements[step] if step < len(elements) else None
        elements[step : step + 1] = [_put_inside(inner, rest, value) if rest else value]
        return {"L": elements}
    members = _container(parent, "M")
    return {"M": {**members, step: _put_inside(members.get(step), rest, value) if rest else value}}


def _removed(item: Item, path: Path) -> Item:
    """A copy of the item without the value at a path; a missing last step is no error, a missing parent is."""
    name, rest = str(path[0]), path[1:]
    if rest:
        return {**item, name: _removed_inside(item.get(name), rest)}
    return {key: value for key, value in item.items() if key != name}


def _removed_inside(parent: Value | None, path: Path) -> Value:
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        elements = list(_container(parent, "L"))
        if rest:
            inner = elements[step] if step < len(elements) else None
            elements[step : step + 1] = [_removed_inside(inner, rest)]
        else:
            del elements[step : step + 1]
        return {"L": elements}
    members = _container(parent, "M")
    if rest:
        return {"M": {**members, step: _removed_inside(members.get(step), rest)}}
    return {"M": {key: value for key, value in members.items() if key != step}}


def _container(parent: Value | None, kind: str) -> Any:
    if parent is None or kind not in parent:
        raise Invalid("The document path provided in the update expression is invalid for update")
    return parent[kind]


def _number(text: str) -> str:
    """Canonical text of a number, which DynamoDB keeps with up to 38 significant digits."""
    if len(text) <= DIGITS and text.isdecimal() and text[0] != "0":
        return text
    number = Decimal(text).normalize(ARITHMETIC)
    if len(number.as_tuple().digits) > DIGITS:
        raise Invalid("Attempting to store more than 38 significant digits in a Number")
    return format(number, "f") if number else "0"


def _set(kind: str, elements: list[Any]) -> list[Any]:
    distinct = set(elements)
    if not elements or len(distinct) != len(elements):
        raise Invalid(f"One or more parameter values were invalid: {kind} is empty or holds duplicates")
    return sorted(distinct)


NORMAL: dict[str, Callable[[Any], Any]] = {
    "N": _number,
    "B": bytes,
    "L": lambda elements: [normal(element) for element in elements],
    "M": normal_item,
    "SS": lambda elements: _set("SS", elements),
    "NS": lambda elements: _set("NS", [_number(element) for element in elements]),
    "BS": lambda elements: _set("BS", [bytes(element) for element in elements]),
}
