# example campaigns
"""A minute of chaos."""

from pathlib import Path

import pytest

from proof.chaos.run import run

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.xdist_group("e2e")]

SECONDS = 60
SEED = 20260101


def test_a_minute_of_chaos_duplicates_changes_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        account = run(tmp_path, seconds=SECONDS, seed=SEED, progress=lambda told: print(f"    {told}", flush=True))

    assert account.violations == []
    assert account.keys >= 10
    assert all(number > 0 for number in account.went_wrong.values()), account.went_wrong
