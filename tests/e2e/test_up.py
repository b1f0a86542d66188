"""`make up` and `make dev`: a stack that runs keeps its URL, its token and its data, whatever is deployed to it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import NEEDS
from tests.e2e.conftest import building
from tests.e2e.targets import PROVISION, SERVER
from tools.errors import ToolError
from tools.local import cloud, dev, stack
from tools.local.client import Client
from tools.local.processes import HOST, free_port
from tools.setup import ROOT

pytestmark = [*NEEDS["stack"], pytest.mark.slow]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of a local stack, apart from that of whoever runs the tests."""
    monkeypatch.setattr(stack, "HOME", tmp_path / "run")
    monkeypatch.setattr(stack, "_DESCRIPTION", tmp_path / "stack.json")
    yield tmp_path
    stack.stop(stack.HOME)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code, which may be changed."""
    copied = shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "_SRC", copied)
    return copied


def test_a_running_stack_keeps_url_token_and_data(home: Path, source: Path) -> None:
    with building():
        # Given a stack that is up, and a server
        first = stack.up(free_port())
        key = str(uuid4())
        made = Client(first.api_url, first.token).post(PROVISION, SERVER, key)
        assert made.status == 201

        # When a port is wanted that is taken, then nothing happens to it
        with socket.create_server((HOST, 0)) as other, pytest.raises(ToolError, match="cannot be listened on"):
            stack.up(other.getsockname()[1])
        assert Client(first.api_url, first.token).post(PROVISION, SERVER, key).replayed

        # When it is brought up to date, then the same client gets its answer again
        again = stack.up()
        assert again == first == stack.load()
        assert Client(first.api_url, first.token).post(PROVISION, SERVER, key).replayed

        # When code is saved, then it runs, and nothing else changes
        reloader = dev.Reloader(again)
        assert not reloader.look()
        entry = source / "api.py"
        entry.write_text(
            f"{entry.read_text()}\n\n@app.get('/v1/servers/saved')\ndef saved():\n    return {{'ok': True}}\n"
        )
        assert reloader.look()
        assert Client(first.api_url, first.token).get("/v1/servers/saved").json == {"ok": True}
        assert Client(first.api_url, first.token).post(PROVISION, SERVER, key).replayed

        # When what is saved is no Python, then that is said in one line, and what ran before still runs
        entry.write_text(f"{entry.read_text()}\ndef (:\n")
        with pytest.raises(ToolError, match=r"^src/api.py:\d+: "):
            reloader.look()
        assert Client(first.api_url, first.token).get("/v1/servers/saved").json == {"ok": True}

        # And the line that is shown works as it stands
        shown = subprocess.run(["sh", "-c", stack.example(first)], capture_output=True, text=True, check=True).stdout
        assert shown.startswith("HTTP/1.1 201 ")
    assert cloud.find(stack.HOME)
    assert stack.stop(stack.HOME)
