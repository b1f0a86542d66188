"""Clients that send duplicates, wait or hang up, and retry until they have a final answer; and their history."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from uuid import UUID

from proof.histories.history import FINAL, KEY_REUSED, NO_ANSWER, Exchange, History, digest, now, outcome
from tests.e2e.targets import JSON, Remote
from tests.e2e.wire import exchange
from tools.local.client import Answer

_LONGEST_PAUSE_SECONDS = 5


@dataclass(frozen=True)
class Request:
    """What a client sends.

    Args:
        principal: the principal of its token.
        path: the path to send it to.
        key: the idempotency key.
        body: the body.
        wait: seconds for which it asks to wait for the first request; 0 for none.
        patience: seconds after which it hangs up.
    """

    principal: str
    path: str
    key: str
    body: str
    wait: int = 0
    patience: float = 60


def new_key(random: Random) -> str:
    """A random key, the same for the same seed."""
    return str(UUID(int=random.getrandbits(128), version=4))


def duplicates(request: Request, other: Request, random: Random) -> Iterator[Request]:
    """What clients send under one key: a request several times; some wait, hang up, or send another body instead."""
    for _ in range(random.randint(2, 6)):
        yield replace(
            other if random.random() < 0.15 else request,
            wait=random.choice([0, 0, 1, 5]),
            patience=random.uniform(0.05, 0.5) if random.random() < 0.15 else request.patience,
        )


class Load:
    """Clients of one target.

    Args:
        target: the target.
        history: where everything that they send, and every answer, is written.
    """

    def __init__(self, target: Remote, history: History) -> None:
        self._target = target
        self._history = history

    def send_all(self, requests: list[Request], threads: int) -> None:
        """Send each once, in this order, up to this many at a time."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.send, requests))

    def send(self, request: Request) -> Answer | None:
        """Send once; None if there is no answer."""
        sent, answer = now(), self._exchange(request)
        received = Exchange(request.principal, request.path, request.key, request.body, sent, now(), NO_ANSWER)
        if answer is not None:
            received = replace(received, outcome=outcome(answer), replayed=answer.replayed, digest=digest(answer))
        self._history.add(received)
        return answer

    def send_until_settled(self, request: Request, within: float) -> Answer | None:
        """Send until there is a final answer or a 422; None if there is neither within this many seconds."""
        deadline = now() + within
        while now() < deadline:
            answer = self.send(request)
            if answer is not None and outcome(answer) in {FINAL, KEY_REUSED}:
                return answer
            asked = answer.headers.get("retry-after", ["1"])[0] if answer else "1"
            time.sleep(min(int(asked), _LONGEST_PAUSE_SECONDS))
        return None

    def _exchange(self, request: Request) -> Answer | None:
        headers = [JSON, self._target.bearer(request.principal), ("Idempotency-Key", request.key)]
        headers += [("Prefer", f"wait={request.wait}")] if request.wait else []
        url = f"{self._target.api_url}{request.path}"
        try:
            return exchange(url, "POST", headers, request.body.encode(), request.patience)
        except (OSError, http.client.HTTPException):
            return None
