"""What a stack may choose by its template's parameters."""

from dataclasses import fields

import pytest

from idempotency.policy import Policy
from tools.local import template


class TestDefaults:
    @pytest.mark.parametrize(
        ("field", "parameter"),
        [
            ("ttl", "IdempotencyTtlSeconds"),
            ("wait_limit", "IdempotencyWaitLimitSeconds"),
            ("key_format", "IdempotencyKeyFormat"),
        ],
    )
    def test_are_those_of_the_template(self, field: str, parameter: str) -> None:
        assert getattr(Policy(), field) == template.load()["Parameters"][parameter]["Default"]

    def test_come_from_the_functions_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IDEMPOTENCY_TTL_SECONDS", "60")
        monkeypatch.setenv("IDEMPOTENCY_WAIT_LIMIT_SECONDS", "7")
        monkeypatch.setenv("IDEMPOTENCY_KEY_FORMAT", "uuid")

        policy = Policy()

        assert (policy.ttl, policy.wait_limit, policy.key_format) == (60, 7, "uuid")

    def test_are_documented_each(self) -> None:
        assert all(f"\n        {field.name}: " in (Policy.__doc__ or "") for field in fields(Policy))


class TestStores:
    def test_all_but_the_retryable_and_the_servers_failures(self) -> None:
        released = {status for status in range(200, 600) if not Policy().stores(status)}

        assert released == {408, 425, 429, *range(500, 600)}

    def test_failures_of_the_server_too_where_the_route_says_so(self) -> None:
        released = {status for status in range(200, 600) if not Policy(store_5xx=True).stores(status)}

        assert released == {408, 425, 429}
