"""Fixtures for tests of the functions as they are deployed, on AWS as moto simulates it (one thread only)."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws
from moto.core.base_backend import BackendDict

import api
from provisioning import dns
from tests import roles
from tests.clocks import SetClock
from tests.sample import Samples
from tests.unit.campaigns import Campaigns
from tests.unit.route53 import strict
from tests.unit.service import Api, empty, restart
from tools.local import myfunnel
from tools.local.myfunnel import MyFunnel
from tools.local.tables import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Tables have the names of the template's resources.
_TABLES = ("IdempotencyTable", "ResourcesTable", "TokensTable")
# Services with things that are made once; what a test adds to them, its fixtures delete.
_OF_THE_SESSION = frozenset(
    {
        "dynamodb",
        # example campaigns
        "route53",
        "secretsmanager",
        # end of example
    }
)


@pytest.fixture(scope="session")
def cloud() -> Iterator[None]:
    """An AWS account simulated by moto, with the tables of the stack; functions do only what their roles allow."""
    # DynamoDB Local has tables for each access key: those that the session began with stay.
    with mock_aws(config={"core": {"mock_credentials": False}}), roles.enforced():
        for table in _TABLES:
            create_table(api.dynamodb, table, table)
        yield


@pytest.fixture
def dynamodb(cloud: None) -> Iterator[DynamoDBClient]:
    """DynamoDB with the tables of the stack, empty."""
    yield api.dynamodb
    for table in _TABLES:
        empty(table)


@pytest.fixture
def logs() -> Iterator[StringIO]:
    """The function's log."""
    handler = api.logger.registered_handler
    stream, before = StringIO(), handler.stream  # type: ignore[attr-defined]
    handler.stream = stream  # type: ignore[attr-defined]
    yield stream
    handler.stream = before  # type: ignore[attr-defined]


@pytest.fixture
def service(
    dynamodb: DynamoDBClient, clock: SetClock, logs: StringIO, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    """The API on fresh tables, in a function that has just started."""
    monkeypatch.setenv("IDEMPOTENCY_TABLE", "IdempotencyTable")
    monkeypatch.setenv("RESOURCES_TABLE", "ResourcesTable")
    monkeypatch.setattr("idempotency.lifecycle.Clock", lambda: clock)
    api_under_test = Api(dynamodb, clock)
    monkeypatch.setattr(api, "sqs", lambda: api_under_test.messages.client)
    restart()
    yield api_under_test
    restart()
    forget_other_services()


@pytest.fixture
def samples(service: Api) -> Iterator[Samples]:
    """Samples, with a service of their own that makes their parts."""
    samples = Samples(service)
    with samples.serving:
        yield samples


def forget_other_services() -> None:
    """Delete what a test's steps made in services in which the session itself has nothing."""
    for backend in BackendDict._instances:  # type: ignore[misc] # of all services
        if backend.service_name not in _OF_THE_SESSION:
            for account in backend.values():
                account.reset()
            backend.clear()


# example campaigns
@pytest.fixture(scope="session")
def zone(cloud: None) -> str:
    """A hosted zone."""
    created = dns._client().create_hosted_zone(Name="shop.example", CallerReference="tests")
    return created["HostedZone"]["Id"].removeprefix("/hostedzone/")


@pytest.fixture(scope="session")
def secret(cloud: None) -> str:
    """The secret with MyFunnelAPI's token."""
    client = boto3.client("secretsmanager")
    client.create_secret(Name="myfunnel", SecretString=myfunnel.TOKEN)
    client.close()
    return "myfunnel"


@pytest.fixture
def campaigns(service: Api, zone: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaigns]:
    """Campaigns, with a MyFunnelAPI of their own."""
    funnels = MyFunnel()
    with myfunnel.serving(funnels) as url:
        monkeypatch.setenv("MYFUNNEL_API_URL", url)
        monkeypatch.setenv("MYFUNNEL_SECRET_ID", secret)
        monkeypatch.setenv("DNS_ZONE_ID", zone)
        monkeypatch.setenv("DNS_SUBTREE", "")
        campaigns = Campaigns(service, funnels, zone)
        stop_watching = campaigns.watch_dns()
        with strict(dns._client()):
            yield campaigns
        stop_watching()
    campaigns.empty()


# end of example
