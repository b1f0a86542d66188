# example campaigns
"""A campaign as a test sees it: what its client sends, and what each service then has of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from idempotency.clock import Clock
from idempotency.record import Record
from idempotency.request import record_id
from idempotency.store import Store
from tools.local.client import Answer, Client
from tools.local.myfunnel import Control
from tools.local.neighbours import ZONE
from tools.local.stack import Stack

PATH = "/v1/campaigns"
PRINCIPAL = "alice"


@dataclass(frozen=True)
class Campaign:
    """A campaign that a client of `PRINCIPAL` launches under a key of its own."""

    key: str = field(default_factory=lambda: str(uuid4()))

    @property
    def domain(self) -> str:
        """Its domain, which no other campaign has."""
        return f"{self.key}.{ZONE}"

    @property
    def record_id(self) -> str:
        """The id of its record."""
        return record_id(f"id:{PRINCIPAL}", "POST", PATH, self.key)

    def post(self, client: Client, prefer: str = "") -> Answer:
        """Send it once."""
        return client.post(PATH, self._body, self.key, prefer)

    def post_until_done(self, client: Client, within: float = 90) -> Answer:
        """Send it until it is done."""
        return client.post_until_done(PATH, self._body, self.key, within=within)

    @property
    def _body(self) -> dict[str, str]:
        return {"name": f"Campaign {self.key[:8]}", "domain": self.domain}


class Services:
    """What the services of a stack know about campaigns.

    Args:
        stack: the stack.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._dynamodb = stack.client("dynamodb")
        self._route53 = stack.client("route53")
        self.myfunnel = Control(stack.myfunnel_url)
        self.store = Store(self._dynamodb, stack.idempotency_table, Clock())

    def record(self, campaign: Campaign) -> Record | None:
        """Its record."""
        return self.store.get(campaign.record_id)

    def effects(self, campaign: Campaign) -> dict[str, int]:
        """How many of each thing exist for it; deleted ones do not count."""
        funnels = self.myfunnel.funnels(campaign.domain)
        hosts = {funnel.hostname for funnel in funnels}
        rows = [self._row("campaign", row["campaign_id"]) for row in [self._row("domain", campaign.domain)] if row]
        return {
            "funnels": len(funnels),
            "dns records": sum(1 for host in self._routed_to(campaign.domain) if host in hosts),
            "campaigns": sum(1 for row in rows if row and row["domain"] == campaign.domain),
        }

    def _routed_to(self, domain: str) -> list[str]:
        found = self._route53.list_resource_record_sets(
            HostedZoneId=self._stack.dns_zone_id, StartRecordName=domain, StartRecordType="CNAME"
        )["ResourceRecordSets"]
        return [
            record["Value"]
            for record_set in found
            if record_set["Name"].rstrip(".") == domain
            for record in record_set["ResourceRecords"]
        ]

    def _row(self, kind: str, id_: str) -> dict[str, Any] | None:
        found = self._dynamodb.get_item(
            TableName=self._stack.resources_table, Key={"id": {"S": f"{kind}#{id_}"}}, ConsistentRead=True
        )
        if "Item" not in found:
            return None
        return {name: value.get("S") for name, value in found["Item"]["resource"]["M"].items()}
