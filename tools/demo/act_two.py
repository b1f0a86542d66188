# example campaigns
"""Second act: a campaign over several services; its function is killed halfway, and its client does not retry."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from tools.demo.story import Story
from tools.local.client import Answer, Client
from tools.local.myfunnel import Control, Fault, Funnel
from tools.local.neighbours import ZONE
from tools.local.processes import kill_workers
from tools.local.stack import Stack
from tools.ops.recovery import recover
from tools.progress import task

_PATH = "/v1/campaigns"
_WITHIN_SECONDS = 60
_HEALS_WITHIN_SECONDS = 15


class ActTwo:
    """Plays the act.

    Args:
        story: tells what happens.
        stack: the stack that it plays on, with the stand-in for MyFunnelAPI.
    """

    def __init__(self, story: Story, stack: Stack) -> None:
        self._story = story
        self._stack = stack
        self._alice = Client(stack.api_url, stack.token)
        self._myfunnel = Control(stack.myfunnel_url)
        self._dynamodb = stack.client("dynamodb")
        self._lambda = stack.client("lambda")
        self._route53 = stack.client("route53")
        self._domain = f"spring.{ZONE}"
        self._body = {"name": "Spring sale", "domain": self._domain}
        self._key = str(uuid4())

    def play(self) -> None:
        """Play every scene."""
        self._story.act("Second act: one campaign, though the function is killed halfway")
        self._killed()
        self._recovered()
        self._retried()

    def _killed(self) -> None:
        story = self._story
        story.scene("The function is killed (kill -9) right after the landing page exists")
        self._myfunnel.expect(Fault(domain=self._domain, linger=30))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self._alice.post, _PATH, self._body, self._key)
            _wait_for(lambda: self._funnels() != [])
            kill_workers(self._stack.cloud_pid, self._stack.function_name)
            story.answered(f"POST {_PATH}  {self._domain}", answer.result())
        record = self._record()
        story.claim("the client has no answer", holds=answer.result().status == 502, seen=answer.result())
        story.claim("MyFunnelAPI has a landing page", holds=len(self._funnels()) == 1, seen=self._funnels())
        story.claim("no DNS record leads there yet", holds=self._routes() == [], seen=self._routes())
        story.claim(
            "the record knows about the domain's reservation, but not about the landing page",
            holds=list(record["steps"]["M"]) == ["domain"],
            seen=record,
        )

    def _recovered(self) -> None:
        story = self._story
        story.scene("Nobody retries; the lease ends, and recovery carries on")
        with task("wait for the end of the lease"):
            time.sleep(max(0.0, int(self._record()["lease_until"]["N"]) / 1000 - time.time()) + 0.1)
        swept = time.monotonic()
        sent = recover(self._lambda, self._stack.recovery_function_name)
        _wait_for(lambda: self._record()["status"]["S"] == "COMPLETED")
        seconds = time.monotonic() - swept
        story.sent(
            "sweep  (otherwise it runs every minute)", f"{sent} sent to the queue; finished {seconds:.1f} s later"
        )
        story.claim("that took seconds", holds=seconds < _HEALS_WITHIN_SECONDS, seen=seconds)
        record = self._record()
        story.claim(
            "it finished the campaign, in the second attempt",
            holds=(record["status"]["S"], record["attempt"]["N"]) == ("COMPLETED", "2"),
            seen=record,
        )
        story.claim("the stored request is gone", holds="request" not in record, seen=record)

    def _retried(self) -> None:
        story = self._story
        story.scene("The client comes back after all")
        answer = self._alice.post(_PATH, self._body, self._key)
        story.answered(f"POST {_PATH}  {self._domain}", answer)
        story.claim(
            "it gets the campaign, replayed", holds=(answer.status, answer.replayed) == (201, True), seen=answer
        )
        calls = [call for call in self._myfunnel.calls(self._domain) if call.method == "POST"]
        story.claim(
            "MyFunnelAPI was asked twice, with one Idempotency-Key",
            holds=(len(calls), len({call.key for call in calls})) == (2, 1),
            seen=calls,
        )
        self._claim_one_of_each(answer)

    def _claim_one_of_each(self, answer: Answer) -> None:
        funnels, routes = self._funnels(), self._routes()
        self._story.claim(
            "it has one funnel, the one in the answer",
            holds=[funnel.id for funnel in funnels] == [answer.json.get("funnel_id")],
            seen=funnels,
        )
        self._story.claim(
            "Route 53 has one record, which leads there",
            holds=routes == [funnel.hostname for funnel in funnels],
            seen=routes,
        )
        shown = self._alice.get(f"{_PATH}/{answer.json.get('id')}")
        self._story.claim("the campaign is live", holds=shown.body == answer.body, seen=shown)

    def _funnels(self) -> list[Funnel]:
        return self._myfunnel.funnels(self._domain)

    def _routes(self) -> list[str]:
        found = self._route53.list_resource_record_sets(HostedZoneId=self._stack.dns_zone_id)["ResourceRecordSets"]
        named = [record_set for record_set in found if record_set["Name"].rstrip(".") == self._domain]
        return [record["Value"] for record_set in named for record in record_set["ResourceRecords"]]

    def _record(self) -> dict[str, Any]:
        items = self._dynamodb.scan(TableName=self._stack.idempotency_table, ConsistentRead=True)["Items"]
        return dict(max(items, key=lambda item: int(item["created_at"]["N"])))  # the campaign's record is the latest


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
