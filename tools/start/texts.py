"""The project's files of text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tools.setup import ROOT

# Of the folders whose names begin with a dot, only these are the project's; the others are made.
_HIDDEN = frozenset({".ci", ".github"})


def texts() -> Iterator[tuple[Path, str]]:
    """Each file, and its text as it is, line ends included."""
    for directory, folders, names in os.walk(ROOT):
        folders[:] = [folder for folder in folders if not folder.startswith(".") or folder in _HIDDEN]
        for path in (Path(directory, name) for name in names):
            try:
                yield path, path.read_bytes().decode()
            except UnicodeDecodeError:
                continue
