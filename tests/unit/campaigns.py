# example campaigns
"""Campaigns through the handlers of the deployed functions, and what each service then has of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from provisioning import dns
from tests.events import KEY
from tests.unit.service import Api, Things
from tools.local.client import Answer
from tools.local.myfunnel import Fault, MyFunnel

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

PATH = "/v1/campaigns"
DOMAIN = "spring.shop.example"
CAMPAIGN = {"name": "Spring", "domain": DOMAIN}


class Campaigns(Things):
    """Campaigns, MyFunnelAPI and a hosted zone.

    Args:
        api: the API.
        myfunnel: MyFunnelAPI.
        zone: the hosted zone.
    """

    def __init__(self, api: Api, myfunnel: MyFunnel, zone: str) -> None:
        super().__init__(api, PATH)
        self.myfunnel = myfunnel
        self._zone = zone
        self._dns_failures: list[BaseException] = []

    def empty(self) -> None:
        """Begin anew: nothing exists, and nothing fails."""
        self.api.empty()
        self.myfunnel.funnels.clear()
        self.myfunnel.calls.clear()
        self.myfunnel.faults.clear()
        self._dns_failures.clear()
        for domain, host in self.routes.items():
            dns.Dns(self._zone).unroute(domain, host)

    def launch(self, body: Any = CAMPAIGN, *, key: str = KEY, principal: str = "alice", **event: Any) -> Answer:
        """POST a campaign."""
        return self.api.post(body, key=key, principal=principal, path=PATH, **event)

    @property
    def domains(self) -> list[str]:
        """The domains that are reserved or routed, according to the rows."""
        return [row["resource"]["id"] for row in self.api.rows if row["id"].startswith("domain#")]

    @property
    def funnels(self) -> list[str]:
        """The ids of the funnels that exist."""
        return [funnel.id for funnel in self.myfunnel.funnels.values() if not funnel.deleted]

    @property
    def routes(self) -> dict[str, str]:
        """Where each domain leads."""
        found = self._route53.list_resource_record_sets(HostedZoneId=self._zone)["ResourceRecordSets"]
        return {
            record_set["Name"].rstrip("."): record_set["ResourceRecords"][0]["Value"]
            for record_set in found
            if record_set["Type"] == "CNAME"
        }

    def myfunnel_fails(self, method: str = "POST", times: int | None = 1, status: int = 503, **fault: Any) -> None:
        """Make MyFunnelAPI refuse calls."""
        self.myfunnel.faults.append(Fault(method=method, times=times, act=False, status=status, **fault))

    def dns_fails(self, error: BaseException, times: int = 1) -> None:
        """Make calls to Route 53 fail."""
        self._dns_failures += [error] * times

    def watch_dns(self) -> Callable[[], None]:
        """Begin to make them fail; return a function that stops it."""
        event, client = "before-call.route-53.ChangeResourceRecordSets", self._route53

        def fail(**_: Any) -> None:
            if self._dns_failures:
                raise self._dns_failures.pop(0)

        client.meta.events.register_first(event, fail)
        return lambda: client.meta.events.unregister(event, fail)

    @property
    def _route53(self) -> Route53Client:
        return dns._client()
