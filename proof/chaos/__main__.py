# example campaigns
"""Let chaos reign over a local stack for a while, and exit 1 if anything forbidden happened.

python -m proof.chaos [--minutes 10] [--seed 1]
"""

from __future__ import annotations

import argparse
import secrets
import shutil

from rich.markup import escape

from proof.chaos.run import Account, run
from tools import errors
from tools.progress import console
from tools.setup import LOCAL, ROOT

_HOME = LOCAL / "chaos"


def _show(account: Account) -> None:
    for what, number in account.went_wrong.items():
        console.print(f"  {what:28} {number:6}", style="dim")
    counts = {
        "keys": account.keys,
        "requests": account.requests,
        "duplicate effects": len(account.duplicate_effects),
        "changed answers": len(account.changed_answers),
        "stuck": len(account.stuck),
    }
    for what, number in counts.items():
        console.print(f"  {what:28} {number:6}")
    for violation in account.violations:
        console.print(f"[red]✗[/] {escape(violation)}", soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Chaos on a local stack.")
    parser.add_argument("--minutes", type=float, default=10, help="how long clients keep working (default: 10)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1_000_000), help="default: a different one each time"
    )
    arguments = parser.parse_args()
    shutil.rmtree(_HOME, ignore_errors=True)
    _HOME.mkdir(parents=True)
    console.print(f"chaos for {arguments.minutes:g} minutes, seed {arguments.seed}")
    account = run(_HOME, seconds=arguments.minutes * 60, seed=arguments.seed, progress=console.print)
    _show(account)
    console.print(f"the history is in {(_HOME / 'history.jsonl').relative_to(ROOT)}", style="dim")
    return 1 if account.violations else 0


if __name__ == "__main__":
    errors.run(main)
