"""Clients of the cloud on this machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3

REGION = "eu-west-1"


@cache
def local_client(service: str, endpoint_url: str, region: str = REGION) -> Any:
    """A client that talks to the local cloud, whatever credentials and settings the environment has."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
