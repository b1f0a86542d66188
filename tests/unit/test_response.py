"""The response as it is stored: what is kept, what survives storage, and what cannot be kept."""

from random import Random
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response
from hypothesis import given
from hypothesis import strategies as st

from idempotency.errors import NotStorable
from idempotency.policy import KEPT_HEADERS
from idempotency.response import StoredResponse

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

    def test_of_the_headers(self) -> None:
        with pytest.raises(NotStorable, match="headers"):
            stored("", Link=["x" * 5_000] * 3)

    @pytest.mark.parametrize("body", [object(), {"at": 1j}, [{1, 2}]])
    def test_of_what_json_can_express(self, body: Any) -> None:
        with pytest.raises(NotStorable, match="not JSON"):
            stored(body)
