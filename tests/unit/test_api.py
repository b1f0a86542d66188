"""Every case of the HTTP specification, through the function's handler, with events like those of the gateway."""

import json
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import EndpointConnectionError

import api
from idempotency.errors import Rejected, Retry
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.events import KEY, proxy_event
from tests.unit.service import JSON, SERVER, Api, restart
from tools.local.client import Answer

OTHER_KEY = "2a3d1d0e-5b36-4a4b-8a4f-0d0d1d0f8f4e"


class Provider:
    """Provides what it is told to.

    Args:
        outcomes: what each call raises, or None for a server; the last one repeats for ever.
    """

    def __init__(self, *outcomes: BaseException | None) -> None:
        self.calls = 0
        self._outcomes = outcomes

    def provision(self, server: object, operation: object) -> dict[str, str]:
        outcome = self._outcomes[min(self.calls, len(self._outcomes) - 1)]
        self.calls += 1
        if outcome is not None:
            raise outcome
        return {"status": "provisioned"}


def given_provider(
    monkeypatch: pytest.MonkeyPatch, *outcomes: BaseException | None, elsewhere: bool = True
) -> Provider:
    """A provider of servers, which are effects elsewhere, or no more than their rows."""
    provider = Provider(*outcomes or (None,))
    monkeypatch.setattr(api, "provider", lambda: provider)
    monkeypatch.setenv("SERVER_PROVIDER", "ec2" if elsewhere else "record")
    return provider


def same_response(first: Answer, second: Answer) -> bool:
    added = {name: values for name, values in second.headers.items() if name != "idempotent-replayed"}
    return (first.status, first.headers, first.body) == (second.status, added, second.body)


class TestAnEventMadeByHand:
    """As a test in the console or a script makes it: with only the single-value form of each header."""

    @staticmethod
    def made(headers: dict[str, str] | None) -> dict[str, Any]:
        event = proxy_event(
            "POST", "/v1/servers/provision", body=json.dumps(SERVER), authorizer={"principalId": "alice"}
        )
        return {**event, "headers": headers, "multiValueHeaders": None}

    def test_has_its_key_found(self, service: Api) -> None:
        event = self.made({"idempotency-key": KEY, "Content-Type": "application/json"})

        assert [service.call(event).replayed, service.call(event).replayed] == [False, True]

    def test_may_have_no_headers_at_all(self, service: Api) -> None:
        assert service.call(self.made(None)).problem == "key-missing"


class TestACustomDomain:
    def test_may_put_a_base_path_before_ours(self, service: Api) -> None:
        # Given events of a domain that maps /pay to the stage
        def send(method: str, path: str, resource: str, **event: Any) -> Answer:
            alice = {"principalId": "alice"}
            mapped = proxy_event(method, path, resource=resource, authorizer=alice, **event)
            mapped["requestContext"]["path"] = path
            return service.call(mapped)

        # When a server is provisioned, and shown where the answer says it is
        route = "/v1/servers/provision"
        headers = [JSON, ("Idempotency-Key", KEY)]
        first = send("POST", f"/pay{route}", route, headers=headers, body=json.dumps(SERVER))
        [location] = first.headers["location"]
        shown = send("GET", location, "/v1/servers/{id}")

        # Then it is found
        assert (first.status, shown.status) == (201, 200)
        assert location == f"/pay/v1/servers/{first.json['id']}"


class TestFirstRequest:
    def test_answers_the_operations_own_response(self, service: Api) -> None:
        answer = service.post()

        assert answer.status == 201
        server = answer.json
        assert server == {"id": server["id"], "region": "eu-west", "size": "large", "status": "provisioned"}
        assert UUID(server["id"].removeprefix("srv-")).version == 5
        assert answer.headers["location"] == [f"/dev/v1/servers/{server['id']}"]
        assert answer.headers["content-type"] == ["application/json"]
        assert not answer.replayed

    def test_stores_one_completed_record_and_one_row(self, service: Api, clock: SetClock) -> None:
        server = service.post().json

        [record], [row] = service.records, service.rows
        assert record["status"] == "COMPLETED"
        assert record["expires_at"] == clock.now() // 1000 + 86_400
        assert "recovery_shard" not in record
        assert "request" not in record
        assert row["resource"] == server
        assert (row["id"], row["principal"]) == (f"server#{server['id']}", "id:alice")
        assert row["operation_id"] == record["operation_id"]


class TestCompleted:
    @pytest.mark.parametrize("warm", [True, False], ids=["from the cache", "from the table"])
    def test_replays_status_headers_and_bytes(self, service: Api, warm: bool) -> None:
        first = service.post()
        if not warm:
            restart()

        second = service.post()

        assert second.replayed
        assert same_response(first, second)
        assert len(service.rows) == 1

    @pytest.mark.parametrize(
        "body",
        ['{"size":"large","region":"eu-west"}', '{ "region" : "eu-west",\n"size":"l\\u0061rge" }'],
        ids=["other order of members", "other spelling"],
    )
    def test_replays_for_the_same_json_however_it_is_written(self, service: Api, body: str) -> None:
        first = service.post()

        assert same_response(first, service.post(body))

    @pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY"])
    @pytest.mark.parametrize("value", [KEY, f'"{KEY}"', f" {KEY} "], ids=["bare", "quoted", "padded"])
    def test_replays_for_the_same_key_however_it_is_written(self, service: Api, name: str, value: str) -> None:
        first = service.post()

        assert same_response(first, service.post(key=None, headers=[JSON, (name, value)]))

    def test_past_its_time_to_live_the_key_is_free_again(self, service: Api, clock: SetClock) -> None:
        first = service.post()
        clock.advance(86_400)

        second = service.post()

        assert second.status == 201
        assert not second.replayed
        assert second.json["id"] != first.json["id"]
        assert len(service.rows) == 2
        assert len(service.records) == 1


class TestRunning:
    @pytest.fixture
    def killed(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> Provider:
        """An operation whose worker was killed in the middle, so that the key is claimed until its lease ends."""
        provider = given_provider(monkeypatch, Killed(), None)
        with pytest.raises(Killed):
            service.post()
        return provider

    @pytest.mark.parametrize(
        ("elapsed", "retry_after"),
        [(0, "1"), (0.4, "1"), (5, "5"), (14.5, "15"), (25, "5"), (29.5, "1")],
    )
    def test_answers_409_and_how_long_to_wait(
        self, service: Api, clock: SetClock, killed: Provider, elapsed: float, retry_after: str
    ) -> None:
        # The lease of a 28 s deadline and 2 s of clock skew ends at 30 s.
        clock.advance(elapsed)

        answer = service.post()

        assert (answer.status, answer.problem) == (409, "in-progress")
        assert answer.headers["retry-after"] == [retry_after]
        assert killed.calls == 1

    def test_is_taken_over_once_its_lease_has_ended(self, service: Api, clock: SetClock, killed: Provider) -> None:
        [before] = service.records
        clock.advance(30.001)

        answer = service.post()

        assert answer.status == 201
        [record] = service.records
        assert (before["attempt"], record["attempt"]) == (1, 2)
        assert record["operation_id"] == before["operation_id"]
        assert record["owner"] != before["owner"]
        assert killed.calls == 2

    def test_makes_a_duplicate_wait_as_long_as_the_client_prefers(
        self, service: Api, clock: SetClock, killed: Provider
    ) -> None:
        answer = service.post(headers=[JSON, ("Prefer", "wait=3")])

        assert (answer.status, answer.problem) == (409, "in-progress")
        assert sum(clock.sleeps) == 3_000

    def test_makes_a_duplicate_wait_no_longer_than_the_routes_limit(
        self, service: Api, clock: SetClock, killed: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IDEMPOTENCY_WAIT_LIMIT_SECONDS", "7")
        restart()

        assert service.post(headers=[JSON, ("Prefer", "wait=600")]).status == 409
        assert sum(clock.sleeps) == 7_000

    def test_makes_a_duplicate_wait_no_longer_than_the_function_has_time(
        self, service: Api, clock: SetClock, killed: Provider
    ) -> None:
        assert service.post(headers=[JSON, ("Prefer", "wait=15")], seconds=6).status == 409
        assert sum(clock.sleeps) == 5_000


class TestOtherRequest:
    @pytest.mark.parametrize("warm", [True, False], ids=["seen in the cache", "seen in the table"])
    def test_with_a_used_key_answers_422(self, service: Api, warm: bool) -> None:
        first = service.post()
        if not warm:
            restart()

        answer = service.post({"region": "eu-west", "size": "small"})

        assert (answer.status, answer.problem) == (422, "key-reused")
        assert len(service.rows) == 1
        assert same_response(first, service.post())

    def test_with_another_query_answers_422(self, service: Api) -> None:
        service.post()

        assert service.post(query=[("dry", "1")]).problem == "key-reused"

    def test_while_the_first_is_running_answers_422(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        given_provider(monkeypatch, Killed())
        with pytest.raises(Killed):
            service.post()

        assert service.post({"region": "eu-west", "size": "small"}).problem == "key-reused"


class TestKey:
    @pytest.mark.parametrize("key", [None, "", " ", '""'], ids=["absent", "empty", "blank", "empty string"])
    def test_missing(self, service: Api, key: str | None) -> None:
        answer = service.post(key=key)

        assert (answer.status, answer.problem) == (400, "key-missing")
        assert (service.records, service.rows) == ([], [])

    @pytest.mark.parametrize(
        "key",
        ["k" * 256, "a b", "a\nb", "a\r\nX: y", "ключ", "a\x7f", '"unclosed', '"a"; p=1', '"a","b"', '"a\\x"', '"a b"'],
    )
    def test_invalid(self, service: Api, key: str) -> None:
        answer = service.post(key=key)

        assert (answer.status, answer.problem) == (400, "key-invalid")
        assert (service.records, service.rows) == ([], [])

    @pytest.mark.parametrize("second", [KEY, OTHER_KEY], ids=["the same", "another"])
    def test_sent_twice(self, service: Api, second: str) -> None:
        answer = service.post(headers=[JSON, ("Idempotency-Key", second)])

        assert (answer.status, answer.problem) == (400, "key-invalid")
        assert service.records == []

    def test_sent_twice_in_different_spelling(self, service: Api) -> None:
        assert service.post(headers=[JSON, ("idempotency-key", OTHER_KEY)]).problem == "key-invalid"

    @pytest.mark.parametrize("key", ["k", "k" * 255, "!~", "a;b=c", '"q"', r'"a\"b"'])
    def test_valid(self, service: Api, key: str) -> None:
        assert service.post(key=key).status == 201

    def test_must_be_a_uuid_where_the_stack_says_so(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IDEMPOTENCY_KEY_FORMAT", "uuid")

        assert service.post(key="order-17").problem == "key-invalid"
        assert service.post(key=KEY).status == 201


class TestBody:
    @pytest.mark.parametrize(
        ("body", "errors"),
        [
            ({}, {"#/region": "is required", "#/size": "is required"}),
            ({"region": "mars", "size": "small"}, {"#/region": "must be one of"}),
            ({"region": "mars", "size": 7}, {"#/region": "must be one of", "#/size": "must be string"}),
            ({**SERVER, "colour": "red", "x": 1}, {"#/colour": "is not known here", "#/x": "is not known here"}),
            ({"size": None}, {"#/region": "is required", "#/size": "must be string"}),
            ([], {"#": "must be object"}),
            ("null", {"#": "must be object"}),
            ('"text"', {"#": "must be object"}),
        ],
    )
    def test_against_its_schema_has_one_entry_per_field(
        self, service: Api, body: object, errors: dict[str, str]
    ) -> None:
        answer = service.post(body)

        assert (answer.status, answer.problem) == (400, "body-invalid")
        found = {error["pointer"]: error["detail"] for error in answer.json["errors"]}
        assert len(answer.json["errors"]) == len(found)
        assert found.keys() == errors.keys()
        assert all(found[pointer].startswith(detail) for pointer, detail in errors.items()), found
        assert (service.records, service.rows) == ([], [])

    @pytest.mark.parametrize(
        "body",
        [
            None,
            "",
            "{",
            '{"region":"eu-west","size":"large"}}',
            '{"region":"eu-west","size":"large","size":"large"}',
            '{"region":NaN,"size":"large"}',
            '{"region":-Infinity,"size":"large"}',
            '{"region":1e400,"size":"large"}',
            '{"region":' + "9" * 5_000 + ',"size":"large"}',
            '{"region":9007199254740992,"size":"large"}',
            "[" * 10_000,
            '{"region":"\\ud800","size":"large"}',
            "\ufeff{}",
            b'{"region":"\xff","size":"large"}',
            '{"region":"eu-west","size":"large"}'.encode("utf-16"),
        ],
        ids=[
            "absent",
            "empty",
            "cut off",
            "trailing bracket",
            "member twice",
            "NaN",
            "infinity",
            "overflow",
            "5,000 digits",
            "2^53",
            "10,000 brackets",
            "lone surrogate",
            "byte order mark",
            "Latin-1",
            "UTF-16",
        ],
    )
    def test_that_is_not_i_json(self, service: Api, body: str | bytes | None) -> None:
        answer = service.post(body)

        assert (answer.status, answer.problem) == (400, "body-invalid")
        assert answer.json["errors"] == []
        assert (service.records, service.rows) == ([], [])

    def test_of_5_mb(self, service: Api) -> None:
        answer = service.post(json.dumps({**SERVER, "padding": "x" * 5_000_000}))

        assert (answer.status, answer.problem) == (413, "body-too-large")
        assert service.records == []

    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "json"]
    )
    def test_that_is_not_declared_as_json(self, service: Api, content_type: str | None) -> None:
        answer = service.post(headers=[("Content-Type", content_type)] if content_type is not None else [])

        assert (answer.status, answer.problem) == (415, "unsupported-media-type")
        assert service.records == []

    @pytest.mark.parametrize(
        "content_type",
        ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.example+json"],
    )
    def test_in_any_spelling_of_json(self, service: Api, content_type: str) -> None:
        assert service.post(headers=[("content-type", content_type)]).status == 201

    def test_that_is_bad_leaves_the_key_free(self, service: Api) -> None:
        service.post({})

        assert service.post().status == 201


class TestFailure:
    def test_for_now_answers_503_and_a_retry_resumes(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        provider = given_provider(monkeypatch, Retry("No capacity.", retry_after=7), None)

        first = service.post()
        [released] = service.records
        second = service.post()

        assert (first.status, first.problem, first.headers["retry-after"]) == (503, "unavailable", ["7"])
        assert (released["status"], "response" in released) == ("RELEASED", False)
        assert (second.status, second.replayed) == (201, False)
        [completed] = service.records
        assert completed["operation_id"] == released["operation_id"]
        assert provider.calls == 2

    def test_for_now_of_an_atomic_operation_leaves_nothing(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        given_provider(monkeypatch, Retry("No capacity.", retry_after=7), None, elsewhere=False)

        first = service.post()
        assert (service.records, service.rows) == ([], [])
        second = service.post()

        assert (first.status, first.problem, first.headers["retry-after"]) == (503, "unavailable", ["7"])
        assert (second.status, second.replayed) == (201, False)

    def test_that_is_unexpected_answers_500_and_a_retry_resumes(
        self, service: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given_provider(monkeypatch, ZeroDivisionError("secret detail"), None)

        first = service.post()

        assert (first.status, first.problem) == (500, "internal-error")
        assert b"secret" not in first.body
        assert service.post().status == 201

    def test_for_good_is_stored_and_replayed(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        refused = Rejected("quota-exceeded", "No more servers.", status=403, title="Quota exceeded", limit=3)
        provider = given_provider(monkeypatch, refused, None)

        first, second = service.post(), service.post()

        assert (first.status, first.problem, first.json["limit"]) == (403, "quota-exceeded", 3)
        assert second.replayed
        assert same_response(first, second)
        assert provider.calls == 1
        assert service.rows == []

    def test_of_a_table_that_does_not_exist_is_not_temporary(
        self, service: Api, logs: StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IDEMPOTENCY_TABLE", "nowhere")
        restart()

        assert service.post().problem == "internal-error"
        assert "ResourceNotFoundException" in logs.getvalue()

    def test_to_reach_dynamodb_answers_503_and_runs_nothing(
        self, service: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider = given_provider(monkeypatch)

        def cut_off(**_: object) -> None:
            raise EndpointConnectionError(endpoint_url="https://dynamodb.eu-west-1.amazonaws.com")

        monkeypatch.setattr(api.dynamodb, "put_item", cut_off)

        answer = service.post()

        assert (answer.status, answer.problem) == (503, "unavailable")
        assert answer.headers["retry-after"] == ["1"]
        assert provider.calls == 0

    def test_for_lack_of_time_answers_503_and_runs_nothing(self, service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        provider = given_provider(monkeypatch)

        answer = service.post(seconds=3.9)

        assert (answer.status, answer.problem, answer.headers["retry-after"]) == (503, "unavailable", ["1"])
        assert (service.records, provider.calls) == ([], 0)


class TestPrincipal:
    def test_is_needed(self, service: Api) -> None:
        answer = service.post(principal=None)

        assert (answer.status, answer.problem) == (401, "unauthorized")
        assert service.records == []

    def test_has_keys_of_its_own(self, service: Api) -> None:
        alices, bobs = service.post(), service.post(principal="bob")

        assert (bobs.status, bobs.replayed) == (201, False)
        assert alices.json["id"] != bobs.json["id"]

    @pytest.mark.parametrize("header", ["Authorization", "X-Principal", "principalId"])
    def test_is_not_what_a_client_claims(self, service: Api, header: str) -> None:
        service.post()

        forged = service.post(principal="bob", headers=[JSON, (header, "alice")])

        assert not forged.replayed


class TestGet:
    def get(self, service: Api, id_: str, principal: str = "alice") -> Answer:
        return service.get(f"/v1/servers/{id_}", resource="/v1/servers/{id}", principal=principal)

    def test_shows_the_callers_own_server(self, service: Api) -> None:
        server = service.post().json

        answer = self.get(service, server["id"])

        assert (answer.status, answer.json) == (200, server)

    def test_hides_servers_of_others_as_if_there_were_none(self, service: Api) -> None:
        id_ = service.post().json["id"]

        foreign, unknown = self.get(service, id_, "bob"), self.get(service, "srv-0", "bob")

        assert (foreign.status, foreign.problem) == (unknown.status, unknown.problem) == (404, "not-found")
        assert foreign.body.replace(id_.encode(), b"srv-0") == unknown.body

    def test_needs_no_key_and_stores_none(self, service: Api) -> None:
        assert self.get(service, "srv-0").status == 404
        assert service.records == []


class TestUnknownEndpoint:
    @pytest.mark.parametrize(("method", "path"), [("POST", "/v1/nothing"), ("DELETE", "/v1/servers/provision")])
    def test_is_a_problem_too(self, service: Api, method: str, path: str) -> None:
        answer = service.call(proxy_event(method, path, authorizer={"principalId": "alice"}))

        assert (answer.status, answer.problem) == (404, "not-found")


class TestBrowsers:
    EXPOSED = "Idempotent-Replayed, Location, Preference-Applied, Retry-After"

    @pytest.mark.parametrize("origin", ["", "https://shop.example.com"])
    def test_of_an_origin_are_shown_each_answer_which_is_stored_without_it(
        self, service: Api, origin: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an answer that was stored for any origin
        first = service.post()

        # When the stack has one, or none
        monkeypatch.setenv("CORS_ORIGIN", origin)
        answers = [service.post(), service.post({})]

        # Then each answer says so, the stored one too
        assert "access-control-allow-origin" not in first.headers
        for answer in answers:
            assert answer.headers.get("access-control-allow-origin") == ([origin] if origin else None)
            assert answer.headers.get("access-control-expose-headers") == ([self.EXPOSED] if origin else None)
