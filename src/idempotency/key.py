"""The Idempotency-Key request header, and the record id that it is hashed into."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

from idempotency.problems import Problem

KeyFormat = Literal["any", "uuid"]

_VISIBLE = re.compile(r"[!-~]{1,255}")
_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_key(values: Sequence[str], key_format: KeyFormat = "any") -> str | None:
    """Read the key from every value of the header that was received.

    A structured-field string (``"k"``) and a bare value (``k``) name the same key. Parameters after the string are
    refused: the header defines none, and two spellings of one key must never become two keys.

    Returns:
        The key, 1 to 255 visible ASCII characters, or None if the header is absent or empty.

    Raises:
        Problem: ``key-invalid`` (400) if the header was sent twice or its value is not a key.

    Source: draft-ietf-httpapi-idempotency-key-header-07, section 2; RFC 9651, section 3.3.3.
    """
    if len(values) > 1:
        raise Problem("key-invalid", "The Idempotency-Key header was sent more than once.")
    value = values[0].strip(" \t") if values else ""
    if value.startswith('"'):
        value = _unquote(value)
    if not value:
        return None
    if not _VISIBLE.fullmatch(value):
        raise Problem("key-invalid", "An Idempotency-Key is 1 to 255 visible ASCII characters.")
    if key_format == "uuid" and not _UUID.fullmatch(value):
        raise Problem("key-invalid", "This endpoint takes only a UUID as Idempotency-Key.")
    return value


def record_id(principal: str, method: str, route: str, key: str) -> str:
    """Hash what a key is scoped by into the id of its record: 64 hexadecimal digits of SHA-256.

    Each part is preceded by its length, so that no principal reaches another's record by moving characters from one
    part to the next; and the raw key is never stored.
    """
    digest = sha256()
    for part in (principal, method, route, key):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _unquote(value: str) -> str:
    match = _STRING.fullmatch(value)
    if not match:
        raise Problem("key-invalid", "The quoted Idempotency-Key is not a structured-field string.")
    return re.sub(r"\\(.)", r"\1", match[1])
