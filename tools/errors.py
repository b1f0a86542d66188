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
    """Run a command's main function, and exit with its code; 130 after Ctrl-C, 2 after an error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(command() or 0)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except (ToolError, ClientError, BotoCoreError, HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
