"""For requests that the OpenAPI document allows or forbids, the deployed stack answers as the document says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tools.local.stack import Stack
from tools.setup import ROOT

pytest_plugins = ["schemathesis.pytest.plugin"]  # for this module alone: it takes more than a second to import

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_path(ROOT / "openapi.yaml")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.xdist_group("e2e")
@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
def test_answers_as_the_document_says(case: schemathesis.Case[Any], stack: Stack) -> None:
    case.call_and_validate(
        base_url=stack.api_url, headers={"Authorization": f"Bearer {stack.token}"}, checks=CHECKS, timeout=60
    )
