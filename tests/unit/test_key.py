"""The Idempotency-Key header, and the id that it is hashed into."""

import re
from hashlib import sha256
from typing import Any

import http_sf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from idempotency.errors import Problem
from idempotency.request import parse_key, record_id
from tests.events import KEY

VISIBLE = re.compile(r"[!-~]{1,255}")


def refusal(values: list[str], **settings: object) -> str:
    with pytest.raises(Problem) as refused:
        parse_key(values, **settings)  # type: ignore[arg-type]
    assert refused.value.status == 400
    return refused.value.slug


class TestParse:
    @pytest.mark.parametrize(
        ("value", "key"),
        [
            (KEY, KEY),
            (f'"{KEY}"', KEY),
            (f' "{KEY}"\t', KEY),
            (r'"a\"b\\c"', r'a"b\c'),
            (r"a\b", r"a\b"),
            ('a"b', 'a"b'),
            ("a;b:c", "a;b:c"),
            ('"a;b,c"', "a;b,c"),
            ("k" * 255, "k" * 255),
            (f'"{"k" * 255}"', "k" * 255),
            ("0", "0"),
            (":YQ==:", ":YQ==:"),
            ("?1", "?1"),
        ],
    )
    def test_reads_a_key(self, value: str, key: str) -> None:
        assert parse_key([value]) == key

    @pytest.mark.parametrize("values", [[], [""], ["  "], ['""'], [' "" ']])
    def test_finds_no_key(self, values: list[str]) -> None:
        assert parse_key(values) is None

    @pytest.mark.parametrize(
        "value",
        [
            "k" * 256,
            f'"{"k" * 256}"',
            "a b",
            '"a b"',
            "a\tb",
            "a\nb",
            "a\x00",
            "a\x7f",
            "é",
            '"é"',
            "\u2028",
            '"',
            '"a',
            '"a"b',
            '"a"b"',
            '"a" "b"',
            '"a";v=1',
            '"a", "b"',
            r'"\a"',
            '"\\"',
        ],
    )
    def test_refuses_what_is_not_a_key(self, value: str) -> None:
        assert refusal([value]) == "key-invalid"

    @pytest.mark.parametrize("values", [["a", "a"], ["a", "b"], ["", ""], ["a", "b", "c"]])
    def test_refuses_a_header_sent_twice(self, values: list[str]) -> None:
        assert refusal(values) == "key-invalid"

    @pytest.mark.parametrize("value", [KEY, KEY.upper(), f'"{KEY}"', "00000000-0000-0000-0000-000000000000"])
    def test_accepts_uuids_if_only_these_are_allowed(self, value: str) -> None:
        assert parse_key([value], "uuid") == value.strip('"')

    @pytest.mark.parametrize("value", ["order-17", KEY.replace("-", ""), f"{{{KEY}}}", f"urn:uuid:{KEY}", KEY[:-1]])
    def test_refuses_other_keys_if_only_uuids_are_allowed(self, value: str) -> None:
        assert refusal([value], key_format="uuid") == "key-invalid"

    @given(st.text(st.sampled_from('k"\\ ;,=1é\t\n'), max_size=12).map(lambda text: f'"{text}'))
    @example('"k\\"')
    @example('"k"')
    def test_agrees_with_a_structured_field_parser_on_quoted_keys(self, value: str) -> None:
        try:
            # White space around a field's value is not part of it (RFC 9110, section 5.5).
            item: Any = http_sf.parse(value.strip(" \t").encode(), tltype="item")
        except ValueError:
            item = None, {}
        parsed, parameters = item
        is_key = isinstance(parsed, str) and not parameters and VISIBLE.fullmatch(parsed)

        if is_key:
            assert parse_key([value]) == parsed
        elif parsed == "" and not parameters:
            assert parse_key([value]) is None
        else:
            assert refusal([value]) == "key-invalid"

    @given(st.from_regex(VISIBLE, fullmatch=True))
    def test_reads_every_key_as_a_structured_field_library_writes_it(self, key: str) -> None:
        assert parse_key([http_sf.ser(key)]) == key

    @given(st.from_regex(VISIBLE, fullmatch=True).filter(lambda key: key[0] != '"' and "," not in key))
    def test_reads_every_bare_key_unchanged(self, key: str) -> None:
        assert parse_key([key]) == key


PARTS = ("principal", "POST", "/v1/servers/provision", "key")
Parts = tuple[str, str, str, str]


class TestRecordId:
    def test_is_64_hexadecimal_digits_that_never_change(self) -> None:
        # If the hash changed, every key in flight would run twice on the day of the deployment.
        before = b"\0\0\0\0\0\0\0\x06\xc3\xa9lise\0\0\0\0\0\0\0\x04POST\0\0\0\0\0\0\0\x15"
        hashed = before + b"/v1/servers/provision\0\0\0\0\0\0\0\x01k"

        assert record_id("élise", "POST", "/v1/servers/provision", "k") == f"{sha256(hashed).hexdigest()}:1"

    @pytest.mark.parametrize("position", range(4))
    def test_depends_on_each_part(self, position: int) -> None:
        other = [*PARTS]
        other[position] += "x"

        assert record_id(*other) != record_id(*PARTS)

    @pytest.mark.parametrize("position", range(3))
    def test_differs_if_characters_move_from_one_part_to_the_next(self, position: int) -> None:
        moved = [*PARTS]
        moved[position], moved[position + 1] = moved[position][:-1], moved[position][-1] + moved[position + 1]

        assert "".join(moved) == "".join(PARTS)
        assert record_id(*moved) != record_id(*PARTS)

    @given(*2 * [st.tuples(*4 * [st.text(st.sampled_from("ab\x00é"), max_size=4)])])
    def test_is_the_same_only_for_the_same_parts(self, one: Parts, other: Parts) -> None:
        assert (record_id(*one) == record_id(*other)) == (one == other)
