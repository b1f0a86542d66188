"""HTTP servers of this project on the loopback interface: served in this process, or by one that outlives it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tools.errors import ToolError
from tools.local.processes import HOST, end_group, is_running, start_detached
from tools.setup import ROOT


class Server(ThreadingHTTPServer):
    """Serves each connection in a thread of its own.

    Args:
        handler: answers the requests.
        port: where to listen; 0 for a free port.

    Raises:
        ToolError: if it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        try:
            super().__init__((HOST, port), handler)
        except OSError as error:
            raise ToolError(f"port {port} cannot be listened on: {error}") from error

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error, unless it is that the client has reset the connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def serve(self) -> None:
        """Print the URL, and serve until the process ends."""
        with self:
            print(self.url, flush=True)
            self.serve_forever()


def start(module: str, home: Path, *arguments: str) -> str:
    """Start a module whose main function calls `Server.serve`, as a process that runs until `stop`.

    Args:
        module: the module.
        home: directory of its log and of a file with its process id.
        arguments: its command line.

    Returns:
        Its URL.

    Raises:
        ToolError: if it does not start.
    """
    log_path = home / f"{module}.log"
    with log_path.open("wb") as log:
        process = start_detached([sys.executable, "-m", module, *arguments], log, cwd=ROOT, stdout=subprocess.PIPE)
    _pid_file(module, home).write_text(str(process.pid))
    assert process.stdout is not None
    with process.stdout:
        url = process.stdout.readline().decode().strip()
    if not url:
        said = log_path.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        raise ToolError(f"{module} ended at once (exit {process.wait()}): {said[-1].removeprefix('error: ')}")
    return url


def stop(module: str, home: Path) -> None:
    """Stop the process that was started there, if it is still running."""
    with suppress(OSError, ValueError):
        pid = int(_pid_file(module, home).read_text())
        if is_running(pid, module):
            end_group(pid, module)


def _pid_file(module: str, home: Path) -> Path:
    return home / f"{module}.pid"
