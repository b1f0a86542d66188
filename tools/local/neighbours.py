# example campaigns
"""What campaigns need besides the stack: MyFunnelAPI, its token as a secret, and a hosted zone."""

from __future__ import annotations

import os
from pathlib import Path

from tools.local import myfunnel
from tools.local.aws import local_client
from tools.local.cloud import Cloud

ZONE = "shop.example"
PARAMETERS = ("MyFunnelApiUrl", "MyFunnelSecretId", "DnsZoneId")
"""The template parameters that name them."""
_SECRET = "provision-once/myfunnel"


def set_up(cloud: Cloud, home: Path) -> dict[str, str]:
    """Set them up for a stack on a local cloud.

    MyFunnelAPI is a stand-in, unless MYFUNNEL_API_URL and MYFUNNEL_API_TOKEN name the real one.

    Args:
        cloud: the cloud.
        home: directory of the stand-in's files; `tear_down` needs it to find the stand-in.

    Returns:
        Values of `PARAMETERS`.
    """
    token = os.environ.get("MYFUNNEL_API_TOKEN", myfunnel.TOKEN)
    url = myfunnel.start(home, token) if myfunnel_is_a_stand_in() else os.environ["MYFUNNEL_API_URL"]
    local_client("secretsmanager", cloud.endpoint_url).create_secret(Name=_SECRET, SecretString=token)
    zone = local_client("route53", cloud.endpoint_url).create_hosted_zone(Name=ZONE, CallerReference=str(cloud.pid))
    zone_id = zone["HostedZone"]["Id"].removeprefix("/hostedzone/")
    return dict(zip(PARAMETERS, (url, _SECRET, zone_id), strict=True))


def myfunnel_is_a_stand_in() -> bool:
    """Whether MyFunnelAPI is a stand-in here."""
    return not os.environ.get("MYFUNNEL_API_URL")


def tear_down(home: Path) -> None:
    """Stop what `set_up` started outside the cloud."""
    myfunnel.stop(home)
