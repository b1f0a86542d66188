"""Everything that proves the engine, one part after the other, and a summary.

python -m proof
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tools import errors
from tools.setup import ENVIRONMENTS, ROOT

console = Console(highlight=False)


@dataclass(frozen=True)
class Part:
    """A command whose last line sums up what it found.

    Args:
        what: what the proof is.
        arguments: what Python runs.
        group: the environment that it runs in.
    """

    what: str
    arguments: tuple[str, ...]
    group: str = "dev"


PARTS = (
    Part("every schedule of the explorer", ("proof.explorer.prove", "--most", "6000", "--random", "500")),
    Part("the peers under the explorer", ("proof.explorer.compare",), "peers"),
    Part("the explorer's DynamoDB, call by call", ("pytest", "-q", "proof/explorer/test_conformance.py")),
    Part("random walks next to a model", ("pytest", "-q", "proof/stateful")),
    Part("histories that one execution explains", ("pytest", "-q", "proof/histories/test_histories.py")),
    Part("tests that fail if a condition is removed", ("proof.mutants", "--every", "3")),
)


@dataclass(frozen=True)
class Verdict:
    """How a part ended."""

    passed: bool
    summary: str
    minutes: float


def run(part: Part) -> Verdict:
    """Run a part, and show what it prints as it comes."""
    console.rule(part.what)
    started, last = time.monotonic(), ""
    python = ENVIRONMENTS[part.group] / "bin" / "python"
    with subprocess.Popen([python, "-m", *part.arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            console.print(line, end="", markup=False, soft_wrap=True)
            last = line.strip() or last
    return Verdict(process.returncode == 0, last.strip("= "), (time.monotonic() - started) / 60)


def main() -> int:
    """Run all parts; returns 1 if one found a violation."""
    table = Table("", "proved by", "found", "minutes")
    verdicts = [(part, run(part)) for part in PARTS]
    for part, verdict in verdicts:
        table.add_row("✓" if verdict.passed else "✗", part.what, verdict.summary, f"{verdict.minutes:.1f}")
    console.print(table)
    return 0 if all(verdict.passed for _, verdict in verdicts) else 1


if __name__ == "__main__":
    errors.run(main)
