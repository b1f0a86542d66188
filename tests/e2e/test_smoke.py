"""The smoke test of a deployed stack, on the local one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.targets import LocalCloud
from tools.local.stack import Stack
from tools.ops.environments import local
from tools.ops.smoke import CASES, Smoke, play


@contextmanager
def nothing_left(target: LocalCloud) -> Iterator[None]:
    """Check that there are no more items afterwards than before."""
    before = target.tables.ids()
    yield
    assert target.tables.ids() == before


def test_sees_what_is_expected_and_leaves_nothing_behind(stack: Stack, local_cloud: LocalCloud) -> None:
    seen: dict[str, tuple[str, str]] = {}
    smoke = Smoke(local(stack))

    with nothing_left(local_cloud), smoke.admitted():
        good = play(smoke, CASES, disturb=True, show=lambda case, *what: seen.update({case.name: what}))

    assert good, seen
    assert [*seen] == [case.name for case in CASES]
    assert {seen[case.name][1] for case in CASES if case.only_aws} == {"not seen yet"}
    assert {seen[case.name][1] for case in CASES if not case.only_aws} == {"as expected"}


def test_tells_what_differs_and_disturbs_nobody_unless_told(stack: Stack, local_cloud: LocalCloud) -> None:
    seen: dict[str, tuple[str, str]] = {}
    smoke = Smoke(local(stack))
    smoke.body = b'{"region": "mars", "size": "small"}'
    cases = [CASES[0], *(case for case in CASES if case.disturbs)]

    with nothing_left(local_cloud), smoke.admitted():
        good = play(smoke, cases, disturb=False, show=lambda case, *what: seen.update({case.name: what}))

    assert not good
    assert [*seen.values()] == [("400 body-invalid", "differs"), *[("not asked", "not seen yet")] * 2]
