"""DNS records in Route 53, as moto keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from idempotency.errors import Problem, Retry
from provisioning import dns
from provisioning.dns import Dns

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

DOMAIN, HOST = "spring.shop.example", "fnl-1.pages.myfunnel.example"


@pytest.fixture
def client(cloud: None) -> Route53Client:
    """Route 53, by the module's own client."""
    return dns._client()


@pytest.fixture
def zone(client: Route53Client) -> str:
    """A hosted zone."""
    created = client.create_hosted_zone(Name="shop.example", CallerReference=str(uuid4()))
    return created["HostedZone"]["Id"].removeprefix("/hostedzone/")


@pytest.fixture
def fail(client: Route53Client) -> Iterator[Callable[[Exception], None]]:
    """Makes Route 53 fail, without sending anything."""
    failures: list[Exception] = []

    def fail(**_: Any) -> None:
        raise failures[-1]

    client.meta.events.register_first("before-call.route-53.ChangeResourceRecordSets", fail)
    yield failures.append
    client.meta.events.unregister("before-call.route-53.ChangeResourceRecordSets", fail)


def routes(client: Route53Client, zone: str) -> dict[str, list[str]]:
    """Where each domain of a zone leads."""
    found = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return {
        record_set["Name"].rstrip("."): [record["Value"] for record in record_set["ResourceRecords"]]
        for record_set in found
        if record_set["Type"] == "CNAME"
    }


def refusal(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "ChangeResourceRecordSets")


def test_routes_a_domain_and_again_is_no_error(client: Route53Client, zone: str) -> None:
    Dns(zone).route(DOMAIN, HOST)
    Dns(zone).route(DOMAIN, HOST)

    assert routes(client, zone) == {DOMAIN: [HOST]}


def test_removes_a_route_and_again_is_no_error(client: Route53Client, zone: str) -> None:
    Dns(zone).route(DOMAIN, HOST)

    Dns(zone).unroute(DOMAIN, HOST)
    Dns(zone).unroute(DOMAIN, HOST)

    assert routes(client, zone) == {}


def test_one_that_is_gone_is_known_by_route_53s_own_words(fail: Callable[[Exception], None]) -> None:
    gone = "[Tried to delete resource record set [name='spring.shop.example.', type='CNAME'] but it was not found]"
    fail(refusal("InvalidChangeBatch", gone))

    Dns("Z1").unroute(DOMAIN, HOST)


def test_one_that_leads_elsewhere_by_now_stays(fail: Callable[[Exception], None]) -> None:
    changed = "[Tried to delete resource record set … but the values provided do not match the current values]"
    fail(refusal("InvalidChangeBatch", changed))

    with pytest.raises(Problem):
        Dns("Z1").unroute(DOMAIN, HOST)


@pytest.mark.parametrize("code", ["InvalidChangeBatch", "InvalidInput", "InvalidDomainName"])
def test_a_rejection_is_for_good_and_says_why(fail: Callable[[Exception], None], code: str) -> None:
    fail(refusal(code, "RRSet with DNS name elsewhere.example. is not permitted in zone shop.example."))

    with pytest.raises(Problem) as raised:
        Dns("Z1").route("elsewhere.example", HOST)

    assert not isinstance(raised.value, Retry)
    assert (raised.value.status, raised.value.slug) == (422, "domain-rejected")
    assert "is not permitted in zone" in raised.value.detail


@pytest.mark.parametrize(
    "error",
    [
        refusal("Throttling"),
        refusal("PriorRequestNotComplete"),
        refusal("ServiceUnavailable"),
        EndpointConnectionError(endpoint_url="https://route53.amazonaws.com"),
        ReadTimeoutError(endpoint_url="https://route53.amazonaws.com"),
    ],
    ids=str,
)
def test_a_failure_for_now_is_retryable(fail: Callable[[Exception], None], error: Exception) -> None:
    fail(error)

    with pytest.raises(Retry) as raised:
        Dns("Z1").route(DOMAIN, HOST)

    assert raised.value.retry_after == 5


def test_another_failure_is_nothing_that_the_client_is_told(fail: Callable[[Exception], None]) -> None:
    fail(refusal("NoSuchHostedZone"))

    with pytest.raises(ClientError):
        Dns("Z1").route(DOMAIN, HOST)
