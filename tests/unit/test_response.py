"""The response as it is stored: what is kept, what survives storage, and what cannot be kept."""

from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response
from hypothesis import given
from hypothesis import strategies as st

from idempotency.errors import NotStorable, Problem, Rejected, RowTaken
from idempotency.policy import KEPT_HEADERS, Policy
from idempotency.response import (
    _COMPRESS_FROM,
    _HEADERS_LIMIT,
    _LAMBDA_LIMIT,
    _SHORT_LIMIT,
    Completion,
    End,
    Row,
    StoredResponse,
    Verdict,
)

MB = 1024 * 1024


def stored(body: Any, content_type: str = "application/json", **headers: str | list[str]) -> StoredResponse:
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return StoredResponse.of(Response(200, content_type, body, renamed), KEPT_HEADERS)


class TestWhatIsKept:
    @pytest.mark.parametrize(
        ("body", "kept", "text"),
        [
            (None, b"", True),
            ("", b"", True),
            ("é😀", "é😀".encode(), True),
            ("\ud800", b"\xed\xa0\x80", True),
            ('{"é":1}'.encode(), '{"é":1}'.encode(), True),
            ({"a": [1, "é"]}, b'{"a":[1,"\\u00e9"]}', True),
            ([], b"[]", True),
            (False, b"false", True),
        ],
    )
    def test_of_a_body_is_every_byte(self, body: Any, kept: bytes, text: bool) -> None:
        assert (stored(body).body, stored(body).text) == (kept, text)

    def test_of_a_binary_body_is_every_byte(self) -> None:
        response = stored(b"\x00\xff", "application/octet-stream")

        assert (response.body, response.text) == (b"\x00\xff", False)

    def test_of_bytes_that_claim_to_be_json_is_nothing(self) -> None:
        with pytest.raises(NotStorable, match="not JSON"):
            stored(b"\x00\xff")

    def test_of_the_headers_is_an_allow_list(self) -> None:
        response = stored(
            "{}",
            Location="/x",
            ETag='"1"',
            Link=["<a>", "<b>"],
            Set_Cookie="session=secret",
            X_Request_Id="1",
            Authorization="secret",
            Idempotent_Replayed="true",
            Date="now",
        )

        assert response.headers == {
            "Content-Type": ["application/json"],
            "Location": ["/x"],
            "ETag": ['"1"'],
            "Link": ["<a>", "<b>"],
        }

    def test_of_cookies_is_nothing(self) -> None:
        assert not {"set-cookie", "authorization"} & KEPT_HEADERS


class TestRoundTrip:
    @given(
        st.integers(200, 599),
        st.dictionaries(st.sampled_from(["Location", "ETag", "Link"]), st.lists(st.text(), min_size=1, max_size=3)),
        st.binary() | st.text().map(lambda text: text.encode()),
    )
    def test_preserves_any_response(self, status: int, headers: dict[str, list[str]], body: bytes) -> None:
        response = StoredResponse(status, headers, body, text=False)

        assert StoredResponse.unpack(*response.pack()) == response

    def test_compresses_where_that_saves_bytes(self) -> None:
        compressible, noise = b"provision once " * 1_000, Random(1).randbytes(5_000)

        for body, compressed in ((compressible, True), (noise, False), (b"a" * 100, False)):
            description, packed = StoredResponse(200, {}, body).pack()
            assert description["compressed"] is compressed
            assert (len(packed) < len(body)) is compressed
            assert StoredResponse.unpack(description, packed).body == body


class TestLimits:
    """Lambda returns at most 6 MB of JSON, in which a byte may take six characters, or four for three in base64."""

    @pytest.mark.parametrize(
        ("body", "fits"),
        [
            ("a" * (6 * MB - 17 * 1024), True),
            ("a" * 6 * MB, False),
            ("\x00" * (MB - 17 * 1024), True),
            ("\x00" * MB, False),
            ('"' * (3 * MB - 17 * 1024), True),
            ('"' * 3 * MB, False),
            (b"a" * (4 * MB + MB // 2 - 17 * 1024), True),
            (b"a" * (4 * MB + MB // 2), False),
        ],
        ids=lambda value: f"{len(value)} of {value[:1]!r}" if isinstance(value, str | bytes) else str(value),
    )
    def test_of_a_body(self, body: str | bytes, fits: bool) -> None:
        if fits:
            assert len(stored(body, "image/png").body) == len(body)
        else:
            with pytest.raises(NotStorable, match="beyond what Lambda can return"):
                stored(body, "image/png")

    def test_of_a_body_is_exact(self) -> None:
        longest = "a" * (_LAMBDA_LIMIT - len('""'))

        assert len(stored(longest).body) == len(longest)
        with pytest.raises(NotStorable, match="beyond what Lambda can return"):
            stored(longest + "a")

    def test_of_the_headers_is_exact(self) -> None:
        longest = "x" * (_HEADERS_LIMIT - len("LinkContent-Typetext/plain"))

        assert stored("", "text/plain", Link=longest).header("link") == longest
        with pytest.raises(NotStorable, match="headers"):
            stored("", "text/plain", Link=longest + "x")

    @pytest.mark.parametrize(("size", "short"), [(_SHORT_LIMIT, True), (_SHORT_LIMIT + 1, False)])
    def test_of_a_failure_that_is_kept_while_steps_are_undone(self, size: int, short: bool) -> None:
        response = StoredResponse(409, body=Random(1).randbytes(size), text=False)

        assert (response.shortened() == response) is short

    @pytest.mark.parametrize(("size", "compressed"), [(_COMPRESS_FROM - 1, False), (_COMPRESS_FROM, True)])
    def test_from_which_compression_pays(self, size: int, compressed: bool) -> None:
        description, body = StoredResponse(200, body=b"a" * size).pack()

        assert (description["compressed"], len(body) < size) == (compressed, compressed)

    def test_of_the_headers(self) -> None:
        with pytest.raises(NotStorable, match="headers"):
            stored("", Link=["x" * 5_000] * 3)

    @pytest.mark.parametrize("body", [object(), {"at": 1j}, [{1, 2}]])
    def test_of_what_json_can_express(self, body: Any) -> None:
        with pytest.raises(NotStorable, match="not JSON"):
            stored(body)


class TestVerdict:
    @pytest.mark.parametrize(
        ("status", "end"), [(399, End.COMPLETE), (400, End.FAIL), (409, End.FAIL), (500, End.RETRY), (503, End.RETRY)]
    )
    def test_depends_on_the_status(self, status: int, end: End) -> None:
        assert Verdict.of(Response(status, "text/plain", "x"), Policy()).end is end

    @pytest.mark.parametrize(("status", "shown"), [(201, 500), (399, 500), (400, 400), (409, 409)])
    def test_of_what_cannot_be_kept_has_the_status_of_a_failure(self, status: int, shown: int) -> None:
        verdict = Verdict.of(Response(status, "application/json", b"{\xff"), Policy())

        assert (verdict.response.status, b"response-not-stored" in verdict.response.body) == (shown, True)

    @pytest.mark.parametrize(
        ("conflict", "text"),
        [(Rejected("taken", "Taken.", status=409), "Rejected: Taken."), (None, "RowTaken: the row a belongs to")],
    )
    def test_of_a_taken_row_is_its_conflict_if_it_has_one(self, conflict: Rejected | None, text: str) -> None:
        taken = RowTaken(Row("table", {"id": "a"}, conflict))
        seen = []

        def show(error: Exception) -> Response[Any]:
            seen.append(error)
            return Response(409, "text/plain", "taken")

        verdict = Verdict.of_error(taken, Policy(), show)

        assert (seen, verdict.cause) == ([conflict or taken], taken)
        assert verdict.error.startswith(text)

    @pytest.mark.parametrize(("error", "told"), [("why", "ValueError: x (why)"), ("", "ValueError: x (HTTP 409)")])
    def test_that_could_not_be_settled_tells_both_reasons(self, error: str, told: str) -> None:
        verdict = Verdict(End.FAIL, StoredResponse(409), error=error)

        assert Verdict.unsettled(ValueError("x"), verdict).error == told

    def test_that_was_undone_keeps_the_rest_of_its_own_response_only(self) -> None:
        verdict = Verdict(End.FAIL, StoredResponse(409), unkept=Response(409))

        assert verdict.undone(StoredResponse(409)).unkept is verdict.unkept
        assert verdict.undone(StoredResponse(410)).unkept is None

    @pytest.mark.parametrize(
        ("status", "cause", "says_so"),
        [
            (409, Problem("x", "", status=409), True),
            (499, Problem("x", "", status=499), True),
            (500, Problem("x", "", status=500), False),
            (409, NotStorable("x"), False),
        ],
    )
    def test_is_a_steps_refusal_only_if_it_says_that_nothing_was_done(
        self, status: int, cause: Exception, says_so: bool
    ) -> None:
        assert Verdict(End.FAIL, StoredResponse(status), cause=cause).refusal is (cause if says_so else None)


def test_rows_are_rows() -> None:
    with pytest.raises(TypeError, match="rows are what"):
        Completion(201, rows=[{"id": "a"}])  # type: ignore[list-item]
