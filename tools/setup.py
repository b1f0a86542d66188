"""Environments of this project, created at the first use and updated when uv.lock changes.

    python3 tools/setup.py dev sam cloud

Needs Python 3.11 or later with venv, and no packages: it runs before any are installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
ENVIRONMENTS = {"dev": ROOT / ".venv", **{group: LOCAL / group for group in ("sam", "cloud", "audit", "peers")}}
# What pip and uv say then.
_UNREACHABLE = re.compile("NewConnectionError|name resolution|dns error|tcp connect error|error sending request")
_UV = LOCAL / "uv" / "bin" / "uv"


class SetupFailed(Exception):
    """An environment cannot be created; the message says why, in one line."""


def ensure(group: str) -> None:
    """Create an environment as uv.lock pins it, or do nothing (in some milliseconds) if it is up to date.

    The group ``uv`` is what creates the others. A second process that wants one meanwhile waits until it is there.

    Raises:
        SetupFailed: if uv cannot be installed, or cannot install the packages.
    """
    if _is_ready(group):
        return
    LOCAL.mkdir(exist_ok=True)
    with (LOCAL / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for needed in dict.fromkeys(("uv", group)):
            if not _is_ready(needed):
                _create(needed)


def _is_ready(group: str) -> bool:
    if group == "uv":
        return _UV.exists() and _pinned_uv() in _output([str(_UV), "--version"]).split()
    stamp = ENVIRONMENTS[group] / ".synced"
    return stamp.exists() and stamp.read_text() == _fingerprint(group)


def _create(group: str) -> None:
    if group == "uv":
        _install_uv()
        return
    environment = ENVIRONMENTS[group]
    print(f"setting up {environment.relative_to(ROOT)} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    selection = [] if group == "dev" else ["--only-group", group]
    _run(
        [str(_UV), "sync", "--frozen", "--compile-bytecode", "--python", sys.executable, *selection],
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
    )
    (environment / ".synced").write_text(_fingerprint(group))
    print(f"  done in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _install_uv() -> None:
    version = _pinned_uv()
    print(f"installing uv {version} …", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(_UV.parent.parent)])
    _run([str(_UV.parent / "python"), "-m", "pip", "install", "--quiet", f"uv=={version}"])


def _pinned_uv() -> str:
    import tomllib  # noqa: PLC0415 - an older Python must first get to the line about its version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(project["tool"]["uv"]["required-version"]).removeprefix("==")


def _fingerprint(group: str) -> str:
    pins = (ROOT / "uv.lock").read_bytes() + sys.version.encode() + group.encode()
    return hashlib.sha256(pins).hexdigest()


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    try:
        _output(command, env)
    except subprocess.CalledProcessError as failed:
        if _UNREACHABLE.search(failed.stdout):
            raise SetupFailed("the package index cannot be reached: is there a network?") from None
        print(failed.stdout, file=sys.stderr)
        raise SetupFailed(f"{' '.join(command[:4])} … failed (exit {failed.returncode})") from None


def _output(command: list[str], env: dict[str, str] | None = None) -> str:
    finished = subprocess.run(
        command, cwd=ROOT, env=env, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return finished.stdout


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - older versions get this message
        print(f"error: Python 3.11 or later is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    try:
        for group in sys.argv[1:]:
            ensure(group)
    except SetupFailed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the next run continues from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
