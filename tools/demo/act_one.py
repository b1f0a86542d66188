"""First act: a server is provisioned once, whatever happens to the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from tools.demo.story import Story
from tools.local.client import Answer, Client
from tools.local.stack import Stack

_PATH = "/v1/servers/provision"
_SERVER = {"region": "eu-west", "size": "large"}
_AT_ONCE = 20
_TRIES_TO_WARM_UP = 5


class ActOne:
    """Plays the act.

    Args:
        story: tells what happens.
        stack: the stack that it plays on.
    """

    def __init__(self, story: Story, stack: Stack) -> None:
        self._story = story
        self._stack = stack
        self._alice = Client(stack.api_url, stack.token)
        self._bob = Client(stack.api_url, stack.other_token)
        self._dynamodb = stack.client("dynamodb")
        self._ec2 = stack.client("ec2")

    def play(self) -> None:
        """Play every scene."""
        self._story.act("First act: one server, whatever happens to the answers")
        key = str(uuid4())
        server = self._lost_answer(key)
        self._duplicates()
        self._other_body(key)
        self._other_principal(key, server)
        self._record(server)

    def _lost_answer(self, key: str) -> Answer:
        story = self._story
        story.scene("The connection drops before the answer; the client retries")
        begun = self._alice.post_and_hang_up(_PATH, _SERVER, key, until=lambda: self._records() != [])
        story.sent(f"{_post(key)}", "[red]connection closed, no answer[/]")
        story.claim("the server had begun by then", holds=begun)

        def told(answer: Answer) -> None:
            story.answered("the same request again", answer)

        retry = self._alice.post_until_done(_PATH, _SERVER, key, seen=told)
        told(retry)
        again = self._alice.post(_PATH, _SERVER, key)
        told(again)
        record = self._records()[0]
        instances = self._instances()
        story.claim(
            "the retry gets the answer of the first run",
            holds=(retry.status, retry.replayed) == (201, True),
            seen=retry,
        )
        story.claim("every retry gets the same bytes", holds=retry.body == again.body, seen=(retry.body, again.body))
        story.claim("one EC2 instance runs", holds=len(instances) == 1, seen=instances)
        story.claim(
            "it is the one in the answer, tagged with the operation's id",
            holds=[(i["InstanceId"], i["Tags"][0]["Value"]) for i in instances]
            == [(retry.json["instance_id"], record["operation_id"]["S"])],
            seen=instances,
        )
        return retry

    def _duplicates(self) -> None:
        story = self._story
        story.scene(f"{_AT_ONCE} clients send the same request at once")
        key = str(uuid4())
        before = len(self._instances())
        with ThreadPoolExecutor(_AT_ONCE) as clients:
            # So that a worker is ready for each request, and they really run at the same time. A busy machine needs
            # more than one try: the gateway waits for 29 s, as API Gateway does.
            for _ in range(_TRIES_TO_WARM_UP):
                warm = clients.map(lambda _: self._alice.get("/v1/servers/none"), range(_AT_ONCE))
                if {answer.status for answer in warm} == {404}:
                    break
            first = list(clients.map(lambda _: self._alice.post(_PATH, _SERVER, key), range(_AT_ONCE)))
            final = list(clients.map(lambda answer: self._insist(answer, key), first))
        waiting = [answer for answer in first if answer.status == 409]
        runs = [answer for answer in first + final if answer.status == 201 and not answer.replayed]
        story.sent(f"{_post(key)}  {_AT_ONCE} times", f"{_tally(first)}; those that got 409 retry: {_tally(final)}")
        story.claim(
            "each first answer is the server, or 409 with Retry-After",
            holds={answer.status for answer in first} <= {201, 409}
            and all("retry-after" in answer.headers for answer in waiting),
            seen=first,
        )
        story.claim("exactly one of them ran", holds=len({id(answer) for answer in runs}) == 1, seen=runs)
        story.claim(
            "in the end, all get the same bytes", holds=len({(a.status, a.body) for a in final}) == 1, seen=final
        )
        story.claim("one more EC2 instance runs", holds=len(self._instances()) == before + 1, seen=self._instances())

    def _insist(self, answer: Answer, key: str) -> Answer:
        return answer if answer.status == 201 else self._alice.post_until_done(_PATH, _SERVER, key)

    def _other_body(self, key: str) -> None:
        self._story.scene("The same key with a different request")
        answer = self._alice.post(_PATH, {**_SERVER, "size": "small"}, key)
        self._story.answered(f"{_post(key)}  size: small", answer)
        self._story.claim(
            "refused as a problem (RFC 9457)",
            holds=(answer.status, answer.headers["content-type"]) == (422, ["application/problem+json"]),
            seen=answer,
        )

    def _other_principal(self, key: str, alices: Answer) -> None:
        story = self._story
        story.scene("The same key from another principal")
        answer = self._bob.post(_PATH, _SERVER, key)
        story.answered(f"{_post(key)}  (bob)", answer)
        bobs = answer.json.get("id")
        story.claim(
            "bob has a server of his own",
            holds=(answer.status, answer.replayed) == (201, False) and bobs != alices.json["id"],
            seen=answer,
        )
        mine, foreign = self._bob.get(f"/v1/servers/{bobs}"), self._alice.get(f"/v1/servers/{bobs}")
        story.claim(
            "bob can see it, alice cannot", holds=(mine.status, foreign.status) == (200, 404), seen=(mine, foreign)
        )

    def _record(self, server: Answer) -> None:
        self._story.scene("The record of the first key, as it is in DynamoDB")
        record = next(r for r in self._records() if r["response"]["M"]["body"]["B"] == server.body)
        shown = {name: _plain(value) for name, value in sorted(record.items()) if name not in {"response", "steps"}}
        shown["response"] = f"{record['response']['M']['status']['N']}  {server.body.decode()}"
        self._story.table(shown)
        self._story.claim(
            "it is completed, after one attempt", holds=(shown["status"], shown["attempt"]) == ("COMPLETED", "1")
        )
        raw = str(record)
        self._story.claim("it contains no token", holds=self._stack.token not in raw, seen=raw)

    def _records(self) -> list[dict[str, Any]]:
        scanned: dict[str, Any] = self._dynamodb.scan(TableName=self._stack.idempotency_table, ConsistentRead=True)
        return list(scanned["Items"])

    def _instances(self) -> list[dict[str, Any]]:
        reservations = self._ec2.describe_instances()["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]


def _post(key: str) -> str:
    return f"POST {_PATH}  Idempotency-Key: {key[:8]}…"


def _tally(answers: Sequence[Answer]) -> str:
    counted = Counter(answer.status for answer in answers)
    return ", ".join(f"{count} got {status}" for status, count in sorted(counted.items()))


def _plain(value: dict[str, Any]) -> str:
    return str(next(iter(value.values())))
