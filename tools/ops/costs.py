"""What the stack costs in US dollars: the tables of docs/runbook.md, made from published prices.

    python -m tools.ops.costs

Capacity is that of the runbook's table of requests, which a test counts; alarms are those of template.yaml; prices are
in tools/prices.json. Durations and log volumes are assumptions, and stand in the tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tools.errors import run
from tools.local import template
from tools.setup import ROOT

PAGE = ROOT / "docs" / "runbook.md"
_LIST = json.loads((ROOT / "tools" / "prices.json").read_text())
_PRICES: dict[str, dict[str, float]] = _LIST["prices"]
_BEGIN, _END = "<!-- made by make costs -->\n", "<!-- until here -->\n"
_MILLION = 1_000_000
_SECONDS_A_MONTH = 30 * 24 * 3600
_MINUTES_A_MONTH = _SECONDS_A_MONTH // 60

# Of an invocation: its memory, and what it and the gateway write to the logs, in KB: three entries of the platform, the
# function's line, its metrics, the access log.
_MEMORY_GB = 1.0
_LOGGED_KB = 2.5
# The sampling rule that X-Ray has by default.
_TRACED = 0.05
# Each poll asks SQS; Lambda keeps some five pollers at an empty queue (see the runbook).
_POLLS_A_MONTH = 650_000
_SWEEP_SECONDS, _SWEEP_LOGGED_KB = 0.2, 1.5


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Args:
        name: what a reader calls it.
        row: the row of the runbook's table that counts its capacity; empty for none.
        milliseconds: how long the function is assumed to take; None if it is not called.
    """

    name: str
    row: str
    milliseconds: float | None


KINDS = (
    Kind("a server", "`POST /v1/servers/provision`", 25),
    Kind("a server on EC2", "the same with `ServerProvider=ec2`", 2_500),
    Kind("a campaign", "`POST /v1/campaigns`", 800),  # example campaigns
    Kind("a replay, from the cache", "replay, from the cache", 3),
    Kind("a replay of a server, from the table", "the replay of one with a row, from the table", 12),
    Kind("409", "409", 12),
    Kind("waits 2 s, then 409", "waits 2 s, then 409", 2_000),
    Kind("422, from the table", "422, from the table", 12),
    Kind("`GET /v1/servers/{id}`", "`GET /v1/servers/{id}`", 8),
    Kind("400, from the gateway", "", None),
)


def capacity(page: str) -> dict[str, tuple[float, float]]:
    """Write and read request units of each row of the runbook's table of requests."""
    table = page.partition("## What a request costs\n")[2].partition("\n## ")[0]
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| "))
    return {request: (_units(wru), _units(rru)) for request, _, wru, rru, _ in rows}


def _units(cell: str) -> float:
    found = re.search(r"\d[\d,.]*", cell)
    return float(found[0].replace(",", "")) if found else 0.0


def of_a_million(kind: Kind, page: str) -> dict[str, float]:
    """Dollars for a million requests of a kind, by service."""
    wru, rru = capacity(page)[kind.row] if kind.row else (0, 0)
    lambdas = _PRICES["lambda"]
    called = kind.milliseconds is not None
    duration = (kind.milliseconds or 0) / 1000 * _MILLION * _MEMORY_GB
    logged = (_LOGGED_KB if called else 0.4) * _MILLION / 1e6
    return {
        "API Gateway": _PRICES["apigateway"]["million requests"],
        "Lambda": (lambdas["million requests"] + duration * lambdas["GB-second arm64"]) if called else 0,
        "DynamoDB": wru * _PRICES["dynamodb"]["million WRU"] + rru * _PRICES["dynamodb"]["million RRU"],
        "logs, traces": logged * _PRICES["cloudwatch"]["GB ingested"] + _TRACED * _PRICES["xray"]["million traces"],
    }


def of_an_idle_month(stack: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """What a month without requests costs: what, dollars, and how that comes about."""
    lambdas, watch = _PRICES["lambda"], _PRICES["cloudwatch"]
    watched = sum(
        len([metric for metric in properties.get("Metrics", [{"MetricStat": {}}]) if "MetricStat" in metric])
        for properties in (each.get("Properties", {}) for each in stack["Resources"].values() if _is_alarm(each))
    )
    sweeps = _MINUTES_A_MONTH / _MILLION * (lambdas["million requests"] + _PRICES["scheduler"]["million invocations"])
    sweeps += _MINUTES_A_MONTH * _SWEEP_SECONDS * _MEMORY_GB * lambdas["GB-second arm64"]
    sweeps += _MINUTES_A_MONTH * 8 / _MILLION * _PRICES["dynamodb"]["million RRU"]
    sweeps += _MINUTES_A_MONTH * _SWEEP_LOGGED_KB / 1e6 * watch["GB ingested"]
    snapshots = _SECONDS_A_MONTH * lambdas["GB-second snapshot"]
    rules = len(stack["Resources"]["ClientLimit"]["Properties"]["Rules"])
    yield "the sweep", sweeps, "every minute: an invocation, at most 8 RRU, its logs"
    yield "the queue", _POLLS_A_MONTH / _MILLION * _PRICES["sqs"]["million requests"], "Lambda's pollers"
    yield "alarms", watched * watch["alarm-metric-month"], f"{watched} metrics; an account's first 10 are free"
    yield "a metric", watch["metric-month"], "the sweep's; each further one that is counted in a month costs the same"
    yield "the dashboard", watch["dashboard-month"], "an account's first 3 are free"
    yield "`SnapStart`, if it is on", 1.5 * snapshots, "1 GB and 0.5 GB, each version that exists; and each start"
    waf = _PRICES["waf"]
    yield "`ClientRequestsPerFiveMinutes`, if it is on", waf["web-acl-month"] + rules * waf["rule-month"], "a web ACL"
    yield "`KmsKeyArn`, if it is set", _PRICES["kms"]["key-month"], "and its requests"
    # example campaigns
    others = _PRICES["secretsmanager"]["secret-month"] + _PRICES["route53"]["zone-month"]
    yield "campaigns, if there are any", others, "MyFunnelAPI's secret, the zone"
    # end of example


def _is_alarm(resource: dict[str, Any]) -> bool:
    return bool(resource["Type"] == "AWS::CloudWatch::Alarm")


def tables(page: str) -> str:
    """Both tables."""
    columns = list(of_a_million(KINDS[0], page))
    lines = [
        f"In US dollars, {_LIST['region']}, {_LIST['as_of']}, without free tiers. The functions have 1 GB on arm64.",
        "",
        f"| a million of | milliseconds | {' | '.join(columns)} | together |",
        f"|---|{'---|' * (len(columns) + 2)}",
    ]
    for kind in KINDS:
        costs = of_a_million(kind, page)
        cells = [f"{cost:.2f}" for cost in (*costs.values(), sum(costs.values()))]
        taken = "" if kind.milliseconds is None else f"{kind.milliseconds:,}"
        lines.append(f"| {kind.name} | {taken} | {' | '.join(cells)} |")
    lines += ["", "| a month without requests | dollars | which is |", "|---|---|---|"]
    lines += [f"| {what} | {cost:.2f} | {why} |" for what, cost, why in of_an_idle_month(template.load())]
    return "\n".join(lines) + "\n"


def renewed(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + tables(page) + _END + after


def main() -> None:
    PAGE.write_text(renewed(PAGE.read_text()))


if __name__ == "__main__":
    run(main)
