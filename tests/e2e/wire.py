"""HTTP exactly as a test writes it: no library corrects what is sent."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from tests.events import Headers
from tools.local.client import Answer


def exchange(url: str, method: str, headers: Headers, body: bytes, timeout: float = 60) -> Answer:
    """Send one request on a connection of its own.

    Args:
        url: where to send it.
        method: the HTTP method.
        headers: names and values, sent unchanged; a name may occur more than once.
        body: the body.
        timeout: seconds to wait for the answer.

    Raises:
        OSError, http.client.HTTPException: if there is no whole answer.
    """
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode(errors="surrogatepass")
    with socket.create_connection((str(parts.hostname), parts.port), timeout) as connection:
        connection.sendall(head + body)
        reply = http.client.HTTPResponse(connection, method=method)
        reply.begin()
        received: dict[str, list[str]] = {}
        for name, value in reply.getheaders():
            received.setdefault(name.lower(), []).append(value)
        return Answer(reply.status, reply.read(), received)
