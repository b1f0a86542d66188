"""What the explorer finds in the peers; `make peers` shows all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from proof.explorer.explorer import exhaust, replay, shrink
from proof.explorer.peers import IDEMKIT, POWERTOOLS, Peer, PeerScenario, simulated
from proof.explorer.world import INVOCATION_LIFE_MS, World
from tools.local.client import Answer

OVERTAKEN = replace(POWERTOOLS, life=INVOCATION_LIFE_MS)


@pytest.fixture(autouse=True)
def _simulated() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("peer", [POWERTOOLS, IDEMKIT], ids=lambda peer: peer.name)
@pytest.mark.parametrize("principals", [("alice", "alice"), ("alice", "bob")], ids="-".join)
@pytest.mark.parametrize("rollout", [False, True], ids=["", "rollout"])
def test_peer_holds_where_nothing_goes_wrong(peer: Peer, principals: tuple[str, str], rollout: bool) -> None:
    report = exhaust(PeerScenario(peer, principals, faults=0, jumps=0, rollout=rollout))
    assert report.exhausted
    assert not report.failures


@pytest.mark.parametrize(
    ("peer", "invariant", "faults", "jumps"),
    [(POWERTOOLS, 5, 1, 0), (POWERTOOLS, 2, 1, 1), (OVERTAKEN, 1, 0, 1), (OVERTAKEN, 2, 0, 1), (IDEMKIT, 5, 1, 0)],
    ids=["powertools-5", "powertools-2", "overtaken-1", "overtaken-2", "idemkit-5"],
)
def test_peer_breaks(peer: Peer, invariant: int, faults: int, jumps: int) -> None:
    build = PeerScenario(peer, faults=faults, jumps=jumps)
    report = exhaust(build, most=6_000, wanted=frozenset({invariant}))
    failure = next(failure for failure in report.failures if failure.violation.invariant == invariant)
    again, _ = replay(build, shrink(build, failure).schedule)
    assert again is not None
    assert again.violation.invariant == invariant


def test_idemkit_fences_a_worker_that_outlived_its_lease() -> None:
    report = exhaust(PeerScenario(IDEMKIT, faults=1, jumps=1), most=6_000, wanted=frozenset({2}))
    assert 2 not in {failure.violation.invariant for failure in report.failures}


def test_peer_that_asks_the_newer_code_first_is_caught() -> None:
    def request(world: World, principal: str) -> Answer:
        return Answer(400) if world.me.notes["newer"] else POWERTOOLS.request(world, principal)

    build = PeerScenario(replace(POWERTOOLS, request=request), faults=0, jumps=0, rollout=True)
    assert 9 in {failure.violation.invariant for failure in exhaust(build, wanted=frozenset({9})).failures}
