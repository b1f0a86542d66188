"""Faults at the calls that a function makes, from inside its worker; nothing in the function knows about them.

`tests.e2e.faults` says what should happen, and reads the journal.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore import handlers
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

_RECORD_ID = re.compile(r'"id": ?{"S": ?"([0-9a-f]{64}:1)"}')


@dataclass(frozen=True)
class _Call:
    """A call about to be made.

    Args:
        request: method, URL, body and headers.
        send: makes it, and returns its answer.
        lost: what the caller sees if the connection breaks.
        refused: makes the answer of a service that refuses for now.
    """

    request: tuple[str, str, Any, dict[str, str]]
    send: Callable[[], Any]
    lost: Exception
    refused: Callable[[], Any]

    def meet(self, rule: dict[str, Any]) -> Any:
        """Make the call as a rule says."""
        if rule["when"] == "during":
            _transmit(*self.request)
        answer = self.send() if rule["when"] == "after" else None
        match rule["do"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "lose":
                raise self.lost
            case "refuse":
                return self.refused()
            case "delay":
                time.sleep(rule["seconds"])
        return self.send() if answer is None else answer


class _Worker:
    """A worker: each of its calls belongs to the operation whose record it wrote last.

    Args:
        directory: the directory with the rules and the journal of each operation.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._function = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self._operation: str | None = None

    def next_rule(self, call: str, body: str) -> dict[str, Any] | None:
        """Write a call to the journal, and find the rule that applies to it."""
        if call in {"dynamodb.GetItem", "dynamodb.Query"}:
            self._operation = None
        if call.startswith("dynamodb.") and (match := _RECORD_ID.search(body)):
            self._operation = match[1]
        if self._operation is None:
            return None
        self._append("calls", call)
        made = [line.split() for line in self._file("calls").read_text().splitlines()]
        for rule in self._rules():
            numbers = range(rule["number"], rule["number"] + rule["times"])
            if _meets(made[-1], rule) and sum(_meets(earlier, rule) for earlier in made) in numbers:
                self._append("met", f"{call} {rule['do']}")
                return rule
        return None

    def _append(self, journal: str, entry: str) -> None:
        with self._file(journal).open("a") as lines:
            lines.write(f"{os.getpid()} {self._function} {entry}\n")

    def _rules(self) -> list[dict[str, Any]]:
        rules = self._file("rules")
        return list(json.loads(rules.read_text())) if rules.exists() else []

    def _file(self, kind: str) -> Path:
        return self._directory / f"{self._operation}.{kind}"


def inject() -> None:
    """Make every call to other services pass through here."""
    worker = _Worker(Path(os.environ["FAULTS"]))
    _watch_aws(worker)
    _watch_myfunnel(worker, urlsplit(os.environ["MYFUNNEL_API_URL"]).netloc)  # example campaigns


def _watch_aws(worker: _Worker) -> None:
    session = URLLib3Session()

    def before_send(request: Any, event_name: str, **_: Any) -> Any:
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        rule = worker.next_rule(event_name.removeprefix("before-send."), body)
        if rule is None:
            return None
        call = _Call(
            (request.method, request.url, request.body, dict(request.headers.items())),
            lambda: session.send(request),
            ConnectionClosedError(endpoint_url=request.url),
            lambda: _throttled(request.url),
        )
        return call.meet(rule)

    handlers.BUILTIN_HANDLERS.append(("before-send", before_send))


# example campaigns
def _watch_myfunnel(worker: _Worker, netloc: str) -> None:
    urlopen = urllib3.HTTPConnectionPool.urlopen

    def watched(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        def send() -> Any:
            return urlopen(self, method, url, *args, **kwargs)

        mine = f"{self.host}:{self.port}" == netloc
        rule = worker.next_rule(f"myfunnel.{method}", "") if mine else None
        if rule is None:
            return send()
        call = _Call(
            (method, f"http://{netloc}{url}", kwargs.get("body"), dict(kwargs["headers"])),
            send,
            urllib3.exceptions.ProtocolError("Connection aborted."),
            lambda: urllib3.HTTPResponse(b"", status=503),
        )
        return call.meet(rule)

    urllib3.HTTPConnectionPool.urlopen = watched  # type: ignore[method-assign]


# end of example


def _meets(made: list[str], rule: dict[str, Any]) -> bool:
    _, function, call = made
    return fnmatchcase(call, rule["call"]) and rule["function"] in function


def _transmit(method: str, url: str, body: Any, headers: dict[str, str]) -> None:
    """Hand a request over to the kernel, which delivers it even if this process is killed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request(method, f"{parts.path}?{parts.query}".rstrip("?"), body, headers)


class _Throttled:
    """The body with which DynamoDB and Secrets Manager throttle."""

    def stream(self) -> list[bytes]:
        return [b'{"__type": "com.amazonaws#ThrottlingException", "message": "Rate exceeded"}']


def _throttled(url: str) -> AWSResponse:
    headers: Any = HeadersDict({"Content-Type": "application/x-amz-json-1.0"})
    return AWSResponse(url, 400, headers, _Throttled())
