"""What every test relies on: no test can reach an AWS account, and the functions find the environment they expect.

Fixtures that several folders share are made here, so that a session starts each server once.
"""

import os
from functools import cache

# Before anything imports boto3: moto mocks clients that are made at import only if it was imported first.
import moto.core  # noqa: F401
import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import settings

from tests.clocks import SetClock
from tests.dynamodb_local import dynamodb_client, dynamodb_local

# No deadlines: how long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A function that starts makes sessions of its own, and each would read megabytes of service descriptions again.
JSONFileLoader.load_file = staticmethod(cache(JSONFileLoader().load_file))  # type: ignore[method-assign]

for name in [name for name in os.environ if name.startswith(("AWS_", "IDEMPOTENCY_", "POWERTOOLS_"))]:
    del os.environ[name]
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="eu-west-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    MOTO_EC2_LOAD_DEFAULT_AMIS="false",
    POWERTOOLS_SERVICE_NAME="provision-once",
    RECOVERY_QUEUE_URL="https://sqs.eu-west-1.amazonaws.com/123456789012/RecoveryQueue",
    POWERTOOLS_METRICS_NAMESPACE="ProvisionOnce",
    SPECIFICATION_URL="https://docs.example/idempotency",
)

# The functions' clients are made at import, and need a region.
from tests.moto_cloud import campaigns, cloud, dynamodb, logs, samples, secret, service, zone  # noqa: E402

__all__ = [
    "campaigns",  # example campaigns
    "cloud",
    "dynamodb",
    "dynamodb_client",
    "dynamodb_local",
    "logs",
    "samples",
    "secret",  # example campaigns
    "service",
    "zone",  # example campaigns
]

NEEDS = {
    "stack": [pytest.mark.e2e, pytest.mark.xdist_group("e2e")],
    "sam_local": [pytest.mark.docker, pytest.mark.slow, pytest.mark.xdist_group("docker")],
    "dynamodb_local": [pytest.mark.integration],
}
"""Marks say what a test needs; a group says that its tests share one server, and so run in one process."""
MYPY = pytest.mark.xdist_group("mypy")
"""For tests that run mypy: it locks its cache, and without one it takes half a minute."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what each test needs, before xdist looks for groups."""
    for item in items:
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            for mark in NEEDS[fixture]:
                item.add_marker(mark)


@pytest.fixture
def clock() -> SetClock:
    """The clock of all workers."""
    clock = SetClock()
    clock.patience = 1000
    return clock
