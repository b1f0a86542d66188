"""What the comparison says about a late worker, as tests; they run in the peers' environment: ``make test-peers``."""

from collections.abc import Iterator

import pytest

from proof.peers.behaviours import BEHAVIOURS, Behaviour, Verdict, judge
from proof.peers.libraries import idemkit, powertools, provision_once
from proof.peers.libraries.contract import Library
from tools.local import dynamodb_local

_BY_NAME = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
_POWERTOOLS = pytest.param(powertools.LIBRARY, id=f"powertools-{powertools.LIBRARY.version}")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with dynamodb_local.running() as server:
        yield server.endpoint_url


@pytest.mark.parametrize("behaviour", [pytest.param(behaviour, id=behaviour.name) for behaviour in BEHAVIOURS])
def test_ours_does_what_it_promises(behaviour: Behaviour, endpoint: str) -> None:
    verdict = judge(behaviour, provision_once.LIBRARY, endpoint)

    assert verdict.result == ("not promised" if behaviour.name in provision_once.LIBRARY.not_promised else "yes"), (
        verdict.reason
    )


@pytest.mark.parametrize("library", [_POWERTOOLS])
def test_first_worker_past_its_lease_second_commits_first_finishing_late_overwrites(
    library: Library, endpoint: str
) -> None:
    assert judge(_BY_NAME["late_success"], library, endpoint) == Verdict(
        "no", 'the client gets 201 {"run":1} instead of 201 {"run":2}'
    )


@pytest.mark.parametrize("library", [_POWERTOOLS])
def test_first_worker_finishing_late_with_a_failure_deletes_the_winners_record(library: Library, endpoint: str) -> None:
    assert judge(_BY_NAME["late_failure"], library, endpoint) == Verdict(
        "no", 'the client gets 201 {"run":3} instead of 201 {"run":2}'
    )


@pytest.mark.parametrize("name", ["late_success", "late_failure"])
@pytest.mark.parametrize("library", [pytest.param(idemkit.LIBRARY, id=f"idemkit-{idemkit.LIBRARY.version}")])
def test_a_fenced_peer_leaves_the_winners_record_alone(name: str, library: Library, endpoint: str) -> None:
    assert judge(_BY_NAME[name], library, endpoint) == Verdict("yes")
