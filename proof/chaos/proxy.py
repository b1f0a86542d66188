# example campaigns
"""A TCP proxy that cuts connections: in the middle of a request or of its answer, or all of them for a while."""

from __future__ import annotations

import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from select import select
from typing import Any

_BUFFER = 65_536
# Requests and answers have about a thousand bytes each, and many of them share a connection.
_LONGEST_LIFE_BYTES = 20_000


class Proxy:
    """Passes connections on to one server, and cuts some of them.

    Args:
        random: decides which connections are cut, and after how many bytes.
        share: the share of connections that are cut, from 0 to 1.
    """

    def __init__(self, random: Random, share: float) -> None:
        self._random = random
        self._share = share
        self._down = False
        self.cuts = 0

    @contextmanager
    def serving(self, host: str, port: int) -> Iterator[str]:
        """Serve for the length of a `with` block, at the URL that it gives.

        Args:
            host: where the server is.
            port: its port.
        """
        with _Server(("127.0.0.1", 0), _handler(self, host, port)) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Cut every connection for the length of a `with` block."""
        self._down = True
        try:
            yield
        finally:
            self._down = False

    def calm_down(self) -> None:
        """Cut no new connections."""
        self._share = 0

    def pass_on(self, client: socket.socket, server: socket.socket) -> None:
        """Pass bytes on in both directions until one side closes, or the connection is to be cut."""
        left = {client: sys.maxsize, server: sys.maxsize}
        if self._random.random() < self._share:
            left[self._random.choice([client, server])] = self._random.randrange(_LONGEST_LIFE_BYTES)
        while True:
            for source in select([client, server], [], [])[0]:
                data = source.recv(_BUFFER)
                if not data:
                    return
                sink = server if source is client else client
                passed = data[: 0 if self._down else left[source]]
                left[source] -= len(passed)
                sink.sendall(passed)
                if passed != data:
                    self.cuts += 1
                    _reset(client, server)
                    return


def _reset(*ends: socket.socket) -> None:
    """Make both ends see an error, as with TLS, rather than an early end."""
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        """Close without a shutdown, so that a reset is seen as a reset."""
        self.close_request(request)


def _handler(proxy: Proxy, host: str, port: int) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection((host, port)) as server:
                proxy.pass_on(self.request, server)

    return Handler
