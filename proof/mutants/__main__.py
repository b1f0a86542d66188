"""Mutation testing: every condition, fence and comparison of src/idempotency, removed, must fail a test.

    python -m proof.mutants [--only store.py] [--every 3] [--all]

Prints each survivor, and the score. Exits with 1 if one survives for which `SURVIVORS` has no reason.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from proof.mutants.mutants import Mutant, mutants
from proof.mutants.runs import PACKAGE, Survey, survey, survives
from proof.mutants.survivors import SURVIVORS
from tests.dynamodb_local import ENDPOINT
from tools import errors
from tools.local import dynamodb_local
from tools.setup import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description="Take one condition out at a time, and see that a test fails.")
    parser.add_argument("--only", default="", help="a module's name")
    parser.add_argument("--every", type=int, default=1, help="try one of so many (default: 1)")
    parser.add_argument("--all", action="store_true", help="try those too that are known to survive")
    arguments = parser.parse_args()
    made = [
        mutant
        for path in sorted((ROOT / PACKAGE).glob("*.py"))
        if arguments.only in path.name
        for mutant in mutants(path)
    ][:: arguments.every]
    tried = [mutant for mutant in made if arguments.all or mutant.name not in SURVIVORS]
    started = time.monotonic()
    with dynamodb_local.running() as server:
        os.environ[ENDPOINT] = server.endpoint_url  # one for all processes: to start it takes longer than most tests
        survived = list(_survivors(tried, survey()))
    unknown = [mutant for mutant in survived if mutant.name not in SURVIVORS]
    killed = len(tried) - len(survived)
    known = len(made) - killed - len(unknown)
    print(
        f"{killed} of {len(made)} mutants killed, {known} known to be no different, {len(unknown)} survived,"
        f" {(time.monotonic() - started) / 60:.1f} minutes"
    )
    return 1 if unknown else 0


def _survivors(tried: Sequence[Mutant], found: Survey) -> Iterator[Mutant]:
    print(f"{len(found.seconds)} tests pass on the code as it is", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = pool.map(lambda mutant: survives(mutant, found), tried)
        for done, (mutant, lives) in enumerate(zip(tried, verdicts, strict=True), 1):
            if lives:
                print(f"survived  {mutant.name}", flush=True)
                yield mutant
            if done % 20 == 0 or done == len(tried):
                print(f"{done} of {len(tried)} mutants tried", flush=True)


if __name__ == "__main__":
    errors.run(main)
