# example campaigns
"""A further route, whose operation has many steps that take a while; each run of one is written into a journal.

It is put next to `api.py` and `recovery.py` in a copy of what was built; nothing in `src/` knows about it.
"""

import json
import os
import time
from functools import partial
from pathlib import Path

import api
import recovery
from idempotency import Body, Completion, Operation, Policy

handler = api.handler
worker = recovery.worker


class LongRequest(Body):
    """The body of ``POST /v1/long``.

    Args:
        steps: how many steps there are.
        seconds: how long each takes.
    """

    steps: int
    seconds: int


def _step(number: int, seconds: int, attempt: int, _: str) -> int:
    began = time.time()
    time.sleep(seconds)
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(json.dumps([number, attempt, began, time.time()]) + "\n")
    return number


@api.app.post("/v1/long")
@api.idempotent(Policy(recoverable=True, respond_async="always"))
def long(request: LongRequest, operation: Operation) -> Completion:
    """Do one step after the other."""
    for number in range(request.steps):
        operation.step(f"step {number}", partial(_step, number, request.seconds, operation.attempt))
    return Completion(201, {"steps": request.steps})
