"""What a record says of its key, at each boundary of time."""

import pytest

from idempotency.record import PARKED_UNTIL, Status
from tests.record import RECORD

NOW = 1_000_000
LATER = NOW // 1000 + 1


@pytest.mark.parametrize(
    ("status", "lease_until", "expires_at", "claimable", "pausing"),
    [
        (Status.PROCESSING, NOW - 1, LATER, True, False),
        (Status.PROCESSING, NOW, LATER, False, False),
        (Status.RELEASED, NOW, LATER, True, False),
        (Status.RELEASED, NOW + 1, LATER, True, True),
        (Status.RELEASED, PARKED_UNTIL, LATER, True, False),
        (Status.COMPLETED, NOW - 1, LATER, False, False),
        (Status.COMPLETED, NOW - 1, NOW // 1000, True, False),
        (Status.PROCESSING, NOW + 1, NOW // 1000, True, False),
    ],
)
def test_is_claimable_or_pauses(
    status: Status, lease_until: int, expires_at: int, claimable: bool, pausing: bool
) -> None:
    record = RECORD._replace(status=status, lease_until=lease_until, expires_at=expires_at)

    assert (record.claimable(NOW), record.pausing(NOW)) == (claimable, pausing)


@pytest.mark.parametrize(("expires_at", "expired"), [(NOW // 1000, True), (LATER, False)])
def test_expires(expires_at: int, expired: bool) -> None:
    assert RECORD._replace(expires_at=expires_at).expired(NOW) is expired


@pytest.mark.parametrize(("lease_until", "parked"), [(PARKED_UNTIL - 1, False), (PARKED_UNTIL, True)])
def test_is_parked(lease_until: int, parked: bool) -> None:
    assert RECORD._replace(status=Status.RELEASED, lease_until=lease_until).parked is parked
