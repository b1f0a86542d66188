"""The mutants are those that they should be, and a test that fails kills one."""

from dataclasses import replace
from pathlib import Path

import pytest

from proof.mutants.mutants import Mutant, mutants
from proof.mutants.runs import PACKAGE, Survey, survives
from tests.events import KEY as EVENT_KEY
from tools.setup import ROOT

KEY = ROOT / PACKAGE / "key.py"
TEST = f"tests/unit/test_key.py::TestParse::test_reads_a_key[{EVENT_KEY}-{EVENT_KEY}]"


def changes(path: Path, source: str) -> set[str]:
    path.write_text(source)
    return {mutant.source for mutant in mutants(path)}


class TestMutants:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("a = b and c", {"a = (c)", "a = (b)"}),
            ("a = b or c or d", {"a = (c or d)", "a = (b or d)", "a = (b or c)"}),
            ("a = b < c", {"a = (b <= c)"}),
            ("a = b >= c", {"a = (b > c)"}),
            ("a = b == c", {"a = (b != c)"}),
            ("a = b not in c", {"a = (b in c)"}),
            ("if é: pass", {"if True: pass", "if False: pass"}),
            ("a = 'é' if b else c", {"a = 'é' if True else c", "a = 'é' if False else c"}),
            ("a = [b for b in c if d]", {"a = [b for b in c if True]"}),
            ("a = b + c", set()),
        ],
    )
    def test_of_python_lack_one_condition_each(self, tmp_path: Path, source: str, expected: set[str]) -> None:
        assert changes(tmp_path / "module.py", source) == expected

    def test_of_an_expression_lack_one_clause_each(self, tmp_path: Path) -> None:
        source = 'A = "attribute_not_exists(id) OR #b < :c"'

        assert changes(tmp_path / "module.py", source) == {
            'A = "(attribute_not_exists(id) OR NOT attribute_not_exists(id)) OR #b < :c"',
            'A = "(attribute_not_exists(id) AND NOT attribute_not_exists(id)) OR #b < :c"',
            'A = "attribute_not_exists(id) OR (#b < :c OR NOT #b < :c)"',
            'A = "attribute_not_exists(id) OR (#b < :c AND NOT #b < :c)"',
        }

    def test_of_what_is_written_are_none(self, tmp_path: Path) -> None:
        assert changes(tmp_path / "module.py", 'A = "SET #b = :c"') == set()


class TestSurvival:
    @pytest.fixture
    def mutant(self) -> Mutant:
        return next(mutant for mutant in mutants(KEY) if mutant.before == "len(values) > 1")

    @pytest.fixture
    def survey(self, mutant: Mutant) -> Survey:
        return Survey({KEY: {line: [TEST] for line in mutant.lines}}, {TEST: 0.1})

    def test_ends_with_a_test_that_fails(self, mutant: Mutant, survey: Survey) -> None:
        assert not survives(mutant, survey)
        assert survey.kills.total() == 1

    def test_goes_on_if_none_does(self, mutant: Mutant, survey: Survey) -> None:
        assert survives(replace(mutant, source=KEY.read_text()), survey)
