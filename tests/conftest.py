"""What every test relies on: no test can reach an AWS account, and the functions find the environment they expect."""

import os

# Before anything imports boto3: clients made at import are mocked too only if moto was there first.
import moto.core  # noqa: F401
import pytest
from hypothesis import settings

from tests.clocks import SetClock

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

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
    POWERTOOLS_METRICS_NAMESPACE="ProvisionOnce",
    SPECIFICATION_URL="https://docs.example/idempotency",
)


@pytest.fixture
def clock() -> SetClock:
    """The time, for all workers alike."""
    return SetClock()
