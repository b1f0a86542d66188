# example campaigns
"""A browser without a window, told what to do over a pair of pipes (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, BinaryIO

from tools.errors import ToolError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# What the protocol's pipes must be called in the browser: it reads 3 and writes 4.
_WITH_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Page:
    """A page in a browser.

    Args:
        commands: where the browser reads.
        answers: where it writes.
    """

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = count(1)
        self._session: dict[str, str] = {}
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def open(self, url: str) -> None:
        """Load a page."""
        self._ask("Page.navigate", url=url)

    def resize(self, width: int, height: int) -> None:
        """Make the window so many pixels wide and high."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def do(self, script: str) -> Any:
        """Evaluate JavaScript in it, wait for a promise, and return the value.

        Raises:
            ToolError: if it throws.
        """
        said = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise ToolError(f"the page fails: {said['exceptionDetails']['exception'].get('description', script)}")
        return said["result"].get("value")

    def picture(self) -> bytes:
        """Show what it looks like, as PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters, **self._session}
        self._commands.write(json.dumps(asked).encode() + b"\0")
        self._commands.flush()
        while (said := self._read()).get("id") != number:
            pass
        if "error" in said:
            raise ToolError(f"the browser refuses {method}: {said['error']['message']}")
        return dict(said["result"])

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise ToolError("the browser has ended")
            message += byte
        return dict(json.loads(message))


@contextmanager
def page() -> Iterator[Page]:
    """A page in a browser of its own, for the length of a `with` block.

    Raises:
        ToolError: if there is no browser.
    """
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        raise ToolError(f"no browser is on PATH: {', '.join(_NAMES)}")
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        wrapped = [sys.executable, "-c", _WITH_PIPES, str(theirs_in), str(theirs_out), browser, *options]
        process = subprocess.Popen(wrapped, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            with os.fdopen(commands, "wb") as writing, os.fdopen(answers, "rb") as reading:
                yield Page(writing, reading)
        finally:
            process.terminate()
            process.wait()
