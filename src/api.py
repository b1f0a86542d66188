"""Lambda entry point of the API: each route, and the operation behind it."""

import os
import re
import warnings
from functools import cache
from time import perf_counter
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from idempotency.clock import Clock
from idempotency.lifecycle import Lifecycle
from idempotency.middleware import Idempotent
from idempotency.policy import Policy
from idempotency.problems import as_problem
from idempotency.request import principal
from idempotency.signals import Signals
from idempotency.store import Rows, Store
from provisioning import campaigns, servers
from provisioning.dns import Dns
from provisioning.ec2 import Ec2Provider
from provisioning.funnels import Funnels
from provisioning.resources import Resources

# A refused request counts nothing, and that is no cause for a warning.
warnings.filterwarnings("ignore", "No application metrics to publish")

# Seconds for which the token of MyFunnelAPI is kept before it is read again.
_SECRET_MAX_AGE = 300

logger = Logger()
metrics = Metrics()
# A custom domain's base path stands before the path; the routes begin at the version.
app = APIGatewayRestResolver(strip_prefixes=[re.compile(r"^/.+?(?=/v1/)")])

# DynamoDB answers in milliseconds or not at all. One module builds every request, and DynamoDB checks them anyway.
dynamodb = boto3.client(
    "dynamodb",
    config=Config(
        connect_timeout=1,
        read_timeout=2,
        retries={"mode": "standard", "total_max_attempts": 3},
        parameter_validation=False,
    ),
)


@cache
def lifecycle() -> Lifecycle:
    """The lifecycle of every route's keys."""
    clock = Clock()
    store = Store(dynamodb, os.environ["IDEMPOTENCY_TABLE"], clock)
    cache_bytes = int(os.environ.get("IDEMPOTENCY_CACHE_BYTES", "8388608"))
    return Lifecycle(store, Signals(metrics, logger), clock=clock, cache_bytes=cache_bytes)


@cache
def resources() -> Resources:
    """The resources that were provisioned."""
    return Resources(Rows(dynamodb, os.environ["RESOURCES_TABLE"], Clock()))


@cache
def provider() -> servers.Provider:
    """Where servers come from."""
    return Ec2Provider() if os.environ.get("SERVER_PROVIDER") == "ec2" else servers.RecordProvider()


@cache
def funnels() -> Funnels:
    """Where landing pages come from."""
    secrets = SecretsProvider(boto_config=Config(connect_timeout=1, read_timeout=2))
    return Funnels(
        os.environ["MYFUNNEL_API_URL"],
        lambda: str(secrets.get(os.environ["MYFUNNEL_SECRET_ID"], max_age=_SECRET_MAX_AGE)),
    )


@cache
def dns() -> Dns:
    """The zone that campaigns are routed in."""
    return Dns(os.environ["DNS_ZONE_ID"])


def recoverable() -> Policy:
    """The policy of operations with effects elsewhere: finished by recovery if the client never comes back."""
    return Policy(recoverable=True)


@app.post("/v1/servers/provision", middlewares=[Idempotent(lifecycle, servers.ServerRequest, recoverable)])
def provision_server() -> Response[Any]:
    """Provision a server."""
    return servers.provision(app.context["body"], app.context["operation"], provider(), resources())


@app.get("/v1/servers/<server_id>")
def get_server(server_id: str) -> dict[str, Any]:
    """Show a server of the caller's."""
    return resources().get("server", server_id, principal(app.current_event))


@app.post("/v1/campaigns", middlewares=[Idempotent(lifecycle, campaigns.CampaignRequest, recoverable)])
def launch_campaign() -> Response[Any]:
    """Launch a campaign."""
    return campaigns.launch(app.context["body"], app.context["operation"], resources(), funnels(), dns())


@app.get("/v1/campaigns/<campaign_id>")
def get_campaign(campaign_id: str) -> dict[str, Any]:
    """Show a campaign of the caller's."""
    return resources().get("campaign", campaign_id, principal(app.current_event))


@app.exception_handler([Exception, NotFoundError])  # type: ignore[untyped-decorator]
def show_problem(error: Exception) -> Response[str]:
    """Answer every error as a problem."""
    problem = as_problem(error)
    if problem.slug == "internal-error":
        logger.error("unexpected error", exc_info=error)
    return problem.response()


@logger.inject_lambda_context(clear_state=True, correlation_id_path="requestContext.requestId")
@metrics.log_metrics(raise_on_empty_metrics=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a REST API proxy event."""
    started = perf_counter()
    reply = app.resolve(event, context)
    logger.info(
        "request",
        method=event["httpMethod"],
        route=event["resource"],
        status=reply["statusCode"],
        milliseconds=round((perf_counter() - started) * 1000),
    )
    return reply
