# example campaigns
"""Refusals of Route 53 that moto lacks: creating a record that exists, and deleting one that is different."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

_EVENT = "before-parameter-build.route-53.ChangeResourceRecordSets"


@contextmanager
def strict(client: Route53Client) -> Iterator[None]:
    """Refuse what Route 53 would refuse, for the length of a `with` block.

    Source: Route 53 API reference, ChangeResourceRecordSets, InvalidChangeBatch.
    """

    def check(params: dict[str, Any], **_: Any) -> None:
        [change] = params["ChangeBatch"]["Changes"]
        wanted = change["ResourceRecordSet"]
        found = client.list_resource_record_sets(HostedZoneId=params["HostedZoneId"])["ResourceRecordSets"]
        same_name = [each for each in found if each["Name"].rstrip(".") == wanted["Name"].rstrip(".")]
        same = [each for each in same_name if _identity(each) == _identity(wanted)]
        if (change["Action"] == "CREATE" and same_name) or (change["Action"] == "DELETE" and not same):
            error: Any = {"Error": {"Code": "InvalidChangeBatch", "Message": f"not {change['Action']}d: {found}"}}
            raise ClientError(error, "ChangeResourceRecordSets")

    client.meta.events.register(_EVENT, check)
    try:
        yield
    finally:
        client.meta.events.unregister(_EVENT, check)


def _identity(record_set: Any) -> tuple[str, Any]:
    return record_set["Type"], record_set["ResourceRecords"]
