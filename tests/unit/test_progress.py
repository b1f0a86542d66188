"""What the status of an operation shows of its record."""

import json
from typing import Any

import pytest

from idempotency.progress import status
from idempotency.record import Status
from tests.record import RECORD


def shown(**changes: Any) -> dict[str, Any]:
    """The representation of a record."""
    representation: dict[str, Any] = json.loads(status(RECORD._replace(**changes), 0).body)
    return representation


@pytest.mark.parametrize(("code", "state"), [(201, "succeeded"), (399, "succeeded"), (400, "failed"), (500, "failed")])
def test_of_what_has_ended_says_how(code: int, state: str) -> None:
    response = {"status": code, "headers": {"Location": ["/v1/things/7"]}, "compressed": False, "body": b""}

    found = shown(status=Status.COMPLETED, response=response)

    assert (found["state"], found["response"]) == (state, {"status": code, "location": "/v1/things/7"})


def test_of_steps_says_how_far_each_has_come() -> None:
    found = shown(
        steps={"done": "1", "taken back": "2", "undo taken back": "null"},
        refused={"refused": "{}"},
        begun=["perhaps"],
        waits={"boot": 0},
    )

    assert found["steps"] == {
        "boot": "waiting",
        "done": "done",
        "perhaps": "begun",
        "refused": "refused",
        "taken back": "undone",
    }
