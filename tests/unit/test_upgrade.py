"""Operations that earlier versions left unfinished: `records/VERSION.json` has exactly what these versions wrote.

There are three stories: a campaign cut off after its landing page, one that was released there, and one that is being
undone.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clocks import SetClock
from tests.unit.campaigns import DOMAIN, Campaigns
from tools.local.myfunnel import Funnel

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RECORDS = Path(__file__).parent / "records"
VERSIONS = sorted(path.stem for path in RECORDS.glob("*.json"))


def binary(members: dict[str, Any]) -> Any:
    """Read bytes back from JSON."""
    return base64.b64decode(members["__b"]) if members.keys() == {"__b"} else members


@pytest.fixture(params=VERSIONS)
def leave(campaigns: Campaigns, dynamodb: DynamoDBClient, clock: SetClock, request: pytest.FixtureRequest) -> Any:
    """Function that restores what a version left of a story, and lets its lease lapse."""
    stories = json.loads((RECORDS / f"{request.param}.json").read_text(), object_hook=binary)

    def put_back(story: str) -> Campaigns:
        left = stories[story]
        for table, items in (("IdempotencyTable", left["records"]), ("ResourcesTable", left["rows"])):
            for item in items:
                dynamodb.put_item(TableName=table, Item=item)
        for funnel in left["funnels"]:
            campaigns.myfunnel.funnels[funnel["id"]] = Funnel(**funnel)
        clock.time = left["now"] + 60_000
        return campaigns

    return put_back


@pytest.mark.parametrize("story", ["abandoned", "released"])
def test_what_was_begun_is_finished(leave: Any, story: str) -> None:
    campaigns: Campaigns = leave(story)

    assert campaigns.recover() == {"taken_up": 1, "completed": 1}

    assert campaigns.myfunnel.calls == [], "the landing page is there already"
    assert (campaigns.funnels, list(campaigns.routes), campaigns.domains) == (["fnl-1"], [DOMAIN], [DOMAIN])


def test_what_was_being_undone_is_undone(leave: Any) -> None:
    campaigns: Campaigns = leave("undoing")

    assert campaigns.recover() == {"taken_up": 1, "completed": 1}

    assert [call.method for call in campaigns.myfunnel.calls] == ["DELETE"]
    assert (campaigns.funnels, campaigns.routes, campaigns.domains) == ([], {}, [])
