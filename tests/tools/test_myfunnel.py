# example campaigns
"""The stand-in for MyFunnelAPI keeps its contract, and misbehaves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from tools.local import myfunnel
from tools.local.myfunnel import TOKEN, Control, Fault, MyFunnel

BODY = {"name": "Spring", "domain": "spring.shop.example"}


@pytest.fixture
def url() -> Iterator[str]:
    with myfunnel.serving(MyFunnel()) as url:
        yield url


@pytest.fixture
def control(url: str) -> Control:
    return Control(url)


def send(
    url: str,
    method: str = "POST",
    path: str = "/v1/funnels",
    body: Any = BODY,
    key: str | None = "k",
    token: str = TOKEN,
) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {token}", **({"Idempotency-Key": key} if key else {})}
    return urllib3.request(method, f"{url}{path}", headers=headers, json=body, retries=False)


def test_a_key_makes_one_funnel(url: str, control: Control) -> None:
    first, again, other = send(url), send(url), send(url, key="another")

    assert [answer.status for answer in (first, again, other)] == [201, 201, 201]
    assert first.json() == again.json() != other.json()
    assert [funnel.id for funnel in control.funnels()] == [first.json()["id"], other.json()["id"]]


def test_a_key_used_many_times_at_once_makes_one_funnel(url: str, control: Control) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(url).json()["id"], range(32)))

    assert set(answers) == {funnel.id for funnel in control.funnels()}
    assert len(set(answers)) == 1


def test_a_key_used_for_something_else_is_refused(url: str) -> None:
    send(url)

    assert send(url, body={**BODY, "name": "Summer"}).status == 422


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"token": "wrong"}, 401),
        ({"key": None}, 400),
        ({"body": {"name": "Spring"}}, 400),
        ({"body": []}, 400),
        ({"body": {"name": 1, "domain": "a.example"}}, 400),
        ({"path": "/v1/pages"}, 404),
        ({"method": "DELETE", "path": "/v1/funnels/fnl-9"}, 404),
        ({"method": "DELETE", "path": "/v1/funnels/fnl-9", "token": "wrong"}, 401),
    ],
    ids=str,
)
def test_a_wrong_request_makes_nothing(url: str, control: Control, request_: dict[str, Any], status: int) -> None:
    assert send(url, **request_).status == status

    assert control.funnels() == []


def test_a_deleted_funnel_is_gone_and_its_key_remembers(url: str, control: Control) -> None:
    id_ = send(url).json()["id"]

    assert [send(url, "DELETE", f"/v1/funnels/{id_}").status for _ in range(2)] == [204, 404]

    assert control.funnels() == []
    assert send(url).json()["id"] == id_
    assert control.funnels() == []


def test_fails_as_often_as_told_without_an_effect(url: str, control: Control) -> None:
    control.expect(Fault(times=2, act=False, status=503, retry_after=3))

    answers = [send(url) for _ in range(2)]

    assert [(answer.status, answer.headers["Retry-After"]) for answer in answers] == [(503, "3")] * 2
    assert control.funnels() == []
    assert send(url).status == 201


def test_acts_and_drops_the_connection(url: str, control: Control) -> None:
    control.expect(Fault(drop=True))

    with pytest.raises(urllib3.exceptions.ProtocolError):
        send(url)

    assert len(control.funnels()) == 1
    assert [call.status for call in control.calls()] == [None]


def test_is_slow(url: str, control: Control) -> None:
    control.expect(Fault(linger=0.5))

    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        urllib3.request(
            "POST",
            f"{url}/v1/funnels",
            headers={"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "k"},
            json=BODY,
            retries=False,
            timeout=0.2,
        )

    assert len(control.funnels()) == 1


def test_misbehaves_only_towards_a_given_domain_until_it_is_told_to_behave(url: str, control: Control) -> None:
    control.expect(Fault(domain="other.shop.example", times=None, act=False, status=422))
    other = {**BODY, "domain": "other.shop.example"}

    assert [send(url).status, *(send(url, body=other, key="o").status for _ in range(3))] == [201, 422, 422, 422]
    control.behave()
    assert send(url, body=other, key="o").status == 201
    assert [call.status for call in control.calls("other.shop.example")] == [422, 422, 422, 201]
