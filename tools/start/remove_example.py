# example campaigns
"""A project without an example of the template: `make remove-example WHAT=campaigns`.

What belongs to an example says so in a comment: a file in its first line, `# example NAME`; lines between that and
`# end of example`; or one line at its end. In Markdown and HTML, it is `<!-- example NAME -->`, in the last cell of a
table's row. Imports need none, as what nobody uses is not imported any more, nor pictures, which go with the last text
that names them. This tool belongs to campaigns, the only example that there is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.errors import ToolError, run
from tools.setup import ROOT
from tools.start.texts import texts

_END = r"(?:#|//|<!--) end of example(?: -->)?"


def _begin(example: str) -> str:
    return rf"(?:#|//|<!--) example {example}(?: -->)?"


def examples(text: str) -> set[str]:
    """The examples to which something in a text belongs."""
    return {*re.findall(rf"{_begin('([a-z][a-z-]*)')}(?: [|])?$", text, re.MULTILINE)}


def without(text: str, example: str) -> str:
    """A file's text without what belongs to an example; empty if all of it does.

    Raises:
        ToolError: if lines of it begin somewhere, and do not end.
    """
    begin = _begin(re.escape(example))
    text = re.sub(rf"^[ \t]*{begin}\n.*?^[ \t]*{_END}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    if re.match(rf"{begin}\n", text):
        return ""
    if re.search(rf"^[ \t]*{begin}$", text, re.MULTILINE):
        raise ToolError(f"what belongs to {example} does not end: write a comment, end of example")
    return re.sub(rf"^.*{begin}(?: [|])?\n", "", text, flags=re.MULTILINE)


def removed(example: str) -> dict[Path, str]:
    """The files that change, each with the text that it gets; empty for those that go.

    Raises:
        ToolError: if there is no such example, or somewhere it does not end.
    """
    before = dict(texts())
    known = sorted({name for text in before.values() for name in examples(text)})
    if example not in known:
        raise ToolError(f"WHAT={example}: there is no such example; there is {', '.join(known)}")
    changed = {}
    for path, text in before.items():
        try:
            after = without(text, example)
        except ToolError as error:
            raise ToolError(f"{path.relative_to(ROOT)}: {error}") from None
        if after != text:
            changed[path] = after and f"{after.rstrip()}\n"
    return changed


def _pictures_of_it() -> list[Path]:
    """The pictures that no text names any more: they can say nothing themselves."""
    named = "".join(text for _, text in texts())
    return [picture for picture in (ROOT / "docs" / "images").glob("*") if picture.name not in named]


def _write(changed: dict[Path, str]) -> None:
    for path, text in changed.items():
        if text:
            path.write_bytes(text.encode())
        else:
            path.unlink()
    for folder in sorted({path.parent for path in changed}, reverse=True):
        if {each.name for each in folder.iterdir()} <= {"__pycache__"}:
            shutil.rmtree(folder)
    for picture in _pictures_of_it():
        picture.unlink()


def _tidy(python: list[str]) -> None:
    """Take out the imports that nobody uses any more, and make anew what is made of src/ and the template."""
    for command in (
        ["ruff", "check", "--quiet", "--select", "F401,I", "--fix", *python],
        ["ruff", "format", "--quiet", *python],
        ["tools.contract"],
        ["tools.ops.costs"],
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove an example of the template.")
    parser.add_argument("what", help="such as campaigns")
    example = parser.parse_args().what
    changed = removed(example)
    left = [path for path, text in changed.items() if text]
    _write(changed)
    _tidy([str(path) for path in left if path.suffix == ".py"])
    gone = len(changed) - len(left)
    print(f"{example} are gone: {gone} files, and parts of {len(left)}; next: make check")
    return 0


if __name__ == "__main__":
    run(main)
