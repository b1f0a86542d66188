# example campaigns
"""The proxy cuts the connections that it is told to cut, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from urllib.parse import urlsplit

import pytest
import urllib3

from proof.chaos.proxy import Proxy
from tools.local import myfunnel
from tools.local.myfunnel import MyFunnel

REQUESTS = 60


@pytest.fixture
def service() -> MyFunnel:
    return MyFunnel()


@pytest.fixture
def server(service: MyFunnel) -> Iterator[tuple[str, int]]:
    with myfunnel.serving(service) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def create(url: str, key: str) -> int | None:
    """Create a funnel; None if the connection is cut."""
    headers = {"Authorization": f"Bearer {myfunnel.TOKEN}", "Idempotency-Key": key}
    with urllib3.PoolManager(retries=False, timeout=5) as http:
        try:
            return http.request("POST", f"{url}/v1/funnels", headers=headers, json={"name": "n", "domain": key}).status
        except urllib3.exceptions.HTTPError:
            return None


def test_cuts_nothing_unless_told_to(server: tuple[str, int]) -> None:
    proxy = Proxy(Random(1), share=0)

    with proxy.serving(*server) as url:
        statuses = [create(url, str(number)) for number in range(REQUESTS)]

    assert statuses == [201] * REQUESTS
    assert proxy.cuts == 0


def test_cuts_before_the_effect_and_after_it(
    server: tuple[str, int], service: MyFunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proof.chaos.proxy._LONGEST_LIFE_BYTES", 400)
    proxy = Proxy(Random(1), share=1)

    with proxy.serving(*server) as url:
        cut = [str(number) for number in range(REQUESTS) if create(url, str(number)) is None]

    made = {funnel.domain for funnel in service.funnels.values()}
    assert proxy.cuts == len(cut)
    assert set(cut) & made, "the effect is there, and its answer is lost"
    assert set(cut) - made, "the request has not arrived"


def test_is_down_for_a_while(server: tuple[str, int], service: MyFunnel) -> None:
    proxy = Proxy(Random(1), share=0)

    with proxy.serving(*server) as url:
        with proxy.outage():
            assert create(url, "k") is None
        assert create(url, "k") == 201


def test_calms_down(server: tuple[str, int]) -> None:
    proxy = Proxy(Random(1), share=1)
    proxy.calm_down()

    with proxy.serving(*server) as url:
        assert [create(url, str(number)) for number in range(REQUESTS)] == [201] * REQUESTS
