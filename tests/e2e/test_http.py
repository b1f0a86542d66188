"""Every case of the HTTP specification that a target can show, with the same assertions for all targets."""

import json
from uuid import UUID, uuid4

import pytest

from idempotency.policy import KEPT_HEADERS
from tests.e2e.targets import JSON, PROVISION, SERVER, Target, Trait
from tools.local.client import Answer

# The function's timeout on the local stack, plus two seconds for clock skew.
LEASE_SECONDS = 12


def kept(answer: Answer) -> dict[str, list[str]]:
    return {name: values for name, values in answer.headers.items() if name in KEPT_HEADERS}


def assert_replayed(first: Answer, second: Answer) -> None:
    assert second.replayed
    assert not first.replayed
    assert (second.status, kept(second), second.body) == (first.status, kept(first), first.body)


class TestFirstRequest:
    def test_is_answered_with_the_server_and_where_it_is(self, target: Target, key: str) -> None:
        answer = target.post(key)

        assert answer.status == 201
        server = answer.json
        assert (server["region"], server["size"]) == ("eu-west", "large")
        assert UUID(server["id"].removeprefix("srv-")).version == 5
        assert not answer.replayed
        [location] = answer.headers["location"]
        assert location.endswith(f"/v1/servers/{server['id']}")
        shown = target.get(f"/v1/servers/{server['id']}")
        assert (shown.status, shown.json) == (200, server)


class TestCompleted:
    @pytest.mark.parametrize("spelling", ["{}", '"{}"'], ids=["bare", "quoted"])
    def test_is_replayed_byte_for_byte(self, target: Target, key: str, spelling: str) -> None:
        first = target.post(key)
        before = target.tables.ids()

        second = target.post(spelling.format(key))

        assert_replayed(first, second)
        assert target.tables.ids() == before

    def test_is_replayed_for_the_same_json_written_differently(self, target: Target, key: str) -> None:
        first = target.post(key)

        assert_replayed(first, target.post(key, '{ "size": "l\\u0061rge",\n"region": "eu-west" }'))

    def test_is_replayed_if_it_was_a_refusal(self, target: Target, key: str) -> None:
        first = target.probe(key, "refuse", "answer")

        assert (first.status, first.problem) == (403, "probe-refused")
        assert_replayed(first, target.probe(key, "refuse", "answer"))


class TestRunning:
    def test_answers_409_until_its_lease_ends_and_is_then_taken_over(self, target: Target, key: str) -> None:
        before = target.tables.ids()
        assert target.probe(key, "die", "answer").status in {500, 502}

        running = target.probe(key, "die", "answer")
        waited = target.probe(key, "die", "answer", headers=[JSON, ("Prefer", "wait=1")])
        target.sleep(LEASE_SECONDS)
        taken_over = target.probe(key, "die", "answer")

        for answer in (running, waited):
            assert (answer.status, answer.problem) == (409, "in-progress")
            [seconds] = answer.headers["retry-after"]
            assert 1 <= int(seconds) <= LEASE_SECONDS
        assert (taken_over.status, taken_over.json["attempt"]) == (201, 2)
        assert len(target.tables.ids() - before) == 2, "one record and one row"
        assert_replayed(taken_over, target.probe(key, "die", "answer"))


class TestOtherRequest:
    def test_with_a_used_key_answers_422(self, target: Target, key: str) -> None:
        first = target.post(key)

        answer = target.post(key, {"region": "eu-west", "size": "small"})

        assert (answer.status, answer.problem) == (422, "key-reused")
        assert_replayed(first, target.post(key))

    def test_on_another_route_has_keys_of_its_own(self, target: Target, key: str) -> None:
        target.post(key)

        answer = target.probe(key, "answer")

        assert (answer.status, answer.replayed) == (201, False)


class TestFailure:
    def test_for_now_answers_503_and_a_retry_resumes(self, target: Target, key: str) -> None:
        first = target.probe(key, "retry", "answer")
        second = target.probe(key, "retry", "answer")

        assert (first.status, first.problem, first.headers["retry-after"]) == (503, "unavailable", ["2"])
        assert (second.status, second.json["attempt"], second.replayed) == (201, 2, False)

    def test_that_is_unexpected_answers_500_and_a_retry_resumes(self, target: Target, key: str) -> None:
        first = target.probe(key, "fail", "answer")
        second = target.probe(key, "fail", "answer")

        assert (first.status, first.problem) == (500, "internal-error")
        assert b"no client may see" not in first.body
        assert (second.status, second.json["attempt"]) == (201, 2)


class TestResponse:
    @pytest.mark.parametrize("size", [0, 4_100_000], ids=["small", "5.5 MB"])
    def test_of_json_is_replayed_byte_for_byte(self, target: Target, key: str, size: int) -> None:
        first = target.probe(key, "answer", size=size)

        assert first.status == 201
        assert len(first.body) > size * 4 // 3
        assert first.json["text"].endswith("é漢🙂")
        assert_replayed(first, target.probe(key, "answer", size=size))

    @pytest.mark.parametrize("accept", ["image/png", "*/*", "application/json, */*", None])
    def test_of_a_1_mb_png_is_replayed_byte_for_byte(self, target: Target, key: str, accept: str | None) -> None:
        if not accept:
            target.needs(Trait.DEFAULT_FOR_ACCEPT)
        how = {"size": 1_000_000, "media_type": "image/png"}
        headers = [JSON, *([("Accept", accept)] if accept else [])]

        first = target.probe(key, "answer", headers=headers, **how)

        assert (first.status, first.headers["content-type"]) == (201, ["image/png"])
        assert first.body.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(first.body) == 1_000_008
        assert_replayed(first, target.probe(key, "answer", headers=headers, **how))


class TestKey:
    @pytest.mark.parametrize(
        ("key", "slug"),
        [
            (None, "key-missing"),
            ("", "key-missing"),
            ("k" * 256, "key-invalid"),
            ("a\r\n b", "key-invalid"),
            ("ключ", "key-invalid"),
            ('"unclosed', "key-invalid"),
            ('"a", "b"', "key-invalid"),
        ],
        ids=["absent", "empty", "256 characters", "folded", "not ASCII", "half quoted", "two in one"],
    )
    def test_that_is_invalid_is_refused(self, target: Target, key: str | None, slug: str) -> None:
        before = target.tables.ids()

        answer = target.post(key)

        assert (answer.status, answer.problem) == (400, slug)
        assert target.tables.ids() == before

    def test_with_a_line_break_is_refused(self, target: Target) -> None:
        # A server may refuse this as invalid HTTP by itself, so the answer need not be a problem.
        target.needs(Trait.EVERY_HEADER)
        before = target.tables.ids()

        assert target.post("a\nb").status == 400
        assert target.tables.ids() == before

    @pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key"])
    def test_that_is_sent_twice_is_refused(self, target: Target, key: str, name: str) -> None:
        target.needs(Trait.EVERY_HEADER)
        before = target.tables.ids()

        answer = target.post(key, headers=[JSON, (name, str(uuid4()))])

        assert (answer.status, answer.problem) == (400, "key-invalid")
        assert target.tables.ids() == before

    def test_of_255_characters_is_accepted(self, target: Target, key: str) -> None:
        assert target.post(key.ljust(255, "!")).status == 201


class TestBody:
    @pytest.mark.parametrize(
        ("body", "slug", "status"),
        [
            ("", "body-invalid", 400),
            ("{", "body-invalid", 400),
            ({"region": "mars"}, "body-invalid", 400),
            ('{"region": "eu-west", "size": "small", "size": "large"}', "body-invalid", 400),
            ('{"region": "eu-west", "size": NaN}', "body-invalid", 400),
            ("[" * 15_000, "body-invalid", 400),
            (json.dumps(SERVER) + " " * 4_000_000, "body-too-large", 413),
        ],
        ids=["empty", "cut off", "against its schema", "member twice", "NaN", "15,000 deep", "4 MB"],
    )
    def test_that_is_bad_is_refused_and_leaves_the_key_free(
        self, target: Target, key: str, body: object, slug: str, status: int
    ) -> None:
        before = target.tables.ids()

        answer = target.post(key, body)

        assert (answer.status, answer.problem) == (status, slug)
        assert target.tables.ids() == before
        assert target.post(key).status == 201

    @pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
    def test_that_is_not_declared_as_json_is_refused(self, target: Target, key: str, content_type: str) -> None:
        before = target.tables.ids()

        answer = target.post(key, headers=[("Content-Type", content_type)])

        assert (answer.status, answer.problem) == (415, "unsupported-media-type")
        assert target.tables.ids() == before

    def test_has_one_entry_for_each_wrong_field(self, target: Target, key: str) -> None:
        answer = target.post(key, {"size": 7, "colour": "red"})

        wrong = set() if Trait.MODELS in target.traits else {"#/region", "#/size", "#/colour"}
        assert {error["pointer"] for error in answer.json["errors"]} == wrong


class TestPrincipal:
    def test_has_keys_and_servers_of_its_own(self, target: Target, key: str) -> None:
        alices, bobs = target.post(key), target.post(key, principal="bob")

        assert (bobs.status, bobs.replayed) == (201, False)
        assert alices.json["id"] != bobs.json["id"]
        hidden = target.get(f"/v1/servers/{alices.json['id']}", principal="bob")
        assert (hidden.status, hidden.problem) == (404, "not-found")
        assert b"region" not in hidden.body

    def test_is_required(self, target: Target, key: str) -> None:
        before = target.tables.ids()

        answer = target.send("POST", PROVISION, [JSON, ("Idempotency-Key", key)], b"{}")

        assert answer.status == 401
        if Trait.GATEWAY_RESPONSES in target.traits:
            assert answer.problem == "unauthorized"
        assert target.tables.ids() == before

    def test_requires_a_token_that_was_issued(self, target: Target, key: str) -> None:
        target.needs(Trait.AUTHORIZER)
        before = target.tables.ids()
        forged = ("Authorization", "Bearer " + "x" * 43)

        answer = target.send("POST", PROVISION, [forged, JSON, ("Idempotency-Key", key)], b"{}")

        assert answer.status == 403
        if Trait.GATEWAY_RESPONSES in target.traits:
            assert answer.problem == "forbidden"
        assert target.tables.ids() == before

    @pytest.mark.parametrize("header", ["X-Principal", "principalId", "X-Amz-Principal"])
    def test_is_not_what_a_client_claims(self, target: Target, key: str, header: str) -> None:
        target.post(key)

        assert not target.post(key, principal="bob", headers=[JSON, (header, "alice")]).replayed


class TestUnknownEndpoint:
    def test_is_a_problem_too(self, target: Target) -> None:
        target.needs(Trait.GATEWAY_RESPONSES)

        answer = target.send("GET", "/v1/nothing")

        assert (answer.status, answer.problem) == (404, "not-found")

    def test_does_not_repeat_a_token(self, target: Target) -> None:
        target.needs(Trait.GATEWAY_RESPONSES)

        answer = target.get("/v1/nothing")

        assert (answer.status, answer.problem) == (403, "gateway-error")
        assert target.tokens["alice"].encode() not in answer.body
