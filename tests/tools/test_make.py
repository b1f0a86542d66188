"""Make's targets take their variables from make's command line, and not from the shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from tools.setup import ROOT

_SHELL = dict.fromkeys(("ENV", "ID", "PRINCIPAL", "TOKEN", "PORT", "EVENT", "SERVE", "DISTURB"), "from-the-shell")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a shell that has every variable set; the environments exist already."""
    command = ["make", "PYTHON3=true", *arguments]
    # The make that runs the tests is none of its business.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env={**outside, **_SHELL}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "target", ["up", "deploy", "token", "revoke", "unfinished", "retry", "recover", "logs", "sam-local", "smoke"]
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
