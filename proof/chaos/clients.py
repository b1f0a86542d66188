# example campaigns
"""The clients of a run of chaos: duplicates under one key after another, and clients that never come back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from random import Random

from idempotency.request import record_id
from proof.histories.history import FINAL, KEY_REUSED, outcome
from proof.histories.load import Load, Request, duplicates, new_key
from tests.e2e import campaigns
from tests.e2e.faults import Fate, Faults, Rule
from tests.e2e.targets import PROVISION
from tools.local.neighbours import ZONE

_AT_ONCE = 4
_SETTLE_SECONDS = 120
_SECONDS_BETWEEN_REPORTS = 10
_FAULTY_SHARE = 0.35
_RUN = "ec2.RunInstances"
_VANISHING_SHARE = 0.25
_CALLS = {
    PROVISION: ["dynamodb.PutItem", "dynamodb.TransactWriteItems", _RUN],
    campaigns.PATH: ["dynamodb.*", "myfunnel.POST", "route-53.ChangeResourceRecordSets"],
}

Rivals = tuple[Request, Request]
"""Two requests under one key, of which only one can be served."""


class Clients:
    """Clients that provision servers and launch campaigns, four keys at a time.

    Args:
        load: sends their requests.
        faults: the faults that happen to some of their operations.
        hang: seconds for which a call hangs if it is told to hang.
        random: makes all of these choices.
    """

    def __init__(self, load: Load, faults: Faults, hang: float, random: Random) -> None:
        self._load = load
        self._faults = faults
        self._hang = hang
        self._random = random
        self._lock = threading.Lock()
        self._answered = 0
        self.rivals: list[Rivals] = []

    def work(self, seconds: float, progress: Callable[[str], None]) -> None:
        """Begin new operations for this many seconds."""
        begun = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            working = [pool.submit(self._work_until, begun + seconds) for _ in range(_AT_ONCE)]
            while not all(client.done() for client in working):
                at = min(seconds, time.monotonic() - begun)
                progress(f"{at:.0f} of {seconds:.0f} s: {len(self.rivals)} keys, {self._answered} resolved")
                wait(working, timeout=_SECONDS_BETWEEN_REPORTS)
            for client in working:
                client.result()

    def settle(self) -> list[Rivals]:
        """Ask for the answer to every key once more, and return those that have none."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            settled = list(pool.map(self._settle, self.rivals))
        return [rivals for rivals, done in zip(self.rivals, settled, strict=True) if not done]

    def _work_until(self, end: float) -> None:
        while time.monotonic() < end:
            with self._lock:
                rivals = self._new_rivals()
                requests = list(duplicates(*rivals, self._random))
                vanishing = self._random.random() < _VANISHING_SHARE
            self._load.send_all(requests, len(requests))
            if not vanishing and self._settle(rivals):
                self._answered += 1

    def _new_rivals(self) -> Rivals:
        key, principal = new_key(self._random), self._random.choice(["alice", "bob"])
        path = self._random.choice([PROVISION, campaigns.PATH])
        if path == PROVISION:
            bodies = [{"region": "eu-west", "size": size} for size in ("large", "small")]
        else:
            bodies = [{"name": name, "domain": f"{key}.{ZONE}"} for name in ("Spring", "Autumn")]
        one, other = (Request(principal, path, key, json.dumps(body)) for body in bodies)
        self.rivals.append((one, other))
        if self._random.random() < _FAULTY_SHARE:
            self._faults.expect(record_id(f"id:{principal}", "POST", path, key), [self._rule(path)])
        return one, other

    def _rule(self, path: str) -> Rule:
        call = self._random.choice(_CALLS[path])
        # The SDK repeats a lost call under the same client token, which the local cloud ignores and EC2 does not.
        ends: list[Fate] = ["kill", "delay"] if call == _RUN else ["kill", "delay", "lose", "refuse"]
        return Rule(
            call=call,
            number=self._random.randint(1, 2),
            when=self._random.choice(["before", "during", "after"]),
            do=self._random.choice(ends),
            seconds=self._hang,
        )

    def _settle(self, rivals: Rivals) -> bool:
        """Whether one of the two has its final answer, and the other is refused."""
        answers = [self._load.send_until_settled(request, within=_SETTLE_SECONDS) for request in rivals]
        return {outcome(answer) for answer in answers if answer} == {FINAL, KEY_REUSED}
