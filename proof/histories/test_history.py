"""The checker of histories finds what is wrong with each of these, and nothing if nothing is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from proof.histories.history import FINAL, NO_ANSWER, Exchange, check, digest, load, outcome, recording
from tools.local.client import Answer

BODY, OTHER_BODY = '{"size":"large"}', '{"size":"small"}'


def exchange(sent: float, answered: float, outcome: str = FINAL, **fields: object) -> Exchange:
    made = Exchange("alice", "/v1/servers/provision", "k", BODY, sent, answered, outcome, digest="first")
    return replace(made, **fields)  # type: ignore[arg-type]


RUN = exchange(0, 2)
REPLAY = exchange(3, 4, replayed=True)

GOOD = {
    "nothing": [],
    "a run": [RUN],
    "a run and replays": [RUN, REPLAY, exchange(1, 3, replayed=True)],
    "a duplicate while it runs": [RUN, exchange(1, 1.5, "in-progress")],
    "a duplicate that was sent before the completion, and answered after a replay": [
        RUN,
        exchange(1, 5, "in-progress"),
        exchange(1, 2, replayed=True),
    ],
    "another body": [RUN, exchange(1, 3, "key-reused", body=OTHER_BODY)],
    "another body alone, after one that was never answered": [
        exchange(0, 9, NO_ANSWER),
        exchange(1, 3, "key-reused", body=OTHER_BODY),
    ],
    "a lost answer, then a replay": [exchange(0, 1, NO_ANSWER), REPLAY],
    "a failure, then a run": [exchange(0, 1, "internal-error"), exchange(2, 3)],
    "unavailable before and after": [exchange(0, 1, "unavailable"), exchange(2, 3), exchange(4, 5, "unavailable")],
    "two keys": [RUN, exchange(0, 2, key="other", digest="second")],
    "one key of two principals": [RUN, exchange(0, 2, principal="bob", digest="second")],
}

BAD = {
    "two runs": ([RUN, exchange(3, 4)], "run again"),
    "another answer": ([RUN, replace(REPLAY, digest="second")], "different from the first answer"),
    "in progress after the answer": ([RUN, exchange(3, 4, "in-progress")], "not completed after its answer was seen"),
    "a failure after the answer": ([RUN, exchange(3, 4, "internal-error")], "not completed after its answer was seen"),
    "a run after a replay": ([exchange(0, 1, NO_ANSWER), REPLAY, exchange(5, 6)], "not completed after its answer"),
    "a replay without a first request": ([REPLAY], "nobody can have sent the request before"),
    "a replay before the run was sent": ([exchange(5, 6), REPLAY], "nobody can have sent the request before"),
    "in progress without a first request": ([exchange(0, 1, "in-progress")], "nobody can have sent the request before"),
    "another body is answered": ([RUN, replace(REPLAY, body=OTHER_BODY)], "answered, though it is a different request"),
    "another body waits": (
        [RUN, exchange(0, 1, "in-progress", body=OTHER_BODY)],
        "answered, though it is a different request",
    ),
    "the same body is refused": ([RUN, exchange(3, 4, "key-reused")], "refused as a different request"),
    "refused as different from a later one": (
        [exchange(0, 1, "key-reused", body=OTHER_BODY), exchange(2, 3)],
        "nobody can have sent the request before",
    ),
    "one answer to two keys": ([RUN, exchange(0, 2, key="other")], "one answer to several keys"),
    "one answer to two principals": ([RUN, exchange(0, 2, principal="bob")], "one answer to several keys"),
}


@pytest.mark.parametrize("exchanges", GOOD.values(), ids=GOOD.keys())
def test_explains(exchanges: list[Exchange]) -> None:
    assert check(exchanges) == []


@pytest.mark.parametrize(("exchanges", "reason"), BAD.values(), ids=BAD.keys())
def test_does_not_explain(exchanges: list[Exchange], reason: str) -> None:
    violations = check(exchanges)

    assert any(reason in violation for violation in violations), violations


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    with recording(tmp_path / "history.jsonl") as history:
        history.add(RUN)
        history.add(REPLAY)

    assert load(tmp_path / "history.jsonl") == [RUN, REPLAY]


def problem(status: int, slug: str) -> Answer:
    body = b'{"type":"https://docs.example/idempotency#%s"}' % slug.encode()
    return Answer(status, body, {"content-type": ["application/problem+json"]})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(201, b"{}", {"content-type": ["application/json"]}), FINAL),
        (Answer(502, b"{}", {"content-type": ["application/json"]}), "unavailable"),
        (problem(409, "in-progress"), "in-progress"),
        (problem(409, "server-terminated"), FINAL),
        (problem(422, "key-reused"), "key-reused"),
        (problem(503, "unavailable"), "unavailable"),
        (problem(500, "internal-error"), "internal-error"),
        (problem(500, "response-not-stored"), FINAL),
    ],
)
def test_tells_outcomes_apart(answer: Answer, expected: str) -> None:
    assert outcome(answer) == expected


def test_a_digest_covers_status_kept_headers_and_body() -> None:
    answer = Answer(201, b"{}", {"location": ["/a"], "date": ["today"]})

    assert digest(answer) == digest(replace(answer, headers={"location": ["/a"], "date": ["tomorrow"]}))
    assert digest(answer) not in {
        digest(replace(answer, status=200)),
        digest(replace(answer, headers={"location": ["/b"]})),
        digest(replace(answer, body=b"[]")),
    }
