# example campaigns
"""A picture of the console of `make dev`: a campaign, a duplicate, a kill, and how the key gets its answer.

    python -m tools.demo.console_picture docs/images/console.png

Needs Chromium or Chrome. The picture says what it was made of, so that a test can tell whether it is current.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import time
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path

from tools.demo import browser
from tools.demo.browser import Page
from tools.errors import ToolError, run
from tools.local import console, stack
from tools.ops.recovery import recover
from tools.progress import task
from tools.setup import LOCAL, ROOT

_WIDTH = 1200
_WITHIN_SECONDS = 60
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MADE_OF = b"made of\0"
_CHOOSE = """
    $("operation").value = operations.findIndex(each => each.method === "POST" && each.path === "/v1/campaigns")
    $("operation").onchange()
"""
_READY = 'typeof operations === "object" && operations.length > 0'
_SEND = """$("request").requestSubmit()"""
_ANSWERS = """document.querySelectorAll("#answers .record div").length"""
_DONE = """document.querySelector("#records .COMPLETED") !== null"""


def source() -> str:
    """A digest of what the picture shows: the page, whatever the project is called, and the story played on it."""
    title = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"].replace("-", " ").title()
    return hashlib.sha256(
        f"{console.PAGE.read_text().replace(title, '')}{Path(__file__).read_text()}".encode()
    ).hexdigest()


def made_of(picture: bytes) -> str:
    """The digest that a picture carries; empty if it has none."""
    at = picture.find(_MADE_OF)
    return picture[at + len(_MADE_OF) :][:64].decode() if at >= 0 else ""


def _labelled(picture: bytes) -> bytes:
    # A text chunk (PNG, section 11.3.3), after the header, which has 25 bytes.
    chunk = b"tEXt" + _MADE_OF + source().encode()
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    head = len(_SIGNATURE) + 25
    return picture[:head] + whole + picture[head:]


def _play(page: Page, running: stack.Stack) -> None:
    _until(page, _READY)
    page.do(_CHOOSE)
    page.do("""$("slow").click()""")
    _until(page, """$("said").textContent !== "" """)
    page.do(_SEND)
    _until(page, """document.querySelector("#records li:nth-child(2)") !== null""")  # its first step is done
    page.do(_SEND)
    _until(page, f"{_ANSWERS} === 1")
    page.do("""$("slow").click(); $("kill").click()""")
    _until(page, f"{_ANSWERS} === 2")
    sweep = running.client("lambda")
    _until(page, _DONE, lambda: recover(sweep, running.recovery_function_name))
    page.do(_SEND)
    _until(page, f"{_ANSWERS} === 3")


def _until(page: Page, condition: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + _WITHIN_SECONDS
    while not page.do(condition):
        if time.monotonic() > deadline:
            raise ToolError(f"the page does not come to {condition}")
        meanwhile()
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the console.")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    picture = parser.parse_args().picture
    with stack.running(LOCAL / "picture") as running, console.serving(lambda: running) as url, browser.page() as page:
        with task("play the story"):
            page.resize(_WIDTH, 800)
            page.open(url)
            _play(page, running)
        page.resize(_WIDTH, page.do("document.documentElement.scrollHeight"))
        picture.write_bytes(_labelled(page.picture()))


if __name__ == "__main__":
    run(main)
