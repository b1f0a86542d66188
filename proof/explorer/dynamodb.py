"""A model of DynamoDB: its tables and its low-level API in memory, deterministic and fast.

One call is one atomic change. Time is what the caller says it is, index lag and late TTL deletion are explicit, so that
a scheduler can choose them. `test_conformance.py` checks the model against DynamoDB Local.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from botocore.exceptions import ClientError

from proof.explorer import expressions
from proof.explorer.expressions import Invalid, Item, Path, Value, normal, normal_item

Params: TypeAlias = Mapping[str, Any]
Response: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[Any, ...]

ITEM_LIMIT_BYTES = 400 * 1024
TRANSACTION_LIMIT_BYTES = 4 * 1024 * 1024
TRANSACTION_LIMIT_ACTIONS = 100
TOKEN_LIFE_MS = 10 * 60 * 1000


class Refused(Exception):
    """An error answer, before it becomes the SDK's exception."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.extra = extra


@dataclass(frozen=True)
class Index:
    """A global secondary index."""

    hash: str
    range: str | None = None
    projection: str = "KEYS_ONLY"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.hash,) if self.range is None else (self.hash, self.range)


@dataclass
class Table:
    """One table; `stale` keeps each item's previous version, which an index that lags may still show."""

    hash: str
    range: str | None = None
    indexes: Mapping[str, Index] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    items: dict[Key, Item] = field(default_factory=dict)
    stale: dict[Key, Item | None] = field(default_factory=dict)
    digests: dict[Key, int] = field(default_factory=dict)

    @property
    def key_names(self) -> tuple[str, ...]:
        return (self.hash,) if self.range is None else (self.hash, self.range)

    def key_of(self, item: Mapping[str, Value]) -> Key:
        """The primary key in an item, hashable.

        Raises:
            Invalid: a key attribute is missing, of the wrong type or empty.
        """
        return tuple(self._key_part(item, name) for name in self.key_names)

    def check_index_keys(self, item: Item) -> None:
        """Raises Invalid if an index key attribute is there with the wrong type."""
        for index in self.indexes.values():
            for name in index.names:
                if name in item and self.types.get(name, "S") not in item[name]:
                    raise Invalid(f"One or more parameter values were invalid: Type mismatch for Index Key {name}")

    def _key_part(self, item: Mapping[str, Value], name: str) -> Any:
        kind = self.types.get(name, "S")
        if name not in item:
            raise Invalid(f"One or more of the required keys were not given a value: {name}")
        if kind not in item[name]:
            raise Invalid(f"One or more parameter values were invalid: Type mismatch for key {name}")
        if item[name][kind] in ("", b""):
            raise Invalid(f"One or more parameter values are not valid: empty key attribute {name}")
        return normal(item[name])[kind]


@dataclass(frozen=True)
class Change:
    """A write that passed its condition: what the item was and what it becomes (None: absent)."""

    table: str
    key: Key
    before: Item | None
    after: Item | None
    touched: tuple[Path, ...] = ()


class ConditionFailed(Exception):
    """The condition of one write does not hold for the item as it is."""

    def __init__(self, item: Item | None) -> None:
        super().__init__()
        self.item = item


class DynamoDB:
    """The service: `call` carries out one API operation, atomically.

    Args:
        tables: name → table.
        now: the service's clock, epoch milliseconds; only the life of transaction tokens depends on it.
        changed: told of every change of an item, just after it.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        now: Callable[[], int] = lambda: 0,
        changed: Callable[[Change], None] = lambda _: None,
    ) -> None:
        self.tables = dict(tables)
        self.now = now
        self.changed = changed
        # Of all items, in any order; kept up with each change, as a search compares many states.
        self.digest = 0
        self.calls = 0
        self.tokens: dict[str, tuple[int, Any]] = {}

    def call(self, operation: str, params: Params, *, lagging: bool = False) -> Response:
        """Carry out one operation, named as in the API (`UpdateItem`).

        Args:
            operation: its name.
            params: its parameters, as the SDK takes them.
            lagging: a query on an index sees every item as it was before its last write.

        Raises:
            Refused: DynamoDB would answer with an error.
        """
        self.calls += 1
        try:
            if operation == "Query":
                return self._query(params, lagging)
            return OPERATIONS[operation](self, params)
        except Invalid as error:
            raise Refused("ValidationException", str(error)) from None

    def expire(self, table: str, key: Key) -> None:
        """Delete an item as DynamoDB's time-to-live process does, at no cost, whenever it gets to it."""
        self._store(Change(table, key, self.tables[table].items[key], None))

    # Single writes

    def _update_item(self, params: Params) -> Response:
        return self._write(params, self._plan_update)

    def _put_item(self, params: Params) -> Response:
        return self._write(params, self._plan_put)

    def _delete_item(self, params: Params) -> Response:
        return self._write(params, self._plan_delete)

    def _write(self, params: Params, plan: Callable[[Params], Change]) -> Response:
        try:
            change = plan(params)
        except ConditionFailed as failed:
            shown = failed.item if params.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else None
            extra = {"Item": shown} if shown else {}
            raise Refused("ConditionalCheckFailedException", "The conditional request failed", **extra) from None
        self._store(change)
        attributes = _returned(change, params.get("ReturnValues", "NONE"))
        return {"Attributes": attributes} if attributes else {}

    def _plan_update(self, params: Params) -> Change:
        table = self._table(params)
        key = _exact_key(table, params["Key"])
        current = table.items.get(key)
        values = _values(params)
        names = params.get("ExpressionAttributeNames", {})
        parsed = expressions.update(params["UpdateExpression"], names) if "UpdateExpression" in params else None
        self._check_condition(params, current, values, parsed)
        if parsed is None:
            after = current or normal_item(params["Key"])
            return Change(params["TableName"], key, current, after)
        for path in parsed.paths:
            if path[0] in table.key_names:
                raise Invalid(f"Cannot update attribute {path[0]}. This attribute is part of the key")
        after = parsed.apply(current or normal_item(params["Key"]), values)
        table.check_index_keys(after)
        if _item_size(after) > ITEM_LIMIT_BYTES:
            raise Invalid("Item size to update has exceeded the maximum allowed size")
        return Change(params["TableName"], key, current, after, parsed.paths)

    def _plan_put(self, params: Params) -> Change:
        table = self._table(params)
        after = normal_item(params["Item"])
        key = table.key_of(after)
        table.check_index_keys(after)
        if _item_size(after) > ITEM_LIMIT_BYTES:
            raise Invalid("Item size has exceeded the maximum allowed size")
        current = table.items.get(key)
        self._check_condition(params, current, _values(params))
        return Change(params["TableName"], key, current, after)

    def _plan_delete(self, params: Params) -> Change:
        table = self._table(params)
        key = _exact_key(table, params["Key"])
        current = table.items.get(key)
        self._check_condition(params, current, _values(params))
        return Change(params["TableName"], key, current, None)

    def _plan_check(self, params: Params) -> Change:
        table = self._table(params)
        key = _exact_key(table, params["Key"])
        current = table.items.get(key)
        self._check_condition(params, current, _values(params))
        return Change(params["TableName"], key, current, current)

    def _check_condition(
        self,
        params: Params,
        current: Item | None,
        values: Mapping[str, Value],
        *others: expressions.Compiled | None,
    ) -> None:
        names = params.get("ExpressionAttributeNames", {})
        parsed = None
        if "ConditionExpression" in params:
            parsed = expressions.condition(params["ConditionExpression"], names)
        _refuse_unused(names, values, parsed, *others)
        if parsed and not parsed.holds(current or {}, values):
            raise ConditionFailed(current)

    def _store(self, change: Change) -> None:
        table = self.tables[change.table]
        if table.indexes:
            table.stale[change.key] = change.before
        if change.after is None:
            table.items.pop(change.key, None)
        else:
            table.items[change.key] = change.after
        if change.before != change.after:
            digests = self.tables[change.table].digests
            new = 0 if change.after is None else hash((change.table, change.key, repr(change.after)))
            self.digest ^= digests.pop(change.key, 0) ^ new
            digests[change.key] = new
            self.changed(change)

    def _projected(self, item: Item | None, table: str, index: Index) -> Item | None:
        """The index entry of an item, or None if it has none (a sparse index)."""
        if item is None or any(name not in item for name in index.names):
            return None
        if index.projection == "ALL":
            return item
        kept = {*self.tables[table].key_names, *index.names}
        return {name: value for name, value in item.items() if name in kept}

    # Transactions and batches

    def _transact_write_items(self, params: Params) -> Response:
        actions = [next(iter(action.items())) for action in params["TransactItems"]]
        token = params.get("ClientRequestToken")
        if token and self._already_done(token, params):
            return {}
        if len(actions) > TRANSACTION_LIMIT_ACTIONS:
            raise Invalid("Member must have length less than or equal to 100")
        changes, reasons = self._plan_all(actions)
        if any(reason["Code"] != "None" for reason in reasons):
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise Refused("TransactionCanceledException", message, CancellationReasons=reasons)
        for change in changes:
            self._store(change)
        if token:
            self.tokens[token] = (self.now() + TOKEN_LIFE_MS, _without_token(params))
        return {}

    def _already_done(self, token: str, params: Params) -> bool:
        expiry, seen = self.tokens.get(token, (0, None))
        if expiry <= self.now():
            return False
        if seen != _without_token(params):
            raise Refused("IdempotentParameterMismatchException", "The token was used with other parameters")
        return True

    def _plan_all(self, actions: list[tuple[str, Params]]) -> tuple[list[Change], list[dict[str, Any]]]:
        plans = {
            "Update": self._plan_update,
            "Put": self._plan_put,
            "Delete": self._plan_delete,
            "ConditionCheck": self._plan_check,
        }
        touched = [(action["TableName"], self._key(kind, action)) for kind, action in actions]
        if len(set(touched)) < len(touched):
            raise Invalid("Transaction request cannot include multiple operations on one item")
        changes: list[Change] = []
        reasons: list[dict[str, Any]] = []
        for kind, action in actions:
            try:
                changes.append(plans[kind](action))
                reasons.append({"Code": "None"})
            except ConditionFailed as failed:
                reason: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
                if failed.item and action.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                    reason["Item"] = failed.item
                reasons.append(reason)
        if sum(_item_size(change.after or {}) for change in changes) > TRANSACTION_LIMIT_BYTES:
            raise Invalid("Collection size exceeded: a transaction holds at most 4 MB")
        return changes, reasons

    def _key(self, kind: str, action: Params) -> Key:
        table = self._table(action)
        return table.key_of(action["Item"]) if kind == "Put" else _exact_key(table, action["Key"])

    def _batch_write_item(self, params: Params) -> Response:
        requests = [
            ("Put" if "PutRequest" in request else "Delete", {"TableName": name, **next(iter(request.values()))})
            for name, requests in params["RequestItems"].items()
            for request in requests
        ]
        if not 1 <= len(requests) <= 25:
            raise Invalid("Member must have length less than or equal to 25, and at least 1")
        touched = [(request["TableName"], self._key(kind, request)) for kind, request in requests]
        if len(set(touched)) < len(touched):
            raise Invalid("Provided list of item keys contains duplicates")
        changes = [(self._plan_put if kind == "Put" else self._plan_delete)(request) for kind, request in requests]
        for change in changes:
            self._store(change)
        return {"UnprocessedItems": {}}

    # Reads

    def _get_item(self, params: Params) -> Response:
        table = self._table(params)
        item = table.items.get(_exact_key(table, params["Key"]))
        return {"Item": _projection(params)(item)} if item else {}

    def _batch_get_item(self, params: Params) -> Response:
        responses: dict[str, list[Item]] = {}
        for name, keys_and_more in params["RequestItems"].items():
            request = {"TableName": name, **keys_and_more}
            table = self._table(request)
            keys = [_exact_key(table, key) for key in request["Keys"]]
            if len(set(keys)) < len(keys):
                raise Invalid("Provided list of item keys contains duplicates")
            found = [table.items.get(key) for key in keys]
            responses[name] = [_projection(request)(item) for item in found if item]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def _query(self, params: Params, lagging: bool) -> Response:
        table = self._table(params)
        values = _values(params)
        names = params.get("ExpressionAttributeNames", {})
        parsed = expressions.condition(params["KeyConditionExpression"], names)
        chosen = None
        if "FilterExpression" in params:
            chosen = expressions.condition(params["FilterExpression"], names)
        shown = _compiled_projection(params)
        _refuse_unused(names, values, parsed, chosen, shown)
        entries = self._entries(table, params, lagging)
        page = [item for item in entries if parsed.holds(item, values)]
        if not params.get("ScanIndexForward", True):
            page.reverse()
        page = _after(table, page, params.get("ExclusiveStartKey"))
        limit = params.get("Limit")
        more = limit is not None and len(page) >= limit
        page = page[:limit]
        kept = [item for item in page if chosen is None or chosen.holds(item, values)]
        response: Response = {"Items": [expressions.project(item, shown.paths) if shown else item for item in kept]}
        response |= {"Count": len(kept), "ScannedCount": len(page)}
        if more and page:
            response["LastEvaluatedKey"] = self._position(table, params, page[-1])
        return response

    def _entries(self, table: Table, params: Params, lagging: bool) -> list[Item]:
        """What a query may see, in the order of its range key."""
        items: Iterable[Item] = table.items.values()
        name = params.get("IndexName")
        if name is None:
            return sorted(items, key=_by(table.range))
        if name not in table.indexes:
            raise Invalid(f"The table does not have the specified index: {name}")
        if params.get("ConsistentRead"):
            raise Invalid("Consistent reads are not supported on global secondary indexes")
        if lagging:
            items = [item for item in ({**table.items, **table.stale}).values() if item is not None]
        index = table.indexes[name]
        projected = (self._projected(item, params["TableName"], index) for item in items)
        return sorted((entry for entry in projected if entry is not None), key=_by(index.range))

    def _position(self, table: Table, params: Params, item: Item) -> Item:
        names = {*table.key_names}
        if "IndexName" in params:
            names |= {*table.indexes[params["IndexName"]].names}
        return {name: item[name] for name in names}

    def _table(self, params: Params) -> Table:
        try:
            return self.tables[params["TableName"]]
        except KeyError:
            raise Refused("ResourceNotFoundException", "Cannot do operations on a non-existent table") from None


OPERATIONS: dict[str, Callable[[DynamoDB, Params], Response]] = {
    "UpdateItem": DynamoDB._update_item,
    "PutItem": DynamoDB._put_item,
    "DeleteItem": DynamoDB._delete_item,
    "GetItem": DynamoDB._get_item,
    "TransactWriteItems": DynamoDB._transact_write_items,
    "BatchWriteItem": DynamoDB._batch_write_item,
    "BatchGetItem": DynamoDB._batch_get_item,
}


def error(refused: Refused, operation: str) -> ClientError:
    """The SDK's exception for an error answer."""
    response = {
        "Error": {"Code": refused.code, "Message": refused.message},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RetryAttempts": 0},
        "Message": refused.message,
        **refused.extra,
    }
    return ERRORS.get(refused.code, ClientError)(response, operation)  # type: ignore[arg-type]  # a TypedDict without Item


ERRORS: dict[str, type[ClientError]] = {
    code: type(code, (ClientError,), {})
    for code in (
        "ConditionalCheckFailedException",
        "IdempotentParameterMismatchException",
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ResourceNotFoundException",
        "ThrottlingException",
        "TransactionCanceledException",
        "TransactionConflictException",
        "TransactionInProgressException",
    )
}


def _exact_key(table: Table, key: Mapping[str, Value]) -> Key:
    if key.keys() != set(table.key_names):
        raise Invalid("The provided key element does not match the schema")
    return table.key_of(key)


def _values(params: Params) -> dict[str, Value]:
    return normal_item(params.get("ExpressionAttributeValues", {}))


def _refuse_unused(names: Mapping[str, str], values: Mapping[str, Value], *used: expressions.Compiled | None) -> None:
    """DynamoDB refuses placeholders that no expression uses, and values that are used but not given."""
    parsed = [each for each in used if each is not None]
    used_values = frozenset[str]().union(*(each.values for each in parsed))
    if used_values != values.keys():
        raise Invalid(f"Expression attribute values unused or not defined: {sorted(used_values ^ values.keys())}")
    unused = names.keys() - frozenset[str]().union(*(each.names for each in parsed))
    if unused:
        raise Invalid(f"Value provided in ExpressionAttributeNames unused in expressions: keys: {sorted(unused)}")


def _compiled_projection(params: Params) -> expressions.CompiledProjection | None:
    if "ProjectionExpression" not in params:
        return None
    return expressions.projection(params["ProjectionExpression"], params.get("ExpressionAttributeNames", {}))


def _projection(params: Params) -> Callable[[Item], Item]:
    parsed = _compiled_projection(params)
    _refuse_unused(params.get("ExpressionAttributeNames", {}), {}, parsed)
    return lambda item: expressions.project(item, parsed.paths) if parsed else item


def _returned(change: Change, wanted: str) -> Item | None:
    item = change.before if wanted.endswith("OLD") else change.after
    if item is None or wanted == "NONE":
        return None
    if wanted.startswith("ALL"):
        return item
    # DynamoDB Local shows the whole attribute around a nested path.
    return expressions.project(item, [path[:1] for path in change.touched if expressions.lookup(item, path)])


def _without_token(params: Params) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "ClientRequestToken"}


def _by(name: str | None) -> Callable[[Item], Any]:
    def order(item: Item) -> Any:
        if name is None:
            return 0
        ((kind, content),) = item[name].items()
        return float(content) if kind == "N" else content

    return order


def _after(table: Table, page: list[Item], start: Item | None) -> list[Item]:
    if start is None:
        return page
    wanted = table.key_of(start)
    positions = [position for position, item in enumerate(page) if table.key_of(item) == wanted]
    return page[positions[0] + 1 :] if positions else page


def _item_size(item: Item) -> int:
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Value) -> int:
    ((kind, content),) = value.items()
    return SIZES[kind](content)


def _list_size(elements: list[Value]) -> int:
    return 3 + sum(1 + _value_size(element) for element in elements)


def _number_size(text: str) -> int:
    return 1 + math.ceil(len(text.strip("-0.").replace(".", "")) / 2)


SIZES: dict[str, Callable[[Any], int]] = {
    "S": lambda text: len(text.encode()),
    "N": _number_size,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "L": _list_size,
    "M": lambda members: 3 + len(members) + _item_size(members),
    "SS": lambda elements: sum(len(element.encode()) for element in elements),
    "NS": lambda elements: sum(_number_size(element) for element in elements),
    "BS": lambda elements: sum(len(element) for element in elements),
}
"""Bytes of a value, by type: developer guide, "DynamoDB item sizes and formats"."""
