"""What a client prefers about its answer."""

import pytest

from idempotency.prefer import Preferences


@pytest.mark.parametrize(
    ("lines", "preferred"),
    [
        ([], Preferences()),
        ([""], Preferences()),
        (["handling=strict, priority=5"], Preferences()),
        (["respond-async"], Preferences(None, respond_async=True)),
        (["Respond-Async"], Preferences(None, respond_async=True)),
        (['respond-async; foo="a, wait=9"'], Preferences(None, respond_async=True)),
        (["respond-async, wait=10"], Preferences(10, respond_async=True)),
        (["respond-async; wait=10"], Preferences(10, respond_async=True)),
        (["wait=10", "respond-async"], Preferences(10, respond_async=True)),
        (['WAIT = "2"'], Preferences(2)),
        (["wait=2, wait=5"], Preferences(2)),
        (["wait=0"], Preferences(0)),
        (["wait=123456789"], Preferences(123456)),
        (["wait"], Preferences()),
        (["wait=soon"], Preferences()),
        (["wait=-1"], Preferences()),
        (["wait=²"], Preferences()),
        (["await=2, no-respond-async, respond-asynchronously"], Preferences()),
    ],
)
def test_is_read_from_all_lines(lines: list[str], preferred: Preferences) -> None:
    assert Preferences.of(lines) == preferred


@pytest.mark.parametrize(
    ("preferred", "waited", "responded_async", "applied"),
    [
        (Preferences(10, respond_async=True), True, True, "respond-async, wait=10"),
        (Preferences(10, respond_async=True), False, True, "respond-async"),
        (Preferences(10, respond_async=True), True, False, "wait=10"),
        (Preferences(10, respond_async=True), False, False, ""),
        (Preferences(), True, True, ""),
    ],
)
def test_is_said_to_be_applied_where_it_was(
    preferred: Preferences, waited: bool, responded_async: bool, applied: str
) -> None:
    assert preferred.applied(waited=waited, responded_async=responded_async) == applied
