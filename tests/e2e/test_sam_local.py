"""The functions in Docker, in the runtime of Lambda, by `sam local invoke` with the events of `events/`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import NEEDS
from tests.e2e.conftest import building
from tools.local import sam_local
from tools.local.sam_local import EVENTS, SamLocal

pytestmark = NEEDS["sam_local"]

_IMAGE = "public.ecr.aws/lambda/python:3.13-x86_64"


@pytest.fixture(scope="module")
def functions() -> Iterator[SamLocal]:
    """The functions on fresh tables; the test is skipped if there is no Docker, or no image of the runtime."""
    for question in (["docker", "info"], ["docker", "image", "inspect", _IMAGE]):
        try:
            answer = subprocess.run(question, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("docker is not on PATH")
        if answer.returncode:
            pytest.skip(f"{' '.join(question)}: {answer.stderr.strip()}")
    with ExitStack() as cleanup:
        with building():
            ready = cleanup.enter_context(sam_local.ready())
        yield ready


def body(reply: dict[str, Any]) -> Any:
    return json.loads(reply["body"])


def test_each_event_shows_its_case(functions: SamLocal) -> None:
    """One test, since the events are one story: each case but the first depends on what the first one has left."""
    # Given a token, the authorizer lets its principal in
    allowed = functions.invoke(EVENTS / "authorizer.json")
    assert allowed["principalId"] == "alice"
    assert [statement["Effect"] for statement in allowed["policyDocument"]["Statement"]] == ["Allow"]

    # When it provisions a server, and retries
    first = functions.invoke(EVENTS / "provision.json")
    retry = functions.invoke(EVENTS / "provision-retry.json")

    # Then the retry has the same bytes, and says that they are replayed
    assert first["statusCode"] == 201
    assert (retry["statusCode"], retry["body"]) == (201, first["body"])
    assert "Idempotent-Replayed" not in first["multiValueHeaders"]
    assert retry["multiValueHeaders"]["Idempotent-Replayed"] == ["true"]

    # And every other request is refused
    for event, status, slug in [
        ("provision-other-body", 422, "key-reused"),
        ("provision-missing-key", 400, "key-missing"),
        ("provision-bad-body", 400, "body-invalid"),
        ("unknown-operation", 404, "not-found"),
    ]:
        refused = functions.invoke(EVENTS / f"{event}.json")
        assert refused["statusCode"] == status, event
        assert body(refused)["type"].endswith(f"#{slug}"), event
