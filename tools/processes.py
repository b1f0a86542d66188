"""Processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path


def is_running(pid: int, name: str) -> bool:
    """Whether a process lives and has `name` in its command: its number may have gone to another since."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if Path("/proc/self").exists():
        with suppress(OSError):
            return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return name in shown.stdout


def end_group(pid: int, name: str, timeout_seconds: float = 10) -> None:
    """End a process that leads a group, then whatever else is left of the group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while is_running(pid, name) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(pid, signal.SIGKILL)


def workers(cloud_pid: int, function_name: str) -> list[int]:
    """Processes in which a local cloud runs a function now."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = (row.split(maxsplit=2) for row in shown.stdout.splitlines())
    return [
        int(pid) for pid, parent, *args in rows if parent == str(cloud_pid) and args and f"-{function_name}-" in args[0]
    ]
