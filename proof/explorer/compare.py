"""The peers and this project under the same explorer, written down.

    python -m proof.explorer.compare

Runs in the peers' environment, and writes docs/proof.md.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

from proof.explorer import peers, scenarios
from proof.explorer.explorer import Failure, exhaust, explain
from proof.explorer.peers import IDEMKIT, POWERTOOLS, Peer, PeerScenario
from proof.explorer.world import INVOCATION_LIFE_MS, World
from tools.setup import ROOT

PAGE = ROOT / "docs" / "proof.md"
BUDGETS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1))
MOST = 6_000
ANY_FAULT = ("two workers", "two principals", "two workers and two steps", "rollout of another body")
ANY_CODE = ("undone blindly", "falls back", "refused between steps", "steps at once, waited for")
"""Scenarios in which the database always answers, which leaves room for what other services answer."""
INVARIANTS = {
    1: "one result for all",
    2: "who lost the lease changes nothing",
    3: "a step runs once",
    4: "never stuck",
    5: "own lost write recognised",
    6: "nothing shared",
    7: "never unprotected",
    8: "nothing left behind in silence",
    9: "a deployment changes no answer",
}


@dataclass
class Column:
    """What one library was found to do.

    Args:
        title: the library, and how it was run.
        notes: invariant → why it does not promise it.
        schedules: how many schedules were run.
        found: invariant → the budget that broke it, and the story.
    """

    title: str
    notes: dict[int, str]
    schedules: int
    found: dict[int, tuple[str, str]]

    def cell(self, invariant: int) -> str:
        """What the table says of an invariant."""
        if invariant in self.notes:
            return "not promised" + (", breaks" if invariant in self.found else "")
        return f"**breaks** with {self.found[invariant][0]}" if invariant in self.found else "holds"


def explore(title: str, notes: dict[int, str], *worlds: Callable[[int, int], Callable[[], World]]) -> Column:
    """Look for the least that breaks each invariant."""
    column = Column(title, notes, 0, {})
    for faults, jumps in BUDGETS:
        for world in worlds:
            build = world(faults, jumps)
            report = exhaust(build, most=MOST, wanted=frozenset(INVARIANTS))
            column.schedules += report.schedules
            for failure in report.failures:
                invariant = failure.violation.invariant
                if invariant not in column.found:
                    column.found[invariant] = (_budget(faults, jumps), _story(build, failure))
        print(f"  {title}: {_budget(faults, jumps)}: {sorted(column.found) or 'nothing'} broken", flush=True)
    return column


def main() -> int:
    logging.disable(logging.CRITICAL)
    print("exploring …", flush=True)
    with peers.simulated():
        columns = [
            _peer(f"Powertools {version('aws-lambda-powertools')}", POWERTOOLS),
            _peer(
                f"Powertools {version('aws-lambda-powertools')}, worker outlives its timeout",
                replace(POWERTOOLS, life=INVOCATION_LIFE_MS),
            ),
            _peer(f"idemkit {version('idemkit')}", IDEMKIT),
        ]
    with scenarios.simulated():
        worlds = [scenarios.SCENARIOS[name].within for name in ANY_FAULT]
        deep = [partial(scenarios.SCENARIOS[name].within, reliable=True) for name in ANY_CODE]
        columns.append(explore("Provision Once", {}, *worlds, *deep))
    PAGE.write_text(_page(columns))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if columns[-1].found else 0


def _peer(title: str, peer: Peer) -> Column:
    def one(faults: int, jumps: int) -> PeerScenario:
        return PeerScenario(peer, ("alice", "alice"), faults, jumps)

    def two(faults: int, jumps: int) -> PeerScenario:
        return PeerScenario(peer, ("alice", "bob"), faults, jumps)

    def rollout(faults: int, jumps: int) -> PeerScenario:
        return PeerScenario(peer, ("alice", "alice"), faults, jumps, rollout=True)

    return explore(title, peer.not_promised, one, two, rollout)


def _budget(faults: int, jumps: int) -> str:
    parts = [f"{faults} fault{'s' * (faults > 1)}"] * (faults > 0) + ["the lease's end"] * (jumps > 0)
    return " and ".join(parts) or "no fault"


def _story(build: Callable[[], World], failure: Failure) -> str:
    return explain(build, failure)


def _page(columns: list[Column]) -> str:
    head = ["| invariant | " + " | ".join(column.title for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows = [
        f"| {number}. {name} | " + " | ".join(column.cell(number) for column in columns) + " |"
        for number, name in INVARIANTS.items()
    ]
    counts = "| schedules run | " + " | ".join(f"{column.schedules:,}" for column in columns) + " |"
    return PREFACE + "\n".join([*head, *rows, counts]) + "\n" + "".join(map(_details, columns))


def _details(column: Column) -> str:
    if not column.found and not column.notes:
        return ""
    parts = [f"\n## {column.title}\n"]
    parts += [f"\nNot promised ({number}): {note}\n" for number, note in column.notes.items()]
    for number, (budget, story) in sorted(column.found.items()):
        parts.append(f"\n### Invariant {number}: {budget}\n\n```text\n{story}\n```\n")
    return "".join(parts)


PREFACE = """# Proof

`proof/explorer/` runs the project's real door, lifecycle, steps and store in a simulated world, along every schedule. A
world has workers with one key, DynamoDB as it is documented (`test_conformance.py` holds the model against DynamoDB
Local, call by call), the SDK's retries, another service and the clock. Each call, each clock reading and each sleep is
a point at which any other worker may go on, and where the worker may crash; its answer may be lost, and the SDK sends
the request again; the request may land late, up to a minute after the SDK has given it up; DynamoDB may be out of
reach, throttle or hold the item in a transaction; the lease may end; the record may expire and be deleted, late as
DynamoDB does it; an index may show what was; a message of the queue may come in any order, late, twice or
never. After each schedule one undisturbed retry must finish the operation, and the next one replay it. The nine
invariants are the rows of the table below.

Business code comes in every kind there: it is refused, falls back, looks at the world between its steps, goes on after
an error, has steps in several threads, makes results that cannot be kept. A service that it calls may do what it is
asked and not answer, and refuse for good the next time. Each effect is accounted for as it stands in the service: when
its operation has failed, or succeeded by another way, it has been undone, or an operator was told before the answer
became final. Two versions of the code run over one table, as in a canary deployment and after a rollback: with a step
more, in another order, under another name, with another body, without the route, unable to read what the other stored.

Three things are beyond it, and beyond the promise. A process that outlives its timeout may act after its operation has
ended: Lambda ends it. A thread that its code does not wait for may not be reached again in a later attempt: the
operation is then parked, and says so. And of a step that only the other version has, cut off between its effect and its
checkpoint, nobody knows.

    make prove        runs all of this, with every third mutant, and sums it up: about two hours of two cores
    make test-proof   a bounded part of it, and that each invariant can fail: broken lifecycles are caught
    make peers        explores the peers as below, and writes this page
    make mutate       tries every mutant: about an hour of two cores

<!-- example campaigns -->
On the deployed campaigns alone:

    make chaos        kills, hangs and cuts what is deployed to the local cloud, and accounts for every key
    make heal-bench   measures how soon operations go on after an outage

<!-- end of example -->
A schedule that ends in a state met before is not searched on: it counts once. A violation is printed as a timeline with
the choices that replay it (`proof.explorer.explorer.replay`).

What a model cannot show is tried on the real functions. `proof/stateful/` walks at random through the API on DynamoDB
Local, hand in hand with a model of it. `proof/deployed/` kills the workers of the deployed stack at every call that
they make, and sends them dozens of duplicates at once. `proof/histories/` sends a load of duplicates, and a checker
decides whether one execution of each key explains every answer. `proof/mutants/` takes each condition, fence and
comparison out of `src/idempotency/`, one at a time, and expects a test to fail; what no test can tell from the original
stands in `survivors.py` with the reason.

## The peers under the same explorer

Powertools is used as its documentation says: `@idempotent` with the Lambda context, principal and key as the event key,
payload validation. Lambda cuts its workers off at their timeout; the second column shows what happens if one outlives
it, as with a paused sandbox or a clock that is off. idemkit is used through its HTTP engine with `scope` set; its
workers may outlive their lease, as those of any web server; its wait is shortened to a second. What a peer's
documentation does not promise is marked so, and not counted. A cell names the least that breaks an invariant.

"""

if __name__ == "__main__":
    sys.exit(main())
