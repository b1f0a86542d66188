"""Where the things that were provisioned are kept, each for its principal."""

from collections.abc import Mapping
from typing import Any, Protocol

from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from idempotency import Rejected, Row


class Rows(Protocol):
    """The table of business rows; `idempotency.Rows` is one."""

    def get(self, id_: str) -> dict[str, Any] | None:
        """Read a row."""

    def row(self, item: Mapping[str, Any], conflict: Rejected | None = None) -> Row:
        """Describe a row to be written by an operation."""


class Resources:
    """What operations have provisioned or reserved.

    Args:
        rows: the table they are kept in.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def row(self, kind: str, resource: Mapping[str, Any], principal: str, conflict: Rejected | None = None) -> Row:
        """Describe the row of a resource.

        Args:
            kind: what it is.
            resource: its representation; ``id`` is unique among its kind.
            principal: whose it is.
            conflict: what to answer if another operation holds this id.
        """
        item = {"id": row_id(kind, resource["id"]), "principal": principal, "resource": resource}
        return self._rows.row(item, conflict)

    def get(self, kind: str, id_: str, principal: str) -> dict[str, Any]:
        """Read a resource of a principal.

        Raises:
            NotFoundError: if there is none, or it is another's: which of the two, nobody is told.
        """
        row = self._rows.get(row_id(kind, id_))
        if row is None or row["principal"] != principal:
            raise NotFoundError(f"There is no {kind} {id_}.")
        resource: dict[str, Any] = row["resource"]
        return resource


def row_id(kind: str, id_: str) -> str:
    """The id of a resource's row."""
    return f"{kind}#{id_}"
