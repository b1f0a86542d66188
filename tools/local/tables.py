"""The tables of template.yaml in an emulator, so that what runs there and the stack cannot drift apart."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tools.local import template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Properties that emulators ignore, such as encryption and backups, are left out.
_TAKEN = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")


@cache
def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = template.load()["Resources"]
    return resources


def create_table(client: DynamoDBClient, resource: str, name: str) -> str:
    """Create a table as a resource of the template describes it.

    Args:
        client: a client of the emulator.
        resource: the table's logical id in the template.
        name: the name that the table gets.

    Returns:
        The name.
    """
    properties = _resources()[resource]["Properties"]
    client.create_table(TableName=name, **{taken: properties[taken] for taken in _TAKEN if taken in properties})
    if ttl := properties.get("TimeToLiveSpecification"):
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=ttl)
    return name
