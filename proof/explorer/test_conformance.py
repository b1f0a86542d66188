"""The model of DynamoDB answers as DynamoDB Local does: the same calls on both, then the same tables."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from proof.explorer import dynamodb
from proof.explorer.dynamodb import DynamoDB, Index, Refused, Table
from proof.explorer.expressions import normal_item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.integration

Call = tuple[str, dict[str, Any]]
METHODS = {
    "UpdateItem": "update_item",
    "PutItem": "put_item",
    "DeleteItem": "delete_item",
    "GetItem": "get_item",
    "Query": "query",
    "TransactWriteItems": "transact_write_items",
    "BatchWriteItem": "batch_write_item",
    "BatchGetItem": "batch_get_item",
}
UNCOMPARED = ("ResponseMetadata", "ConsumedCapacity")
A, B = {"id": {"S": "a"}}, {"id": {"S": "b"}}


class Pair:
    """DynamoDB Local and the model, given the same calls."""

    def __init__(self, client: DynamoDBClient) -> None:
        self.client = client
        index = Index("piece", "due")
        table = Table("id", indexes={"recovery": index}, types={"due": "N"})
        self.model = DynamoDB({"records": table})
        client.create_table(
            TableName="records",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "id", "AttributeType": "S"},
                {"AttributeName": "piece", "AttributeType": "S"},
                {"AttributeName": "due", "AttributeType": "N"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "recovery",
                    "KeySchema": [
                        {"AttributeName": "piece", "KeyType": "HASH"},
                        {"AttributeName": "due", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
        )

    def compare(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Make one call on both; returns their common answer."""
        expected = self._real(operation, params)
        assert self._modelled(operation, params) == expected, (operation, params)
        assert self._everything() == {
            item["id"]["S"]: _normal(item) for item in self.client.scan(TableName="records")["Items"]
        }, (operation, params)
        return expected

    def _everything(self) -> dict[str, Any]:
        return {key[0]: item for key, item in self.model.tables["records"].items.items()}

    def _real(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            response = getattr(self.client, METHODS[operation])(**params)
        except ClientError as error:
            return _comparable(error)
        # DynamoDB Local tells the capacity of a deletion that found nothing, asked or not.
        return {name: _normal(value) for name, value in response.items() if name not in UNCOMPARED}

    def _modelled(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return {name: _normal(value) for name, value in self.model.call(operation, params).items()}
        except Refused as refused:
            return _comparable(dynamodb.error(refused, operation))


def _comparable(error: ClientError) -> dict[str, Any]:
    """An error without its wording: DynamoDB Local's own differs from the service's."""
    assert "reserved keyword" not in str(error), "the test's own mistake"
    response: dict[str, Any] = dict(error.response)
    reasons = [_reason(reason) for reason in response.get("CancellationReasons", [])]
    return {"Code": response["Error"]["Code"], "Item": _normal(response.get("Item")), "Reasons": reasons}


def _reason(reason: dict[str, Any]) -> dict[str, Any]:
    return {"Code": reason["Code"], "Item": _normal(reason.get("Item"))}


def _normal(value: Any) -> Any:
    """A value in which sets and numbers have one spelling."""
    if isinstance(value, list):
        return [_normal(element) for element in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)) in ("N", "SS", "NS", "BS"):
        return normal_item({"": value})[""]
    return {name: _normal(inside) for name, inside in value.items()}


@pytest.fixture
def pair(dynamodb_client: DynamoDBClient) -> Iterator[Pair]:
    yield Pair(dynamodb_client)
    dynamodb_client.delete_table(TableName="records")


def _update(expression: str, condition: str | None = None, key: dict[str, Any] = A, **values: Any) -> Call:
    names = {f"#{name}": name for name in ("status", "owner") if f"#{name}" in f"{expression} {condition}"}
    return "UpdateItem", {
        "TableName": "records",
        "Key": key,
        "UpdateExpression": expression,
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **({"ConditionExpression": condition} if condition else {}),
        **({"ExpressionAttributeNames": names} if names else {}),
        **({"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}),
    }


def _put(item: dict[str, Any], condition: str | None = None, **values: Any) -> dict[str, Any]:
    return {
        "TableName": "records",
        "Item": item,
        **({"ConditionExpression": condition} if condition else {}),
        **({"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}),
        **({"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if condition else {}),
    }


ITEM = {
    **A,
    "status": {"S": "PROCESSING"},
    "n": {"N": "7"},
    "prose": {"S": "häßlich"},
    "bytes": {"B": b"\x00\xff"},
    "yes": {"BOOL": True},
    "nothing": {"NULL": True},
    "chain": {"L": [{"N": "1"}, {"S": "two"}, {"M": {"three": {"N": "3"}}}]},
    "tree": {"M": {"inside": {"M": {"deep": {"S": "x"}}}, "n": {"N": "1"}}},
    "words": {"SS": ["one", "two"]},
    "numbers": {"NS": ["1", "2.5"]},
}
UPDATES: dict[str, Call] = {
    "new item": _update("SET n = :n", key=B, n={"N": "1"}),
    "item of a key only": _update("REMOVE n", key=B),
    "if_not_exists, absent": _update("SET made = if_not_exists(made, :n)", n={"N": "1"}),
    "if_not_exists, there": _update("SET n = if_not_exists(n, :n)", n={"N": "1"}),
    "if_not_exists in a sum": _update(
        "SET tally = if_not_exists(tally, :zero) + :one", zero={"N": "0"}, one={"N": "1"}
    ),
    "difference": _update("SET n = n - :one", one={"N": "1.50"}),
    "sum of 38 digits": _update("SET n = n + :long", long={"N": "9" * 37}),
    "operands see the item as it was": _update("SET n = :one, twin = n", one={"N": "1"}),
    "absent operand": _update("SET n = absent"),
    "text is no number": _update("SET n = n + :text", text={"S": "1"}),
    "list_append": _update("SET chain = list_append(chain, :more)", more={"L": [{"S": "end"}]}),
    "list_append in front": _update("SET chain = list_append(:more, chain)", more={"L": [{"S": "start"}]}),
    "list element": _update("SET chain[1] = :n", n={"N": "1"}),
    "beyond a list's end": _update("SET chain[9] = :n", n={"N": "1"}),
    "removed list elements": _update("REMOVE chain[0], chain[2]"),
    "inside a list's map": _update("SET chain[2].three = :n", n={"N": "33"}),
    "tree member": _update("SET tree.fresh = :n", n={"N": "1"}),
    "deep map member": _update("SET tree.inside.deep = :n REMOVE tree.n", n={"N": "1"}),
    "member of a absent map": _update("SET absent.fresh = :n", n={"N": "1"}),
    "member of a number": _update("SET n.fresh = :n", n={"N": "1"}),
    "removed member of a absent map": _update("REMOVE absent.fresh"),
    "removed absent member": _update("REMOVE tree.absent"),
    "overlapping paths": _update("SET tree = :n REMOVE tree.inside", n={"N": "1"}),
    "same path twice": _update("SET n = :n REMOVE n", n={"N": "1"}),
    "add to a number": _update("ADD n :n", n={"N": "-3"}),
    "add to nothing": _update("ADD attempt :n", n={"N": "1"}),
    "add to a set": _update("ADD words :more", more={"SS": ["two", "three"]}),
    "add a number to a text": _update("ADD #status :n", n={"N": "1"}),
    "add a text": _update("ADD n :text", text={"S": "1"}),
    "delete from a set": _update("DELETE words :some", some={"SS": ["one", "nine"]}),
    "delete a whole set": _update("DELETE words :some", some={"SS": ["one", "two"]}),
    "delete from nothing": _update("DELETE absent :some", some={"SS": ["one"]}),
    "delete from another type": _update("DELETE n :some", some={"SS": ["one"]}),
    "four clauses": _update("SET a = :n REMOVE n ADD attempt :n DELETE words :w", n={"N": "1"}, w={"SS": ["one"]}),
    "a clause twice": _update("SET a = :n SET b = :n", n={"N": "1"}),
    "the key itself": _update("SET id = :text", text={"S": "other"}),
    "an index key of the wrong type": _update("SET due = :text", text={"S": "soon"}),
    "an unused value": _update("SET a = :n", n={"N": "1"}, unused={"N": "2"}),
    "an undefined value": _update("SET a = :n, b = :m", n={"N": "1"}),
    "syntax": _update("SET a :n", n={"N": "1"}),
    "a function that is none": _update("SET a = double(n)"),
    "a failing condition": _update("SET a = :n", "#status = :done", n={"N": "1"}, done={"S": "DONE"}),
    "a failing condition, no item": _update("SET a = :n", "attribute_exists(id)", B, n={"N": "1"}),
    "an item beyond 400 KB": _update("SET data_ = :data_", data_={"B": bytes(410_000)}),
    "an item just below 400 KB": _update("SET data_ = :data_", data_={"B": bytes(409_000)}),
    "a number's spelling": _update("SET n = :n", n={"N": "007.500"}),
    "a large exponent": _update("SET n = :n", n={"N": "1.5E+20"}),
    "minus zero": _update("SET n = :n", n={"N": "-0"}),
}


@pytest.mark.parametrize("call", UPDATES.values(), ids=list(UPDATES))
@pytest.mark.parametrize("returned", ["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
def test_update(pair: Pair, call: Call, returned: str) -> None:
    pair.compare("PutItem", _put(ITEM))
    pair.compare(call[0], {**call[1], "ReturnValues": returned})
    pair.compare("GetItem", {"TableName": "records", "Key": A, "ConsistentRead": True})


CONDITIONS: dict[str, dict[str, Any]] = {
    "attribute_exists(n) AND attribute_not_exists(absent)": {},
    "attribute_exists(tree.inside.deep) AND NOT attribute_exists(tree.inside.absent)": {},
    "attribute_exists(chain[2].three) AND attribute_not_exists(chain[3])": {},
    "n = :n": {"n": {"N": "7.0"}},
    "n = :n AND n <> :m": {"n": {"N": "7"}, "m": {"S": "7"}},
    "absent = :n": {"n": {"N": "7"}},
    "absent <> :n": {"n": {"N": "7"}},
    "absent <> gone": {},
    "absent = gone": {},
    "absent < :n OR absent >= :n": {"n": {"N": "7"}},
    "NOT absent < :n": {"n": {"N": "7"}},
    "n < :n": {"n": {"N": "10"}},
    "n < :text OR n >= :text": {"text": {"S": "10"}},
    "n >= :n AND n <= :n AND NOT n > :n": {"n": {"N": "7"}},
    "#status > :text": {"text": {"S": "PROC"}},
    "bytes < :bytes": {"bytes": {"B": b"\x01"}},
    "n BETWEEN :low AND :high": {"low": {"N": "7"}, "high": {"N": "8"}},
    "n BETWEEN :low AND :high OR n = :high": {"low": {"N": "8"}, "high": {"N": "9"}},
    "#status IN (:a, :b)": {"a": {"S": "DONE"}, "b": {"S": "PROCESSING"}},
    "absent IN (:a)": {"a": {"S": "DONE"}},
    "begins_with(#status, :prefix)": {"prefix": {"S": "PROC"}},
    "begins_with(n, :prefix)": {"prefix": {"S": "7"}},
    "contains(words, :word)": {"word": {"S": "one"}},
    "contains(chain, :word) AND contains(#status, :part)": {"word": {"S": "two"}, "part": {"S": "CESS"}},
    "contains(n, :word)": {"word": {"S": "7"}},
    "attribute_type(tree, :type)": {"type": {"S": "M"}},
    "size(prose) = :n": {"n": {"N": "7"}},
    "size(chain) = :n AND size(words) < :n AND size(tree) < :n AND size(bytes) < :n": {"n": {"N": "3"}},
    "size(absent) = :n": {"n": {"N": "0"}},
    "size(absent) <> :n": {"n": {"N": "0"}},
    "size(n) = :n": {"n": {"N": "1"}},
    "tree = :map": {"tree": {"M": {"n": {"N": "1"}, "inside": {"M": {"deep": {"S": "x"}}}}}},
    "words = :set": {"set": {"SS": ["two", "one"]}},
    "numbers = :set": {"set": {"NS": ["2.50", "1"]}},
    "yes = :yes AND nothing = :nothing": {"yes": {"BOOL": True}, "nothing": {"NULL": True}},
    "n = :n OR absent = :n AND absent = :n": {"n": {"N": "7"}},
    "(n = :n OR absent = :n) AND absent = :n": {"n": {"N": "7"}},
    "NOT n = :n AND absent = :n": {"n": {"N": "8"}},
    "NOT (n = :n AND absent = :n)": {"n": {"N": "8"}},
    "n = twin OR twin = n": {},
    "n = :n n = :n": {"n": {"N": "7"}},
    "n = ": {},
    "n == :n": {"n": {"N": "7"}},
    "absent(n)": {},
    ":n = n": {"n": {"N": "7"}},
}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("there", [True, False], ids=["item", "no item"])
def test_condition(pair: Pair, condition: str, there: bool) -> None:
    if there:
        pair.compare("PutItem", _put(ITEM))
    pair.compare(*_update("SET seen = if_not_exists(seen, id)", condition, **CONDITIONS[condition]))


def test_put_and_delete(pair: Pair) -> None:
    pair.compare("PutItem", _put(A, "attribute_not_exists(id)"))
    pair.compare("PutItem", _put({**A, "n": {"N": "1"}}, "attribute_not_exists(id)"))
    pair.compare("PutItem", {**_put({**A, "n": {"N": "2"}}), "ReturnValues": "ALL_OLD"})
    pair.compare("PutItem", {**_put({**A, "n": {"N": "3"}}), "ReturnValues": "ALL_OLD"})
    pair.compare("PutItem", _put({"n": {"N": "1"}}))
    pair.compare("PutItem", _put({"id": {"S": ""}}))
    pair.compare("PutItem", _put({"id": {"N": "1"}}))
    pair.compare("PutItem", _put({**A, "empty": {"SS": []}}))
    pair.compare("PutItem", _put({**A, "piece": {"S": "1"}, "due": {"S": "soon"}}))
    pair.compare("GetItem", {"TableName": "elsewhere", "Key": A})
    pair.compare("GetItem", {"TableName": "records", "Key": {**A, "more": {"S": "x"}}})
    delete = {"TableName": "records", "Key": A, "ReturnValues": "ALL_OLD"}
    condition = {"ConditionExpression": "n = :n", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    pair.compare("DeleteItem", {**delete, **condition, "ExpressionAttributeValues": {":n": {"N": "1"}}})
    pair.compare("DeleteItem", delete)
    pair.compare("DeleteItem", delete)


def test_projection(pair: Pair) -> None:
    pair.compare("PutItem", _put(ITEM))
    for paths in (
        "n",
        "id, tree.inside.deep",
        "chain[0], chain[2].three",
        "absent",
        "tree.n, tree.inside",
        "tree, tree.n",
    ):
        pair.compare("GetItem", {"TableName": "records", "Key": A, "ProjectionExpression": paths})


def _transaction(*actions: dict[str, Any], token: str | None = None) -> Call:
    return "TransactWriteItems", {
        "TransactItems": list(actions),
        **({"ClientRequestToken": token} if token else {}),
    }


def test_transaction(pair: Pair) -> None:
    fresh = {"Put": _put({**B, "n": {"N": "1"}}, "attribute_not_exists(id)")}
    raised = _update("SET n = :new", "n = :old", new={"N": "8"}, old={"N": "7"})[1]
    del raised["ReturnValues"]
    check = {key: value for key, value in _put(A, "n = :n", n={"N": "8"}).items() if key != "Item"}
    pair.compare("PutItem", _put(ITEM))
    assert pair.compare(*_transaction({"Update": raised}, fresh, token="once")) == {}
    # The same transaction again is carried out once, with other contents it is refused; without a token it fails.
    assert pair.compare(*_transaction({"Update": raised}, fresh, token="once")) == {}
    refused = pair.compare(*_transaction(fresh, {"Update": raised}, token="once"))
    assert refused["Code"] == "IdempotentParameterMismatchException"
    canceled = pair.compare(*_transaction({"Update": raised}, fresh, token="other"))
    assert [reason["Code"] for reason in canceled["Reasons"]] == ["ConditionalCheckFailed"] * 2
    pair.compare(*_transaction(fresh, {"ConditionCheck": {**check, "Key": A}}, token="third"))
    pair.compare(*_transaction({"Delete": {"TableName": "records", "Key": B}}, {"ConditionCheck": {**check, "Key": A}}))
    pair.compare(*_transaction({"Delete": {"TableName": "records", "Key": B}}, fresh))
    pair.compare(*_transaction({"Delete": {"TableName": "elsewhere", "Key": B}}))


def test_batches(pair: Pair) -> None:
    puts = [{"PutRequest": {"Item": {"id": {"S": f"{number}"}, "body": {"B": b"x" * number}}}} for number in range(25)]
    pair.compare("BatchWriteItem", {"RequestItems": {"records": puts}})
    pair.compare("BatchWriteItem", {"RequestItems": {"records": [*puts, {"DeleteRequest": {"Key": A}}]}})
    pair.compare(
        "BatchWriteItem", {"RequestItems": {"records": [puts[0], {"DeleteRequest": {"Key": {"id": {"S": "0"}}}}]}}
    )
    pair.compare("BatchWriteItem", {"RequestItems": {"records": [{"DeleteRequest": {"Key": {"id": {"S": "3"}}}}]}})
    keys = [{"id": {"S": number}} for number in ("1", "3", "24")]
    read = {"RequestItems": {"records": {"Keys": keys, "ConsistentRead": True}}}
    found = pair.model.call("BatchGetItem", read)["Responses"]["records"]
    real = pair.client.batch_get_item(**read)["Responses"]["records"]  # type: ignore[arg-type]
    assert sorted(real, key=str) == sorted(found, key=str) != []
    pair.compare("BatchGetItem", {"RequestItems": {"records": {"Keys": [A, A]}}})


def test_query_of_a_sparse_index(pair: Pair) -> None:
    for number in range(12):
        shard = {"piece": {"S": str(number % 2)}} if number % 5 else {}
        pair.compare(
            "PutItem", _put({"id": {"S": f"{number}"}, "due": {"N": str(100 - number)}, **shard, "n": {"N": "1"}})
        )
    query = {
        "TableName": "records",
        "IndexName": "recovery",
        "KeyConditionExpression": "piece = :shard AND due < :due",
        "ExpressionAttributeValues": {":shard": {"S": "1"}, ":due": {"N": "98"}},
    }
    pair.compare("Query", query)
    pair.compare("Query", {**query, "ScanIndexForward": False})
    pair.compare("Query", {**query, "ConsistentRead": True})
    pair.compare("Query", {**query, "IndexName": "absent"})
    pair.compare("Query", {**query, "KeyConditionExpression": "piece = :shard AND due BETWEEN :low AND :due"})
    page = pair.compare("Query", {**query, "Limit": 2})
    pair.compare("Query", {**query, "Limit": 9, "ExclusiveStartKey": page["LastEvaluatedKey"]})


@pytest.mark.parametrize("seed", range(12))
def test_random_calls(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        pair.compare(*_random_call(chance))


def _random_call(chance: random.Random) -> Call:
    match chance.randrange(6):
        case 0:
            return "DeleteItem", {"TableName": "records", "Key": chance.choice([A, B]), "ReturnValues": "ALL_OLD"}
        case 1:
            item = {**chance.choice([A, B]), **{name: _random_value(chance) for name in _random_names(chance)}}
            return "PutItem", _put(item, "attribute_not_exists(id) OR n < :n", n={"N": "5"})
        case 2:
            update = _random_update(chance)
            del update["ReturnValues"]
            other = B if update["Key"] == A else A
            return _transaction(
                {"Update": update}, {"Put": _put(other, "attribute_not_exists(id) OR n > :n", n={"N": "2"})}
            )
    return "UpdateItem", _random_update(chance)


def _random_update(chance: random.Random) -> dict[str, Any]:
    names = _random_names(chance)
    values = {f"v{number}": _random_value(chance) for number, _ in enumerate(names)}
    sources = [
        chance.choice([f":v{number}", f"if_not_exists({chance.choice('nstm')}, :v{number})"])
        for number, _ in enumerate(names)
    ]
    targets = [f"{name}.inside" if name == "m" and chance.random() < 0.5 else name for name in names]
    expression = "SET " + ", ".join(f"{target} = {source}" for target, source in zip(targets, sources, strict=True))
    if chance.random() < 0.5:
        expression += " ADD attempt :one"
        values["one"] = {"N": "1"}
    if chance.random() < 0.3:
        expression += f" REMOVE {chance.choice(['z', 'z.inside', 'y[0]'])}"
    tests = [_random_test(chance, number) for number in range(chance.randint(1, 3))]
    values |= {name: value for _, named in tests for name, value in named.items()}
    condition = f" {chance.choice(['AND', 'OR'])} ".join(test for test, _ in tests)
    return _update(expression, condition, chance.choice([A, B]), **values)[1]


def _random_test(chance: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    name, value = chance.choice(["n", "s", "t", "m.inside", "attempt"]), f"c{number}"
    operand = {"N": str(chance.randrange(4))} if chance.random() < 0.7 else {"S": chance.choice("ab")}
    negated = chance.choice(["", "", "NOT "])
    match chance.randrange(4):
        case 0:
            return f"{negated}attribute_exists({name})", {}
        case 1:
            return f"{negated}({name} = :{value} OR attribute_not_exists(n))", {value: operand}
    return f"{negated}{name} {chance.choice(['=', '<>', '<', '<=', '>', '>='])} :{value}", {value: operand}


def _random_names(chance: random.Random) -> list[str]:
    return chance.sample(["n", "s", "t", "m"], chance.randint(1, 3))


def _random_value(chance: random.Random) -> dict[str, Any]:
    values: list[dict[str, Any]] = [
        {"N": str(chance.randrange(6))},
        {"S": chance.choice(["a", "b", ""])},
        {"M": {"inside": {"N": "1"}}},
        {"L": [{"S": "x"}]},
        {"SS": ["a", "b"]},
        {"BOOL": True},
    ]
    return chance.choice(values)
