"""The mutants are what they should be, and a test that fails kills one."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from proof.mutants import __main__ as command
from proof.mutants.mutants import Mutant, mutants
from proof.mutants.runs import PACKAGE, Limit, Survey, Verdict, judge
from tests.events import KEY as EVENT_KEY
from tools.setup import ROOT

KEY = ROOT / PACKAGE / "request.py"
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
            ("while True: pass", {"while False: pass"}),
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

    def test_are_run_by_the_lines_that_use_an_expression(self, tmp_path: Path) -> None:
        path = tmp_path / "module.py"
        path.write_text('A = "#b = :c"\n\ndef f():\n    return A\n\ndef g():\n    return [\n        A]\n')

        assert {line for mutant in mutants(path) for line in mutant.lines} >= {4, 8}

    def test_since_a_commit_are_those_that_it_did_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lost = next(mutants(KEY))
        monkeypatch.setattr(command, "_git", lambda *_: Mock(stdout=lost.source))

        new = {mutant.name for mutant in command._new(KEY, "main")}

        assert lost.name in new
        assert new < {mutant.name for mutant in command._new(KEY, "")}

    def test_of_update_expressions_do_not_exist(self, tmp_path: Path) -> None:
        assert changes(tmp_path / "module.py", 'A = "SET #b = :c"') == set()


class TestJudgement:
    @pytest.fixture
    def mutant(self) -> Mutant:
        return next(mutant for mutant in mutants(KEY) if mutant.before == "len(values) > 1")

    @pytest.fixture
    def survey(self, mutant: Mutant) -> Survey:
        return Survey({KEY: {line: [TEST] for line in mutant.lines}}, {TEST: 0.1})

    def test_is_killed_if_a_test_fails(self, mutant: Mutant, survey: Survey) -> None:
        assert list(judge([mutant], survey)) == [(mutant, Verdict.KILLED)]
        assert survey.kills.total() == 1

    def test_is_survived_if_none_does(self, mutant: Mutant, survey: Survey) -> None:
        unchanged = replace(mutant, source=KEY.read_text())

        assert list(judge([unchanged], survey)) == [(unchanged, Verdict.SURVIVED)]

    def test_is_timed_out_and_not_killed_if_a_test_hangs(self, mutant: Mutant, survey: Survey) -> None:
        hanging = replace(mutant, source=begun_by(mutant, "__import__('threading').Event().wait()"))

        assert list(judge([hanging], survey, Limit(1, 0), Limit(2, 0))) == [(hanging, Verdict.TIMED_OUT)]
        assert survey.kills.total() == 0

    def test_is_killed_by_a_test_other_than_the_one_that_hangs(self, mutant: Mutant, survey: Survey) -> None:
        once = "values == ['0'] or __import__('threading').Event().wait()"
        hanging = replace(mutant, source=begun_by(mutant, once))
        other = "tests/unit/test_key.py::TestParse::test_reads_a_key[0-0]"
        both = Survey({KEY: {line: [TEST, other] for line in mutant.lines}}, {TEST: 0.1, other: 0.2})

        assert list(judge([hanging], both, Limit(1, 0))) == [(hanging, Verdict.KILLED)]
        assert list(both.kills) == [other]

    def test_is_killed_though_its_test_is_slow(self, mutant: Mutant, survey: Survey) -> None:
        # Given a mutant under which the test takes longer than is allowed while others run
        slow = replace(mutant, source=begun_by(mutant, "__import__('time').sleep(3)"))

        # When it is tried again alone, after the others
        judged = dict(judge([slow, mutant], survey, Limit(1.5, 0)))

        # Then its slowness has decided nothing
        assert judged == {mutant: Verdict.KILLED, slow: Verdict.KILLED}


def begun_by(mutant: Mutant, statement: str) -> str:
    """The source of a mutant whose mutated function begins with one more statement."""
    lines = mutant.source.splitlines(keepends=True)
    line = mutant.lines[0] - 1
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    return "".join([*lines[:line], f"{indent}{statement}\n", *lines[line:]])
