"""How a command fails: one clear line, and exit code 2."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Never

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError


class ToolError(Exception):
    """An error that a person can do something about; the message is one line."""


def run(command: Callable[[], int | None]) -> Never:
    """Run a command's main function, and exit with its code; 130 after Ctrl-C, 2 after an error.

    A signal that ends the command, such as that its terminal has gone, is an exit too, so that nothing is left behind.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(command() or 0)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except (ToolError, ClientError, BotoCoreError, HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
