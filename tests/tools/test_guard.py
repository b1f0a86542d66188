"""What runs in the background ends with the process that started it, however that one ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.local.guard import guarding
from tools.setup import ROOT

_GUARDED = "tests.guarded"
_WAITS = """
import signal, sys, time
from pathlib import Path
from tools.errors import run
from tools.local.guard import guarding

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, and so would this
    with guarding(sys.argv[1], Path(sys.argv[2])):
        print("guarded", flush=True)
        time.sleep(60)

run(main)
"""


def stopped(home: Path, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not (home / "stopped").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return (home / "stopped").exists()


@pytest.mark.parametrize(
    "ending", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda it: it.name
)
def test_it_is_stopped_if_its_process_is_ended(ending: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WAITS, _GUARDED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"guarded\n"
        assert not (tmp_path / "stopped").exists()

        process.send_signal(ending)

        assert process.wait(10) == {signal.SIGINT: 130, signal.SIGKILL: -9}.get(ending, 128 + ending)
    assert stopped(tmp_path)


def test_it_is_stopped_before_a_block_is_left(tmp_path: Path) -> None:
    with guarding(_GUARDED, tmp_path):
        assert not (tmp_path / "stopped").exists()

    assert (tmp_path / "stopped").exists()
