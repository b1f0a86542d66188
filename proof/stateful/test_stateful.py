"""Random walks through the API, side by side with its model: the real functions on DynamoDB Local.

Principals, keys, bodies, waits, deaths, outages, new workers, recovery and the passing of time come in any order.
"""

from __future__ import annotations

import os
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import botocore.endpoint
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import EndpointConnectionError
from botocore.httpsession import URLLib3Session
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import api
from idempotency.errors import Rejected, Retry
from proof.stateful.model import INVALID, RETRY_AFTER_SECONDS, Death, Expected, Key, Model, Post, Will
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.e2e.in_process import TIMEOUT_SECONDS, InProcess
from tests.e2e.targets import JSON, SERVER
from tests.messages import Messages, recover
from tests.unit.service import restart
from tools.local.client import Answer
from tools.local.tables import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WALKS = 40
STEPS = 40
BODIES = [SERVER, {**SERVER, "size": "small"}, {"region": "mars"}]

# An outage does not affect the authorizer's table.
TOKENS = b"TokensTable"

_numbers = count()
_principals = st.sampled_from(["alice", "alice", "bob"])
_deaths: list[Death] = ["", "", "", "", "before the claim", "after the claim", "before the commit", "after the commit"]
_wills: list[Will] = ["succeed", "succeed", "refuse", "retry", "fail"]
_posts = st.builds(
    Post,
    principal=_principals,
    key=st.sampled_from(["k1", "k1", "k2"]),
    body=st.sampled_from([0] * 6 + [1, INVALID]),
    wait=st.sampled_from([0, 0, 1, 15]),
    will=st.sampled_from(_wills),
    death=st.sampled_from(_deaths),
    down=st.sampled_from([False] * 9 + [True]),
)
_ANY = Post("", "", 0)


class World:
    """What the functions rely on, and what goes wrong there next.

    Args:
        client: the functions' client of DynamoDB.
        clock: their clock.
        monkeypatch: puts their environment in place.
        atomic: whether servers are no more than their rows.
    """

    def __init__(
        self, client: DynamoDBClient, clock: SetClock, monkeypatch: pytest.MonkeyPatch, *, atomic: bool
    ) -> None:
        self.clock = clock
        self.atomic = atomic
        self._client = client
        self._monkeypatch = monkeypatch
        self.messages = Messages(clock)
        self._post = _ANY
        self._claims = 0
        monkeypatch.setattr(api, "provider", lambda: self)
        monkeypatch.setattr(api, "sqs", lambda: self.messages.client)
        monkeypatch.setenv("SERVER_PROVIDER", "record" if atomic else "ec2")
        # The SDK pauses between its own attempts; these seconds would show nothing.
        monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
        client.meta.events.register("before-send.dynamodb.*", self._before_send)

    def renew(self) -> None:
        """Begin anew, with empty tables."""
        number = next(_numbers)
        for resource, variable in (("IdempotencyTable", "IDEMPOTENCY_TABLE"), ("ResourcesTable", "RESOURCES_TABLE")):
            name = create_table(self._client, resource, f"{resource}-{number}")
            self._monkeypatch.setenv(variable, name)
        self._post = _ANY
        self.messages.waiting.clear()
        restart()

    def expect(self, post: Post) -> None:
        """Prepare what is to happen to a request."""
        self._post, self._claims = post, 0

    def count_rows(self) -> int:
        """How many rows of business data there are."""
        return int(self._client.scan(TableName=os.environ["RESOURCES_TABLE"], Select="COUNT")["Count"])

    def provision(self, server: object, operation: object) -> dict[str, str]:
        """Provision a server, or fail: see `provisioning.servers.Provider`."""
        match self._post.will:
            case "retry":
                raise Retry("Not now.", RETRY_AFTER_SECONDS)
            case "fail":
                raise ZeroDivisionError
            case "refuse":
                raise Rejected("refused", "No.", status=403)
        return {"status": "provisioned"}

    def _before_send(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> None:
        if self._post.down and TOKENS not in cast("bytes", request.body):
            raise EndpointConnectionError(endpoint_url=request.url)
        operation = event_name.rpartition(".")[2]
        self._claims += operation == "PutItem"
        at_claim = operation == "PutItem" and self._claims == 1
        at_commit = operation == "TransactWriteItems"
        match self._post.death:
            case "before the claim" if at_claim:
                raise Killed
            case "before the commit" if at_commit:
                raise Killed
            case "after the claim" if at_claim:
                _send(request)
                raise Killed
            case "after the commit" if at_commit:
                _send(request)
                raise Killed


def _send(request: AWSPreparedRequest) -> None:
    session = URLLib3Session()
    session.send(request)
    session.close()


class Walk(RuleBasedStateMachine):
    """A random walk.

    Args:
        service: the API.
        world: what it relies on.
    """

    def __init__(self, service: InProcess, world: World) -> None:
        super().__init__()
        self._service = service
        self._world = world
        world.renew()
        self._model = Model(TIMEOUT_SECONDS, world.clock.now(), world.atomic)

    @rule(seconds=st.sampled_from([0.3, 1, 2, 5, 11.5, 12.5, 86_400, 8 * 86_400]))
    def time_passes(self, seconds: float) -> None:
        self._world.clock.advance(seconds)

    @rule()
    def a_new_worker_starts(self) -> None:
        restart()
        self._model.forget_warmth()

    @rule()
    def recovery_runs(self) -> None:
        self._model.now = self._world.clock.now()
        self._model.recover()

        recover(self._world.messages, TIMEOUT_SECONDS)

    @rule(post=_posts)
    def post(self, post: Post) -> None:
        self._model.now = self._world.clock.now()
        expected = self._model.post(post)
        self._world.expect(post)

        answer = self._send(post)

        self._world.expect(_ANY)
        assert seen(answer) == expected
        assert self._world.clock.now() == self._model.now, "it waited for a different time than the model says"
        if expected.status == 502:
            self.a_new_worker_starts()
        elif expected.status in {201, 403}:
            self._compare(self._model.keys[post.principal, post.key], answer)

    @rule(principal=_principals, request=_posts)
    def post_and_look(self, principal: str, request: Post) -> None:
        self.post(request)
        known = self._model.keys.get((request.principal, request.key))
        if known is None or known.answer is None or known.final != 201:
            return
        server = known.answer.json

        answer = self._service.get(f"/v1/servers/{server['id']}", principal=principal)

        assert answer.status == (200 if principal == request.principal else 404)
        assert (answer.json == server) == (principal == request.principal)

    def teardown(self) -> None:
        assert self._world.count_rows() == self._model.servers, "one row for each server that was provisioned"

    def _send(self, post: Post) -> Answer:
        headers = [JSON, ("Prefer", f"wait={post.wait}")] if post.wait else [JSON]
        return self._service.post(post.key, BODIES[post.body], principal=post.principal, headers=headers)

    def _compare(self, known: Key, answer: Answer) -> None:
        """Everybody gets the answer that was seen first."""
        first = known.answer = known.answer or answer
        assert (answer.status, answer.body, answer.headers.get("location")) == (
            first.status,
            first.body,
            first.headers.get("location"),
        )


def seen(answer: Answer) -> Expected:
    """An answer, as far as the model predicts it."""
    if answer.status == 502:
        return Expected(502)
    [retry_after] = answer.headers.get("retry-after", [None])
    return Expected(
        answer.status,
        answer.problem if answer.status >= 400 else "",
        answer.replayed,
        None if retry_after is None else int(retry_after),
    )


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("atomic", [False, True], ids=["recoverable", "atomic"])
def test_whatever_happens_the_api_behaves_like_its_model(
    in_process: InProcess,
    clock: SetClock,
    dynamodb_client: DynamoDBClient,
    monkeypatch: pytest.MonkeyPatch,
    *,
    atomic: bool,
) -> None:
    world = World(dynamodb_client, clock, monkeypatch, atomic=atomic)

    class ThisWalk(Walk):
        def __init__(self) -> None:
            super().__init__(in_process, world)

    run_state_machine_as_test(
        ThisWalk,
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
