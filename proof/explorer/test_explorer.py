"""The explorer finds what is wrong with protocols known to be wrong, and nothing wrong with one that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from proof.explorer.dynamodb import Table
from proof.explorer.explorer import exhaust, explain, replay, sample, shrink
from proof.explorer.sdk import Client
from proof.explorer.world import Actor, Budget, World

Protocol = Callable[[Client, World], str]
NAME = {"TableName": "locks", "Key": {"id": {"S": "lock"}}}


def check_then_act(client: Client, world: World) -> str:
    """Wrong: somebody else may take the lock between the look and the write."""
    if "Item" in client.get_item(**NAME):
        return "taken"
    client.update_item(**NAME)
    return "mine"


def conditional_write(client: Client, world: World) -> str:
    """Right without faults; wrong with one: it takes its own lost write for somebody else's."""
    try:
        client.update_item(**NAME, ConditionExpression="attribute_not_exists(id)")
    except ClientError:
        return "taken"
    return "mine"


def conditional_write_with_token(client: Client, world: World) -> str:
    """Right: a write that meets its own token was carried out before."""
    token = {"S": str(world.uuid())}
    try:
        client.update_item(
            **NAME,
            UpdateExpression="SET holder = :token",
            ConditionExpression="attribute_not_exists(id) OR holder = :token",
            ExpressionAttributeValues={":token": token},
        )
    except ClientError:
        return "taken"
    return "mine"


def lease(client: Client, world: World) -> str:
    """Wrong: the holder goes on after its lease has ended."""
    now = world.read_clock()
    try:
        client.update_item(
            **NAME,
            UpdateExpression="SET until = :until",
            ConditionExpression="attribute_not_exists(id) OR until < :now",
            ExpressionAttributeValues={":until": {"N": str(now + 1000)}, ":now": {"N": str(now)}},
        )
    except ClientError:
        return "taken"
    world.facts.append("holds")
    client.get_item(**NAME)
    if len(world.facts) > 1:
        world.violate(2, "two holders at once")
    world.facts.remove("holds")
    return "mine"


def world_of(protocol: Protocol, *, faults: int = 0, jumps: int = 0, actors: str = "AB") -> Callable[[], World]:
    """Actors that want one lock, of whom exactly one may get it."""

    def answered(world: World, actor: Actor) -> None:
        winners = [other for other in world.actors.values() if other.answer == "mine"]
        if len(winners) > 1 and protocol is not lease:
            world.violate(1, "two got the lock")
        if all(other.answer == "taken" for other in world.actors.values()):
            world.violate(5, "nobody got the lock")

    def attempt(world: World) -> str:
        try:
            return protocol(Client(world), world)
        except BotoCoreError:
            return "unknown"

    def build() -> World:
        world = World(
            {"locks": Table("id")},
            Budget(faults, jumps),
            instants=lambda where: [
                int(item["until"]["N"]) + 1 for item in where.database.tables["locks"].items.values()
            ],
            answered=answered,
        )
        for name in actors:
            world.spawn(name, lambda: attempt(world), may_crash=False)
        return world

    return build


def test_race_is_found() -> None:
    report = exhaust(world_of(check_then_act))
    assert [failure.violation.invariant for failure in report.failures] == [1]


def test_race_needs_more_than_one_actor() -> None:
    report = exhaust(world_of(check_then_act, actors="A"))
    assert report.exhausted
    assert not report.failures


@pytest.mark.parametrize(("faults", "found"), [(0, []), (1, [5])])
def test_lost_answer_is_found_only_where_answers_get_lost(faults: int, found: list[int]) -> None:
    report = exhaust(world_of(conditional_write, faults=faults, actors="A"))
    assert [failure.violation.invariant for failure in report.failures] == found


def test_end_of_a_lease_is_found_only_where_time_passes() -> None:
    assert not exhaust(world_of(lease)).failures
    assert exhaust(world_of(lease, jumps=1)).failures[0].violation.invariant == 2


def test_right_protocol_passes_every_schedule() -> None:
    report = exhaust(world_of(conditional_write_with_token, actors="ABC"))
    assert report.exhausted
    assert not report.failures
    assert report.schedules > 10
    assert "0 violations" in str(report)


def test_states_met_before_are_not_searched_again() -> None:
    report = exhaust(world_of(conditional_write_with_token, actors="ABCD"))
    assert report.merged > report.schedules / 2
    assert report.schedules < 4 * 3 * 2 * 2**4


def test_failure_is_replayed_and_explained() -> None:
    build = world_of(check_then_act, faults=2)
    failure = exhaust(build).failures[0]
    again, events = replay(build, failure.replay)
    assert again is not None
    assert str(again.violation) == str(failure.violation)
    assert [event.actor for event in events if "✓" in event.text] != []
    story = explain(build, failure)
    assert "two got the lock" in story
    assert f"replay: {shrink(build, failure).replay}" in story


def test_shrunk_failure_has_no_needless_fault() -> None:
    build = world_of(check_then_act, faults=2)
    random = sample(build, seed=1, schedules=500).failures[0]
    smallest = shrink(build, random)
    assert not [label for label in smallest.schedule if ":" in label]
    assert len(smallest.schedule) <= len(random.schedule)


def test_random_search_is_the_same_for_the_same_seed() -> None:
    build = world_of(conditional_write_with_token, actors="ABCD")
    first, second, other = (sample(build, seed=seed, schedules=200) for seed in (7, 7, 8))
    assert (first.schedules, first.states, first.points) == (second.schedules, second.states, second.points)
    assert first.schedules > 100
    assert other.schedules != first.schedules
