"""Ports and processes of this machine, as the local cloud needs them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.errors import ToolError
from tools.local.processes import HOST, free_port, port_number, wait_until_listening
from tools.setup import ROOT


@contextmanager
def python(code: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a `with` block."""
    with log.open("wb") as output, subprocess.Popen([sys.executable, "-c", code], stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def test_one_that_outlives_its_parent_is_no_cause_for_a_warning() -> None:
    code = (
        "import sys; from tools.local.processes import start_detached;"
        "start_detached([sys.executable, '-c', 'import time; time.sleep(1)'], sys.stderr)"
    )

    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert finished.stderr == ""


@pytest.mark.parametrize("text", ["99999", "65536", "-1", "http", ""])
def test_what_is_no_port_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ToolError, match=f"^{text} is not a port"):
        port_number(text)

    assert port_number("65535") == 65535


def test_a_port_that_is_taken_is_named_in_the_error() -> None:
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]

        with pytest.raises(ToolError, match=f"port {taken} cannot be listened on"):
            free_port(taken)

    assert free_port(taken) == taken


def test_waiting_ends_as_soon_as_a_process_listens(tmp_path: Path) -> None:
    port = free_port()
    code = f"import socket, time; server = socket.create_server(({HOST!r}, {port})); time.sleep(60)"

    with python(code, tmp_path / "log") as process:
        wait_until_listening(process, port, "it", seconds=30)

        socket.create_connection((HOST, port)).close()


def test_a_process_that_ends_is_reported_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"

    with (
        python("raise SystemExit('no such thing')", log) as process,
        pytest.raises(ToolError, match=r"^it ended before it listened \(exit 1\): no such thing$"),
    ):
        wait_until_listening(process, free_port(), "it", seconds=30, log=log)


def test_a_process_that_never_listens_is_reported_too(tmp_path: Path) -> None:
    port = free_port()

    with (
        python("import time; time.sleep(60)", tmp_path / "log") as process,
        pytest.raises(ToolError, match=rf"^it did not listen on port {port} within 0.1 s$"),
    ):
        wait_until_listening(process, port, "it", seconds=0.1)
