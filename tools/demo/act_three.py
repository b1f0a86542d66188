# example campaigns
"""Third act: a campaign that takes its time; nobody holds a connection, and its worker is killed twice."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from tools.demo.story import Story
from tools.local.client import Answer, Client
from tools.local.myfunnel import Control, Fault
from tools.local.neighbours import ZONE
from tools.local.processes import kill_workers
from tools.local.stack import Stack
from tools.ops.recovery import recover

_PATH = "/v1/campaigns"
_KILLS = 2
_WITHIN_SECONDS = 120


class ActThree:
    """Plays the act.

    Args:
        story: tells what happens.
        stack: the stack that it plays on, with the stand-in for MyFunnelAPI.
    """

    def __init__(self, story: Story, stack: Stack) -> None:
        self._story = story
        self._stack = stack
        self._alice = Client(stack.api_url, stack.token)
        self._bob = Client(stack.api_url, stack.other_token)
        self._myfunnel = Control(stack.myfunnel_url)
        self._lambda = stack.client("lambda")
        self._domain = f"autumn.{ZONE}"
        self._body = {"name": "Autumn sale", "domain": self._domain}
        self._key = str(uuid4())
        self._kills = 0

    def play(self) -> None:
        """Play every scene."""
        self._story.act("Third act: an operation that takes its time, and a client that does not wait for it")
        status = self._accepted()
        self._followed(status)
        self._ended(status)

    def _accepted(self) -> str:
        story = self._story
        story.scene("The client asks not to wait")
        self._myfunnel.expect(Fault(domain=self._domain, times=_KILLS, linger=30))
        answer = self._alice.post(_PATH, self._body, self._key, prefer="respond-async")
        story.answered(f"POST {_PATH}  Prefer: respond-async", answer)
        location = answer.headers.get("location", [""])[0]
        story.claim(
            "it is told where to look",
            holds=answer.status == 202 and "/v1/operations/" in location,
            seen=(answer, answer.headers),
        )
        return f"/v1{location.partition('/v1')[2]}"

    def _followed(self, status: str) -> None:
        story = self._story
        story.scene(f"It looks now and then; meanwhile, the worker is killed {_KILLS} times (kill -9)")
        began, line = time.monotonic(), ""
        while (shown := self._alice.get(status).json).get("state") not in {"succeeded", "failed"}:
            if time.monotonic() - began > _WITHIN_SECONDS:
                break
            line = self._tell(shown, line, time.monotonic() - began)
            self._disturb(shown)
            time.sleep(0.25)
        self._tell(shown, line, time.monotonic() - began)
        story.claim("it has ended well", holds=shown.get("state") == "succeeded", seen=shown)
        story.claim(
            f"it took {_KILLS + 1} attempts, and the client none",
            holds=(self._kills, shown.get("attempt")) == (_KILLS, _KILLS + 1),
            seen=(self._kills, shown),
        )

    def _tell(self, shown: dict[str, Any], before: str, seconds: float) -> str:
        steps = "  ".join(f"{name}: {state}" for name, state in shown.get("steps", {}).items())
        line = f"{shown.get('state', shown):9}  attempt {shown.get('attempt', 0)}  {steps}"
        if line != before:
            self._story.progress(f"{seconds:4.0f} s  {line}")
        return line

    def _disturb(self, shown: dict[str, Any]) -> None:
        """Kill the worker as soon as MyFunnelAPI has been asked; and sweep, which happens every minute otherwise."""
        asked = sum(call.method == "POST" for call in self._myfunnel.calls(self._domain))
        if self._kills < _KILLS and asked > self._kills and shown["state"] == "running":
            kill_workers(self._stack.cloud_pid, self._stack.worker_function_name)
            self._kills += 1
            self._story.progress("        ✗ killed")
        if shown["state"] == "due":
            recover(self._lambda, self._stack.recovery_function_name)

    def _ended(self, status: str) -> None:
        story = self._story
        story.scene("The same request now gets the answer")
        answers: list[Answer] = [self._alice.post(_PATH, self._body, self._key) for _ in range(2)]
        story.answered(f"POST {_PATH}  {self._domain}", answers[0])
        story.claim(
            "it is the campaign, replayed, and the same bytes each time",
            holds=[(each.status, each.replayed) for each in answers] == [(201, True)] * 2
            and answers[0].body == answers[1].body,
            seen=answers,
        )
        funnels = self._myfunnel.funnels(self._domain)
        story.claim("there is one landing page", holds=len(funnels) == 1, seen=funnels)
        foreign = self._bob.get(status)
        story.claim("bob cannot see how it went", holds=foreign.status == 404, seen=foreign)
