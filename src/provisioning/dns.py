"""DNS records in Route 53."""

from functools import cache
from typing import TYPE_CHECKING, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from idempotency.problems import Problem, Retryable

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

_TTL = 300
_GONE = "not found"
_REJECTED = frozenset({"InvalidChangeBatch", "InvalidInput", "InvalidDomainName"})
_RETRYABLE = frozenset({"PriorRequestNotComplete", "Throttling", "ThrottlingException", "ServiceUnavailable"})


@cache
def _client() -> "Route53Client":
    config = Config(connect_timeout=1, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("route53", config=config)


class Dns:
    """Routes domains of one hosted zone.

    Args:
        zone_id: the hosted zone.
    """

    def __init__(self, zone_id: str) -> None:
        self._zone_id = zone_id

    def route(self, domain: str, hostname: str) -> str:
        """Point a domain at a host with a CNAME; again is no error.

        Returns:
            The id of the change.

        Raises:
            Retryable: if Route 53 cannot do it now.
            Problem: ``domain-rejected`` (422) if it never will.
        """
        return self._change("UPSERT", domain, hostname)

    def unroute(self, domain: str, hostname: str) -> None:
        """Remove what `route` made; one that is gone already is no error."""
        try:
            self._change("DELETE", domain, hostname)
        except Problem as problem:
            if _GONE not in problem.detail:
                raise

    def _change(self, action: Literal["UPSERT", "DELETE"], domain: str, hostname: str) -> str:
        try:
            reply = _client().change_resource_record_sets(
                HostedZoneId=self._zone_id,
                ChangeBatch={
                    "Changes": [
                        {
                            "Action": action,
                            "ResourceRecordSet": {
                                "Name": domain,
                                "Type": "CNAME",
                                "TTL": _TTL,
                                "ResourceRecords": [{"Value": hostname}],
                            },
                        }
                    ]
                },
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _REJECTED:
                raise Problem(
                    "domain-rejected",
                    f"DNS rejected {domain}: {error.response['Error'].get('Message', code)}",
                    status=422,
                    title="The domain was rejected",
                ) from error
            if code in _RETRYABLE:
                raise Retryable("Route 53 cannot change the zone now.", retry_after=5) from error
            raise
        except BotoCoreError as error:
            raise Retryable("Route 53 cannot be reached.", retry_after=5) from error
        return reply["ChangeInfo"]["Id"]
