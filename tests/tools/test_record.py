"""What an operator sees of the record of a key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from idempotency import Retry
from tests.clocks import SetClock
from tests.sample import PATH, Samples
from tools import tokens
from tools.errors import ToolError
from tools.local import template
from tools.ops import environments, record
from tools.ops.environments import Environment

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Shown = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def environment(dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tool find the stack of these tests, in which alice has a token, and bob no more.

    Its gateway has the route of the samples, too.
    """
    tokens.issue(dynamodb, "TokensTable", "alice")
    outputs = {"IdempotencyTable": "IdempotencyTable", "TokensTable": "TokensTable"}
    monkeypatch.setattr(
        environments, "find", lambda _: Environment("", outputs, True, {"dynamodb": dynamodb}.__getitem__)
    )
    stack = template.load()
    events = stack["Resources"]["ApiFunction"]["Properties"]["Events"]
    events["CreateSample"] = {"Type": "Api", "Properties": {"Method": "POST", "Path": PATH}}
    monkeypatch.setattr(template, "load", lambda: stack)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Shows a record."""

    def show(*arguments: str) -> list[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["record", *arguments])
        record.main()
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return show


def rewritten(dynamodb: DynamoDBClient, id_: str) -> None:
    """Give a record a request in a form that this version does not read."""
    dynamodb.update_item(
        TableName="IdempotencyTable",
        Key={"id": {"S": id_}},
        UpdateExpression="SET #request = :other",
        ExpressionAttributeNames={"#request": "request"},
        ExpressionAttributeValues={":other": {"B": b"2"}},
    )


def values(lines: list[str]) -> dict[str, str]:
    """What is shown, by name."""
    named = [line.split(maxsplit=1) for line in lines if line[:1].strip()]
    return {name: rest[0] if rest else "" for name, *rest in named}


class TestRecord:
    def test_of_a_completed_operation_has_its_answer(self, samples: Samples, shown: Shown) -> None:
        answer = samples.create(key="k-1")

        said = shown("k-1")

        assert values(said)["status"] == "COMPLETED"
        assert values(said)["response"].startswith("201")
        assert answer.body.decode() in "".join(line.strip() for line in said)
        assert max(map(len, said)) <= 80

    def test_of_an_unfinished_one_has_its_request_steps_and_error(self, samples: Samples, shown: Shown) -> None:
        samples.service.fails("make")
        samples.create(key="k-1")

        said = values(shown('"k-1"'))

        assert (said["status"], said["last_error"]) == ("RELEASED", "Retry: The service is busy.")
        assert said["request"].startswith(f"POST {PATH}")
        assert "name" in said["steps"]
        assert "response" not in said

    def test_of_a_parked_one_says_so(self, samples: Samples, shown: Shown, clock: SetClock) -> None:
        samples.give_up(clock, "k-1")

        assert values(shown("k-1"))["lease_until"] == "parked"

    def test_shows_what_looks_like_markup_as_it_is(self, samples: Samples, shown: Shown) -> None:
        samples.service.fails("make", Retry("[red]not[/] now[/x]"))
        samples.create(key="k-1")

        assert values(shown("k-1"))["last_error"] == "Retry: [red]not[/] now[/x]"

    def test_shows_all_the_rest_of_one_whose_request_another_version_wrote(
        self, samples: Samples, shown: Shown, dynamodb: DynamoDBClient
    ) -> None:
        samples.service.fails("make")
        samples.create(key="k-1")
        rewritten(dynamodb, samples.record["id"])

        said = values(shown("k-1"))

        assert (said["request"], said["status"]) == ("cannot be read", "RELEASED")

    def test_is_shown_for_everybody_who_used_the_key(self, samples: Samples, shown: Shown) -> None:
        samples.create(key="k-1")
        samples.create({"name": "other"}, key="k-1", principal="bob")

        of_bob = values(shown("--principal", "bob", "k-1"))

        assert of_bob["status"] == "COMPLETED"
        assert of_bob["id"] != values(shown("k-1"))["id"]

    @pytest.mark.parametrize(
        ("key", "said"), [("none", "there is no record of none, under alice"), ("a b", "is not a key")]
    )
    def test_that_is_not_there_is_said_in_one_line(self, shown: Shown, key: str, said: str) -> None:
        with pytest.raises(ToolError, match=said):
            shown(key)
