"""The request: who sent it, what it is compared by, and how recovery gets it back."""

import json
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from hypothesis import example, given
from hypothesis import strategies as st

from idempotency import principal
from idempotency.errors import Problem
from idempotency.request import Request, StoredEvent, matched_path, path_parameters
from tests.events import proxy_event

JSON = ("Content-Type", "application/json")
OCTETS = ("Content-Type", "application/octet-stream")


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON names anything, but no lone surrogate is UTF-8.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def as_one_number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def request(body: str | bytes | None = "{}", header: tuple[str, str] = JSON, **event: Any) -> Request:
    return Request.from_event(
        APIGatewayProxyEvent(proxy_event("POST", "/v1/things", headers=[header], body=body, **event))
    )


def fingerprint(body: str | bytes | None = "{}", header: tuple[str, str] = JSON, **event: Any) -> str:
    return request(body, header, **event).fingerprint


class TestCanonicalForm:
    @given(_json)
    @example({"": [0, -1, 2**53 - 1, True, None, '\x7f\x01/"\\'], "\\u0041": {}})
    @example({"\ufb33": 1, "\U0001f600": 2})
    @example([1e16, 1e-7, 0.1])
    @example([1e16, 1])
    def test_is_that_of_rfc_8785(self, value: Any) -> None:
        body = json.dumps(value)

        assert request(body)._parsed.canonical == rfc8785.dumps(json.loads(body, parse_float=as_one_number))
        assert json.loads(request(body).normal.body) == value

    def test_has_a_double_beyond_the_integers_as_a_double(self) -> None:
        found = request("[9007199254740991.0, 9007199254740992.0]").json

        assert [(type(each), each) for each in found] == [(int, 2**53 - 1), (float, 2.0**53)]

    @pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740993", "NaN", "-Infinity"])
    def test_has_no_number_that_two_parsers_may_read_differently(self, number: str) -> None:
        with pytest.raises(Problem, match="not valid JSON"):
            _ = request(f'{{"n":{number}}}').fingerprint


class TestPrincipal:
    @pytest.mark.parametrize(
        ("authorizer", "caller", "expected"),
        [
            ({"principalId": "alice", "integrationLatency": 3}, None, "id:alice"),
            ({"claims": {"sub": "7d9c", "email": "a@example.com", "cognito:username": "al"}}, None, "sub:7d9c"),
            (None, "AIDACKCEVSQ6C2EXAMPLE", "iam:AIDACKCEVSQ6C2EXAMPLE"),
            (None, "AROADBQP57FF2AEXAMPLE:session-1", "iam:AROADBQP57FF2AEXAMPLE"),
            ({}, None, ""),
            (None, None, ""),
        ],
        ids=["Lambda", "Cognito", "IAM user", "IAM role", "authorizer without a principal", "nobody"],
    )
    def test_is_who_the_gateway_authenticated(
        self, authorizer: dict[str, Any] | None, caller: str | None, expected: str
    ) -> None:
        event = proxy_event("POST", "/v1/things", authorizer=authorizer, caller=caller)

        assert principal(APIGatewayProxyEvent(event)) == expected

    def test_is_the_same_in_every_session_of_a_role(self) -> None:
        tasks = [request(caller=f"AROADBQP57FF2AEXAMPLE:task-{number}") for number in (1, 2)]

        assert tasks[0].principal == tasks[1].principal

    def test_is_nobody_in_an_event_without_a_context(self) -> None:
        assert principal(APIGatewayProxyEvent({"headers": None})) == ""


class TestPath:
    def test_of_a_greedy_route_is_whole(self) -> None:
        files = proxy_event("POST", "/v1/files/2027/a.txt", resource="/v1/files/{name+}")
        files["pathParameters"] = {"name": "2027/a.txt"}

        assert Request.from_event(APIGatewayProxyEvent(files)).path == "/v1/files/2027/a.txt"

    def test_is_taken_from_the_event_if_there_is_no_context(self) -> None:
        event = {**proxy_event("POST", "/v1/things"), "requestContext": {}}
        found = Request.from_event(APIGatewayProxyEvent(event))

        assert (found.base_path, found.path) == ("", "/v1/things")

    @pytest.mark.parametrize(
        ("changes", "base_path"),
        [
            ({"requestContext": {}, "path": "/prod/v1/things"}, "/prod"),
            ({"requestContext": None}, ""),
            ({"requestContext": None, "path": None}, ""),
        ],
    )
    def test_of_an_event_made_by_hand_needs_no_context(self, changes: dict[str, Any], base_path: str) -> None:
        found = Request.from_event(APIGatewayProxyEvent({**proxy_event("POST", "/v1/things"), **changes}))

        assert (found.base_path, found.path) == (base_path, "/v1/things")

    def test_lacks_what_the_event_does_not_say(self) -> None:
        assert matched_path({"resource": "/v1/things/{id}", "pathParameters": None}) == "/v1/things/"

    @pytest.mark.parametrize(
        ("route", "path", "parameters"),
        [
            ("/v1/{a}/files/{b+}", "/v1/1/files/2/files/3", {"a": "1", "b": "2/files/3"}),
            ("/v1/{a}/files", "/v1/1/files", {"a": "1"}),
            ("/v1/{a}/files", "/v1/1/others", {}),
        ],
    )
    def test_gives_its_parameters_back(self, route: str, path: str, parameters: dict[str, str]) -> None:
        assert path_parameters(route, path) == parameters

    def test_may_be_sent_with_a_header_without_a_value(self) -> None:
        event = {**proxy_event("POST", "/v1/things"), "multiValueHeaders": None, "headers": {"Content-Type": None}}

        assert Request.from_event(APIGatewayProxyEvent(event)).content_type == ""


class TestFingerprint:
    def test_has_a_version_and_never_changes(self) -> None:
        # If the fingerprint changed, every retry in flight would get 422 on the day of the deployment.
        hashed = (
            b"\0\0\0\0\0\0\0\x04POST"
            b"\0\0\0\0\0\0\0\x0a/v1/things"
            b'\0\0\0\0\0\0\0\x0b[["x","1"]]'
            b'\0\0\0\0\0\0\0\x10{"a":"\xc3\xa9","b":1}'
        )

        assert fingerprint('{"b":1,"a":"é"}', query=[("x", "1")]) == f"1:{sha256(hashed).hexdigest()}"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"a":1,"b":2}', '{ "b" : 2,\r\n\t"a":1 }'),
            ('{"a":{"x":1,"y":2}}', '{"a":{"y":2,"x":1}}'),
            ('{"a":"\\u00e9\\/"}', '{"a":"é/"}'),
            ('"\\ud83d\\ude00"', '"😀"'),
            ("[1,1e2,-0]", "[1.0,100,0]"),
            ("333333333.33333329", "333333333.3333333"),
            ("1E30", "1000000000000000019884624838656.0"),
            ('{"\\u20ac":1,"\\r":2,"\\ufb33":3,"1":4,"😀":5}', '{"\\r":2,"1":4,"€":1,"😀":5,"\\ufb33":3}'),
        ],
        ids=["white space", "nested", "escapes", "surrogate pair", "numbers", "rounding", "exponent", "RFC 8785 3.2.3"],
    )
    def test_is_the_same_however_json_is_written(self, one: str, other: str) -> None:
        assert fingerprint(one) == fingerprint(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"a":1}', '{"a":2}'),
            ('{"a":1}', '{"a":"1"}'),
            ('{"a":1}', '{"a":true}'),
            ('{"a":null}', "{}"),
            ("[1,2]", "[2,1]"),
            ('"é"', '"e\\u0301"'),
            ('"a"', '"a "'),
            ("0.1", "0.10000000000000002"),
        ],
    )
    def test_differs_for_other_json(self, one: str, other: str) -> None:
        assert fingerprint(one) != fingerprint(other)

    @pytest.mark.parametrize("body", [b"", b"\x00\xff", '{"b": 1}'], ids=["empty", "binary", "text"])
    def test_of_other_media_types_covers_every_byte(self, body: str | bytes) -> None:
        longer = body + (b" " if isinstance(body, bytes) else " ")  # type: ignore[operator]

        assert fingerprint(body, OCTETS) == fingerprint(body, OCTETS)
        assert fingerprint(body, OCTETS) != fingerprint(longer, OCTETS)

    def test_tells_method_path_and_query_apart(self) -> None:
        # Given requests whose parts, joined together, are the same text
        requests = [
            Request("alice", "POST", "/r", path, "", query, "text/plain", body)
            for path, query, body in [
                ("/a", {}, b""),
                ("/a/", {}, b""),
                ("/a", {"b": ["c"]}, b""),
                ("/a", {"b": ["c", "d"]}, b""),
                ("/a", {"b": ["c"], "d": []}, b""),
                ("/a", {"bc": [""]}, b""),
                ("/a", {}, b"[]"),
            ]
        ]
        requests.append(Request("alice", "PUT", "/r", "/a", "", {}, "text/plain", b""))

        assert len({each.fingerprint for each in requests}) == len(requests)

    def test_does_not_depend_on_the_order_of_parameters_but_on_that_of_their_values(self) -> None:
        one = fingerprint(query=[("a", "1"), ("b", "2"), ("b", "3")])

        assert one == fingerprint(query=[("b", "2"), ("b", "3"), ("a", "1")])
        assert one != fingerprint(query=[("b", "3"), ("b", "2"), ("a", "1")])

    def test_does_not_depend_on_the_stage_or_the_principal(self) -> None:
        # The principal is part of the record's id instead.
        assert fingerprint(stage="dev") == fingerprint(stage="prod", authorizer={"principalId": "bob"})

    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé😀", max_size=3), inner, max_size=3),
        max_leaves=8,
    )

    @given(json_values, st.randoms(use_true_random=False))
    def test_is_the_same_for_any_spelling_and_order(self, value: Any, random: Any) -> None:
        def shuffled(value: Any) -> Any:
            match value:
                case dict():
                    members = [(name, shuffled(member)) for name, member in value.items()]
                    random.shuffle(members)
                    return dict(members)
                case list():
                    return [shuffled(member) for member in value]
            return value

        other = json.dumps(shuffled(value), ensure_ascii=random.choice([True, False]), indent=random.choice([None, 2]))

        assert fingerprint(json.dumps(value)) == fingerprint(other)

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "{",
            '{"a":1,"a":1}',
            '{"x":{"a":1,"\\u0061":2}}',
            "NaN",
            "[Infinity]",
            "1e999",
            "9007199254740992",
            "-9007199254740992",
            "9" * 10_000,
            "[" * 200_000,
            '{"a":' * 50_000,
            '"\\ud800"',
            '{"\\udfff":1}',
            b'"\xe9"',
        ],
    )
    def test_refuses_what_two_parsers_could_read_differently(self, body: str | bytes) -> None:
        with pytest.raises(Problem) as refused:
            _ = request(body).fingerprint

        assert (refused.value.slug, refused.value.status) == ("body-invalid", 400)


class TestPack:
    @pytest.mark.parametrize(
        ("body", "media_type"),
        [
            ("{}", "Application/JSON; charset=utf-8"),
            ('{"a":"é😀"}', "application/json"),
            ("", "text/plain"),
            (b"\x00\xff" * 5, "application/octet-stream"),
            (None, ""),
        ],
    )
    def test_survives_and_is_read_back_the_same_from_an_event(self, body: str | bytes | None, media_type: str) -> None:
        before = request(
            body,
            ("content-type", media_type),
            query=[("a", "1"), ("a", "é")],
            authorizer={"principalId": "alice"},
        )

        after = Request.unpack(before.pack())

        assert after == before
        assert Request.from_event(APIGatewayProxyEvent(StoredEvent(after))) == before

    def test_leaves_out_every_header_but_the_content_type(self) -> None:
        secret = request(header=("Authorization", "Bearer secret"))

        assert "secret" not in json.dumps(StoredEvent(Request.unpack(secret.pack())))

    def test_reads_what_precedes_the_path(self) -> None:
        assert request(stage="prod").base_path == "/prod"

    def test_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        packed = request().pack()

        monkeypatch.setattr("idempotency.request._PACKED_LIMIT", len(packed))
        assert request().pack() == packed

        monkeypatch.setattr("idempotency.request._PACKED_LIMIT", len(packed) - 1)
        with pytest.raises(Problem) as refused:
            request().pack()
        assert (refused.value.slug, refused.value.status) == ("body-too-large", 413)
