"""The tables of what the stack costs are made from prices, counted capacity and the template."""

from __future__ import annotations

import json

import pytest

from tools.local import template
from tools.ops import costs
from tools.setup import ROOT

_PRICES = json.loads((ROOT / "tools" / "prices.json").read_text())["prices"]
_TEXT = costs.PAGE.read_text()


def test_are_in_the_runbook_as_they_would_be_made_now() -> None:
    assert costs.renewed(_TEXT) == _TEXT, "run: make costs"


def test_take_the_capacity_from_the_table_that_a_test_counts() -> None:
    page = "## What a request costs\n| `POST` | 1 | 4 | | why |\n| a page | 2 | about 3,063 | about 7 | |\n\n## Other\n"

    assert costs.capacity(page) == {"`POST`": (4, 0), "a page": (3063, 7)}


@pytest.mark.parametrize("kind", costs.KINDS, ids=lambda kind: kind.name)
def test_price_a_million_requests(kind: costs.Kind) -> None:
    priced = costs.of_a_million(kind, _TEXT)
    wru, rru = costs.capacity(_TEXT)[kind.row] if kind.row else (0, 0)

    assert priced["API Gateway"] == 3.5
    assert priced["DynamoDB"] == pytest.approx(
        wru * _PRICES["dynamodb"]["million WRU"] + rru * _PRICES["dynamodb"]["million RRU"]
    )
    assert (priced["Lambda"] > 0) is (kind.milliseconds is not None)


def test_price_a_second_of_a_function() -> None:
    slow, fast = (costs.of_a_million(costs.Kind("", "", each), "")["Lambda"] for each in (1_000, 0))

    assert slow - fast == pytest.approx(1_000_000 * _PRICES["lambda"]["GB-second arm64"])


def test_count_every_metric_of_every_alarm() -> None:
    stack = template.load()
    fewer = {**stack, "Resources": {k: v for k, v in stack["Resources"].items() if k != "DynamoDBThrottles"}}
    alarms, without = (
        {what: cost for what, cost, _ in costs.of_an_idle_month(each)}["alarms"] for each in (stack, fewer)
    )

    assert alarms - without == pytest.approx(3 * _PRICES["cloudwatch"]["alarm-metric-month"])
