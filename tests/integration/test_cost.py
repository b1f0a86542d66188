"""What a request costs: every row of the runbook's table, counted on DynamoDB Local."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from aws_lambda_powertools.event_handler import Response

import api
import authorizer
import recovery
from idempotency.errors import Retry
from idempotency.operation import Operation
from idempotency.policy import Policy
from idempotency.response import Completion
from tests import messages
from tests.clocks import SetClock
from tests.events import Context
from tests.integration.conftest import NewWorker
from tests.integration.worker import Run, Worker, created, inserting
from tests.messages import work
from tests.sample import Samples
from tests.unit.campaigns import CAMPAIGN, PATH
from tests.unit.service import JSON, SERVER, Api, restart
from tools import tokens
from tools.setup import ROOT

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_PAGE = ROOT / "docs" / "runbook.md"
_HEADING = "## What a request costs\n"
_READS = frozenset({"BatchGetItem", "GetItem", "Query"})
_DAY = 24 * 3600
_DIGITS = 5_500_000
_ATOMIC = Policy(atomic=True)


@dataclass
class Cost:
    """The calls to DynamoDB, and what it charges for them."""

    calls: int = 0
    wru: float = 0
    rru: float = 0


class Meter:
    """Adds up the calls of a client to DynamoDB, for the length of a `with` block.

    DynamoDB Local does not always report what DynamoDB would charge. A write whose condition fails reports nothing. The
    writes of a transaction to one table are rounded up together, while DynamoDB rounds up each of them. In these cases,
    another client writes the item once more, unchanged, and that write's capacity is counted.
    """

    def __init__(self, client: DynamoDBClient, other: DynamoDBClient) -> None:
        self._events = client.meta.events
        self._other = other
        self._handlers: dict[str, Callable[..., None]] = {
            "provide-client-params.dynamodb.*": self._ask,
            "after-call.dynamodb.*": self._read,
        }
        self._cost = Cost()

    def __enter__(self) -> Cost:
        for event, handler in self._handlers.items():
            self._events.register(event, handler)
        return self._cost

    def __exit__(self, *_: object) -> None:
        for event, handler in self._handlers.items():
            self._events.unregister(event, handler)

    def _ask(self, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        context["asked"] = params

    def _read(self, parsed: Any, model: Any, context: dict[str, Any], **_: object) -> None:
        asked = context["asked"]
        self._cost.calls += 1
        writes = [write for each in asked.get("TransactItems", ()) for write in each.values()]
        if "Error" in parsed and writes:
            assert parsed["Error"]["Code"] == "TransactionCanceledException"
            self._cost.wru += 2 * sum(map(self._unchanged, writes))
        elif "Error" in parsed:
            assert parsed["Error"]["Code"] == "ConditionalCheckFailedException"
            self._cost.wru += self._unchanged(asked)
        elif model.name in _READS:
            self._cost.rru += sum(table["CapacityUnits"] for table in _listed(parsed["ConsumedCapacity"]))
        else:
            for table in _listed(parsed["ConsumedCapacity"]):
                written = [write for write in writes if write["TableName"] == table["TableName"]]
                together = len(written) > 1
                self._cost.wru += 2 * sum(map(self._unchanged, written)) if together else table["CapacityUnits"]

    def _unchanged(self, write: Any) -> float:
        key = write.get("Key") or {"id": write["Item"]["id"]}
        try:
            told = self._other.update_item(
                TableName=write["TableName"],
                Key=key,
                ConditionExpression="attribute_exists(id)",
                ReturnConsumedCapacity="TOTAL",
            )
        except self._other.exceptions.ConditionalCheckFailedException:
            return 1  # a row of a failed transaction, smaller than 1 KB
        return told["ConsumedCapacity"]["CapacityUnits"]


def _listed(charged: Any) -> list[Any]:
    return charged if isinstance(charged, list) else [charged]


class Bench:
    """The functions on DynamoDB Local, and the lifecycle alone for cases that none of their routes has."""

    def __init__(
        self,
        client: DynamoDBClient,
        other: DynamoDBClient,
        worker: NewWorker,
        rows: str,
        clock: SetClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.api = Api(client, clock)
        self.samples = Samples(self.api)
        monkeypatch.setattr(api, "sqs", lambda: self.api.messages.client)
        self.monkeypatch = monkeypatch
        self.worker = worker
        self.rows = rows
        self.clock = clock
        self._client = client
        self._other = other

    def cost(self, call: Callable[[], Any], status: int = 201) -> Cost:
        """The cost of a call to the functions, which must be answered with this status."""
        with Meter(self._client, self._other) as cost:
            answer = call()
        assert getattr(answer, "status", status) == status
        return cost

    def cost_of_run(self, worker: Worker, run: Run = created, **request: Any) -> Cost:
        """The cost of an operation of the lifecycle alone."""
        with Meter(worker.client, self._other) as cost:
            worker.run(run, **request)
        return cost

    def cost_of_refusal(self, worker: Worker, **request: Any) -> Cost:
        """The cost of a request that the lifecycle refuses."""
        with Meter(worker.client, self._other) as cost:
            worker.refused(**request)
        return cost

    def watch(self, hook: Callable[..., None]) -> None:
        """Show each request to DynamoDB to a hook, just before it is sent."""
        self._client.meta.events.register("before-send.dynamodb.*", hook)

    def on_ec2(self, provider: Mock) -> None:
        """Servers are effects elsewhere, from now on."""
        self.monkeypatch.setenv("SERVER_PROVIDER", "ec2")
        self.monkeypatch.setattr(api, "provider", lambda: provider)

    def cost_while_running(self, **request: Any) -> Cost:
        """The cost of a duplicate that is refused while the first request runs."""
        duplicate = self.worker()

        def run(operation: Operation) -> Response[Any]:
            with Meter(duplicate.client, self._other) as cost:
                assert duplicate.refused(**request).status == 409
            costs.append(cost)
            return created(operation)

        costs: list[Cost] = []
        self.worker().run(run)
        return costs[0]

    def get_token(self) -> dict[str, Any]:
        """Make the authorizer look up a token."""
        token = tokens.issue(self._other, self.rows, "alice")
        arn = "arn:aws:execute-api:eu-west-1:123456789012:abcdef1234/dev/GET/"
        event = {"type": "TOKEN", "authorizationToken": f"Bearer {token}", "methodArn": arn}
        said: dict[str, Any] = authorizer.handler(event, Context())
        assert said["principalId"] == "alice"
        return said


@pytest.fixture
def bench(
    new_client: Callable[[], DynamoDBClient],
    owner: DynamoDBClient,
    worker: NewWorker,
    records: str,
    rows: str,
    clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """The functions, freshly started; the services behind them do what they are told."""
    client = new_client()
    for module in (api, authorizer):
        monkeypatch.setattr(module, "dynamodb", client)
    monkeypatch.setenv("IDEMPOTENCY_TABLE", records)
    monkeypatch.setenv("RESOURCES_TABLE", rows)
    monkeypatch.setenv("TOKENS_TABLE", rows)  # there is nothing else in it, and both have the same key
    restart()
    bench = Bench(client, owner, worker, rows, clock, monkeypatch)
    with bench.samples.serving:
        yield bench
    restart()
    client.close()


def _server(bench: Bench) -> Cost:
    return bench.cost(bench.api.post)


def _server_on_ec2(bench: Bench) -> Cost:
    bench.on_ec2(Mock(provision=_run_an_instance))
    return bench.cost(bench.api.post)


def _run_an_instance(_: object, operation: Operation) -> dict[str, str]:
    operation.step("server", lambda _: {"status": "pending", "instance_id": "i-0123456789abcdef0"})
    instance = {"status": "running", "instance_id": "i-0123456789abcdef0"}
    return operation.wait("running", lambda: instance, every=5, at_most=600)


# example campaigns
def _campaign(bench: Bench) -> Cost:
    funnels = Mock(create=Mock(return_value={"id": "f-1", "hostname": "f-1.myfunnel.example"}))
    bench.monkeypatch.setattr(api, "funnels", lambda: funnels)
    bench.monkeypatch.setattr(api, "dns", lambda: Mock(route=Mock(return_value=None)))
    for variable in ("MYFUNNEL_API_URL", "DNS_ZONE_ID"):
        bench.monkeypatch.setenv(variable, "there is one")
    return bench.cost(lambda: bench.api.post(CAMPAIGN, path=PATH))


# end of example


def _sample(bench: Bench) -> Cost:
    return bench.cost(bench.samples.create)


def _accepted(bench: Bench) -> Cost:
    return bench.cost(lambda: bench.samples.create(headers=[JSON, ("Prefer", "respond-async")]), 202)


def _recovered(bench: Bench) -> Cost:
    _accepted(bench)
    assert len(bench.api.messages.waiting) == 1
    return bench.cost(lambda: work(bench.api.messages))


def _surplus_message(bench: Bench) -> Cost:
    _accepted(bench)
    [(_, id_)] = bench.api.messages.waiting
    work(bench.api.messages)
    return bench.cost(lambda: recovery.worker(messages.event(id_), Context()))


def _status(bench: Bench) -> Cost:
    _accepted(bench)
    [(_, id_)] = bench.api.messages.waiting
    return bench.cost(lambda: bench.api.get(f"/v1/operations/{id_}", resource="/v1/operations/{id}"), 200)


def _plain(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker())


def _with_a_row(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker(), inserting(bench.rows, "one"))


def _atomic(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker(), policy=_ATOMIC)


def _atomic_failed(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker(), lambda _: Completion(503, {}), policy=_ATOMIC)


def _atomic_replayed(bench: Bench) -> Cost:
    bench.api.post()
    restart()
    return bench.cost(bench.api.post)


def _atomic_expired(bench: Bench) -> Cost:
    def run(operation: Operation) -> Response[Any]:
        return inserting(bench.rows, operation.id)(operation)

    bench.worker().run(run, policy=_ATOMIC)
    bench.clock.advance(_DAY)
    return bench.cost_of_run(bench.worker(), run, policy=_ATOMIC)


def _with_steps(bench: Bench) -> Cost:
    def run(operation: Operation) -> Response[Any]:
        for number in range(3):
            operation.step(f"step {number}", lambda *_: "x" * 100)
        return created(operation)

    return bench.cost_of_run(bench.worker(), run)


def _replay_from_the_table(bench: Bench) -> Cost:
    bench.worker().run()
    return bench.cost_of_run(bench.worker())


def _replay_from_the_cache(bench: Bench) -> Cost:
    bench.api.post()
    return bench.cost(bench.api.post)


def _running(bench: Bench) -> Cost:
    return bench.cost_while_running()


def _other_request(bench: Bench) -> Cost:
    bench.worker().run()
    return bench.cost_of_refusal(bench.worker(), body=b'{"n":2}')


def _other_request_in_the_cache(bench: Bench) -> Cost:
    bench.api.post()
    return bench.cost(lambda: bench.api.post({**SERVER, "size": "small"}), 422)


def _waited(bench: Bench) -> Cost:
    return bench.cost_while_running(wait=2)


def _released(bench: Bench) -> Cost:
    bench.on_ec2(Mock(provision=Mock(side_effect=Retry("No capacity."))))
    return bench.cost(bench.api.post, 503)


def _retried(bench: Bench) -> Cost:
    _released(bench)
    return _server_on_ec2(bench)


def _expired(bench: Bench) -> Cost:
    bench.worker().run()
    bench.clock.advance(_DAY)
    return bench.cost_of_run(bench.worker())


def _noise(_: Operation) -> Response[Any]:
    return Completion(200, Random(1).randbytes(_DIGITS // 2).hex(), content_type="text/plain")


def _large(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker(), _noise)


def _replay_of_large(bench: Bench) -> Cost:
    bench.worker().run(_noise)
    return bench.cost_of_run(bench.worker())


def _one_letter(bench: Bench) -> Cost:
    return bench.cost_of_run(bench.worker(), lambda _: Completion(200, "a" * _DIGITS, content_type="text/plain"))


def _get(bench: Bench) -> Cost:
    path = f"/v1/servers/{json.loads(bench.api.post().body)['id']}"
    return bench.cost(lambda: bench.api.get(path, resource="/v1/servers/{id}"), 200)


def _token(bench: Bench) -> Cost:
    return bench.cost(bench.get_token)


def _idle_recovery(bench: Bench) -> Cost:
    return bench.cost(lambda: recovery.sweep({}, Context()))


_COUNTED = {
    "`POST /v1/servers/provision`": _server,
    "the same with `ServerProvider=ec2`": _server_on_ec2,
    "`POST /v1/campaigns`": _campaign,  # example campaigns
    "an operation that reserves a row, with two steps": _sample,
    "the same with `Prefer: respond-async`": _accepted,
    "the worker's attempt after it, as after any release": _recovered,
    "a message that finds nothing to do": _surplus_message,
    "`GET /v1/operations/{id}`": _status,
    "an operation without rows, not recoverable": _plain,
    "the same, with a row": _with_a_row,
    "the same, with three steps": _with_steps,
    "the same, with an expired record in its way": _expired,
    "the same, with an answer of 5,500,000 times one letter": _one_letter,
    "the same, with an answer of 5,500,000 random hexadecimal digits": _large,
    "the replay of that answer": _replay_of_large,
    "an atomic operation without rows": _atomic,
    "one that fails for now": _atomic_failed,
    "one with a row, and an expired record in its way": _atomic_expired,
    "the replay of one with a row, from the table": _atomic_replayed,
    "replay of any other, from the table": _replay_from_the_table,
    "replay, from the cache": _replay_from_the_cache,
    "409": _running,
    "waits 2 s, then 409": _waited,
    "422, from the table": _other_request,
    "422, from the cache": _other_request_in_the_cache,
    "a server on EC2 that fails for now": _released,
    "the retry after it": _retried,
    "`GET /v1/servers/{id}`": _get,
    "a token that the gateway has not cached": _token,
    "a minute of recovery with nothing due": _idle_recovery,
}


def table() -> dict[str, dict[str, str]]:
    """The page's table: request → column → cell."""
    lines = _PAGE.read_text().partition(_HEADING)[2].partition("\n## ")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(map(str.lower, head), row, strict=True)) for row in rows}


def agrees(cell: str, counted: float) -> bool:
    """Whether a cell agrees with what was counted; an empty cell means 0."""
    told, _, number = cell.rpartition(" ")
    said = float(number.replace(",", "") or 0)
    match told:
        case "":
            return counted == said
        case "about":
            return counted == pytest.approx(said, rel=0.2)
        case "at most":
            return counted <= said
    raise ValueError(f"{cell!r} is not a number")


def test_every_row_of_the_page_is_counted() -> None:
    assert list(table()) == list(_COUNTED)


@pytest.mark.parametrize("row", _COUNTED)
def test_a_request_costs_what_the_page_says(row: str, bench: Bench) -> None:
    said = table()[row]

    cost = _COUNTED[row](bench)

    for column in fields(cost):
        assert agrees(said[column.name], getattr(cost, column.name)), (column.name, said, cost)


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        (_server, 1_850),
        (_campaign, 5_900),  # example campaigns
        (_sample, 5_600),
    ],
)
def test_a_request_sends_few_bytes(request_: Callable[[Bench], Cost], most: int, bench: Bench) -> None:
    sent: list[int] = []
    bench.watch(lambda request, **_: sent.append(len(request.body)))

    request_(bench)

    assert most * 0.8 < sum(sent) <= most, "lower the ceiling if it is less"


@pytest.mark.parametrize("cell", ["", "2", "about 8", "at most 4"])
def test_a_cell_that_is_wrong_is_found(cell: str) -> None:
    assert not agrees(cell, 5)
