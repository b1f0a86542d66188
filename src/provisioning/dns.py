# example campaigns
"""DNS records in Route 53."""

import re
from functools import cache
from typing import TYPE_CHECKING, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from idempotency import Rejected, Retry

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.type_defs import ResourceRecordSetOutputTypeDef, ResourceRecordSetUnionTypeDef

_TTL = 300
_RETRYABLE = frozenset({"PriorRequestNotComplete", "Throttling", "ThrottlingException"})
# The zone is full, which is nobody's domain's fault: "Number of records limit of 10000 exceeded."
_FULL = r"limit of \d+ exceeded"


class _Refused(Exception):
    """Route 53 will not make this change: perhaps because it has been made."""


@cache
def _client() -> "Route53Client":
    config = Config(connect_timeout=1, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("route53", config=config)


class Dns:
    """Routes domains of one hosted zone, and never touches a record that it did not make.

    Args:
        zone_id: the hosted zone.
        subtree: the domain, in lower case, at or below which it routes; empty for the whole zone.
    """

    def __init__(self, zone_id: str, subtree: str = "") -> None:
        self._zone_id = zone_id
        self._subtree = subtree

    def route(self, domain: str, hostname: str) -> None:
        """Point a domain at a host with a CNAME; succeeds if it already points there.

        Raises:
            Retry: if Route 53 cannot do it now.
            Rejected: ``domain-taken`` (409) if the domain has another record; ``domain-rejected`` (422) if it is
                outside the sub-tree, or Route 53 will never do it.
        """
        if self._subtree and not f".{domain}".endswith(f".{self._subtree}"):
            raise _rejected(domain, f"it is not in {self._subtree}.")
        try:
            self._change("CREATE", domain, hostname)
        except _Refused as refused:
            found = self._find(domain)
            if found is None:
                raise _rejected(domain, refused) from None
            if not _is_ours(found, hostname):
                raise Rejected(
                    "domain-taken",
                    f"{domain} has a DNS record that no campaign made.",
                    status=409,
                    title="The domain is taken",
                ) from None

    def unroute(self, domain: str, hostname: str) -> None:
        """Remove what `route` made; succeeds if it is already gone.

        Raises:
            Retry: if Route 53 cannot do it now.
        """
        try:
            self._change("DELETE", domain, hostname)
        except _Refused as refused:
            found = self._find(domain)
            if found is not None and _is_ours(found, hostname):
                raise Retry(f"Route 53 does not remove {domain}: {refused}", retry_after=5) from None

    def _change(self, action: Literal["CREATE", "DELETE"], domain: str, hostname: str) -> None:
        try:
            _client().change_resource_record_sets(
                HostedZoneId=self._zone_id,
                ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": _record(domain, hostname)}]},
            )
        except ClientError as error:
            raise _translate(error) from error
        except BotoCoreError as error:
            raise Retry("Route 53 cannot be reached.", retry_after=5) from error

    def _find(self, domain: str) -> "ResourceRecordSetOutputTypeDef | None":
        try:
            reply = _client().list_resource_record_sets(
                HostedZoneId=self._zone_id, StartRecordName=domain, MaxItems="1"
            )
        except ClientError as error:
            raise _translate(error) from error
        except BotoCoreError as error:
            raise Retry("Route 53 cannot be reached.", retry_after=5) from error
        # The list begins at the name, or after it if there is none.
        return next((found for found in reply["ResourceRecordSets"] if found["Name"].rstrip(".") == domain), None)


def _record(domain: str, hostname: str) -> "ResourceRecordSetUnionTypeDef":
    return {"Name": domain, "Type": "CNAME", "TTL": _TTL, "ResourceRecords": [{"Value": hostname}]}


def _is_ours(found: "ResourceRecordSetOutputTypeDef", hostname: str) -> bool:
    values = [each["Value"].rstrip(".") for each in found.get("ResourceRecords", [])]
    return found["Type"] == "CNAME" and values == [hostname]


def _rejected(domain: str, reason: object) -> Rejected:
    return Rejected("domain-rejected", f"DNS rejected {domain}: {reason}", status=422, title="The domain was rejected")


def _translate(error: ClientError) -> Exception:
    """Tell what speaks of the domain, and what may come right by itself, from what an operator has to mend."""
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", code)
    full = re.search(_FULL, message)
    if code == "InvalidChangeBatch" and not full:
        return _Refused(message)
    failed = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
    if full or failed or code in _RETRYABLE:
        return Retry(f"Route 53 cannot change the zone now ({code}).", retry_after=5)
    return error
