"""Mutation testing: every condition, fence and comparison of src/idempotency, removed, must fail a test.

    python -m tests.mutation [--only store.py]

Prints each survivor, and the score. Exits with 1 if one survives for which `SURVIVORS` has no reason.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.survivors import SURVIVORS
from tools.setup import ROOT

PACKAGE = Path("src/idempotency")
_UNIT = Path("tests/unit")
# After the module's own unit tests; the quickest to find most first.
STAGES = (
    [f"{_UNIT}/test_{name}.py" for name in ("middleware", "operation", "api")],
    ["tests/integration"],
    ["tests/simulation/test_invariants.py"],
    [f"{_UNIT}/test_{name}.py" for name in ("recovery", "signals", "campaigns", "contract")],
)
_TIMEOUT_SECONDS = 90
_LEFT_OUT = shutil.ignore_patterns(".git", ".local", ".venv", ".aws-sam", "__pycache__", ".*_cache", ".hypothesis")


def main() -> int:
    parser = argparse.ArgumentParser(description="Take one condition out at a time, and see that a test fails.")
    parser.add_argument("--only", default="", help="a module's name")
    only = parser.parse_args().only
    paths = sorted(path for path in (ROOT / PACKAGE).glob("*.py") if only in path.name)
    made = [mutant for path in paths for mutant in mutants(path)]
    started = time.monotonic()
    survived = _survivors(made)
    for mutant in survived:
        print(f"survived  {mutant.name}\n          {SURVIVORS.get(mutant.name, 'NO REASON KNOWN')}")
    unknown = [mutant for mutant in survived if mutant.name not in SURVIVORS]
    killed = len(made) - len(survived)
    print(
        f"\n{killed} of {len(made)} mutants killed ({killed / len(made):.1%}); {len(survived)} survived,"
        f" {len(unknown)} of them without a reason; {(time.monotonic() - started) / 60:.1f} minutes"
    )
    return 1 if unknown else 0


def _survivors(made: list[Mutant]) -> list[Mutant]:
    workers = os.cpu_count() or 1
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(workers) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(workers):
            copies.put(_copy(Path(scratch) / str(number)))
        survived = []
        for done, (mutant, lives) in enumerate(pool.map(lambda mutant: (mutant, _lives(mutant, copies)), made), 1):
            if lives:
                survived.append(mutant)
            if done % 20 == 0 or done == len(made):
                print(f"{done} of {len(made)} mutants tried, {len(survived)} survived", flush=True)
        return survived


def _copy(place: Path) -> Path:
    shutil.copytree(ROOT, place, ignore=_LEFT_OUT)
    (place / ".local").symlink_to(ROOT / ".local")
    return place


def _lives(mutant: Mutant, copies: queue.Queue[Path]) -> bool:
    """Whether every test passes."""
    copy = copies.get()
    module = copy / mutant.path.relative_to(ROOT)
    try:
        module.write_text(mutant.source)
        return all(_passes(copy, stage) for stage in (_own_tests(mutant), *STAGES) if stage)
    finally:
        module.write_text(mutant.path.read_text())
        copies.put(copy)


def _own_tests(mutant: Mutant) -> list[str]:
    tests = _UNIT / f"test_{mutant.path.name}"
    return [str(tests)] if (ROOT / tests).exists() else []


def _passes(copy: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    try:
        finished = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False  # it runs for ever: a test that hangs has failed
    return finished.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
