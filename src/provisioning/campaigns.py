# example campaigns
"""Set up a campaign across services, once: its landing page, then the DNS record that leads there."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Self

from idempotency import Body, Completion, Operation, Rejected
from provisioning.resources import Resources

if TYPE_CHECKING:
    from provisioning.dns import Dns
    from provisioning.funnels import Funnels


class CampaignRequest(Body):
    """The body of ``POST /v1/campaigns``.

    Args:
        name: what people call the campaign.
        domain: the host name that leads to its landing page, in lower case; one outside ASCII as Punycode (`xn--…`).
    """

    name: Annotated[str, {"minLength": 1, "maxLength": 100}]
    domain: Annotated[
        str,
        {"maxLength": 253, "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])$"},
    ]

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read a campaign, where there are campaigns at all; see `Body.read`.

        A body is read before its key is claimed, so what is refused here reserves no domain and leaves nothing to
        recover.

        Raises:
            Rejected: ``no-campaigns`` (404) if the stack was deployed without MyFunnelAPI or without a zone.
        """
        campaign = super().read(value)
        if not (os.environ.get("MYFUNNEL_API_URL") and os.environ.get("DNS_ZONE_ID")):
            raise Rejected(
                "no-campaigns",
                "This deployment has no MyFunnelAPI and DNS zone to launch campaigns with.",
                status=404,
                title="There are no campaigns here",
            )
        return campaign


def launch(
    campaign: CampaignRequest, operation: Operation, resources: Resources, funnels: "Funnels", dns: "Dns"
) -> Completion:
    """Launch a campaign; each step is undone if a later one fails for good.

    The domain is reserved before anything else exists: two campaigns that want it at once do not both get a landing
    page, and neither diverts the other's traffic.
    """
    id_ = f"cmp-{operation.derived_id('campaign')}"
    domain = {"id": campaign.domain, "campaign_id": id_}
    operation.reserve("domain", resources.row("domain", domain, operation.principal, conflict=_taken(campaign)))
    funnel = operation.step(
        "landing page",
        lambda key: funnels.create(campaign.name, campaign.domain, key),
        undo=lambda funnel: funnels.delete(funnel["id"]),
    )
    operation.step(
        "dns",
        lambda _: dns.route(campaign.domain, funnel["hostname"]),
        undo=lambda: dns.unroute(campaign.domain, funnel["hostname"]),
    )
    representation = {
        "id": id_,
        "name": campaign.name,
        "domain": campaign.domain,
        "status": "live",
        "funnel_id": funnel["id"],
        "landing_page_url": f"https://{campaign.domain}/",
    }
    return Completion(
        201,
        representation,
        headers={"Location": f"{operation.request.base_path}/v1/campaigns/{id_}"},
        rows=[resources.row("campaign", representation, operation.principal)],
    )


def _taken(campaign: CampaignRequest) -> Rejected:
    return Rejected(
        "domain-taken",
        f"Another campaign routes {campaign.domain}.",
        status=409,
        title="The domain is taken",
    )
