"""Processes and ports of this machine."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tools.errors import ToolError

HOST = "127.0.0.1"
_LAST_PORT = 65535
# Kept, since Python warns if a process is still running when its object is deleted.
_detached: list[subprocess.Popen[bytes]] = []


def start_detached(command: list[str], log: IO[bytes], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, in a process group of its own.

    Args:
        command: the command.
        log: the file that its errors are written to.
        options: further arguments of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True, **options)
    _detached.append(process)
    return process


@atexit.register
def _leave_running() -> None:
    """Keep Python from warning, at its own end, that processes are running which are meant to outlive it."""
    for process in _detached:
        if process.poll() is None:
            process.returncode = 0


def port_number(text: str) -> int:
    """Read the number of a port, 0 for any.

    Raises:
        ToolError: if it is none.
    """
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise ToolError(f"{text} is not a port: these are the numbers up to {_LAST_PORT}")
    return int(text)


def free_port(wanted: int = 0) -> int:
    """A port of the loopback interface on which nothing listens.

    Args:
        wanted: the port that it must be; 0 for any.

    Raises:
        ToolError: if that port is taken.
    """
    with socket.socket() as probe:
        # The port of a server that has ended may be in TIME_WAIT, which must not keep the next one from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ToolError(f"port {wanted} cannot be listened on: {error}") from error
        return int(probe.getsockname()[1])


def wait_until_listening(
    process: subprocess.Popen[bytes], port: int, name: str, *, seconds: float, log: Path | None = None
) -> None:
    """Wait until a process listens on its port.

    Args:
        process: the process.
        port: the port.
        name: what the process is called in an error.
        seconds: how long to wait.
        log: the file with its output; the last line of it says why the process ended.

    Raises:
        ToolError: if it ends, or does not listen in time.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    if process.returncode is None:
        raise ToolError(f"{name} did not listen on port {port} within {seconds} s")
    said = log.read_text(errors="replace").strip().splitlines() if log else []
    raise ToolError(": ".join([f"{name} ended before it listened (exit {process.returncode})", *said[-1:]]))


def is_running(pid: int, name: str) -> bool:
    """Whether a process lives and has `name` in its command: its id may belong to another process by now."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if Path("/proc/self").exists():
        with suppress(OSError):
            return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return name in shown.stdout


def end_group(pid: int, name: str, timeout_seconds: float = 10) -> None:
    """End a process that leads a group, then whatever is left of the group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while is_running(pid, name) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(pid, signal.SIGKILL)
    for process in _detached:
        if process.pid == pid:
            process.wait(timeout_seconds)


def workers(cloud_pid: int, function_name: str) -> list[int]:
    """The processes in which a local cloud is running a function."""
    shown = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = (row.split(maxsplit=2) for row in shown.stdout.splitlines())
    return [
        int(pid) for pid, parent, *args in rows if parent == str(cloud_pid) and args and f"-{function_name}-" in args[0]
    ]


def kill_workers(cloud_pid: int, function_name: str) -> None:
    """Kill -9 every process in which a local cloud is running a function."""
    for pid in workers(cloud_pid, function_name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
