"""Mutation testing: if any condition, fence or comparison of src/idempotency is removed, a test must fail.

    python -m proof.mutants [--only store.py] [--since main] [--every 3] [--all]

Prints each mutant under which no test failed, and the score. A mutant under which tests only hang, even when it is
tried alone and with more time, has timed out: it is counted apart, and not as killed. Exits with 1 if a mutant survives
for which `SURVIVORS` has no reason.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from proof.mutants.mutants import Mutant, mutants
from proof.mutants.runs import PACKAGE, Judgement, Survey, Verdict, judge, survey
from proof.mutants.survivors import SURVIVORS
from tests.dynamodb_local import ENDPOINT
from tools import errors
from tools.local import dynamodb_local
from tools.setup import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove one condition at a time, and see that a test fails.")
    parser.add_argument("--only", default="", help="the name of a module")
    parser.add_argument("--since", default="", help="a commit: try only those that it did not have")
    parser.add_argument("--every", type=int, default=1, help="try every Nth mutant (default: 1)")
    parser.add_argument("--all", action="store_true", help="also try those that are known to survive")
    arguments = parser.parse_args()
    if arguments.since and _git("cat-file", "-e", f"{arguments.since}^{{commit}}").returncode:
        raise errors.ToolError(f"there is no commit {arguments.since}")
    made = [
        mutant
        for path in sorted((ROOT / PACKAGE).glob("*.py"))
        if arguments.only in path.name and path.name != "testing.py"  # a harness for tests, not part of the engine
        for mutant in _new(path, arguments.since)
    ][:: arguments.every]
    tried = [mutant for mutant in made if arguments.all or mutant.name not in SURVIVORS]
    started = time.monotonic()
    with dynamodb_local.running() as server:
        os.environ[ENDPOINT] = server.endpoint_url  # one for all processes: starting it takes longer than most tests
        judged = list(_judge(tried, survey()))
    counts = Counter(verdict for _, verdict in judged)
    unknown = [mutant for mutant, verdict in judged if verdict is Verdict.SURVIVED and mutant.name not in SURVIVORS]
    known = len(made) - len(tried) + counts[Verdict.SURVIVED] - len(unknown)
    minutes = (time.monotonic() - started) / 60
    print(
        f"{counts[Verdict.KILLED]} of {len(made)} mutants killed, {known} known to make no difference,"
        f" {counts[Verdict.TIMED_OUT]} timed out, {len(unknown)} survived, {minutes:.1f} minutes"
    )
    return 1 if unknown else 0


def _new(path: Path, commit: str) -> Iterator[Mutant]:
    """The mutants of a module that it did not have at a commit; all of them if none is named."""
    then = _git("cat-file", "blob", f"{commit}:{path.relative_to(ROOT)}").stdout if commit else ""
    before = {mutant.name for mutant in mutants(path, then)}
    return (mutant for mutant in mutants(path) if mutant.name not in before)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def _judge(tried: Sequence[Mutant], found: Survey) -> Iterator[Judgement]:
    print(f"{len(found.seconds)} tests pass on the code as it is", flush=True)
    for done, (mutant, verdict) in enumerate(judge(tried, found), 1):
        if verdict is not Verdict.KILLED:
            print(f"{verdict.value}  {mutant.name}", flush=True)
        if done % 20 == 0 or done == len(tried):
            print(f"{done} of {len(tried)} mutants tried", flush=True)
        yield mutant, verdict


if __name__ == "__main__":
    errors.run(main)
