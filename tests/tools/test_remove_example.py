# example campaigns
"""`make remove-example` leaves a project that does not know the example, and in which every check is green."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import run, terminal, whole
from tools.errors import ToolError
from tools.setup import ROOT
from tools.start.remove_example import examples, without
from tools.start.texts import texts

NAME = "shops"
OF_CAMPAIGNS = re.compile(
    r"campaign|funnel|landing[ _]?page|dns_?(zone|subtree)|domain-(taken|rejected)|provisioning[./ ]+dns", re.IGNORECASE
)
# They tell of the past; the picture does until it is drawn anew.
MAY_NAME_IT = {"CHANGELOG.md", "docs/decisions.md", "docs/demo.svg"}
# Afterwards, what nobody uses is not imported, and what is made of other files is made anew.
MADE_ANEW = re.compile(r"^\s*(from|import) .*?\n|^<!-- made by .*?^<!-- until here", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\n# example shops\nb\n# end of example\nc\n", "a\nc\n"),
        ("a\n    # example shops\n    b\n\n    # end of example\nc\n", "a\nc\n"),
        ("a  # example shops\nb\n", "b\n"),
        ("a\n// example shops\nb\n// end of example\n", "a\n"),
        ("<!-- example shops -->\na\n<!-- end of example -->\nb\n", "b\n"),
        ("| a | b <!-- example shops --> |\n| c | d |\n", "| c | d |\n"),
        ("# example shops\na\nb  # example shops\n", ""),
        ("# example others\na\n# end of example\nb  # example others\n", None),
        ("an example shops would understand\n", None),
        ("# example shops\na\n# end of example\nb\n# example shops\nc\n# end of example\nd\n", "b\nd\n"),
    ],
)
def test_what_belongs_to_an_example_is_what_says_so(text: str, left: str | None) -> None:
    assert without(text, NAME) == (text if left is None else left)
    assert (NAME in examples(text)) is (left is not None)


def test_an_end_that_is_missing_is_told() -> None:
    with pytest.raises(ToolError, match="what belongs to shops does not end"):
        without("a\n# example shops\nb\n", NAME)


def test_what_there_is_no_example_of_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "tools.start.remove_example", "--", "shops"]

    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: WHAT=shops: there is no such example; there is campaigns\n"


def test_whatever_names_campaigns_says_that_it_belongs_to_them() -> None:
    left = {str(path.relative_to(ROOT)): MADE_ANEW.sub("", without(text, "campaigns")) for path, text in texts()}

    assert len(left) > 200
    assert [name for name, text in left.items() if OF_CAMPAIGNS.search(text) and name not in MAY_NAME_IT] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with an operation of a team's own, and without campaigns."""
    copy = whole(tmp_path_factory.mktemp("without") / "project")
    run(copy, "make", "new-operation", "NAME=blunders", "STEPS=2")
    assert re.fullmatch(
        r"campaigns are gone: \d+ files, and parts of \d+; next: make check\n",
        run(copy, "make", "remove-example", "WHAT=campaigns"),
    )
    return copy


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
class TestWithoutCampaigns:
    def test_nothing_names_them(self, copy: Path) -> None:
        names = run(copy, "git", "ls-files", "--others", "--exclude-standard").splitlines()
        texts = {name: (copy / name).read_text(errors="replace") for name in names if (copy / name).is_file()}

        assert len(texts) > 200
        assert [name for name, text in texts.items() if OF_CAMPAIGNS.search(text) and name not in MAY_NAME_IT] == []

    def test_nobody_is_offered_to_remove_them_again(self, copy: Path) -> None:
        again = subprocess.run(
            ["make", "remove-example", "WHAT=campaigns"],
            cwd=copy,
            env=terminal(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
        assert "remove-example" not in run(copy, "make", "help")

    def test_the_linters_pass(self, copy: Path) -> None:
        run(copy, "make", "lint")

    def test_all_tests_are_found(self, copy: Path) -> None:
        # Those of the peers need another environment.
        found = run(copy, ".venv/bin/python", "-m", "pytest", "--collect-only", "-q", ".", "--ignore-glob=*/peers")

        assert all(f"tests/{room}/" in found for room in ("unit", "tools", "integration", "e2e"))

    def test_those_without_servers_pass(self, copy: Path) -> None:
        parallel = ["-n", "2", "--dist", "loadgroup"]
        tested = [".venv/bin/python", "-m", "pytest", "-q", *parallel, "-m", "not slow", "tests/unit", "tests/tools"]

        assert " passed" in run(copy, *tested)
