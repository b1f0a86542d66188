"""The environments' first use, by several processes at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.setup import ROOT


@pytest.mark.slow
def test_two_at_once_install_it_once(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock", "tools/setup.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "tools/setup.py", "uv"]

    begun = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in begun]

    assert [process.returncode for process in begun] == [0, 0], said
    assert "".join(said).count("installing uv") == 1
    assert (tmp_path / ".local" / "uv" / "bin" / "uv").exists()
