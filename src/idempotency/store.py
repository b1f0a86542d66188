"""Records and rows in DynamoDB: the one module that builds expressions.

Every transition of a record is one conditional write. A condition that fails returns the item that made it fail
(``ReturnValuesOnConditionCheckFailure``), so that no transition needs a second read.

Source: DynamoDB developer guide, "Condition expressions", "Working with items", "Transactions", "Read/write capacity".
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from idempotency.clock import Clock
from idempotency.errors import Fenced, NotStorable, Rejected, RowTaken, Unavailable
from idempotency.policy import SettingsError
from idempotency.record import Record, Status
from idempotency.response import Row, StoredResponse

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]

# A body this small stays in the record and keeps it within one strongly consistent read unit (4 KB). A larger one
# would be paid for by every duplicate, whose failed claim is a write of the record's size.
_INLINE_LIMIT = 3_000
# An item holds 400 KB, names and other attributes included. Lambda's 6 MB make 17 parts: fewer than a batch's 25.
_PART_SIZE = 390_000
# Another transaction holds the item for some milliseconds: not a failure, worth a short pause (in milliseconds).
_CONFLICT_PAUSES = (20, 50, 100, 200)
_CONFLICT = "TransactionConflict"
_SHARDS = "0123456789abcdef"
_UNAVAILABLE = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)

# What DynamoDB's numbers hold (Naming rules and data types, "Number").
_DIGITS = 38
_SMALLEST = Decimal("1E-130")
_LARGEST = Decimal("1E+126")
_WRONG_KEY = "does not match the schema|[Mm]issing the key|mismatch for key"
# Bytes of a partition key.
_KEY_LIMIT = 2_048

_FREE = "attribute_not_exists(id)"
_CLAIM = """
    SET #status = :processing, #owner = :owner, lease_until = :lease_until, expires_at = :expires_at,
        claimed_at = :claimed_at
"""
_CLAIM_RECOVERABLE = ", recovery_shard = :shard, principal = :principal, #request = if_not_exists(#request, :request)"
# An owner that is late lengthens the lease with each checkpoint, or completes; whoever took it over has a later lease.
_AS_SEEN = "#status = :seen_status AND lease_until = :seen_lease_until"
_DUE = "#status <> :completed AND expires_at > :now_seconds AND lease_until < :now"
# Whoever replaced or completed it meanwhile has set another time.
_NOT_REPLACED_SINCE = "attribute_not_exists(id) OR expires_at = :expires_at"
_OUTCOMES = "refused = :refused, begun = :begun, waits = :waits"
_OWNED = "#owner = :owner AND #status = :processing"
_RELEASED_AND_RECOVERABLE = "#status = :released AND attribute_exists(recovery_shard)"
_ROW_IS_FREE = "attribute_not_exists(id) OR operation_id = :operation_id"


class _ConditionFailed(Exception):
    """A condition does not hold of this item; empty if there is none."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


class Due(NamedTuple):
    """An operation that recovery has to carry on.

    Attributes:
        id: its record's id.
        lease_until: epoch milliseconds since when.
    """

    id: str
    lease_until: int


class _Table:
    """One table with ``id`` as its partition key; errors told apart."""

    def __init__(self, client: "DynamoDBClient", table: str, clock: Clock = Clock()) -> None:  # noqa: B008 - stateless
        self.table = table
        self._client = client
        self._clock = clock

    def _get(self, id_: str) -> Item | None:
        reply = self._call(self._client.get_item, TableName=self.table, Key=_encode({"id": id_}), ConsistentRead=True)
        return _decode(reply["Item"]) if "Item" in reply else None

    def _call(self, operation: Callable[..., Any], **request: Any) -> Any:
        pauses = iter(_CONFLICT_PAUSES)
        while True:
            try:
                return operation(**request)
            except ClientError as error:
                pause = next(pauses, None) if _conflicts(error) else None
                if pause is None:
                    raise _misfit(self.table, error) or _translate(error) from error
                self._clock.sleep(pause)
            except (BotoCoreError, ResponseParserError) as error:
                raise Unavailable("DynamoDB cannot be reached.") from error


class Rows(_Table):
    """Business rows: read; they are written with a checkpoint or a completion, see `Store`."""

    def get(self, id_: str) -> Item | None:
        """Read a row, strongly consistently, so that a client sees what it was just told of (1 read unit per 4 KB).

        What cannot be the id of a row is none's, without a call: a client may send any text.
        """
        if not 0 < len(id_.encode(errors="replace")) <= _KEY_LIMIT:
            return None
        return self._get(id_)

    def row(self, item: Mapping[str, Any], conflict: Rejected | None = None) -> Row:
        """Describe a row of this table; see `idempotency.Row`.

        Raises:
            NotStorable: if it is not JSON, or holds a number that DynamoDB does not keep as it is.
        """
        _encode(item)
        return Row(self.table, item, conflict)


class Store(_Table):
    """The record's transitions. Times are epoch milliseconds unless the name says seconds."""

    def claim(self, candidate: Record, now: int) -> Record:
        """Claim a key for a new owner: 1 write, 2 if there is a record in the way that may be replaced.

        Returns:
            The record as it now is. It is the claimant's if ``owner`` is; otherwise it says why not. An
            acknowledgement lost on the way looks like a record that has the claimant's own token already: claimed.
        """
        found = self.enter(candidate, now)
        if candidate.fingerprint != found.fingerprint or not found.claimable(now):
            return found
        return self._take_over(found, candidate)

    def enter(self, candidate: Record, now: int, rows: Sequence[Row] = ()) -> Record:
        """Put a record where none is in force, with its rows: 1 write, 2 if an expired one is in the way.

        Returns:
            The record as it now is, see `claim`.
        """
        try:
            self._put(candidate, _FREE, rows)
        except _ConditionFailed as failed:
            found = _record(failed.item)
        else:
            return candidate
        if not found.expired(now):
            return found
        return self._renew(found, candidate, rows)

    def resume(self, candidate: Record, now: int) -> Record | None:
        """Claim an abandoned operation for recovery, whatever its request: 1 write.

        Returns:
            The record with its stored request, or None if it is not due any more.
        """
        values = {
            **_claim_values(candidate),
            "now": now,
            "now_seconds": now // 1000,
            "completed": Status.COMPLETED,
        }
        try:
            return self._update(candidate.id, f"{_CLAIM} ADD attempt :one, recoveries :one", _DUE, values)
        except _ConditionFailed as failed:
            found = _record(failed.item) if failed.item else None
            return found if found and found.owner == candidate.owner else None

    def get(self, id_: str) -> Record | None:
        """Read a record, strongly consistently: 1 read unit while it is small."""
        item = self._get(id_)
        return _record(item) if item else None

    def checkpoint(
        self,
        record: Record,
        step: str,
        result: str,
        lease_until: int,
        *,
        inserted: Sequence[Row] = (),
        deleted: Sequence[Row] = (),
    ) -> None:
        """Keep a step's result and lengthen the lease: 1 write; with rows a transaction, which costs twice as much.

        Raises:
            Fenced: if the record is not the owner's any more.
            RowTaken: if a row belongs to another operation; nothing was written.
        """
        self._write_owned(
            record,
            "SET steps.#step = :result, lease_until = :lease_until",
            {"result": result, "lease_until": lease_until},
            {"#step": step},
            inserted=inserted,
            deleted=deleted,
        )

    def keep_outcomes(self, record: Record) -> None:
        """Keep which steps were refused, and which may have been done: 1 write.

        Args:
            record: the record, with the outcomes that this attempt knows of.

        Raises:
            Fenced: if the record is not the owner's any more.
        """
        self._write_owned(record, f"SET {_OUTCOMES}", _outcomes(record))

    def fail(self, record: Record, response: StoredResponse) -> Record:
        """Decide that the operation fails for good, before its steps are undone: 1 write.

        Args:
            record: the record, with the outcomes that this attempt knows of.
            response: the response of the failure.

        Raises:
            Fenced: if the record is not the owner's any more.
        """
        description, body = response.pack()
        failure = {**description, "body": body}
        self._write_owned(record, f"SET {_OUTCOMES}, failure = :failure", {**_outcomes(record), "failure": failure})
        return record._replace(failure=failure)

    def release(self, record: Record, *, due: int, error: str) -> None:
        """Let another attempt start at once; ``due`` is when recovery may: 1 write. Steps and operation id stay.

        Args:
            record: the record, with the outcomes that this attempt knows of, and how many attempts of recovery count.
            due: epoch milliseconds.
            error: why it is released.

        Raises:
            Fenced: if the record is not the owner's any more.
        """
        self._write_owned(
            record,
            f"SET {_OUTCOMES}, #status = :status, lease_until = :due, last_error = :error, recoveries = :recoveries "
            "ADD releases :one",
            {
                **_outcomes(record),
                "status": Status.RELEASED,
                "due": due,
                "error": error,
                "recoveries": record.recoveries,
                "one": 1,
            },
        )

    def complete(
        self, record: Record, response: StoredResponse, *, expires_at_seconds: int, rows: Sequence[Row] = ()
    ) -> Record:
        """Keep the final response, and the business rows in the same transaction.

        1 write, doubled by rows; 1 batch more for the parts of a body that is too large for the record.
        There is no condition on the lease: a late owner whom nobody replaced may still commit.

        Raises:
            Fenced: if the record is not the owner's any more.
            RowTaken: if a row belongs to another operation; nothing was written.
        """
        completed = self._completed(record, *response.pack(), expires_at_seconds)
        update = (
            "SET #status = :status, #response = :response, expires_at = :expires_at "
            "REMOVE recovery_shard, #request, steps, refused, begun, waits, failure, last_error"
        )
        values = {name: getattr(completed, name) for name in ("status", "response", "expires_at")}
        self._write_owned(record, update, values, inserted=rows)
        return completed

    def commit(
        self,
        candidate: Record,
        response: StoredResponse,
        now: int,
        *,
        expires_at_seconds: int,
        rows: Sequence[Row] = (),
    ) -> Record:
        """Claim a key for a new owner that has its final response already, together with the business rows: 1 write.

        Doubled by rows; 1 write more if there is an expired record in the way. For a body that is too large for the
        record, 1 read ahead of it all, so that no duplicate writes the parts for nothing, and 1 batch for these.

        Returns:
            The record as it now is: the claimant's if ``owner`` is, even if its acknowledgement was lost on the way.

        Raises:
            RowTaken: if a row belongs to another operation; nothing was written.
        """
        description, body = response.pack()
        if _beside(body) and (standing := self.get(candidate.id)) and not standing.expired(now):
            return standing
        completed = self._completed(candidate, description, body, expires_at_seconds)
        return self.enter(completed, now, rows)

    def response(self, record: Record) -> StoredResponse:
        """Load the response of a completed record: no read, or 1 batch for the parts of a large body."""
        if record.response is None:
            raise ValueError(f"the record {record.id} has no response")
        body = record.response.get("body")
        if body is None:
            body = self._read_parts(record, record.response["parts"])
        return StoredResponse.unpack(record.response, body)

    def due(self, now: int) -> Iterator[Due]:
        """The unfinished, recoverable operations whose lease has lapsed, a shard's oldest first: 1 query per shard.

        The index is eventually consistent. ``now`` beyond every lease lists them all, parked ones included.
        """
        # Each minute begins with another shard, so that none is always last when there is more than time for.
        first = now // 60_000 % len(_SHARDS)
        for shard in _SHARDS[first:] + _SHARDS[:first]:
            pages = self._client.get_paginator("query").paginate(
                TableName=self.table,
                IndexName="recovery",
                **_expressions(
                    {"KeyConditionExpression": "recovery_shard = :shard AND lease_until < :now"},
                    {"shard": shard, "now": now},
                ),
            )
            for page in pages:
                yield from (Due(**_decode({name: item[name] for name in Due._fields})) for item in page["Items"])

    def unpark(self, id_: str, now: int) -> bool:
        """Make an operation due for recovery now, with all its attempts before it: 1 write.

        Returns:
            False if there is no unfinished operation with this id, or it is running.
        """
        try:
            self._update(
                id_,
                "SET lease_until = :now, recoveries = :none",
                _RELEASED_AND_RECOVERABLE,
                {"now": now, "none": 0, "released": Status.RELEASED},
            )
        except _ConditionFailed:
            return False
        return True

    def _completed(self, record: Record, description: dict[str, Any], body: bytes, expires_at_seconds: int) -> Record:
        """The record with its final response, see `StoredResponse.pack`; the parts of a large body are written."""
        if _beside(body):
            description["parts"] = self._write_parts(record, body, expires_at_seconds)
        else:
            description["body"] = body
        return record._replace(
            status=Status.COMPLETED,
            response=description,
            expires_at=expires_at_seconds,
            request=None,
            steps={},
            refused={},
            begun=(),
            waits={},
            failure=None,
        )

    def _renew(self, expired: Record, candidate: Record, rows: Sequence[Row] = ()) -> Record:
        # No attempt of the operation that is forgotten counts as one of this one's.
        claimed = candidate._replace(attempt=expired.attempt + candidate.attempt, releases=expired.attempt)
        try:
            self._put(claimed, _NOT_REPLACED_SINCE, rows, expires_at=expired.expires_at)
        except _ConditionFailed as failed:
            return _record(failed.item)
        return claimed

    def _take_over(self, found: Record, candidate: Record) -> Record:
        recoverable = candidate.request is not None
        values = {
            **_claim_values(candidate),
            **(
                {"shard": candidate.id[0], "request": candidate.request, "principal": candidate.principal}
                if recoverable
                else {}
            ),
            "seen_status": found.status,
            "seen_lease_until": found.lease_until,
        }
        update = f"{_CLAIM}{_CLAIM_RECOVERABLE if recoverable else ''} ADD attempt :one"
        try:
            return self._update(candidate.id, update, _AS_SEEN, values)
        except _ConditionFailed as failed:
            return _record(failed.item) if failed.item else self.claim(candidate, candidate.claimed_at)

    def _put(self, candidate: Record, condition: str, rows: Sequence[Row] = (), **values: Any) -> None:
        shard = {"recovery_shard": candidate.id[0]} if candidate.request is not None else {}
        request = {
            "TableName": self.table,
            "Item": _encode({**_item(candidate), **shard}),
            **_expressions({"ConditionExpression": condition}, values),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if rows:
            self._transact({"Put": request}, candidate.operation_id, rows, ())
        else:
            self._call(self._client.put_item, **request)

    def _write_owned(
        self,
        record: Record,
        update: str,
        values: Mapping[str, Any],
        names: Mapping[str, str] | None = None,
        *,
        inserted: Sequence[Row] = (),
        deleted: Sequence[Row] = (),
    ) -> None:
        owned = {**values, "owner": record.owner, "processing": Status.PROCESSING}
        request = self._update_request(record.id, update, _OWNED, owned, names)
        try:
            if inserted or deleted:
                self._transact({"Update": request}, record.operation_id, inserted, deleted)
            else:
                self._call(self._client.update_item, **request)
        except _ConditionFailed as failed:
            _raise_unless_already_done(failed, record, values.get("status", record.status))

    def _update(self, id_: str, update: str, condition: str, values: Mapping[str, Any]) -> Record:
        request = self._update_request(id_, update, condition, values)
        reply = self._call(self._client.update_item, **request, ReturnValues="ALL_NEW")
        return _record(_decode(reply["Attributes"]))

    def _update_request(
        self, id_: str, update: str, condition: str, values: Mapping[str, Any], names: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return {
            "TableName": self.table,
            "Key": _encode({"id": id_}),
            **_expressions({"UpdateExpression": update, "ConditionExpression": condition}, values, names),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _transact(
        self, write: dict[str, Any], operation_id: str, inserted: Sequence[Row], deleted: Sequence[Row]
    ) -> None:
        writes: list[Any] = [
            write,
            *(
                {"Put": {"Item": _row_item(row, operation_id), **_if_row_is_free(row, operation_id)}}
                for row in inserted
            ),
            *(
                {"Delete": {"Key": _encode({"id": row.item["id"]}), **_if_row_is_free(row, operation_id)}}
                for row in deleted
            ),
        ]
        try:
            self._call(
                self._client.transact_write_items,
                TransactItems=writes,
                ClientRequestToken=str(uuid4()),
            )
        except _TransactionCanceled as canceled:
            record_reason, *row_reasons = canceled.reasons
            if record_reason["Code"] == "ConditionalCheckFailed":
                raise _ConditionFailed(_decode(record_reason.get("Item", {}))) from None
            for row, reason in zip((*inserted, *deleted), row_reasons, strict=True):
                if reason["Code"] == "ConditionalCheckFailed":
                    raise RowTaken(row) from None
                if reason["Code"] == "ValidationError":
                    raise _refused_row(reason.get("Message")) from None
            raise
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationException":  # the record itself is within all limits
                raise _refused_row(error.response["Error"].get("Message")) from error
            raise

    def _write_parts(self, record: Record, body: bytes, expires_at_seconds: int) -> int:
        parts = [body[start : start + _PART_SIZE] for start in range(0, len(body), _PART_SIZE)]
        puts = [
            {"PutRequest": {"Item": _encode({"id": part_id, "body": part, "expires_at": expires_at_seconds})}}
            for part_id, part in zip(_part_ids(record, len(parts)), parts, strict=True)
        ]
        self._until_done(self._client.batch_write_item, puts, "UnprocessedItems")
        return len(parts)

    def _read_parts(self, record: Record, count: int) -> bytes:
        ids = _part_ids(record, count)
        request = {"Keys": [_encode({"id": part_id}) for part_id in ids], "ConsistentRead": True}
        items = self._until_done(self._client.batch_get_item, request, "UnprocessedKeys")
        bodies = {item["id"]: item["body"] for item in items}
        if len(bodies) < count:
            raise Unavailable("A part of the stored response is missing.")
        return b"".join(bodies[part_id] for part_id in ids)

    def _until_done(self, operation: Callable[..., Any], batch: Any, left_over: str) -> list[Item]:
        """Send a batch again until DynamoDB has processed all of it."""
        items: list[Item] = []
        for pause in (*_CONFLICT_PAUSES, None):
            reply = self._call(operation, RequestItems={self.table: batch})
            items += [_decode(item) for item in reply.get("Responses", {}).get(self.table, [])]
            if not reply.get(left_over):
                return items
            batch = reply[left_over][self.table]
            if pause is not None:
                self._clock.sleep(pause)
        raise Unavailable("DynamoDB did not process a whole batch.")


class _TransactionCanceled(Exception):
    def __init__(self, reasons: Sequence[Any]) -> None:
        super().__init__(", ".join(reason.get("Code", "None") for reason in reasons))
        self.reasons = reasons


def _misfit(table: str, error: ClientError) -> SettingsError | None:
    """Say what is wrong with a table that is not there, or is no table for this; None if it is something else."""
    told = [error.response["Error"], *error.response.get("CancellationReasons", [])]
    said = "; ".join(each.get("Message") or "" for each in told)
    if error.response["Error"]["Code"] == "ResourceNotFoundException":
        return SettingsError(f"there is no table {table!r} in this account and region ({said})")
    if re.search(_WRONG_KEY, said):
        return SettingsError(f"the table {table!r} must have the partition key id (S), and no sort key ({said})")
    return None


def _translate(error: ClientError) -> Exception:
    response: Mapping[str, Any] = error.response
    code = response["Error"]["Code"]
    if code == "ConditionalCheckFailedException":
        return _ConditionFailed(_decode(response.get("Item", {})))
    if code == "TransactionCanceledException":
        reasons = response.get("CancellationReasons", [])
        codes = {reason.get("Code") for reason in reasons}
        if "ConditionalCheckFailed" in codes or not codes & _UNAVAILABLE:
            return _TransactionCanceled(reasons)
        return Unavailable("DynamoDB cannot run the transaction now.")
    if code in _UNAVAILABLE or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Unavailable("DynamoDB refuses for now.")
    return error


def _conflicts(error: ClientError) -> bool:
    """Whether nothing is wrong except that a transaction held an item."""
    if error.response["Error"]["Code"] == "TransactionConflictException":
        return True
    codes = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
    return _CONFLICT in codes and "ConditionalCheckFailed" not in codes


def _raise_unless_already_done(failed: _ConditionFailed, record: Record, status: Status) -> None:
    """A write that met its own effect is done: its acknowledgement was lost, and the SDK sent it again."""
    current = _record(failed.item) if failed.item else None
    if current is None or (current.owner, current.status) != (record.owner, status):
        raise Fenced(current) from None


def _refused_row(reason: str | None) -> NotStorable:
    return NotStorable(f"DynamoDB refuses a row: {reason}")


def _row_item(row: Row, operation_id: str) -> dict[str, Any]:
    return _encode({**row.item, "operation_id": operation_id})


def _if_row_is_free(row: Row, operation_id: str) -> dict[str, Any]:
    condition = _expressions({"ConditionExpression": _ROW_IS_FREE}, {"operation_id": operation_id})
    return {"TableName": row.table, **condition}


def _claim_values(candidate: Record) -> dict[str, Any]:
    return {
        "processing": Status.PROCESSING,
        "owner": candidate.owner,
        "lease_until": candidate.lease_until,
        "expires_at": candidate.expires_at,
        "claimed_at": candidate.claimed_at,
        "one": 1,
    }


def _beside(body: bytes) -> bool:
    """Whether a body lies beside the record, in parts."""
    return len(body) > _INLINE_LIMIT


def _part_ids(record: Record, count: int) -> list[str]:
    return [f"{record.id}#{record.owner}#{number}" for number in range(count)]


def _expressions(
    expressions: Mapping[str, str], values: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Add to expressions the names (``#status`` stands for ``status``) and values that they mention."""
    texts, mentioned = _normal(tuple(expressions.items()))
    request: dict[str, Any] = dict(texts)
    if all_names := {**mentioned, **(names or {})}:
        request["ExpressionAttributeNames"] = all_names
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": _attribute(value) for name, value in values.items()}
    return request


@cache
def _normal(expressions: tuple[tuple[str, str], ...]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Expressions without superfluous white space, and the names in them; there are only a few of them."""
    texts = {kind: " ".join(expression.split()) for kind, expression in expressions}
    return texts, {f"#{name}": name for name in re.findall(r"#(\w+)", " ".join(texts.values()))}


def _outcomes(record: Record) -> dict[str, Any]:
    """What an attempt knows of the outcomes of steps besides their results."""
    return {"refused": record.refused, "begun": record.begun, "waits": record.waits}


def _item(record: Record) -> Item:
    # A checkpoint needs a map to write its result into.
    written = {"attempt"} if record.completed else {"attempt", "steps"}
    return {name: value for name, value in record._asdict().items() if value or name in written}


def _record(item: Item) -> Record:
    fields = {name: item[name] for name in Record._fields if name in item}
    return Record(**{**fields, "status": Status(fields["status"])})


def _encode(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in item.items()}


def _decode(item: Mapping[str, Any]) -> Item:
    return {name: _value(attribute) for name, attribute in item.items()}


def _attribute(value: Any) -> dict[str, Any]:  # noqa: PLR0911 - a table of types
    """A value as DynamoDB takes it; every JSON number is one of DynamoDB's."""
    match value:
        case str():
            return {"S": _utf8(value)}
        case bool():
            return {"BOOL": value}
        case int() | float() | Decimal():
            return {"N": _number(value)}
        case bytes():
            return {"B": value}
        case None:
            return {"NULL": True}
        case Mapping():
            return {"M": {_utf8(str(name)): _attribute(member) for name, member in value.items()}}
        case list() | tuple():
            return {"L": [_attribute(member) for member in value]}
    raise NotStorable(f"a row holds a {type(value).__name__}, which is not JSON")


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotStorable(f"a row holds text that is not Unicode: {error}") from error
    return text


def _number(value: float | Decimal) -> str:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    significant = len(number.as_tuple().digits)
    size = number.copy_abs()  # `abs` would compute in whatever context the business logic has set
    if not number.is_finite() or significant > _DIGITS or (number and not _SMALLEST <= size < _LARGEST):
        raise NotStorable(f"a row holds the number {value}, which DynamoDB does not keep as it is")
    return str(number)


def _value(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return _json_number(value)
        case "M":
            return {name: _value(member) for name, member in value.items()}
        case "L":
            return [_value(member) for member in value]
        case "NULL":
            return None
    return value


def _json_number(text: str) -> int | float | Decimal:
    """The number as it was: a Decimal only where no float is that number."""
    if text.lstrip("-").isdecimal():
        return int(text)
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else Decimal(text)
