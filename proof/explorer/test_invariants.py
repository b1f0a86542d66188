"""Each invariant holds for the project's lifecycle, and breaks for a lifecycle with one thing taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from idempotency import lifecycle, store
from idempotency.errors import Fenced, Unavailable
from idempotency.lifecycle import Lifecycle
from idempotency.operation import Invocation, Operation
from idempotency.record import Record, Status
from idempotency.request import record_id
from idempotency.store import Store
from proof.explorer import world
from proof.explorer.explorer import exhaust, explain, sample
from proof.explorer.scenarios import SCENARIOS, simulated

BOUND = 200
"""Schedules a scenario on each change; `make prove` runs all of them."""
BUDGETS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1))
"""Faults and jumps of time, the smallest first: what is wrong mostly shows with little."""


@pytest.fixture(autouse=True)
def _simulated() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_schedule_without_faults(name: str) -> None:
    scenario = SCENARIOS[name].within(faults=0, jumps=0)
    report = exhaust(scenario)
    assert report.exhausted
    assert not report.failures, explain(scenario, report.failures[0])


@pytest.mark.parametrize("name", SCENARIOS)
def test_schedules_with_a_fault_and_a_jump_of_time(name: str) -> None:
    scenario = SCENARIOS[name].within(faults=1, jumps=1)
    report = exhaust(scenario, most=BOUND)
    assert not report.failures, explain(scenario, report.failures[0])


@pytest.mark.parametrize("name", SCENARIOS)
def test_random_schedules_with_many_faults(name: str) -> None:
    scenario = SCENARIOS[name].within(faults=4, jumps=3)
    report = sample(scenario, seed=2026, schedules=BOUND // 4)
    assert not report.failures, explain(scenario, report.failures[0])


Break = Callable[[pytest.MonkeyPatch], None]


def completed_runs_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_CLAIMABLE", store._CLAIMABLE.replace("#status <> :completed AND", ":completed <> :now AND"))


def live_lease_is_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_CLAIMABLE", store._CLAIMABLE.replace("lease_until < :now", "lease_until > :now"))


def every_attempt_answers_for_itself(patch: pytest.MonkeyPatch) -> None:
    def complete(self: Store, record: Record, *args: Any, **kwargs: Any) -> Record:
        try:
            return original(self, record, *args, **kwargs)
        except Fenced:
            return replace(record, status=Status.COMPLETED)

    original = Store.complete
    patch.setattr(Store, "complete", complete)


def nobody_is_fenced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_OWNED", "#status = :processing AND (:owner <> :processing)")


def rows_go_ahead_of_the_completion(patch: pytest.MonkeyPatch) -> None:
    def call(self: Store, operation: Any, **request: Any) -> Any:
        if "TransactItems" not in request:
            return original(self, operation, **request)
        for action in reversed(request["TransactItems"]):
            ((kind, parameters),) = action.items()
            original(self, getattr(self._client, f"{kind.lower()}_item"), **parameters)
        return {}

    original = Store._call
    patch.setattr(Store, "_call", call)


def steps_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    def init(self: Operation, record: Record, *args: Any) -> None:
        original(self, replace(record, steps={}), *args)

    original = Operation.__init__
    patch.setattr(Operation, "__init__", init)


def downstream_keys_are_new_each_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operation, "derived_id", lambda _self, _name: str(world.uuid4()))


def operation_id_is_new_each_time(patch: pytest.MonkeyPatch) -> None:
    claim = store._CLAIM.replace("if_not_exists(operation_id, :operation_id)", ":operation_id")
    patch.setattr(store, "_CLAIM", claim)


def lapsed_lease_is_never_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_CLAIMABLE", store._CLAIMABLE.replace("lease_until < :now", "lease_until < :one"))


def released_key_is_never_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "claimable", lambda self, now: self.expired(now))
    patch.setattr(store, "_CLAIMABLE", store._CLAIMABLE.replace("(#status = :released OR", "(:released = :now OR"))
    patch.setattr(lifecycle, "PARKED_UNTIL", 0)


def recovery_does_not_find_it(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_DUE", store._DUE.replace("lease_until < :now", "lease_until > :now"))


def own_token_is_not_recognised(patch: pytest.MonkeyPatch) -> None:
    def claim(self: Store, candidate: Record, now: int) -> Record:
        standing = original(self, candidate, now)
        seen_before = standing.status is Status.PROCESSING and self._failed  # type: ignore[attr-defined]
        return replace(standing, owner="unknown") if seen_before else standing

    def call(self: Store, operation: Any, **request: Any) -> Any:
        self._failed = False  # type: ignore[attr-defined]
        try:
            return original_call(self, operation, **request)
        except store._ConditionFailed:
            self._failed = True  # type: ignore[attr-defined]
            raise

    original, original_call = Store.claim, Store._call
    patch.setattr(Store, "claim", claim)
    patch.setattr(Store, "_call", call)


def own_release_is_not_recognised(patch: pytest.MonkeyPatch) -> None:
    def unless_done(failed: Any, *_: Any) -> None:
        raise Fenced(store._record(failed.item) if failed.item else None)

    patch.setattr(store, "_raise_unless_already_done", unless_done)


def principal_does_not_scope_the_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle, "record_id", lambda _principal, *parts: record_id("alice", *parts))


def unreachable_database_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def claim(self: Lifecycle, id_: str, owner: str, invocation: Invocation) -> Record:
        try:
            return original(self, id_, owner, invocation)
        except Unavailable:
            candidate = self._candidate(id_, owner, invocation.policy, self.clock.now(), invocation.deadline)
            return replace(candidate, fingerprint=invocation.request.fingerprint)

    original = Lifecycle._claim
    patch.setattr(Lifecycle, "_claim", claim)


BROKEN: list[tuple[int, Break, str]] = [
    (1, completed_runs_again, "two workers"),
    (1, live_lease_is_taken, "two workers"),
    (1, every_attempt_answers_for_itself, "two workers"),
    (2, nobody_is_fenced, "two workers"),
    (2, rows_go_ahead_of_the_completion, "two workers and a business row"),
    (2, rows_go_ahead_of_the_completion, "two principals, one name"),
    (3, steps_are_forgotten, "two workers and two steps"),
    (3, downstream_keys_are_new_each_time, "two workers and two steps"),
    (3, operation_id_is_new_each_time, "two workers"),
    (4, lapsed_lease_is_never_taken, "alone"),
    (4, released_key_is_never_taken, "alone"),
    (4, recovery_does_not_find_it, "worker and recovery"),
    (5, own_token_is_not_recognised, "alone"),
    (5, own_release_is_not_recognised, "alone"),
    (6, principal_does_not_scope_the_key, "two principals"),
    (7, unreachable_database_is_ignored, "alone"),
]


@pytest.mark.parametrize(
    ("invariant", "break_it", "name"), BROKEN, ids=[f"{each[1].__name__}, {each[2]}" for each in BROKEN]
)
def test_broken_lifecycle_is_caught(
    monkeypatch: pytest.MonkeyPatch, invariant: int, break_it: Break, name: str
) -> None:
    break_it(monkeypatch)
    wanted = frozenset({invariant})
    found: set[int] = set()
    for faults, jumps in BUDGETS:
        report = exhaust(SCENARIOS[name].within(faults, jumps), most=4_000, wanted=wanted)
        found |= {failure.violation.invariant for failure in report.failures}
        if wanted <= found:
            return
    pytest.fail(f"not caught; found only {found or 'nothing'}")
