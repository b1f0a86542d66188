"""The API on this machine while you work on it: what you save is deployed at once; URL, token and data stay.

    python -m tools.local.dev [--port 8000]      runs until Ctrl-C, with a console to try it by hand

A stack that `make up` has left running is used, and left running; otherwise it ends with this command. `src` must be on
PYTHONPATH.
"""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from tools.errors import ToolError, run
from tools.local import cloud, console, deployed, stack
from tools.local.guard import guarding
from tools.local.processes import port_number
from tools.local.release import BUILT
from tools.local.samconfig import deploy_parameters
from tools.local.stack import Stack
from tools.progress import console as progress
from tools.progress import task
from tools.setup import ROOT

_SRC = ROOT / "src"
# What is deployed besides the code.
_OTHERS = ("template.yaml", "samconfig.toml", "uv.lock", "src/Makefile")
_PAUSE_SECONDS = 0.3
_ALIAS = "live"
_OFTEN = {"Delay": 0.1, "MaxAttempts": 100}


class Reloader:
    """Brings a local stack up to date with what is saved.

    Args:
        running: the stack.
    """

    def __init__(self, running: Stack) -> None:
        self.stack = running
        self._seen = _saved()
        self._published: list[tuple[str, str]] = []

    def look(self) -> bool:
        """Deploy what was saved since the last look; code alone takes a second.

        Returns:
            Whether there was anything.

        Raises:
            ToolError: if it cannot be deployed; what ran before still runs.
        """
        saved, before = _saved(), self._seen
        if saved == before:
            return False
        self._seen = saved
        changed = {path for path in {*saved, *before} if saved.get(path) != before.get(path)}
        if any(str(path.relative_to(ROOT)) in _OTHERS for path in changed):
            self.stack = stack.up()
        else:
            with task(f"deploy {', '.join(sorted(str(path.relative_to(ROOT)) for path in changed))}"):
                self._publish()
        return True

    def _publish(self) -> None:
        artifact, functions = package(), self.stack.client("lambda")
        old, self._published = self._published, []
        for name in _functions(self.stack):
            functions.update_function_code(FunctionName=name, ZipFile=artifact)
            self._published.append((name, functions.publish_version(FunctionName=name)["Version"]))
        for name, version in self._published:
            ready = functions.get_waiter("published_version_active")
            ready.wait(FunctionName=name, Qualifier=version, WaiterConfig=_OFTEN)
            functions.update_alias(FunctionName=name, Name=_ALIAS, FunctionVersion=version)
        # Their workers end with them. Those that CloudFormation made are its own.
        for name, version in old:
            functions.delete_function(FunctionName=name, Qualifier=version)


def package() -> bytes:
    """The artifact with the code as it is saved now; its dependencies are those of the last build.

    Raises:
        ToolError: if a module is no Python.
    """
    built = next(path.parent for path in BUILT.glob("*/api.py"))
    own = {path.name for path in _SRC.iterdir()}
    files = {path.relative_to(built): path for path in built.rglob("*") if path.is_file()}
    files = {name: path for name, path in files.items() if name.parts[0] not in own}
    files |= {path.relative_to(_SRC): path for path in _modules() if path.name != "testing.py"}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in files.items():
            if path.is_relative_to(_SRC):
                _check(path)
            archive.write(path, str(name))
    return content.getvalue()


def _check(path: Path) -> None:
    try:
        compile(path.read_bytes(), path, "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or "?"
        raise ToolError(f"{path.relative_to(ROOT)}:{line}: {getattr(error, 'msg', error)}") from error


def _functions(running: Stack) -> list[str]:
    found = deployed.find(running.client("cloudformation"), deploy_parameters("local")["stack_name"])
    return [found.references[name] for name in found.of_type("AWS::Lambda::Function")]


def _modules() -> Iterator[Path]:
    return (path for path in _SRC.rglob("*.py") if "__pycache__" not in path.parts)


def _saved() -> Mapping[Path, int]:
    """When each file that is deployed was saved last."""
    times: dict[Path, int] = {}
    for path in [*_modules(), *(ROOT / name for name in _OTHERS)]:
        # An editor may be replacing it at this very moment.
        times[path] = path.stat().st_mtime_ns if path.exists() else 0
    return times


@contextmanager
def running(port: int) -> Iterator[Stack]:
    """The local stack for the length of a `with` block; one that runs already goes on afterwards."""
    if cloud.find(stack.HOME):
        yield stack.up(port)
    else:
        with guarding(stack.__name__, stack.HOME):
            yield stack.up(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the API on this machine, and deploy what is saved.")
    parser.add_argument(
        "--port", type=port_number, default=0, help=f"where the API listens (default: {stack.PORT} if free)"
    )
    with running(parser.parse_args().port) as started:
        stack.greet(started)
        reloader = Reloader(started)
        with console.serving(lambda: reloader.stack) as url:
            progress.print(f"[green]console[/]: {url}   requests to try, records as they live, switches")
            progress.print("what you save in src/ or template.yaml is deployed; Ctrl-C ends it", style="dim")
            watch(reloader)


def watch(reloader: Reloader) -> None:
    """Look again and again; what cannot be deployed is said, and mended by the next save."""
    while True:
        try:
            reloader.look()
        except ToolError as error:
            progress.print(Text(str(error), style="red"), soft_wrap=True)
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    run(main)
