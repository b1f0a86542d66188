"""The local gateway's server hands every request over as it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.wire import exchange
from tools.errors import ToolError
from tools.local import gateway_server
from tools.local.gateway import Gateway
from tools.local.rest_api import Api, Method

_EVERYTHING = Method("/{rest+}", "arn:aws:lambda:eu-west-1:123456789012:function:api:live")
_API = Api("abcdef1234", "123456789012", "eu-west-1", "dev", {("/{rest+}", "ANY"): _EVERYTHING})


@contextmanager
def serving(reply: Mapping[str, Any] | None = None) -> Iterator[str]:
    """A gateway in front of a function that answers this, or else with its own event."""

    def invoke(_: str, event: Mapping[str, Any], __: float) -> bytes:
        return json.dumps({"body": json.dumps(event)} if reply is None else reply).encode()

    with gateway_server.server(Gateway(_API, invoke)) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"{listening.url}/dev"
        finally:
            listening.shutdown()


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ([("X-A", "1"), ("X-A", "2"), ("x-a", "3")], {"X-A": ["1", "2"], "x-a": ["3"]}),
        ([("X-A", "1\r\n 2")], {"X-A": ["1 2"]}),
        ([("X-A", "")], {"X-A": [""]}),
        ([("X-A", "a, b")], {"X-A": ["a, b"]}),
    ],
    ids=["lines", "a folded line", "an empty line", "a list"],
)
def test_header_lines_are_kept_apart(sent: list[tuple[str, str]], seen: dict[str, list[str]]) -> None:
    with serving() as url:
        headers = exchange(f"{url}/a", "GET", sent, b"").json["multiValueHeaders"]

    assert {name: headers[name] for name in headers if name.lower() == "x-a"} == seen


@pytest.mark.parametrize("headers", [[("X-A", "1\n2")], [("Transfer-Encoding", "chunked")]], ids=str)
def test_what_is_no_http_is_refused(headers: list[tuple[str, str]]) -> None:
    with serving() as url:
        assert exchange(f"{url}/a", "POST", headers, b"").status == 400


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_has_its_path_query_and_body(method: str) -> None:
    with serving() as url:
        event = exchange(f"{url}/a%2Fb/?c=1&c=2", method, [], b"body").json

    assert (event["httpMethod"], event["path"], event["body"]) == (method, "/a%2Fb/", "body")
    assert event["multiValueQueryStringParameters"] == {"c": ["1", "2"]}


@pytest.mark.parametrize("method", ["TRACE", "QUERY"])
def test_a_method_that_no_resource_has_is_answered_by_the_gateway(method: str) -> None:
    with serving() as url:
        assert exchange(f"{url.removesuffix('/dev')}/none", method, [], b"").status == 403


def test_a_body_over_10_mb_is_refused_before_it_was_read() -> None:
    with serving() as url:
        answer = exchange(f"{url}/a", "POST", [], b" " * 10_485_761)

    assert (answer.status, answer.json) == (413, {"message": "Request Too Long"})


def test_every_line_of_an_answer_is_sent() -> None:
    with serving({"statusCode": 201, "multiValueHeaders": {"X-A": ["1", "2"]}, "body": "é"}) as url:
        answer = exchange(f"{url}/a", "GET", [], b"")

    assert (answer.status, answer.headers["x-a"], answer.body) == (201, ["1", "2"], "é".encode())


def test_a_port_that_is_taken_is_named_in_the_error() -> None:
    with serving() as url:
        taken = int(url.split(":")[2].partition("/")[0])

        with pytest.raises(ToolError, match=f"^port {taken} cannot be listened on"):
            gateway_server.server(Gateway(_API, lambda *_: b""), taken)
