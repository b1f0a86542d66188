"""The cloud on this machine: MiniStack, an emulator of AWS, listening on the loopback interface only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.local.aws import KEY, REGION
from tools.local.processes import HOST, end_group, free_port, is_running, start_detached, wait_until_listening
from tools.setup import ENVIRONMENTS

_NAME = "ministack"
_START_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Cloud:
    """A running cloud.

    Args:
        pid: its process, which leads a process group of its own with all workers of the functions.
        port: where it listens.
    """

    pid: int
    port: int

    @property
    def endpoint_url(self) -> str:
        """Where SDKs find it."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make an SDK or sam use this cloud, and no other."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextmanager
def running(home: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> Iterator[Cloud]:
    """A cloud for the length of a `with` block; see `start`."""
    cloud = start(home, port=port, environment=environment)
    try:
        yield cloud
    finally:
        stop(home)


def start(home: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> Cloud:
    """Start an empty cloud, and wait until it answers.

    Args:
        home: directory of its log and scratch files; a cloud that was left running there is stopped first.
        port: where to listen; 0 for a free port.
        environment: variables for it, which its functions inherit.

    Raises:
        ToolError: if the port is taken, or the cloud does not start; then nothing is left behind.
    """
    stop(home)
    port = free_port(port)
    scratch = home / "tmp"
    scratch.mkdir(parents=True)
    with (home / "cloud.log").open("wb") as log:
        process = start_detached(
            [str(ENVIRONMENTS["cloud"] / "bin" / _NAME)],
            log,
            env={**_environment(port, scratch), **(environment or {})},
            cwd=scratch,
            stdout=log,
        )
    cloud = Cloud(process.pid, port)
    try:
        (home / "cloud.json").write_text(json.dumps(asdict(cloud)))
        wait_until_listening(process, port, "the local cloud", seconds=_START_TIMEOUT_SECONDS, log=home / "cloud.log")
    except BaseException:
        stop(home)
        raise
    return cloud


def find(home: Path) -> Cloud | None:
    """The cloud that was started there, if it is still running."""
    try:
        cloud = Cloud(**json.loads((home / "cloud.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return cloud if is_running(cloud.pid, _NAME) else None


def stop(home: Path) -> bool:
    """Stop the cloud that was started there, with all of its workers, and remove its files.

    Returns:
        Whether one was running.
    """
    cloud = find(home)
    if cloud:
        end_group(cloud.pid, _NAME)
    shutil.rmtree(home, ignore_errors=True)
    return cloud is not None


def _environment(port: int, scratch: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    return {
        **inherited,
        "AUTH": "true",  # roles are enforced
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LAMBDA_EXECUTOR": "local",
        "MINISTACK_REGION": REGION,
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(scratch),
    }
