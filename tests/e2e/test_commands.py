"""The commands of README and docs for a stack that runs, typed as they stand there, at the local stack of a copy."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from idempotency.clock import Clock
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.request import Request, record_id
from idempotency.store import Store
from tests.conftest import NEEDS
from tests.e2e.conftest import building
from tests.e2e.targets import PROVISION, SERVER
from tests.project import Copy, link_environments, terminal
from tools.local.aws import local_client
from tools.local.client import Client
from tools.local.processes import free_port
from tools.setup import ROOT

pytestmark = [*NEEDS["stack"], pytest.mark.slow]

Command = tuple[str, frozenset[str]]

_PATIENCE_SECONDS = 300
_UP = re.compile(r"up\S*: (\S+)")
_BEARER = re.compile(r"Bearer ([\w-]+)")
_DOCUMENTED = re.compile(r"^ {4}make (?P<target>[a-z-]+)(?P<variables>(?: [A-Z]+=\S+)*)", re.MULTILINE)
# What these do is not done to a stack, or to one on AWS: other tests and CI run them.
_ELSEWHERE = frozenset(
    {"audit", "check", "demo", "deploy", "new-operation", "remove-example", "rename", "smoke", "test", "test-unit"}
)


class Shell:
    """Somebody who types commands in a copy of the project.

    Args:
        path: the copy.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.typed: set[Command] = set()

    def make(self, target: str, **variables: str) -> str:
        """Run a target to its end; returns what it printed."""
        with self._begun(target, variables) as process:
            printed, _ = process.communicate(timeout=_PATIENCE_SECONDS)
        assert process.returncode == 0, printed
        return printed

    def follow(self, target: str, until: str) -> str:
        """Run a target until it prints a text, then press Ctrl-C; returns what it printed."""
        lines = []
        with self._begun(target, {}) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if until in line:
                    break
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=_PATIENCE_SECONDS)
        printed = "".join(lines)
        assert until in printed
        assert "Traceback" not in printed
        return printed

    def _begun(self, target: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
        self.typed.add((target, frozenset(variables)))
        return subprocess.Popen(
            ["make", target, *(f"{name}={value}" for name, value in variables.items())],
            cwd=self._path,
            env=terminal(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a copy of the project."""
    copy = Copy(tmp_path)
    link_environments(copy.path)
    shell = Shell(copy.path)
    # What runs in the background of a shell ignores Ctrl-C, and so would all that it begins.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield shell
    shell.make("down")
    signal.signal(signal.SIGINT, before)


def documented() -> set[Command]:
    """The commands of the pages that act on a stack: target, and names of variables but for the stack's."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = [match for page in pages if page.stem != "proof" for match in _DOCUMENTED.finditer(page.read_text())]
    return {
        (match["target"], frozenset(re.findall(r"([A-Z]+)=", match["variables"])) - {"ENV"})
        for match in found
        if match["target"] not in _ELSEWHERE
    }


def park(stack: dict[str, str]) -> str:
    """Leave a parked operation behind whose route no version has; returns its record's id."""
    store = Store(local_client("dynamodb", stack["aws_endpoint_url"]), stack["idempotency_table"], Clock())
    now = Clock().now()
    request = Request("id:alice", "POST", "/v1/gone", "/v1/gone", "/local", {}, "application/json", b"{}")
    record = Record(
        id=record_id(request.principal, request.method, request.route, str(uuid4())),
        owner=str(uuid4()),
        lease_until=PARKED_UNTIL,
        expires_at=now // 1000 + 3600,
        claimed_at=now,
        created_at=now,
        fingerprint=request.fingerprint,
        operation_id=str(uuid4()),
        status=Status.RELEASED,
        principal=request.principal,
        request=request.pack(),
    )
    store.enter(record, now)
    return record.id


def test_each_does_what_the_pages_say(shell: Shell, tmp_path: Path) -> None:
    # Given a stack that is up, with a request that was answered and an operation that is parked
    with building():
        said = shell.make("up", PORT=str(free_port()))
    [url], [token] = _UP.findall(said), _BEARER.findall(said)
    key = str(uuid4())
    assert Client(url, token).post(PROVISION, SERVER, key).status == 201
    parked = park(json.loads((tmp_path / ".local" / "stack.json").read_text()))

    # When an operator looks, then both are shown
    assert "COMPLETED" in shell.make("record", KEY=key)
    assert "parked" in shell.make("unfinished")
    assert "INFO request" in shell.follow("logs", until="/v1/servers/provision")

    # When it is tried again, then it is parked again at some time, and until then unfinished
    shell.make("retry", ID=parked[:12])
    shell.make("recover")
    assert parked[:12] in shell.make("unfinished")

    # When a token is issued, then it opens the API; when it is revoked, no more
    [issued] = re.findall(r"^[\w-]{40,}$", shell.make("token", PRINCIPAL="carol"), re.MULTILINE)
    assert Client(url, issued).post(PROVISION, SERVER, str(uuid4())).status == 201
    assert "revoked" in shell.make("revoke", TOKEN=issued)

    # And the stack can be looked at, and worked on
    assert url in shell.follow("dev", until="Ctrl-C ends it")
    with building():
        assert url in shell.make("up")

    assert documented() <= shell.typed
