"""An operation of the tests' own, on the API's functions: what the engine is tried with, whatever a project makes.

``POST /v1/samples`` reserves a name, makes a part in another service, and puts a label on it; each of these is undone
if a later one fails for good. The service is in memory, and fails as a test tells it to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, Any
from unittest.mock import patch

import api
from idempotency import Body, Completion, Operation, Rejected, Retry, principal
from tests.clocks import SetClock
from tests.events import KEY
from tests.messages import MAX_RECOVERIES
from tests.unit.service import Api, Things
from tools.local.client import Answer

PATH = "/v1/samples"
LONGEST_PAUSE = 900
"""Seconds between two attempts of recovery at most."""
NAME = "first"
SAMPLE = {"name": NAME}
NOT_NOW = Retry("The service is busy.", retry_after=5)
NEVER = Rejected("label-rejected", "No such label.", status=422, title="The label was rejected")


class SampleRequest(Body):
    """The body of ``POST /v1/samples``."""

    name: Annotated[str, {"minLength": 1, "maxLength": 100}]


class Service:
    """Makes parts, once for each key, and puts labels on them.

    Attributes:
        parts: what exists: the key that it was made with → its id.
        labels: the id of a part → its label.
        calls: what was asked: ``make``, ``remove``, ``label`` or ``unlabel``, and the key or the id of the part.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self._failures: list[_Failure] = []

    def make(self, key: str) -> dict[str, str]:
        """Make a part; again with the same key, it is the same one."""
        with self._called("make", key):
            return {"id": self.parts.setdefault(key, f"part-{key}")}

    def remove(self, id_: str) -> None:
        """Remove a part; succeeds if it is already gone."""
        with self._called("remove", id_):
            self.parts = {key: part for key, part in self.parts.items() if part != id_}

    def label(self, id_: str, text: str) -> None:
        """Put a label on a part."""
        with self._called("label", id_):
            self.labels[id_] = text

    def unlabel(self, id_: str) -> None:
        """Take the label off; succeeds if there is none."""
        with self._called("unlabel", id_):
            self.labels.pop(id_, None)

    def fails(self, call: str, error: BaseException = NOT_NOW, times: float = 1, *, acts: bool = False) -> None:
        """Make calls fail.

        Args:
            call: which.
            error: what they fail with.
            times: how many of them; ``inf`` for all from now on.
            acts: whether each is carried out nevertheless, and only its answer is lost.
        """
        self._failures.append(_Failure(call, error, times, acts))

    def behaves(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()

    @contextmanager
    def _called(self, call: str, what: str) -> Iterator[None]:
        self.calls.append((call, what))
        failure = next((each for each in self._failures if each.call == call and each.times > 0), None)
        if failure:
            failure.times -= 1
        if failure and not failure.acts:
            raise failure.error
        yield
        if failure:
            raise failure.error


@dataclass
class _Failure:
    call: str
    error: BaseException
    times: float
    acts: bool


class Samples(Things):
    """Samples as a client and an operator see them.

    Args:
        api: the API.

    Attributes:
        service: what makes their parts.
    """

    def __init__(self, api: Api) -> None:
        super().__init__(api, PATH)
        self.service = Service()

    @property
    def serving(self) -> AbstractContextManager[object]:
        """Has the route use their service, for the length of a `with` block."""
        return patch(f"{__name__}._service", lambda: self.service)

    def empty(self) -> None:
        """Begin anew: nothing exists, and nothing fails."""
        self.api.empty()
        self.service = Service()

    def create(self, body: Any = SAMPLE, *, key: str = KEY, principal: str = "alice", **event: Any) -> Answer:
        """POST a sample."""
        return self.api.post(body, key=key, principal=principal, path=PATH, **event)

    def give_up(self, clock: SetClock, key: str = KEY) -> None:
        """Create one whose part is never made, until recovery parks it."""
        self.service.fails("make", times=inf)
        self.create(key=key)
        lifecycle = api.idempotent.lifecycle
        with patch.object(lifecycle, "settings", replace(lifecycle.settings, max_recoveries=MAX_RECOVERIES)):
            for _ in range(MAX_RECOVERIES):
                clock.advance(LONGEST_PAUSE)
                assert self.recover()["taken_up"] == 1

    @property
    def names(self) -> list[str]:
        """The names that are reserved."""
        return [row["resource"]["id"] for row in self.api.rows if row["id"].startswith("name#")]

    @property
    def labels(self) -> list[str]:
        """The labels of the parts that exist."""
        return [self.service.labels.get(part, "") for part in self.service.parts.values()]

    def nothing_is_left(self) -> bool:
        """Whether there is neither a part nor a label nor a row."""
        return (self.service.parts, self.service.labels, self.api.rows) == ({}, {}, [])


def _service() -> Service:
    """What the route uses while a test does not say so."""
    raise AssertionError("ask for the fixture `samples`")


@api.app.post(PATH)
@api.idempotent(api.recoverable)
def create_sample(sample: SampleRequest, operation: Operation) -> Completion:
    """Create a sample."""
    service, resources = _service(), api.resources()
    id_ = f"smp-{operation.derived_id('sample')}"
    name = {"id": sample.name, "sample_id": id_}
    taken = Rejected("name-taken", f"Another sample is called {sample.name}.", status=409, title="The name is taken")
    operation.reserve("name", resources.row("name", name, operation.principal, conflict=taken))
    part = operation.step("part", service.make, undo=lambda part: service.remove(part["id"]))
    operation.step(
        "label",
        lambda _: service.label(part["id"], sample.name),
        undo=lambda: service.unlabel(part["id"]),
    )
    representation = {"id": id_, "name": sample.name, "part_id": part["id"], "status": "made"}
    return Completion(
        201,
        representation,
        headers={"Location": f"{operation.request.base_path}{PATH}/{id_}"},
        rows=[resources.row("sample", representation, operation.principal)],
    )


@api.app.get(f"{PATH}/<sample_id>")
def get_sample(sample_id: str) -> dict[str, Any]:
    """Show one of the caller's samples."""
    return api.resources().get("sample", sample_id, principal(api.app.current_event))
