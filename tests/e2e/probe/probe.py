"""A further route, which only tests need: each attempt of its operation does what the request says.

It is put next to `api.py` in a copy of what was built, see `tests.e2e.variant`; nothing in `src/` knows about it.
"""

import base64
import os
import signal
from time import sleep
from typing import Any, ClassVar

from aws_lambda_powertools.event_handler import Response

import api
from idempotency import Body, Completion, Operation, Policy, Rejected, Retry

handler = api.handler

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NOT_ASCII = "é漢🙂"


class ProbeRequest(Body):
    """The body of ``POST /v1/probe``.

    Args:
        attempts: what each attempt does; further attempts do what the last one does.
        seconds: how long an attempt takes.
        size: about how many random bytes an answer has, so that no two runs answer the same.
        media_type: ``application/json`` or ``image/png``.
    """

    attempts: list[str]
    seconds: float = 0
    size: int = 16
    media_type: str = "application/json"

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "required": ["attempts"],
        "additionalProperties": False,
        "properties": {
            "attempts": {
                "type": "array",
                "minItems": 1,
                "items": {"enum": ["answer", "die", "fail", "refuse", "retry"]},
            },
            "seconds": {"type": "number"},
            "size": {"type": "integer"},
            "media_type": {"enum": ["application/json", "image/png"]},
        },
    }


def die() -> None:
    """End this process as a crash would."""
    os.kill(os.getpid(), signal.SIGKILL)


@api.app.post("/v1/probe")
@api.idempotent(Policy())
def probe(request: ProbeRequest, operation: Operation) -> Response[Any]:
    """Do what the request says for this attempt."""
    sleep(request.seconds)
    match request.attempts[min(operation.attempt, len(request.attempts)) - 1]:
        case "die":
            die()
        case "fail":
            raise ZeroDivisionError("a detail that no client may see")
        case "retry":
            raise Retry("Told to fail for now.", retry_after=2)
        case "refuse":
            raise Rejected("probe-refused", f"Told to refuse {operation.id}.", status=403, title="Refused")
    return _answer(request, operation)


def _answer(request: ProbeRequest, operation: Operation) -> Completion:
    noise = os.urandom(request.size)
    made = {"id": operation.derived_id("probe"), "attempt": operation.attempt}
    rows = [api.resources().row("probe", made, operation.principal)]
    if request.media_type == "image/png":
        return Completion(201, _PNG_SIGNATURE + noise, content_type=request.media_type, rows=rows)
    text = base64.b64encode(noise).decode() + _NOT_ASCII
    return Completion(201, {**made, "text": text}, headers={"Location": f"/v1/probe/{made['id']}"}, rows=rows)
