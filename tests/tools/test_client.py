"""An answer as clients and tests read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.local.client import Answer

PROBLEM = {"type": "https://docs.example/idempotency#key-reused", "title": "Reused", "status": 422}
REPLY = {"statusCode": 201, "isBase64Encoded": False, "multiValueHeaders": {"Link": ["a", "b"]}, "body": "é"}


def problem(media_type: str = "application/problem+json", **members: Any) -> Answer:
    body = {name: value for name, value in (PROBLEM | members).items() if value is not None}
    return Answer(422, json.dumps(body).encode(), {"content-type": [media_type]})


class TestProblem:
    def test_is_identified_by_the_end_of_its_type(self) -> None:
        assert problem().problem == "key-reused"

    @pytest.mark.parametrize(
        "answer",
        [
            problem("application/json"),
            problem(title=None),
            problem(status=409),
            problem(type="https://docs.example/idempotency"),
            problem(type="https://elsewhere.example/#key-reused"),
            problem(type=None),
        ],
        ids=["media type", "no title", "another status", "no slug", "another page", "no type"],
    )
    def test_is_refused_if_anything_is_wrong_with_it(self, answer: Answer) -> None:
        with pytest.raises(ValueError, match="not a problem of this API"):
            _ = answer.problem


class TestReply:
    def test_becomes_the_gateways_answer(self) -> None:
        assert Answer.of(REPLY) == Answer(201, "é".encode(), {"link": ["a", "b"]})

    def test_of_bytes_is_decoded(self) -> None:
        assert Answer.of(REPLY | {"isBase64Encoded": True, "body": "iVBORw=="}).body == b"\x89PNG"

    @pytest.mark.parametrize("body", [b"{}", {1: "a number for a name"}], ids=["bytes", "no JSON object"])
    def test_that_lambda_could_not_pass_on_is_refused(self, body: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            Answer.of(REPLY | {"body": body})
