# example campaigns
"""The client of MyFunnelAPI, against a server that misbehaves."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from idempotency.errors import Problem, Retry
from provisioning.funnels import Funnels
from tools.local import myfunnel
from tools.local.myfunnel import Fault, MyFunnel

NAME, DOMAIN, KEY = "Spring", "spring.shop.example", "key-1"


@pytest.fixture
def service() -> MyFunnel:
    """MyFunnelAPI."""
    return MyFunnel()


@pytest.fixture
def url(service: MyFunnel) -> Iterator[str]:
    """Its URL."""
    with myfunnel.serving(service) as url:
        yield url


@pytest.fixture
def funnels(url: str) -> Funnels:
    """Its client."""
    return Funnels(f"{url}/", lambda: myfunnel.TOKEN)


def test_makes_a_funnel_with_the_token_and_the_key(service: MyFunnel, funnels: Funnels) -> None:
    funnel = funnels.create(NAME, DOMAIN, KEY)

    made = service.funnels[funnel["id"]]
    assert (made.name, made.domain, made.hostname) == (NAME, DOMAIN, funnel["hostname"])
    assert [call.key for call in service.calls] == [KEY]


def test_the_same_key_makes_the_same_funnel(service: MyFunnel, funnels: Funnels) -> None:
    first, again = funnels.create(NAME, DOMAIN, KEY), funnels.create(NAME, DOMAIN, KEY)
    other = funnels.create(NAME, DOMAIN, "key-2")

    assert again == first
    assert other != first
    assert len(service.funnels) == 2


@pytest.mark.parametrize(("id_", "path"), [("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("é%", "%C3%A9%25")])
def test_deletes_the_funnel_alone_whatever_its_id_is(service: MyFunnel, funnels: Funnels, id_: str, path: str) -> None:
    funnels.delete(id_)

    assert [call.path for call in service.calls] == [f"/v1/funnels/{path}"]


def test_deletes_a_funnel_and_succeeds_if_it_is_already_gone(service: MyFunnel, funnels: Funnels) -> None:
    funnel = funnels.create(NAME, DOMAIN, KEY)

    funnels.delete(funnel["id"])
    funnels.delete(funnel["id"])

    assert service.funnels[funnel["id"]].deleted
    assert [call.status for call in service.calls] == [201, 204, 404]


@pytest.mark.parametrize(
    "status",
    [
        *(301, 302, 304, 307),  # another address
        *(401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 431, 511),  # an operator's mistake
        *(408, 409, 423, 425, 429, 500, 502, 503, 504),  # for now
    ],
)
def test_an_answer_that_says_nothing_of_the_request_is_retryable_and_not_retried_here(
    service: MyFunnel, funnels: Funnels, status: int
) -> None:
    service.faults.append(Fault(act=False, status=status))

    with pytest.raises(Retry) as raised:
        funnels.create(NAME, DOMAIN, KEY)

    assert raised.value.retry_after == 5
    assert len(service.calls) == 1


@pytest.mark.parametrize(("told", "waits"), [(0, 0), (17, 17), (86_400, 300)])
def test_waits_as_long_as_it_is_told_but_not_for_ever(
    service: MyFunnel, funnels: Funnels, told: int, waits: int
) -> None:
    service.faults.append(Fault(act=False, status=429, retry_after=told))

    with pytest.raises(Retry) as raised:
        funnels.create(NAME, DOMAIN, KEY)

    assert raised.value.retry_after == waits


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_a_rejection_is_for_good(service: MyFunnel, funnels: Funnels, status: int) -> None:
    service.faults.append(Fault(act=False, status=status))

    with pytest.raises(Problem) as raised:
        funnels.create(NAME, DOMAIN, KEY)

    assert not isinstance(raised.value, Retry)
    assert (raised.value.status, raised.value.slug) == (422, "funnel-rejected")


@pytest.fixture(params=["closed", "reset"])
def idle(request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch) -> Funnels:
    """A client that learns only from its next call that MyFunnelAPI has given the connection up."""

    def answer_once(handler: BaseHTTPRequestHandler) -> None:
        if not hasattr(handler, "requestline"):
            BaseHTTPRequestHandler.handle_one_request(handler)
            return
        handler.close_connection = True
        if handler.connection.recv(1, socket.MSG_PEEK) and request.param == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(handler.connection.detach())

    monkeypatch.setattr(myfunnel._Handler, "handle_one_request", answer_once)
    return Funnels(url, lambda: myfunnel.TOKEN)


def test_a_connection_that_died_while_it_was_idle_is_made_anew_at_once(service: MyFunnel, idle: Funnels) -> None:
    first, second = idle.create(NAME, DOMAIN, KEY), idle.create(NAME, DOMAIN, "key-2")
    idle.delete(first["id"])

    assert [call.status for call in service.calls] == [201, 201, 204]
    assert [funnel.id for funnel in service.funnels.values() if not funnel.deleted] == [second["id"]]


def test_a_connection_that_is_dropped_twice_is_retryable_and_the_retry_gets_the_funnel_that_was_made(
    service: MyFunnel, funnels: Funnels
) -> None:
    service.faults.append(Fault(drop=True, times=2))

    with pytest.raises(Retry):
        funnels.create(NAME, DOMAIN, KEY)

    assert len(service.calls) == 2
    assert funnels.create(NAME, DOMAIN, KEY)["id"] == next(iter(service.funnels))
    assert len(service.funnels) == 1


@pytest.mark.parametrize("sent", [b"HTTP/1.1 2", b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"])
def test_an_answer_that_breaks_off_is_retryable_and_not_retried_here(
    service: MyFunnel, funnels: Funnels, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    def break_off(handler: BaseHTTPRequestHandler, *_: object) -> None:
        handler.wfile.write(sent)
        handler.close_connection = True

    monkeypatch.setattr(myfunnel._Handler, "_answer", break_off)

    with pytest.raises(Retry):
        funnels.create(NAME, DOMAIN, KEY)

    assert len(service.calls) == 1


def test_a_late_answer_is_not_waited_for(url: str, service: MyFunnel, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a client as it is, except that its 3 s pass ten times as fast
    funnels = Funnels(url, lambda: myfunnel.TOKEN)
    timeout = funnels._http.connection_pool_kw["timeout"]
    assert timeout.read_timeout == 3
    monkeypatch.setitem(funnels._http.connection_pool_kw, "timeout", timeout.from_float(0.3))
    service.faults.append(Fault(linger=0.6))

    with pytest.raises(Retry):
        funnels.create(NAME, DOMAIN, KEY)

    assert len(service.calls) == 1


def test_a_server_that_does_not_listen_is_retryable() -> None:
    with myfunnel.serving(MyFunnel()) as url:
        pass

    with pytest.raises(Retry):
        Funnels(url, lambda: myfunnel.TOKEN).create(NAME, DOMAIN, KEY)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"id": "fnl-1"}, {"id": "", "hostname": "h"}, {"id": 1, "hostname": "h"}, "funnel"],
)
def test_an_answer_without_a_funnel_is_retryable(
    service: MyFunnel, funnels: Funnels, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr(service, "create", lambda *_: (201, answer))

    with pytest.raises(Retry):
        funnels.create(NAME, DOMAIN, KEY)


def test_what_else_an_answer_says_is_not_kept(
    service: MyFunnel, funnels: Funnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "create", lambda *_: (201, {"id": "f", "hostname": "h", "preview": "x" * 20_000}))

    assert funnels.create(NAME, DOMAIN, KEY) == {"id": "f", "hostname": "h"}


def test_a_redirection_is_not_followed_with_the_token(service: MyFunnel, funnels: Funnels) -> None:
    service.faults.append(Fault(act=False, status=307))

    with pytest.raises(Problem):
        funnels.create(NAME, DOMAIN, KEY)

    assert len(service.calls) == 1


def test_the_secret_is_read_at_each_request(service: MyFunnel, url: str) -> None:
    tokens = iter(["an old one", myfunnel.TOKEN])
    funnels = Funnels(url, lambda: next(tokens))

    with pytest.raises(Retry):
        funnels.create(NAME, DOMAIN, KEY)

    assert funnels.create(NAME, DOMAIN, KEY)["id"] in service.funnels
