"""Idempotent POST endpoints on API Gateway, Lambda and DynamoDB: the life of an idempotency record.

This is all that entry points and business logic use, in the order in which to read the modules.
"""

from idempotency.idempotent import DeclarationError, Idempotent
from idempotency.policy import KEPT_HEADERS, Policy, Settings, SettingsError
from idempotency.body import Body
from idempotency.operation import Operation
from idempotency.response import Completion, Row
from idempotency.errors import Fenced, Rejected, Retry, StepError, Undoing
from idempotency.request import Request
from idempotency.event import principal
from idempotency.store import Rows
from idempotency.lifecycle import Lifecycle
from idempotency.telemetry import Outcome, Telemetry

__all__ = [
    "Idempotent",
    "DeclarationError",
    "Policy",
    "KEPT_HEADERS",
    "Settings",
    "SettingsError",
    "Body",
    "Operation",
    "Completion",
    "Row",
    "Rejected",
    "Retry",
    "StepError",
    "Fenced",
    "Undoing",
    "Request",
    "principal",
    "Rows",
    "Lifecycle",
    "Telemetry",
    "Outcome",
]
