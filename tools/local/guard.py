"""Ends what a process has started in the background, if that process dies without doing so itself.

python -m tools.local.guard MODULE HOME     waits for the end of its input, then calls MODULE.stop(HOME)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from tools.setup import ROOT


@contextmanager
def guarding(module: str, home: Path) -> Iterator[None]:
    """Have ``stop(home)`` of a module called when this process leaves a `with` block, or dies within it (kill -9, too).

    The guard is in a session of its own, so that no signal for this process ends it; the kernel closes its input.
    """
    command = [sys.executable, "-m", "tools.local.guard", module, str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            assert guard.stdin is not None
            guard.stdin.close()


def main() -> None:
    module, home = sys.argv[1:]
    sys.stdin.buffer.read()
    import_module(module).stop(Path(home))


if __name__ == "__main__":
    main()
