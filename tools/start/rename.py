"""A name of one's own: `make rename NAME=orders-api` puts it in the place of this project's, in every spelling.

That is the name of package, stacks, secrets and tags, the namespace of the metrics, and the title of the pages. What is
deployed already keeps its old name: a stack cannot be renamed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.errors import ToolError, run
from tools.setup import ROOT
from tools.start.texts import texts

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 24


def renamed(text: str, old: str, new: str) -> str:
    """A text with another name in it, in each spelling that the old one has."""
    spellings = {**_spellings(old, new), f"group-{len(old)}-{old}": f"group-{len(new)}-{new}"}  # so uv.lock has it
    pattern = "|".join(re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True))
    return re.sub(pattern, lambda found: spellings[found[0]], text)


def _spellings(old: str, new: str) -> dict[str, str]:
    titles = old.replace("-", " ").title(), new.replace("-", " ").title()
    return {old: new, titles[0]: titles[1], titles[0].replace(" ", ""): titles[1].replace(" ", "")}


def _rename(path: Path, text: str, old: str, new: str) -> bool:
    changed = renamed(text, old, new)
    if changed != text:
        path.write_bytes(changed.encode())
    return changed != text


def main() -> int:
    parser = argparse.ArgumentParser(description="Give the project a name of its own.")
    parser.add_argument("name", help="such as orders-api")
    new = parser.parse_args().name
    if not _NAME.fullmatch(new) or len(new) > _LONGEST:
        raise ToolError(
            f"NAME={new}: a name is lower case with hyphens, such as orders-api; at most {_LONGEST} characters"
        )
    old = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    count = sum(_rename(path, text, old, new) for path, text in texts() if path.name != "LICENSE")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", "."], cwd=ROOT, check=True)
    print(f"{old} is {new} now, in {count} files; LICENSE still names its authors")
    return 0


if __name__ == "__main__":
    run(main)
