"""Make's targets take their variables from make's command line, and not from the shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import terminal
from tools import setup
from tools.setup import ROOT

_SHELL = dict.fromkeys(
    ("ENV", "ID", "PRINCIPAL", "TOKEN", "PORT", "EVENT", "SERVE", "DISTURB", "KEY", "WHAT"), "from-the-shell"
)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a shell that has every variable set; the environments exist already."""
    command = ["make", "PYTHON3=true", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**terminal(), **_SHELL}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "target",
    [
        "up",
        "deploy",
        "token",
        "revoke",
        "unfinished",
        "retry",
        "recover",
        "logs",
        "sam-local",
        "smoke",
        "record",
        "dev",
        "remove-example",  # example campaigns
    ],
)
@pytest.mark.parametrize("option", ["-n", "-en"], ids=["", "even where the environment overrides"])
def test_a_variable_of_the_shell_is_ignored(target: str, option: str) -> None:
    shown = make(option, target)

    assert shown.returncode == 0
    assert shown.stdout
    assert "from-the-shell" not in shown.stdout


def test_a_variable_of_the_command_line_is_used() -> None:
    assert '"of-the-command-line" --env "prod"' in make("-n", "retry", "ID=of-the-command-line", "ENV=prod").stdout


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("token", "for which principal? For example: make token PRINCIPAL=alice"),
        ("revoke", "which token? For example: make revoke TOKEN=…"),
        ("record", "of which key? For example: make record KEY=8e03978e-40d5"),
        ("retry", "which operation? For example: make retry ID=1f0c; make unfinished lists them"),
    ],
)
def test_without_its_variable_a_target_says_in_one_line_what_it_needs(target: str, error: str) -> None:
    bare = make(target)

    said, by_make = bare.stderr.splitlines()
    assert (bare.returncode, said) == (2, f"error: {error}")
    assert by_make.startswith("make: ***")


def test_an_environment_that_samconfig_does_not_know_is_refused_before_anything_runs() -> None:
    refused = make("deploy", "ENV=nowhere")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "there is no environment nowhere in samconfig.toml" in refused.stderr


@pytest.fixture
def without_java(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs make where there is neither Java nor npm; tests and checks of style are only said."""
    for name in ("sh", "awk", "grep", "make", "true", "echo", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))

    def run(target: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "PYTHON3=true", "RUN=@echo run", "SAM=true", target]
        return subprocess.run(
            command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
        )

    return run


def test_without_java_the_tests_say_first_what_they_skip_and_the_check_wants_it(
    without_java: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    tests, check = without_java("test"), without_java("check")

    assert tests.returncode == 0
    assert tests.stderr.splitlines() == [
        "error: java is not on PATH: DynamoDB Local needs Java 17 and npm",
        "the tests that need it are skipped",
    ]
    assert "run pytest" in tests.stdout
    assert (check.returncode, "run pytest" in check.stdout) == (2, False)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("error sending request for url (…)\n  dns error: failed to lookup", "is there a network?"),
        (
            "NewConnectionError('… Failed to establish a new connection: Temporary failure in name resolution')",
            "network",
        ),
        ("No space left on device", "failed"),
    ],
)
def test_without_a_network_the_setup_says_so_in_one_line(
    said: str, error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise subprocess.CalledProcessError(2, "uv", output=said)

    monkeypatch.setattr(setup, "_output", fail)

    with pytest.raises(setup.SetupFailed, match=error):
        setup._run(["uv", "sync"])

    assert bool(capsys.readouterr().err) == (error == "failed")


_PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_SHOWN = re.compile(r"(?:^ {4}|`)make ([a-z-]+(?: [A-Z]+=[^\s`]+)*)", re.MULTILINE)
SHOWN = {command for page in _PAGES for command in _SHOWN.findall(page.read_text())}
"""The commands that the pages show; some are of a part of the project that need not be there."""
_MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {*re.findall(r"^\.PHONY: (\S+)$", _MAKEFILE, re.MULTILINE)}
COMMANDS = sorted(command for command in SHOWN if command.split()[0] in TARGETS)


class TestShown:
    """The commands that the pages show."""

    @pytest.mark.parametrize("command", COMMANDS)
    def test_exists_with_its_variables(self, command: str) -> None:
        target, *variables = command.split()
        aims = re.search(r"^AIMS := (.*)$", _MAKEFILE, re.MULTILINE)

        assert make("-n", target, *variables).returncode == 0
        assert aims
        assert {variable.partition("=")[0] for variable in variables} <= {*aims[1].split()}

    @pytest.mark.parametrize("target", sorted({command.split()[0] for command in COMMANDS}))
    def test_is_run_by_a_test_or_by_ci(self, target: str) -> None:
        modules = re.findall(r"python -m (tools\.[\w.]+)", make("-n", target).stdout)
        run = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
        by_ci = re.findall(r"^ *(?:tested|make) ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)

        named = [name for module in modules for name in (module, "from {} import {}".format(*module.rsplit(".", 1)))]
        assert target in {*by_ci, "test", "lint", "help"} or f'"{target}"' in run or any(name in run for name in named)
