"""What a client prefers about its answer (RFC 7240)."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

# A token, alone or with a value; a parameter of a preference looks the same, and some clients write `wait` as one.
_PREFERENCE = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?""", re.ASCII)
# Beyond this, nobody means a number of seconds.
_DIGITS = 6


class Preferences(NamedTuple):
    """The preferences that are known here.

    Args:
        wait: seconds for which the client would wait for the answer; None if it does not say.
        respond_async: whether it would rather have 202 than hold its connection.
    """

    wait: int | None = None
    respond_async: bool = False

    @classmethod
    def of(cls, lines: Sequence[str]) -> Self:
        """Read all ``Prefer`` lines of a request; of a preference that occurs twice, the first one counts.

        What is unknown, or makes no sense, is ignored.

        Source: RFC 7240, sections 2, 4.1 and 4.3.
        """
        found: dict[str, str] = {}
        for name, value in _PREFERENCE.findall(",".join(lines)):
            found.setdefault(name.lower(), value.strip('"'))
        wait = found.get("wait", "")[:_DIGITS]
        return cls(int(wait) if wait.isdecimal() else None, "respond-async" in found)

    def applied(self, *, waited: bool, responded_async: bool) -> str:
        """The value of ``Preference-Applied``; empty if nothing was (RFC 7240, section 3)."""
        parts = {
            "respond-async": responded_async and self.respond_async,
            f"wait={self.wait}": waited and self.wait is not None,
        }
        return ", ".join(part for part, holds in parts.items() if holds)
