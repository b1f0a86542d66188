"""What a stack chooses by template parameters, what a route chooses, and which values contradict each other."""

from dataclasses import fields
from typing import Any

import pytest

from idempotency.policy import Policy, Settings, SettingsError
from tools.local import template


class TestSettings:
    @pytest.mark.parametrize(
        ("field", "parameter"),
        [
            ("ttl", "IdempotencyTtlSeconds"),
            ("wait_limit", "IdempotencyWaitLimitSeconds"),
            ("key_format", "IdempotencyKeyFormat"),
            ("cache_bytes", "IdempotencyCacheBytes"),
            ("timeout", "FunctionTimeoutSeconds"),
        ],
    )
    def test_have_the_defaults_of_the_template(self, field: str, parameter: str) -> None:
        assert getattr(Settings(), field) == template.load()["Parameters"][parameter]["Default"]

    def test_come_from_the_functions_environment(self) -> None:
        environment = {
            "IDEMPOTENCY_TTL_SECONDS": "60",
            "IDEMPOTENCY_WAIT_LIMIT_SECONDS": "7",
            "IDEMPOTENCY_KEY_FORMAT": "uuid",
            "IDEMPOTENCY_CACHE_BYTES": "0",
            "IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS": "10",
        }

        assert Settings.from_environment(environment) == Settings(
            ttl=60, wait_limit=7, key_format="uuid", cache_bytes=0, timeout=10
        )

    def test_are_read_from_variables_that_the_template_sets(self) -> None:
        variables = template.load()["Resources"]["ApiFunction"]["Properties"]["Environment"]["Variables"]
        named = {name for name in variables if name.startswith("IDEMPOTENCY_")} - {"IDEMPOTENCY_TABLE"}

        environment = {**dict.fromkeys(named, "99"), "IDEMPOTENCY_KEY_FORMAT": "uuid"}

        assert Settings.from_environment({**environment, "IDEMPOTENCY_FUNCTION_TIMEOUT_SECONDS": "20"}) == Settings(
            ttl=99, wait_limit=99, cache_bytes=99, timeout=20, key_format="uuid"
        )

    @pytest.mark.parametrize("value", ["a day", "", "-1", "1.5"])
    def test_that_are_not_numbers_are_refused_by_name(self, value: str) -> None:
        with pytest.raises(SettingsError, match=r"^IDEMPOTENCY_TTL_SECONDS is '.*', not a number$"):
            Settings.from_environment({"IDEMPOTENCY_TTL_SECONDS": value})

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"timeout": 4}, "timeout of 4 s leaves no attempt the 4 s that a step needs"),
            ({"ttl": 30, "unfinished_ttl": 20}, "an operation is kept for 30 s, and its lease runs for 30 s"),
            ({"ttl": 2}, "a response is kept for 2 s, and clocks may differ by 2 s"),
            ({"key_format": "guid"}, "keys are of format any or uuid, not 'guid'"),
        ],
    )
    def test_that_contradict_each_other_are_refused(self, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(SettingsError, match=complaint):
            Settings(**settings)

    @pytest.mark.parametrize(
        "settings",
        [{"timeout": 5}, {"ttl": 3}, {"ttl": 31, "unfinished_ttl": 20}, {"ttl": 20, "unfinished_ttl": 31}],
    )
    def test_on_the_edge_are_accepted(self, settings: dict[str, Any]) -> None:
        Settings(**settings)

    @pytest.mark.parametrize(
        ("policy", "complaint"),
        [
            (Policy(lease=4), "the route's lease of 4 s leaves no attempt the 4 s that a step needs"),
            (Policy(ttl=0), "a response is kept for 0 s, and clocks may differ by 2 s"),
            (Policy(lease=29), "the route's lease of 29 s is longer than the function's timeout of 28 s"),
            (
                Policy(respond_async="late"),
                "a route that responds late by 202 must be recoverable, and have a principal",
            ),
            (Policy(respond_async="always", recoverable=True, anonymous=True), "responds always by 202 must be"),
        ],
    )
    def test_refuse_a_policy_that_contradicts_them(self, policy: Policy, complaint: str) -> None:
        with pytest.raises(SettingsError, match=complaint):
            Settings().check(policy)

    @pytest.mark.parametrize(
        "policy", [Policy(), Policy(lease=5), Policy(lease=28), Policy(respond_async="late", recoverable=True)]
    )
    def test_accept_a_policy_that_fits(self, policy: Policy) -> None:
        Settings().check(policy)

    def test_apply_where_a_policy_makes_no_choice(self) -> None:
        assert (Settings().ttl_of(Policy()), Settings().ttl_of(Policy(ttl=60))) == (24 * 3600, 60)

    @pytest.mark.parametrize("kind", [Policy, Settings])
    def test_are_all_documented(self, kind: Any) -> None:
        assert all(f"\n        {field.name}: " in (kind.__doc__ or "") for field in fields(kind))


class TestStores:
    def test_all_but_the_retryable_and_the_servers_failures(self) -> None:
        released = {status for status in range(200, 600) if not Policy().stores(status)}

        assert released == {408, 425, 429, *range(500, 600)}

    def test_the_servers_failures_too_where_the_route_says_so(self) -> None:
        released = {status for status in range(200, 600) if not Policy(store_5xx=True).stores(status)}

        assert released == {408, 425, 429}


def test_a_policy_is_atomic_or_recoverable() -> None:
    with pytest.raises(SettingsError, match=r"^an atomic operation leaves nothing to recover: .*$"):
        Policy(atomic=True, recoverable=True)


@pytest.mark.parametrize(("lease", "lapses"), [(None, 12), (5, 7), (20, 12)])
def test_a_lease_ends_with_the_attempt_or_sooner(lease: int | None, lapses: int) -> None:
    assert Settings(clock_skew=2).lease_until(1_000_000, 1_010_000, Policy(lease=lease)) == 1_000_000 + lapses * 1000


@pytest.mark.parametrize(
    ("policy", "asked", "responds"),
    [
        (Policy(recoverable=True), True, True),
        (Policy(recoverable=True), False, False),
        (Policy(recoverable=True, respond_async="always"), False, True),
        (Policy(recoverable=True, anonymous=True), True, False),
        (Policy(), True, False),
    ],
)
def test_a_route_responds_async_only_if_recovery_finishes_it(policy: Policy, asked: bool, responds: bool) -> None:
    assert policy.responds_async(asked=asked) is responds
