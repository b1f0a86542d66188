"""Mutation testing: every condition, fence and comparison of src/idempotency, removed, must fail a test.

    python -m tests.mutation [--only store.py]

Prints each survivor, and the score. Exits with 1 if one survives for which `SURVIVORS` has no reason.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.runs import PACKAGE, Survey, survey, survives
from tests.mutation.survivors import SURVIVORS
from tools.setup import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description="Take one condition out at a time, and see that a test fails.")
    parser.add_argument("--only", default="", help="a module's name")
    only = parser.parse_args().only
    started = time.monotonic()
    found = survey()
    print(f"{len(found.seconds)} tests pass on the code as it is, {time.monotonic() - started:.0f} s", flush=True)
    made = [mutant for path in sorted((ROOT / PACKAGE).glob("*.py")) if only in path.name for mutant in mutants(path)]
    survived = _survivors(made, found)
    unknown = [mutant for mutant in survived if mutant.name not in SURVIVORS]
    killed = len(made) - len(survived)
    print(
        f"\n{killed} of {len(made)} mutants killed ({killed / len(made):.1%}); {len(survived)} survived,"
        f" {len(unknown)} of them without a reason; {(time.monotonic() - started) / 60:.1f} minutes"
    )
    return 1 if unknown else 0


def _survivors(made: Sequence[Mutant], found: Survey) -> list[Mutant]:
    survived = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tried = pool.map(lambda mutant: (mutant, survives(mutant, found)), made)
        for done, (mutant, lives) in enumerate(tried, 1):
            if lives:
                survived.append(mutant)
                print(f"survived  {mutant.name}\n          {SURVIVORS.get(mutant.name, 'NO REASON KNOWN')}", flush=True)
            if done % 20 == 0 or done == len(made):
                print(f"{done} of {len(made)} mutants tried, {len(survived)} survived", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main())
