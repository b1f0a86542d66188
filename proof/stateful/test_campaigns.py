# example campaigns
"""Random walks of several keys over the shipped campaign, its services and its DNS included.

Keys share domains; services refuse, act without an answer, and time out; workers die at any write; recovery, retries
and time come in any order. When all is quiet again, every service holds what the answers say, or an operator was told.

    python -m pytest proof/stateful/test_campaigns.py        100 walks, or as many as WALKS says
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

import api
from provisioning import dns
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.moto_cloud import campaigns, cloud, dynamodb, logs, secret, service, zone
from tests.unit.campaigns import Campaigns
from tests.unit.service import restart
from tools.local.client import Answer
from tools.local.myfunnel import Fault

__all__ = ["campaigns", "cloud", "dynamodb", "logs", "secret", "service", "zone"]

WALKS = int(os.environ.get("WALKS", "100"))
STEPS = 14
QUIET_ROUNDS = 40
FINAL = frozenset({201, 409, 422})
KEYS = {
    "k1": ("alice", {"name": "Spring", "domain": "spring.shop.example"}),
    "k2": ("bob", {"name": "Spring too", "domain": "spring.shop.example"}),
    "k3": ("alice", {"name": "Autumn", "domain": "autumn.shop.example"}),
}
_CHANGE = "route-53.ChangeResourceRecordSets"
_THROTTLED = ClientError({"Error": {"Code": "Throttling"}}, "ChangeResourceRecordSets")
_REJECTED = ClientError({"Error": {"Code": "InvalidChangeBatch", "Message": "no"}}, "ChangeResourceRecordSets")
_LOST = ReadTimeoutError(endpoint_url="https://route53.amazonaws.com")


class Walk:
    """One walk.

    Args:
        campaigns: campaigns, and what they come to in every service.
        clock: the time.
        logs: what the functions log.
        chance: picks what happens.
    """

    def __init__(self, campaigns: Campaigns, clock: SetClock, logs: StringIO, chance: Random) -> None:
        self._campaigns = campaigns
        self._clock = clock
        self._logs = logs
        self._chance = chance
        self._finals: dict[str, Answer] = {}
        self._sent: set[str] = set()
        self.story: list[str] = []

    def run(self) -> None:
        """Walk, let everything come to rest, and compare."""
        for _ in range(STEPS):
            self._chance.choice([self._post, self._post, self._post, self._recover, self._wait, self._restart])()
        self._come_to_rest()
        self._compare()

    def _post(self) -> None:
        key = self._chance.choice([*KEYS])
        self._disturbed(f"POST {key}", lambda: self._send(key))

    def _recover(self) -> None:
        self._disturbed("recover", self._campaigns.recover)

    def _wait(self) -> None:
        seconds = self._chance.choice([0.5, 2, 6, 31, 70])
        self.story.append(f"{seconds} s pass")
        self._clock.advance(seconds)

    def _restart(self) -> None:
        self.story.append("a new worker")
        restart()

    def _send(self, key: str) -> Answer:
        principal, body = KEYS[key]
        self._sent.add(key)
        answer = self._campaigns.launch(body, key=key, principal=principal)
        self.story.append(f"  {key} → {answer.status}{' replayed' if answer.replayed else ''}")
        if answer.status in FINAL and answer.json.get("type", "").partition("#")[2] != "in-progress":
            first = self._finals.setdefault(key, answer)
            assert (answer.status, answer.body) == (first.status, first.body), "one answer per key"
        return answer

    def _disturbed(self, what: str, do: Callable[[], object]) -> None:
        """Do something while one thing goes wrong, or nothing."""
        name, trouble = self._chance.choice(self._troubles())
        self.story.append(f"{what}, {name}")
        with trouble(), suppress(Killed):
            do()
        self._calm()

    def _troubles(self) -> list[tuple[str, Callable[[], Any]]]:
        number = self._chance.randint(1, 6)
        method = self._chance.choice(["POST", "POST", "DELETE"])
        return [
            ("undisturbed", ExitStack),
            ("undisturbed", ExitStack),
            (f"killed before write {number}", lambda: _killed("before-parameter-build.dynamodb.*", number)),
            (f"killed after write {number}", lambda: _killed("after-call.dynamodb.*", number)),
            (f"MyFunnelAPI refuses a {method} for now", lambda: self._myfunnel(method, act=False, status=503)),
            (f"MyFunnelAPI acts on a {method} and answers 504", lambda: self._myfunnel(method, act=True, status=504)),
            ("MyFunnelAPI refuses for good", lambda: self._myfunnel("POST", act=False, status=422)),
            ("DNS is throttled", lambda: self._dns(_THROTTLED)),
            ("DNS refuses for good", lambda: self._dns(_REJECTED)),
            ("DNS does not answer", lambda: self._dns(_LOST)),
            ("DNS acts and does not answer", lambda: _raised(dns._client(), f"after-call.{_CHANGE}", 1, _LOST)),
        ]

    def _myfunnel(self, method: str, **fault: Any) -> ExitStack:
        self._campaigns.myfunnel.faults.append(Fault(method=method, times=1, **fault))
        return ExitStack()

    def _dns(self, error: Exception) -> ExitStack:
        self._campaigns.dns_fails(error)
        return ExitStack()

    def _calm(self) -> None:
        self._campaigns.myfunnel.faults.clear()
        self._campaigns._dns_failures.clear()

    def _come_to_rest(self) -> None:
        restart()
        for _ in range(QUIET_ROUNDS):
            if all(record["status"] == "COMPLETED" for record in self._campaigns.api.records):
                break
            self._clock.advance(1_000)
            self._campaigns.recover()
        for key in sorted(self._sent):
            answer = self._send(key)
            assert answer.status in FINAL, (key, answer)
            assert self._send(key).replayed, key

    def _compare(self) -> None:
        live = {key: answer.json for key, answer in self._finals.items() if answer.status == 201}
        domains = sorted(campaign["domain"] for campaign in live.values())
        assert len({*domains}) == len(domains), "one campaign per domain"
        funnels = {campaign["funnel_id"] for campaign in live.values()}
        hosts = {funnel.id: funnel.hostname for funnel in self._campaigns.myfunnel.funnels.values()}
        assert funnels <= {*self._campaigns.funnels}, "each campaign has its landing page"
        left = {*self._campaigns.funnels} - funnels
        assert not left or "in doubt" in self._logs.getvalue(), ("left behind in silence", left)
        assert self._campaigns.routes == {
            campaign["domain"]: hosts[campaign["funnel_id"]] for campaign in live.values()
        }, "each domain leads to its landing page, and no other does"
        assert sorted(self._campaigns.domains) == domains, "no domain is reserved for nobody"
        rows = [row for row in self._campaigns.api.rows if row["id"].startswith("campaign#")]
        assert sorted(row["resource"]["domain"] for row in rows) == domains


@contextmanager
def _raised(client: Any, event: str, number: int, error: BaseException) -> Iterator[None]:
    """Raise an error at the n-th such event of a client, and, if it is a death, at each later one."""
    seen = 0

    def count(**_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == number or (seen > number and isinstance(error, Killed)):
            raise error

    client.meta.events.register(event, count)
    try:
        yield
    finally:
        client.meta.events.unregister(event, count)


def _killed(event: str, number: int) -> Any:
    return _raised(api.dynamodb, event, number, Killed())


def _begin_anew(campaigns: Campaigns, logs: StringIO) -> None:
    for domain, host in campaigns.routes.items():
        dns.Dns(campaigns._zone).unroute(domain, host)
    campaigns.api.empty()
    campaigns.myfunnel.funnels.clear()
    campaigns.myfunnel.calls.clear()
    campaigns.myfunnel._keys.clear()
    logs.truncate(0)
    restart()


@pytest.mark.slow
def test_when_all_is_quiet_every_service_holds_what_the_answers_say(
    campaigns: Campaigns,
    clock: SetClock,
    logs: StringIO,
) -> None:
    different: list[str] = []
    for number in range(WALKS):
        _begin_anew(campaigns, logs)
        walk = Walk(campaigns, clock, logs, Random(f"2026/{number}"))
        try:
            walk.run()
        except AssertionError as difference:
            told = "\n  ".join([f"walk {number}: {str(difference).splitlines()[0]}", *walk.story])
            different.append(told)
            print(told, flush=True)
        if number % 100 == 99:
            print(json.dumps({"walks": number + 1, "different": len(different)}), flush=True)

    assert not different, f"{len(different)} of {WALKS} walks end differently; the first:\n{different[0]}"
