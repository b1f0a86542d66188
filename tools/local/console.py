"""A web page to try the local stack by hand: requests, records as they live, and switches for what may go wrong.

`make dev` serves it, on the loopback interface only; it is never deployed. `src` must be on PYTHONPATH.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import urllib3
import yaml
from boto3.dynamodb.types import TypeDeserializer

from idempotency.request import record_id
from tools.local import neighbours
from tools.local.myfunnel import Control, Fault
from tools.local.processes import kill_workers
from tools.local.servers import Server
from tools.local.stack import Stack
from tools.local.stored import request_of
from tools.setup import ROOT

PAGE = Path(__file__).with_suffix(".html")
"""The page."""
_PRINCIPAL = "id:alice"
_SLOW_SECONDS = 8  # example campaigns
_PAUSE_SECONDS = 0.2
_SHOWN_RECORDS = 20
_KINDS = {"GET", "POST"}


class Timelines:
    """What has happened to each record, as somebody sees it who looks again and again."""

    def __init__(self) -> None:
        self._seen: dict[str, Mapping[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}

    def look(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Note what is new since the last look.

        Returns:
            The events so far, the oldest first: ``at`` in epoch milliseconds, and ``what``.
        """
        before, id_ = self._seen.get(record["id"], {}), record["id"]
        self._seen[id_] = record
        events = self._events.setdefault(id_, [])
        events += [{"at": round(time.time() * 1000), "what": what} for what in _news(before, record)]
        return events


def _news(before: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    if record["attempt"] != before.get("attempt"):
        yield f"attempt {record['attempt']} begins" if record["attempt"] else "handed to recovery"
    for step in record.get("steps", {}):
        if step not in before.get("steps", {}):
            yield f"step “{step}” is done"
    for step in record.get("refused", {}):
        if step not in before.get("refused", {}):
            yield f"step “{step}” is refused"
    if "failure" in record and "failure" not in before:
        yield "it has failed for good; what was done is undone"
    if record["status"] != before.get("status") and record["status"] != "PROCESSING":
        yield _end(record)


def _end(record: Mapping[str, Any]) -> str:
    if record["status"] == "COMPLETED":
        return f"completed: {record['response']['status']}"
    return f"released: {record.get('last_error') or 'it waits for recovery'}"


class Console:
    """What the page shows and does.

    Args:
        stack: finds the stack, which may have been deployed anew.
    """

    def __init__(self, stack: Callable[[], Stack]) -> None:
        self._stack = stack
        self._timelines = Timelines()
        self._keys: dict[str, str] = {}
        self._requests: dict[str, str] = {}
        self._http = urllib3.PoolManager(maxsize=32, retries=False)
        self._records: list[dict[str, Any]] = []

    def operations(self) -> list[dict[str, Any]]:
        """What the OpenAPI document offers, with an example of each body."""
        paths = yaml.safe_load((ROOT / "openapi.yaml").read_text())["paths"]
        return [
            {"method": method.upper(), "path": path, "summary": operation["summary"], "body": _example(operation)}
            for path, operations in paths.items()
            for method, operation in operations.items()
        ]

    def send(self, method: str, path: str, key: str, body: str, prefer: str) -> dict[str, Any]:
        """Send a request as alice, and return the answer."""
        if method not in _KINDS:
            raise ValueError(f"no {method} here")
        stack = self._stack()
        headers = {"Authorization": f"Bearer {stack.token}", "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": key} if key else {}
        headers |= {"Prefer": prefer} if prefer else {}
        id_ = record_id(_PRINCIPAL, method, path, key)
        self._keys[id_], self._requests[id_] = key, f"{method} {path}"
        started = time.monotonic()
        reply = self._http.request(method, f"{stack.api_url}{path}", headers=headers, body=body or None, timeout=60)
        return {
            "status": reply.status,
            "milliseconds": round((time.monotonic() - started) * 1000),
            "headers": [f"{name}: {value}" for name, value in reply.headers.items()],
            "body": reply.data.decode(errors="replace"),
        }

    def records(self) -> dict[str, Any]:
        """The latest records, each with its timeline."""
        return {"records": self._records, "now": round(time.time() * 1000)}

    def look(self) -> None:
        """Look at the table once."""
        stack = self._stack()
        pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.idempotency_table)
        deserialize = TypeDeserializer().deserialize
        items = [{name: deserialize(value) for name, value in item.items()} for page in pages for item in page["Items"]]
        records = [item for item in items if "status" in item]  # a large body's parts are items, too
        shown = [self._shown(record) for record in sorted(records, key=lambda it: it["created_at"], reverse=True)]
        self._records = shown[:_SHOWN_RECORDS]

    def _shown(self, record: Mapping[str, Any]) -> dict[str, Any]:
        id_ = record["id"]
        if "request" in record and (request := request_of(bytes(record["request"].value))):  # no more once completed
            self._requests[id_] = f"{request.method} {request.path}"
        return {
            "id": id_,
            "key": self._keys.get(id_, ""),
            "what": self._requests.get(id_, ""),
            "status": record["status"],
            "attempt": int(record["attempt"]),
            "lease_until": int(record["lease_until"]),
            "events": self._timelines.look(record),
        }

    # example campaigns
    def slow(self, on: bool) -> str:
        """Make MyFunnelAPI slow, or as fast as it is."""
        if not neighbours.myfunnel_is_a_stand_in():
            return "MyFunnelAPI is the real one here"
        control = Control(self._stack().myfunnel_url)
        control.behave()
        if on:
            control.expect(Fault(times=None, linger=_SLOW_SECONDS))
        return f"MyFunnelAPI takes {_SLOW_SECONDS} s: launch a campaign" if on else "MyFunnelAPI is fast again"

    # end of example

    def kill(self) -> str:
        """Kill -9 every worker of the API's function."""
        stack = self._stack()
        kill_workers(stack.cloud_pid, stack.function_name)
        return "every worker of the API was killed"


def _example(operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return next((json.dumps(each["value"]) for each in content.get("examples", {}).values()), "")


class _Handler(BaseHTTPRequestHandler):
    console: ClassVar[Console]

    def do_GET(self) -> None:
        match self.path:
            case "/":
                self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes())
            case "/operations":
                self._json(self.console.operations())
            case "/records":
                self._json(self.console.records())
            case _:
                self._answer(404, "text/plain", b"")

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # Another site in the same browser could send this, too; it does not get past its own origin.
        if urlsplit(self.headers.get("Origin") or "").netloc != self.headers.get("Host"):
            self._answer(403, "text/plain", b"from this page only")
            return
        arguments = json.loads(sent or b"{}")
        match self.path:
            case "/send":
                self._json(self.console.send(**arguments))
            case "/kill":
                self._json(self.console.kill())
            # example campaigns
            case "/slow":
                self._json(self.console.slow(**arguments))
            # end of example
            case _:
                self._answer(404, "text/plain", b"")

    def _json(self, value: Any) -> None:
        self._answer(200, "application/json", json.dumps(value).encode())

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the class has it
        """Do nothing: the page asks once a second."""


@contextmanager
def serving(stack: Callable[[], Stack], port: int = 0) -> Iterator[str]:
    """Serve the page for the length of a `with` block, at the URL that it gives.

    Args:
        stack: finds the stack.
        port: where to listen; 0 for a free port.
    """
    console = Console(stack)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_PAUSE_SECONDS):
            with suppress(Exception):  # the stack may be being deployed at this very moment
                console.look()

    with Server(type("Handler", (_Handler,), {"console": console}), port) as listening:
        for work in (look, listening.serve_forever):
            threading.Thread(target=work, daemon=True).start()
        try:
            yield f"{listening.url}/"
        finally:
            ended.set()
            listening.shutdown()
