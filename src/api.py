"""Lambda entry point of the API: each route, and the operation behind it."""

import os
import warnings
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

import snapshot
from idempotency import Completion, Idempotent, Lifecycle, Operation, Policy, Rows, Telemetry, principal
from provisioning import campaigns, servers
from provisioning.campaigns import CampaignRequest
from provisioning.resources import Resources
from provisioning.servers import ServerRequest

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

    from provisioning.dns import Dns
    from provisioning.funnels import Funnels

# A refused request counts nothing, and that is no cause for a warning.
warnings.filterwarnings("ignore", "No application metrics to publish")

logger = Logger(serialize_stacktrace=False)  # the traceback is in each error once, as text
metrics = Metrics()
app = APIGatewayRestResolver()

# DynamoDB answers in milliseconds or not at all. One module builds every request, and DynamoDB checks them anyway.
# It comes from botocore, since boto3 imports a third more, of which nothing is used here.
session = botocore.session.get_session()
dynamodb = cast(
    "DynamoDBClient",
    session.create_client(
        "dynamodb",
        config=Config(
            connect_timeout=1,
            read_timeout=2,
            retries={"mode": "standard", "total_max_attempts": 3},
            parameter_validation=False,
            user_agent="provision-once",  # the SDK would make its own from forty parts at each call
        ),
    ),
)


@cache
def sqs() -> "SQSClient":
    """What carries operations on. A message only spares one the wait for the sweep: that is worth two seconds."""
    config = Config(
        connect_timeout=1,
        read_timeout=1,
        retries={"mode": "standard", "total_max_attempts": 2},
        user_agent="provision-once",
    )
    return cast("SQSClient", session.create_client("sqs", config=config))


telemetry = Telemetry(metrics, logger)
idempotent = Idempotent(app, telemetry, lambda: Lifecycle.from_environment(dynamodb, telemetry, sqs))

# Operations with effects elsewhere: finished by recovery if the client never comes back.
recoverable = Policy(recoverable=True)
# Operations that only write their rows: all at once, or not at all.
atomic = Policy(atomic=True)


@cache
def resources() -> Resources:
    """The resources that were provisioned."""
    return Resources(Rows(dynamodb, os.environ["RESOURCES_TABLE"]))


def on_ec2() -> bool:
    """Whether servers are EC2 instances; otherwise, a server is no more than its row."""
    return os.environ.get("SERVER_PROVIDER") == "ec2"


@cache
def provider() -> servers.Provider:
    """Where servers come from."""
    if not on_ec2():
        return servers.InventoryProvider()
    from provisioning.ec2 import Ec2Provider

    return Ec2Provider(os.environ.get("EC2_LAUNCH_TEMPLATE", ""))


# example campaigns
# Seconds for which the token of MyFunnelAPI is kept before it is read again.
_SECRET_MAX_AGE = 300


@cache
def funnels() -> "Funnels":
    """Where landing pages come from."""
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

    from provisioning.funnels import Funnels

    secrets = SecretsProvider(boto_config=Config(connect_timeout=1, read_timeout=2))
    return Funnels(
        os.environ["MYFUNNEL_API_URL"],
        lambda: str(secrets.get(os.environ["MYFUNNEL_SECRET_ID"], max_age=_SECRET_MAX_AGE)),
    )


@cache
def dns() -> "Dns":
    """The zone that campaigns are routed in."""
    from provisioning.dns import Dns

    return Dns(os.environ["DNS_ZONE_ID"], os.environ["DNS_SUBTREE"])


# end of example


@app.post("/v1/servers/provision")
@idempotent(lambda: recoverable if on_ec2() else atomic)
def provision_server(server: ServerRequest, operation: Operation) -> Completion:
    """Provision a server."""
    return servers.provision(server, operation, provider(), resources())


@app.get("/v1/servers/<server_id>")
def get_server(server_id: str) -> dict[str, Any]:
    """Show one of the caller's servers."""
    return resources().get("server", server_id, principal(app.current_event))


# example campaigns
@app.post("/v1/campaigns")
@idempotent(recoverable)
def launch_campaign(campaign: CampaignRequest, operation: Operation) -> Completion:
    """Launch a campaign."""
    return campaigns.launch(campaign, operation, resources(), funnels(), dns())


@app.get("/v1/campaigns/<campaign_id>")
def get_campaign(campaign_id: str) -> dict[str, Any]:
    """Show one of the caller's campaigns."""
    return resources().get("campaign", campaign_id, principal(app.current_event))


# end of example


@app.get("/v1/operations/<operation_id>")
def get_operation(operation_id: str) -> Response[Any]:
    """Show how far one of the caller's operations has come."""
    return idempotent.status(operation_id)


@logger.inject_lambda_context(clear_state=True, correlation_id_path="requestContext.requestId")
@metrics.log_metrics(raise_on_empty_metrics=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a REST API proxy event."""
    started = perf_counter()
    reply = idempotent.resolve(event, context)
    if origin := os.environ.get("CORS_ORIGIN"):
        reply["multiValueHeaders"] |= {
            "Access-Control-Allow-Origin": [origin],
            "Access-Control-Expose-Headers": ["Idempotent-Replayed, Location, Preference-Applied, Retry-After"],
        }
    if reply["statusCode"] >= 500:
        telemetry.failed(context.function_version)
    logger.info(
        "request",
        method=event["httpMethod"],
        route=event["resource"],
        status=reply["statusCode"],
        milliseconds=round((perf_counter() - started) * 1000),
    )
    return reply


def prime() -> None:
    """Do before a snapshot, once, what the first request would do in each environment that is made of it."""
    idempotent.prime()
    provider()
    # example campaigns
    if os.environ.get("MYFUNNEL_API_URL") and os.environ.get("DNS_ZONE_ID"):
        funnels()
        dns()
    # end of example
    # A whole request but for sending it: a connection would not outlive the snapshot.
    dynamodb.generate_presigned_url("get_item", Params={"TableName": "none", "Key": {"id": {"S": "none"}}})


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # Settings that contradict each other fail the deployment, not its first request.
    idempotent.start()
    snapshot.prepare(prime)
