# example campaigns
"""A stand-in for MyFunnelAPI that can be told to misbehave.

    python -m tools.local.myfunnel [--port 8001] [--token TOKEN]      runs until Ctrl-C, and logs each call

    POST   /v1/funnels         {"name", "domain"} → 201 {"id", "hostname"}; the same Idempotency-Key, the same funnel
    DELETE /v1/funnels/{id}    → 204
    GET    /control/funnels    every funnel that was ever made
    GET    /control/calls      every call, oldest first
    POST   /control/faults     what to do wrong next; see `Fault`
    DELETE /control/faults     do nothing wrong from now on

It listens on the loopback interface only.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import urllib3

from tools.errors import run
from tools.local import servers
from tools.local.processes import port_number
from tools.local.servers import Server

TOKEN = "local-myfunnel-token"
_NAME = "tools.local.myfunnel"


@dataclass(frozen=True)
class Fault:
    """What happens to a call instead of an immediate answer.

    Args:
        domain: the domain whose calls it happens to; ``*`` for all.
        method: the calls that it happens to: ``POST`` or ``DELETE``.
        times: how many calls it happens to; None for all, until it is removed.
        delay: seconds to wait first.
        act: whether the call has its effect.
        linger: seconds to wait between the effect and the answer.
        status: the HTTP status to answer with instead of the real one.
        retry_after: seconds in a ``Retry-After`` header.
        drop: whether the connection is closed without an answer.
    """

    domain: str = "*"
    method: str = "POST"
    times: int | None = 1
    delay: float = 0
    act: bool = True
    linger: float = 0
    status: int | None = None
    retry_after: int | None = None
    drop: bool = False


@dataclass
class Funnel:
    """A landing page."""

    id: str
    name: str
    domain: str
    hostname: str
    deleted: bool = False


@dataclass(frozen=True)
class Call:
    """A call as it was received, and its answer; None if it was dropped."""

    at: float
    method: str
    path: str
    domain: str
    key: str | None
    status: int | None


Answer = tuple[int, Any]


class MyFunnel:
    """What the stand-in keeps.

    Args:
        token: the bearer token that it accepts.
    """

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.funnels: dict[str, Funnel] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._keys: dict[str, tuple[bytes, str]] = {}
        self._lock = threading.Lock()

    def create(self, key: str | None, body: bytes) -> Answer:
        """Make a funnel, or answer with the one that was made under the key; both are 201."""
        funnel = _parsed(body)
        if key is None or funnel is None:
            return HTTPStatus.BAD_REQUEST, {"error": "an Idempotency-Key, a name and a domain are needed"}
        digest = sha256(body).digest()
        with self._lock:
            first, id_ = self._keys.setdefault(key, (digest, f"fnl-{len(self._keys) + 1}"))
            if first != digest:
                return HTTPStatus.UNPROCESSABLE_ENTITY, {"error": "the Idempotency-Key was used with another body"}
            made = self.funnels.setdefault(id_, Funnel(id_, *funnel, hostname=f"{id_}.pages.myfunnel.example"))
        return HTTPStatus.CREATED, {"id": made.id, "hostname": made.hostname}

    def delete(self, id_: str) -> Answer:
        """Delete a funnel: 204, then 404."""
        with self._lock:
            funnel = self.funnels.get(id_)
            if funnel is None or funnel.deleted:
                return HTTPStatus.NOT_FOUND, {"error": "there is no such funnel"}
            funnel.deleted = True
        return HTTPStatus.NO_CONTENT, None

    def domain(self, path: str, body: bytes) -> str:
        """The domain that a call is about; empty if there is none."""
        funnel = self.funnels.get(path.rpartition("/")[2])
        return funnel.domain if funnel else (_parsed(body) or ("", ""))[1]

    def next_fault(self, method: str, domain: str) -> Fault:
        """Take the fault that happens to this call; a fault that changes nothing, if there is none."""
        with self._lock:
            for place, fault in enumerate(self.faults):
                if fault.method == method and fault.domain in {"*", domain}:
                    if fault.times is not None:
                        self.faults[place : place + 1] = [replace(fault, times=fault.times - 1)] * (fault.times > 1)
                    return fault
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one segment: two would cost a delayed acknowledgement.
    wbufsize = -1
    service: ClassVar[MyFunnel]

    def do_GET(self) -> None:
        match self.path:
            case "/control/funnels":
                self._answer(200, [asdict(funnel) for funnel in self.service.funnels.values()])
            case "/control/calls":
                self._answer(200, [asdict(call) for call in self.service.calls])
            case _:
                self._answer(404, None)

    def do_POST(self) -> None:
        body = self._body()
        match self.path:
            case "/control/faults":
                self.service.faults.append(Fault(**json.loads(body)))
                self._answer(204, None)
            case "/v1/funnels":
                self._serve(body)
            case _:
                self._answer(404, None)

    def do_DELETE(self) -> None:
        body = self._body()
        if self.path == "/control/faults":
            self.service.faults.clear()
            self._answer(204, None)
        else:
            self._serve(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _serve(self, body: bytes) -> None:
        started, domain = time.time(), self.service.domain(self.path, body)
        fault = self.service.next_fault(self.command, domain)
        time.sleep(fault.delay)
        status, answer = self._act(body) if fault.act else (HTTPStatus.SERVICE_UNAVAILABLE, None)
        if fault.status is not None:
            status, answer = fault.status, {"error": "as told"}
        shown = None if fault.drop else int(status)
        key = self.headers.get("Idempotency-Key")
        self.service.calls.append(Call(started, self.command, self.path, domain, key, shown))
        self.log_message("%s %s %s → %s", self.command, self.path, domain, shown or "dropped")
        time.sleep(fault.linger)
        if fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(status, answer, fault.retry_after)

    def _act(self, body: bytes) -> Answer:
        if self.headers.get("Authorization") != f"Bearer {self.service.token}":
            return HTTPStatus.UNAUTHORIZED, {"error": "the token is not valid"}
        if self.command == "POST":
            return self.service.create(self.headers.get("Idempotency-Key"), body)
        return self.service.delete(self.path.rpartition("/")[2])

    def _answer(self, status: int, answer: Any, retry_after: int | None = None) -> None:
        body = b"" if answer is None else json.dumps(answer).encode()
        # The caller may be gone: testing that is what the stand-in is for.
        with suppress(OSError):
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            if 300 <= status < 400:
                self.send_header("Location", self.path)
            if status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do nothing: calls are logged together with their answers."""


def server(service: MyFunnel, port: int = 0) -> Server:
    """Listen for calls; they are served later.

    Args:
        service: what it serves.
        port: where to listen; 0 for a free port.

    Raises:
        ToolError: if it cannot listen there.
    """
    return Server(type("Handler", (_Handler,), {"service": service}), port)


@contextmanager
def serving(service: MyFunnel) -> Iterator[str]:
    """Serve in this process for the length of a `with` block, at the URL that it gives."""
    with server(service) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield listening.url
        finally:
            listening.shutdown()


class Control:
    """Controls a stand-in that runs in another process.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(timeout=5)

    def expect(self, fault: Fault) -> None:
        """Make a fault happen."""
        self._http.request("POST", f"{self._url}/control/faults", json=asdict(fault))

    def behave(self) -> None:
        """Stop all faults."""
        self._http.request("DELETE", f"{self._url}/control/faults")

    def funnels(self, domain: str | None = None) -> list[Funnel]:
        """The funnels that exist, of one domain or of all."""
        every = [Funnel(**funnel) for funnel in self._http.request("GET", f"{self._url}/control/funnels").json()]
        return [funnel for funnel in every if not funnel.deleted and domain in {None, funnel.domain}]

    def calls(self, domain: str | None = None) -> list[Call]:
        """The calls that were received, about one domain or all."""
        every = [Call(**call) for call in self._http.request("GET", f"{self._url}/control/calls").json()]
        return [call for call in every if domain in {None, call.domain}]


def start(home: Path, token: str = TOKEN) -> str:
    """Start a process that serves on a free port until `stop`, and wait until it listens.

    Args:
        home: directory of its log and of a file with its process id.
        token: the bearer token that it accepts.

    Returns:
        Its URL.

    Raises:
        ToolError: if it does not start.
    """
    return servers.start(_NAME, home, "--port", "0", "--token", token)


def stop(home: Path) -> None:
    """Stop the stand-in that was started there, if it is still running."""
    servers.stop(_NAME, home)


def _parsed(body: bytes) -> tuple[str, str] | None:
    """Name and domain, if the body has both."""
    with suppress(ValueError, TypeError, KeyError):
        fields = json.loads(body)
        if isinstance(fields["name"], str) and isinstance(fields["domain"], str):
            return fields["name"], fields["domain"]
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in for MyFunnelAPI, until Ctrl-C.")
    parser.add_argument(
        "--port", type=port_number, default=8001, help="port to listen on (default: 8001; 0: a free one)"
    )
    parser.add_argument("--token", default=TOKEN, help="the bearer token that it accepts")
    options = parser.parse_args()
    server(MyFunnel(options.token), options.port).serve()
    return 0


if __name__ == "__main__":
    run(main)
