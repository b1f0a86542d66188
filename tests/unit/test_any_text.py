"""A client may send any text anywhere: what it gets is its own mistake, never a failure of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import api
from tests.events import proxy_event
from tests.sample import PATH, SAMPLE, Samples
from tests.unit.service import SERVER

pytestmark = pytest.mark.thorough

ALICE = {"principalId": "alice"}

# Lone surrogates and NUL too, which a path or a JSON body can spell.
texts = st.text(st.characters(), max_size=20) | st.sampled_from(["\0", "\ud800", "", " ", "%", "\n", "x" * 2_042])
pairs = st.lists(st.tuples(texts, texts), max_size=2)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
keys = st.uuids().map(str) | texts
media_types = st.just("application/json") | texts
paths = st.sampled_from(["/dev", "/\ud800"]) | texts
more_headers = st.lists(
    st.tuples(st.sampled_from(["Prefer", "Idempotency-Key", "Authorization"]) | texts, texts), max_size=2
)

# A good request, but for its URL.
URL: dict[str, Any] = {"base_path": "/\ud800", "query": [("\ud800", "\ud800")]}
GOOD: dict[str, Any] = {"key": "key", "media_type": "application/json", "headers": []}

anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


def bodies(valid: dict[str, str]) -> st.SearchStrategy[str | bytes]:
    """A body that is valid, or nearly, or not at all."""
    nearly = st.fixed_dictionaries({name: st.just(value) | texts | values for name, value in valid.items()})
    return st.just(json.dumps(valid)) | nearly.map(json.dumps) | values.map(json.dumps) | texts | st.binary(max_size=20)


@pytest.fixture(autouse=True)
def calls(samples: Samples) -> Iterator[list[str]]:
    """What is asked of DynamoDB, which takes no text but Unicode."""
    made: list[str] = []

    def note(model: Any, params: dict[str, Any], **_: Any) -> None:
        json.dumps(json.loads(params["body"]), ensure_ascii=False).encode()
        made.append(model.name)

    api.dynamodb.meta.events.register("before-call.dynamodb", note)
    yield made
    api.dynamodb.meta.events.unregister("before-call.dynamodb", note)


def post(samples: Samples, path: str, key: str, media_type: str, base_path: str, **event: Any) -> int:
    """POST, as the gateway would hand it over."""
    headers = [("Idempotency-Key", key), ("Content-Type", media_type), *event.pop("headers")]
    made = proxy_event("POST", path, headers=headers, authorizer=ALICE, **event)
    made["path"] = made["requestContext"]["path"] = f"{base_path}{path}"
    return samples.api.call(made).status


@anything
@given(key=keys, media_type=media_types, headers=more_headers, base_path=paths, query=pairs, body=bodies(SERVER))
@example(**URL, **GOOD, body=json.dumps(SERVER))
def test_a_server(samples: Samples, **sent: Any) -> None:
    assert post(samples, "/v1/servers/provision", **sent) < 500


@anything
@given(key=keys, media_type=media_types, headers=more_headers, base_path=paths, query=pairs, body=bodies(SAMPLE))
@example(**URL, **GOOD, body=json.dumps(SAMPLE))
def test_a_sample(samples: Samples, **sent: Any) -> None:
    assert post(samples, PATH, **sent) < 500


@pytest.mark.parametrize("kind", ["servers", "samples"])
@anything
@given(id_=texts, base_path=paths, headers=more_headers, query=pairs)
def test_an_id(samples: Samples, kind: str, id_: str, base_path: str, headers: Any, query: Any) -> None:
    event = proxy_event(
        "GET", f"/v1/{kind}/id", resource=f"/v1/{kind}/{{id}}", headers=headers, query=query, authorizer=ALICE
    )
    event["path"] = event["requestContext"]["path"] = f"{base_path}/v1/{kind}/{id_}"
    event["pathParameters"] = {"id": id_}

    assert samples.api.call(event).status == 404


@pytest.mark.parametrize("kind", ["servers", "samples"])
@pytest.mark.parametrize("id_", ["", "x" * 2_042, "é" * 1_100, "x" * 6_000], ids=ascii)
def test_an_id_that_none_can_have_is_not_looked_up(samples: Samples, calls: list[str], kind: str, id_: str) -> None:
    event = proxy_event("GET", f"/v1/{kind}/id", resource=f"/v1/{kind}/{{id}}", authorizer=ALICE)
    event["pathParameters"] = {"id": id_}

    assert samples.api.call(event).problem == "not-found"
    assert calls == []
