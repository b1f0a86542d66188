"""Listens for requests to a stack on the local cloud, and answers them as API Gateway would.

    python -m tools.local.gateway_server --cloud URL --stack NAME [--port 8000]      runs until Ctrl-C

It listens on the loopback interface only. See `tools.local.gateway` for the rules.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from urllib3.exceptions import HTTPError

from tools.errors import run
from tools.local import deployed, servers
from tools.local.aws import local_client
from tools.local.gateway import (
    MAX_REQUEST_BYTES,
    FunctionFailed,
    FunctionTimeout,
    FunctionUnavailable,
    Gateway,
    Request,
    Response,
)
from tools.local.processes import port_number
from tools.local.rest_api import JSON, Api
from tools.local.servers import Server

_NAME = "tools.local.gateway_server"
_FOLD = re.compile(r"\r?\n[ \t]+")


class Functions:
    """The functions of a local cloud.

    Args:
        cloud_url: where the cloud is.
    """

    def __init__(self, cloud_url: str) -> None:
        self._cloud_url = cloud_url
        self._making = Lock()

    def invoke(self, function: str, event: Mapping[str, Any], seconds: float) -> bytes:
        """Invoke a function; see `tools.local.gateway.Invoke`."""
        with self._making:  # one session makes no two clients at once
            client = local_client("lambda", self._cloud_url, read_timeout=seconds)
        try:
            reply = client.invoke(FunctionName=function, Payload=json.dumps(event).encode())
            payload: bytes = reply["Payload"].read()
        except ReadTimeoutError as error:
            raise FunctionTimeout from error
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise FunctionUnavailable(str(error)) from error
        if "FunctionError" in reply:
            raise FunctionFailed(_reason(payload))
        return payload


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one segment: two would cost a delayed acknowledgement.
    wbufsize = -1
    gateway: ClassVar[Gateway]

    def __getattr__(self, name: str) -> Callable[[], None]:
        """The server looks for a method named after each request's; which there are is the gateway's to say."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        """Answer a request."""
        if self.headers.defects or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(Response(HTTPStatus.BAD_REQUEST, [("Content-Type", JSON)], b'{"message":"Bad Request"}'))
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_REQUEST_BYTES + 1))
        self.close_connection |= len(body) < length  # what was not read is in the way of the next request
        headers = [(name, _FOLD.sub(" ", value)) for name, value in self.headers.raw_items()]
        self._send(self.gateway.answer(Request(self.command, self.path, headers, body, self.client_address[0])))

    def _send(self, response: Response) -> None:
        # The client may be gone: that is what the API is for.
        with suppress(OSError):
            self.send_response_only(response.status)
            for name, value in response.headers:
                self.send_header(name, value)
            self.send_header("Date", self.date_time_string())
            self.send_header("Content-Length", str(len(response.body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(response.body if self.command != "HEAD" else b"")
            self.wfile.flush()
        self.log_message("%s %s → %s", self.command, self.path, response.status)


def _reason(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace")


def server(gateway: Gateway, port: int = 0) -> Server:
    """Listen for requests; they are answered later.

    Args:
        gateway: what answers them.
        port: where to listen; 0 for a free port.

    Raises:
        ToolError: if it cannot listen there.
    """
    return Server(type("Handler", (_Handler,), {"gateway": gateway}), port)


def start(home: Path, cloud_url: str, stack_name: str, port: int = 0) -> str:
    """Start a process that answers the requests to a stack until `stop`.

    Args:
        home: directory of its log and of a file with its process id.
        cloud_url: the local cloud.
        stack_name: the stack.
        port: where to listen; 0 for a free port.

    Returns:
        The base URL of the API, without the stage.

    Raises:
        ToolError: if it does not start.
    """
    return servers.start(_NAME, home, "--cloud", cloud_url, "--stack", stack_name, "--port", str(port))


def stop(home: Path) -> None:
    """Stop the process that was started there, if it is still running."""
    servers.stop(_NAME, home)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer requests as API Gateway would, until Ctrl-C.")
    parser.add_argument("--cloud", required=True, help="URL of the local cloud")
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument(
        "--port", type=port_number, default=8000, help="port to listen on (default: 8000; 0: a free one)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    api = Api.of(deployed.find(local_client("cloudformation", options.cloud), options.stack))
    server(Gateway(api, Functions(options.cloud).invoke), options.port).serve()


if __name__ == "__main__":
    run(main)
