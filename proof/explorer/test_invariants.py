"""Each invariant holds for the project's lifecycle, and breaks for a lifecycle with one thing taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from idempotency import lifecycle, store
from idempotency.errors import Fenced, Unavailable
from idempotency.idempotent import Idempotent
from idempotency.lifecycle import Lifecycle, Reply
from idempotency.operation import Attempt, Invocation, Operation, _Step
from idempotency.record import Record, Status
from idempotency.request import record_id
from idempotency.response import End, StoredResponse, Verdict
from idempotency.store import Store
from proof.explorer import world
from proof.explorer.explorer import exhaust, explain, sample
from proof.explorer.scenarios import SCENARIOS, Deployment, Telemetry, simulated

BOUND = 80
"""Schedules a scenario on each change; `make prove` runs all of them."""
BUDGETS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (2, 1))
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
    patch.setattr(Record, "completed", property(lambda _self: False))


def live_lease_is_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "claimable", lambda self, _now: not self.completed)


def late_owner_is_overlooked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_AS_SEEN", "#status = :seen_status OR lease_until = :seen_lease_until")


def replacement_is_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_NOT_REPLACED_SINCE", "attribute_not_exists(id) OR expires_at >= :expires_at")


def every_attempt_answers_for_itself(patch: pytest.MonkeyPatch) -> None:
    def complete(self: Store, record: Record, *args: Any, **kwargs: Any) -> Record:
        try:
            return original(self, record, *args, **kwargs)
        except Fenced:
            return record._replace(status=Status.COMPLETED)

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
        original(self, record._replace(steps={}), *args)

    original = Operation.__init__
    patch.setattr(Operation, "__init__", init)


def downstream_keys_are_new_each_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operation, "derived_id", lambda _self, _name: str(world.uuid4()))


def operation_id_is_new_each_time(patch: pytest.MonkeyPatch) -> None:
    def take_over(self: Store, found: Record, candidate: Record) -> Record:
        return self._renew(found, candidate)

    patch.setattr(Store, "_take_over", take_over)


def lapsed_lease_is_never_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "claimable", lambda self, now: self.expired(now) or self.status is Status.RELEASED)


def released_key_is_never_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "claimable", lambda self, now: self.expired(now) or self.lease_until < now)
    patch.setattr(lifecycle, "PARKED_UNTIL", 0)


def recovery_does_not_find_it(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_DUE", store._DUE.replace("lease_until < :now", "lease_until > :now"))


def own_token_is_not_recognised(patch: pytest.MonkeyPatch) -> None:
    def claim(self: Store, candidate: Record, now: int) -> Record:
        standing = original(self, candidate, now)
        seen_before = standing.status is Status.PROCESSING and self._failed  # type: ignore[attr-defined]
        return standing._replace(owner="unknown") if seen_before else standing

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
            return candidate._replace(fingerprint=invocation.request.fingerprint)

    original = Lifecycle._claim
    patch.setattr(Lifecycle, "_claim", claim)


def outcomes_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "keep_outcomes", lambda *_: None)


def step_whose_way_is_not_kept_counts_as_begun(patch: pytest.MonkeyPatch) -> None:
    def open_(self: Operation, name: str, step: _Step) -> None:
        step.open = True
        self._keep_outcomes()
        self.ensure_time()

    patch.setattr(Operation, "_open", open_)


def released_without_what_was_begun(patch: pytest.MonkeyPatch) -> None:
    def release(self: Store, record: Record, **arguments: Any) -> None:
        original(self, record._replace(begun=()), **arguments)

    original = Store.release
    patch.setattr(Store, "release", release)


def cut_off_attempts_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Record, "cut_off", 0)


def operator_is_told_afterwards(patch: pytest.MonkeyPatch) -> None:
    def complete(self: Lifecycle, *args: Any) -> Reply:
        reply = original(self, *args)
        for doubts, record in told:
            tell(self._telemetry, doubts, record)  # type: ignore[arg-type] # the simulated one
        return reply

    told: list[tuple[Any, Record]] = []
    original, tell = Lifecycle._complete, Telemetry.doubt
    patch.setattr(Lifecycle, "_complete", complete)
    patch.setattr(Telemetry, "doubt", lambda _self, *what: told.append(what))


def nobody_is_told_of_another_branch(patch: pytest.MonkeyPatch) -> None:
    def doubts(self: Attempt, verdict: Verdict) -> list[str]:
        return [] if verdict.end is End.COMPLETE else original(self, verdict)

    original = Attempt.doubts
    patch.setattr(Attempt, "doubts", doubts)


def refusal_between_steps_counts_as_a_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "_refused_between_steps", lambda *_: False)


def step_out_of_reach_is_given_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "ensure_reached", lambda _self: None)


def threads_are_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "close", lambda _self: None)


def possibly_done_steps_are_not_undone(patch: pytest.MonkeyPatch) -> None:
    def undo(self: Attempt, verdict: Verdict) -> StoredResponse:
        patch.setattr(self, "_possibly_done", lambda *_: set())
        return original(self, verdict)

    original = Attempt.undo
    patch.setattr(Attempt, "undo", undo)


def undo_without_a_result_does_nothing(patch: pytest.MonkeyPatch) -> None:
    def undo_of(self: _Step, result: str | None) -> Any:
        found = original(self, result)
        return (lambda: None) if found is not None and result is None else found

    original = _Step.undo_of
    patch.setattr(_Step, "undo_of", undo_of)


def kept_500_is_a_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verdict, "refusal", property(lambda self: self.cause))


def undone_step_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "_undo", lambda *_: None)


def unreadable_record_stops_recovery(patch: pytest.MonkeyPatch) -> None:
    def give_back(_self: Lifecycle, _id: str, reason: str) -> None:
        raise RuntimeError(reason)

    def resume(_self: Deployment, idempotent: Idempotent, id_: str, context: Any) -> None:
        idempotent.resume(id_, context)

    patch.setattr(Lifecycle, "give_back", give_back)
    patch.setattr(Deployment, "_resume", resume)


def missing_route_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifecycle, "give_back", lambda *_: None)


def refused_request_is_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifecycle, "look_up", lambda *_: None)


def atomic_write_has_no_condition(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Store, *args: Any, **kwargs: Any) -> Record:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(store, "_FREE", "attribute_not_exists(id) OR attribute_exists(id)")
            return original(self, *args, **kwargs)

    original = Store.commit
    patch.setattr(Store, "commit", commit)


def atomic_run_answers_for_itself(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Store, candidate: Record, *args: Any, **kwargs: Any) -> Record:
        return original(self, candidate, *args, **kwargs)._replace(owner=candidate.owner)

    original = Store.commit
    patch.setattr(Store, "commit", commit)


def atomic_rows_are_not_the_records(patch: pytest.MonkeyPatch) -> None:
    def put(self: Store, candidate: Record, condition: str, rows: Any = (), **values: Any) -> None:
        for row in rows:
            item = store._row_item(row, candidate.operation_id)
            self._call(self._client.put_item, TableName=row.table, Item=item)
        original(self, candidate, condition, **values)

    original = Store._put
    patch.setattr(Store, "_put", put)


def atomic_operation_replaces_what_is_unfinished(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Store, candidate: Record, *args: Any, **kwargs: Any) -> Record:
        found = original(self, candidate, *args, **kwargs)
        if found.completed:
            return found
        return original_renew(self, found, candidate._replace(status=Status.COMPLETED, response=_EMPTY))

    original, original_renew = Store.commit, Store._renew
    patch.setattr(Store, "commit", commit)


def nobody_is_told_of_steps_that_are_no_more(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "doubts", lambda *_: [])


def accepted_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    def enter(self: Store, candidate: Record, *args: Any) -> Record:
        try:
            return original(self, candidate, *args)
        except Unavailable:
            return candidate

    original = Store.enter
    patch.setattr(Store, "enter", enter)


def message_claims_what_runs(patch: pytest.MonkeyPatch) -> None:
    whenever = "lease_until <> :now"
    patch.setattr(store, "_DUE", f"#status <> :completed AND expires_at > :now_seconds AND {whenever}")


_EMPTY = {"status": 201, "headers": {}, "text": True, "compressed": False, "body": b""}

BROKEN: list[tuple[int, Break, str]] = [
    (1, completed_runs_again, "two workers"),
    (1, live_lease_is_taken, "two workers"),
    (1, late_owner_is_overlooked, "two workers and two steps"),
    (1, replacement_is_replaced, "a short time to live"),
    (1, every_attempt_answers_for_itself, "two workers"),
    (1, atomic_write_has_no_condition, "atomic"),
    (1, atomic_write_has_no_condition, "atomic, a short time to live"),
    (1, atomic_run_answers_for_itself, "atomic"),
    (1, atomic_run_answers_for_itself, "atomic, may refuse"),
    (2, nobody_is_fenced, "two workers"),
    (2, rows_go_ahead_of_the_completion, "two workers and a business row"),
    (2, rows_go_ahead_of_the_completion, "two principals, one name"),
    (2, rows_go_ahead_of_the_completion, "atomic"),
    (2, atomic_rows_are_not_the_records, "atomic"),
    (3, steps_are_forgotten, "two workers and two steps"),
    (3, downstream_keys_are_new_each_time, "two workers and two steps"),
    (3, operation_id_is_new_each_time, "two workers"),
    (3, atomic_operation_replaces_what_is_unfinished, "rollout of an atomic operation"),
    (4, lapsed_lease_is_never_taken, "alone"),
    (4, released_key_is_never_taken, "alone"),
    (4, recovery_does_not_find_it, "worker and recovery"),
    (4, accepted_before_it_is_stored, "accepted"),
    (1, message_claims_what_runs, "accepted"),
    (5, own_token_is_not_recognised, "alone"),
    (5, own_release_is_not_recognised, "alone"),
    (6, principal_does_not_scope_the_key, "two principals"),
    (7, unreachable_database_is_ignored, "alone"),
    (8, outcomes_are_not_kept, "falls back"),
    (8, step_whose_way_is_not_kept_counts_as_begun, "rollback of a fallback"),
    (8, released_without_what_was_begun, "undone blindly"),
    (8, cut_off_attempts_are_forgotten, "undone blindly"),
    (8, operator_is_told_afterwards, "undone with its result"),
    (8, nobody_is_told_of_another_branch, "swallows an error"),
    (8, nobody_is_told_of_another_branch, "rollout of another name"),
    (8, refusal_between_steps_counts_as_a_step, "refused between steps"),
    (8, step_out_of_reach_is_given_up, "refused ahead of a finished step"),
    (8, threads_are_not_waited_for, "steps at once"),
    (8, possibly_done_steps_are_not_undone, "undone blindly"),
    (8, undo_without_a_result_does_nothing, "undone blindly"),
    (8, kept_500_is_a_refusal, "a result that cannot be kept"),
    (8, kept_500_is_a_refusal, "every error is final"),
    (8, nobody_is_told_of_steps_that_are_no_more, "rollout of an atomic operation"),
    (8, undone_step_is_forgotten, "two workers, reserved and undone"),
    (9, unreadable_record_stops_recovery, "rollback of another form"),
    (9, missing_route_is_passed_over, "rollback of the route"),
    (9, refused_request_is_not_looked_up, "rollout of another body"),
]


@pytest.mark.parametrize(
    ("invariant", "break_it", "name"), BROKEN, ids=[f"{each[1].__name__}, {each[2]}" for each in BROKEN]
)
def test_broken_lifecycle_is_caught(
    monkeypatch: pytest.MonkeyPatch, invariant: int, break_it: Break, name: str
) -> None:
    break_it(monkeypatch)
    wanted = frozenset({invariant})
    scenarios = [SCENARIOS[name].within(*budget, reliable=reliable) for reliable in (True, False) for budget in BUDGETS]
    found: set[int] = set()
    for scenario in scenarios:
        report = exhaust(scenario, most=2_000, wanted=wanted)
        found |= {failure.violation.invariant for failure in report.failures}
        if wanted <= found:
            return
    pytest.fail(f"not caught; found only {found or 'nothing'}")
