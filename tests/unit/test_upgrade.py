"""Operations that earlier versions left unfinished: `records/VERSION.json` has exactly what these versions wrote.

There are three stories: a sample cut off after its part was made, one that was released there, and one that is being
undone. (`tests.sample` was put next to the code of that version, and written down by it.)
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clocks import SetClock
from tests.sample import NAME, Samples

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RECORDS = Path(__file__).parent / "records"
VERSIONS = sorted(path.stem for path in RECORDS.glob("*.json"))


def binary(members: dict[str, Any]) -> Any:
    """Read bytes back from JSON."""
    return base64.b64decode(members["__b"]) if members.keys() == {"__b"} else members


@pytest.fixture(params=VERSIONS)
def leave(samples: Samples, dynamodb: DynamoDBClient, clock: SetClock, request: pytest.FixtureRequest) -> Any:
    """Function that restores what a version left of a story, and lets its lease lapse."""
    stories = json.loads((RECORDS / f"{request.param}.json").read_text(), object_hook=binary)

    def put_back(story: str) -> Samples:
        left = stories[story]
        for table, items in (("IdempotencyTable", left["records"]), ("ResourcesTable", left["rows"])):
            for item in items:
                dynamodb.put_item(TableName=table, Item=item)
        samples.service.parts = left["parts"]
        clock.time = left["now"] + 60_000
        return samples

    return put_back


@pytest.mark.parametrize("story", ["abandoned", "released"])
def test_what_was_begun_is_finished(leave: Any, story: str) -> None:
    samples: Samples = leave(story)

    assert samples.recover() == {"taken_up": 1, "completed": 1}

    assert [call for call, _ in samples.service.calls] == ["label"], "the part is there already"
    assert (samples.labels, samples.names) == ([NAME], [NAME])


def test_what_was_being_undone_is_undone(leave: Any) -> None:
    samples: Samples = leave("undoing")

    assert samples.recover() == {"taken_up": 1, "completed": 1}

    assert [call for call, _ in samples.service.calls] == ["remove"]
    assert samples.nothing_is_left()
