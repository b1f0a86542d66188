"""Clients of the cloud on this machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

REGION = "eu-west-1"
KEY = "test"
"""Access key and secret of MiniStack's root user, who may do anything; any other key needs a user and rights."""
_CONNECTIONS = 128


@cache
def local_client(service: str, endpoint_url: str, region: str = REGION, read_timeout: float | None = None) -> Any:
    """A client that talks to the local cloud, whatever credentials and settings the environment has.

    Args:
        service: the service.
        endpoint_url: where the cloud is.
        region: the AWS region.
        read_timeout: seconds after which a call fails, without another attempt; None for the SDK's own behaviour.
    """
    once = Config(read_timeout=read_timeout, retries={"total_max_attempts": 1}, max_pool_connections=_CONNECTIONS)
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        config=None if read_timeout is None else once,
    )
