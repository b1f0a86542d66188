"""What `tests/tools/test_guard.py` has guarded."""

from pathlib import Path


def stop(home: Path) -> None:
    """Leave a trace."""
    (home / "stopped").touch()
