# example campaigns
"""DNS records in Route 53, simulated by moto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from idempotency import Rejected, Retry
from provisioning import dns
from provisioning.dns import Dns
from tests.unit.campaigns import Campaigns
from tests.unit.route53 import strict

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

DOMAIN, HOST = "spring.shop.example", "fnl-1.pages.myfunnel.example"


@pytest.fixture
def client(cloud: None) -> Iterator[Route53Client]:
    """Route 53, by the module's own client."""
    with strict(dns._client()):
        yield dns._client()


@pytest.fixture
def zone(client: Route53Client) -> str:
    """A hosted zone."""
    created = client.create_hosted_zone(Name="shop.example", CallerReference=str(uuid4()))
    return created["HostedZone"]["Id"].removeprefix("/hostedzone/")


@pytest.fixture
def fail(client: Route53Client) -> Iterator[Callable[[Exception], None]]:
    """Function that makes Route 53 fail, without sending anything."""
    failures: list[Exception] = []

    def fail(**_: Any) -> None:
        if failures:
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


def refusal(code: str, message: str = "", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "ChangeResourceRecordSets")


def test_routes_a_domain_and_succeeds_if_it_is_already_routed(client: Route53Client, zone: str) -> None:
    Dns(zone).route(DOMAIN, HOST)
    Dns(zone).route(DOMAIN, HOST)

    assert routes(client, zone) == {DOMAIN: [HOST]}


def test_removes_a_route_and_succeeds_if_it_is_already_gone(client: Route53Client, zone: str) -> None:
    Dns(zone).route(DOMAIN, HOST)

    Dns(zone).unroute(DOMAIN, HOST)
    Dns(zone).unroute(DOMAIN, HOST)

    assert routes(client, zone) == {}


@pytest.mark.parametrize("kind", ["CNAME", "A"])
def test_never_touches_a_record_that_it_did_not_make(client: Route53Client, zone: str, kind: str) -> None:
    # Given a record of the operator's
    others: Any = {"Name": DOMAIN, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}]}
    change: Any = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": others}]}
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=change)
    before = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]

    # When a campaign wants that name, and another one gives it back
    with pytest.raises(Rejected) as raised:
        Dns(zone).route(DOMAIN, HOST)
    Dns(zone).unroute(DOMAIN, HOST)

    # Then the first is refused for good, and the record is as it was
    assert (raised.value.status, raised.value.slug) == (409, "domain-taken")
    assert client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] == before


def test_a_record_that_will_not_go_is_tried_again(
    client: Route53Client, zone: str, fail: Callable[[Exception], None]
) -> None:
    Dns(zone).route(DOMAIN, HOST)
    fail(refusal("InvalidChangeBatch"))

    with pytest.raises(Retry):
        Dns(zone).unroute(DOMAIN, HOST)


def test_a_rejection_is_for_good_and_says_why(zone: str, fail: Callable[[Exception], None]) -> None:
    fail(refusal("InvalidChangeBatch", "RRSet with DNS name elsewhere.example. is not permitted in zone shop.example."))

    with pytest.raises(Rejected) as raised:
        Dns(zone).route("elsewhere.example", HOST)

    assert (raised.value.status, raised.value.slug) == (422, "domain-rejected")
    assert "is not permitted in zone" in raised.value.detail


@pytest.mark.parametrize(
    "error",
    [
        refusal("Throttling"),
        refusal("PriorRequestNotComplete"),
        refusal("InvalidChangeBatch", "[Number of records limit of 10000 exceeded.]"),
        refusal("ServiceUnavailable", status=503),
        refusal("InternalFailure", status=500),
        EndpointConnectionError(endpoint_url="https://route53.amazonaws.com"),
        ReadTimeoutError(endpoint_url="https://route53.amazonaws.com"),
    ],
    ids=str,
)
def test_a_failure_for_now_is_retryable(zone: str, fail: Callable[[Exception], None], error: Exception) -> None:
    fail(error)

    with pytest.raises(Retry) as raised:
        Dns(zone).route(DOMAIN, HOST)

    assert raised.value.retry_after == 5


@pytest.mark.thorough
@pytest.mark.parametrize(
    "code",
    [
        "AccessDenied",
        "ExpiredToken",
        "InvalidClientTokenId",
        "InvalidInput",
        "NoSuchHostedZone",
        "SignatureDoesNotMatch",
    ],
)
def test_what_an_operator_has_to_mend_is_no_verdict_on_the_request(campaigns: Campaigns, zone: str, code: str) -> None:
    # Given a role, a zone or a request of ours that is wrong
    campaigns.dns_fails(refusal(code, status=403))

    # When a campaign meets that, and again once it is mended
    failed, mended = campaigns.launch(), campaigns.launch()

    # Then an operator is told, the client is not, and the key has its campaign in the end
    assert (failed.status, failed.problem) == (500, "internal-error")
    assert mended.status == 201
