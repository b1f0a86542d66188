"""Log lines as `make logs` shows them."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest

import api
from tests.unit.service import Api
from tools.ops.logs import read, shown

WIDTH = 80


def lines(message: str) -> list[str]:
    return list(shown({"timestamp": 1_790_000_002_000, "message": message}, WIDTH))


def logged(logs: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def test_a_request_is_shown_with_its_outcome(service: Api, logs: StringIO) -> None:
    service.post()

    [line] = logs.getvalue().splitlines()
    said = lines(line)

    assert said[0].startswith("14:13:22 INFO request ")
    assert {"outcome=Executed", "status=201", "method=POST"} <= set(" ".join(said).split())
    assert max(map(len, said)) <= WIDTH


def test_an_error_is_shown_with_its_traceback_once(
    service: Api, logs: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "resources", lambda: 1 / 0)
    service.post()

    said = [line for record in logged(logs) for line in lines(json.dumps(record))]

    assert max(map(len, said)) <= WIDTH
    assert sum("Traceback" in line for line in said) == 1
    assert sum("ZeroDivisionError: division by zero" in line for line in said) == 1
    assert "".join(map(str, logged(logs))).count("ZeroDivisionError: division by zero") == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("START RequestId: 8f5 Version: 3\n", ["14:13:22 START RequestId: 8f5 Version: 3"]),
        ("[1, 2]", ["14:13:22 [1, 2]"]),
        ('{"_aws": {}, "Executed": [1.0]}', []),
        ('{"level": "INFO", "message": {"a": 1}, "n": 2}', ['14:13:22 INFO {"a": 1} n=2']),
        (f"{'x' * 70} {'y' * 20}", ["14:13:22 " + "x" * 70, " " * 9 + "y" * 20]),
    ],
    ids=["the platform's", "JSON that is no object", "metrics", "a message of several parts", "a long one"],
)
def test_whatever_is_logged_is_shown(message: str, expected: list[str]) -> None:
    assert lines(message) == expected


@pytest.mark.parametrize("said", ["SAM CLI update available", "2026", "null", '"done"', "{}", '{"message": "x"}', ""])
def test_what_sam_itself_says_is_shown_as_it_is(said: str) -> None:
    assert list(read(f"{said}\n", WIDTH)) == [said]


def test_an_event_is_shown_whoever_prints_it() -> None:
    assert list(read('{"timestamp": 1790000002000, "message": "x"}\n', WIDTH)) == ["14:13:22 x"]
