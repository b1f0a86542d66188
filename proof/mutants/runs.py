"""The tests in a process of their own, as often as there are mutants.

Every process is a fork of one that has imported the packages already, but none of the project's code: most of the time
that a single test takes is otherwise spent there.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from proof.mutants.mutants import Mutant
from tools.errors import ToolError

PACKAGE = "src/idempotency"
# By how coverage has to follow them.
_TESTS = {
    ("tests/unit", "tests/integration"): "thread",
    ("proof/explorer/test_invariants.py",): "greenlet",
}
# They start tests anew in another process, which would not meet the mutant.
_LEFT_OUT = ("tests/unit/test_walk.py", "proof/mutants/test_mutation.py")
_FIRST = 30
# Passed, failed; a test module, or a conftest.py, could not even be imported.
_VERDICTS = {
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.USAGE_ERROR,
}
_UNCHANGED = Mutant(Path(), "", range(0), "", "", "")
_QUIET = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain"]
_PLUGINS = [
    "_hypothesis_pytestplugin",
    "hypothesis.stateful",
    "schemathesis.pytest.plugin",
    "anyio.pytest_plugin",
    "xdist.plugin",
]
_forks = get_context("forkserver")
_forks.set_forkserver_preload(
    ["moto.core", "moto.backends", "boto3", "aws_lambda_powertools.event_handler", "greenlet", "rich", *_PLUGINS]
)


@dataclass(frozen=True)
class Survey:
    """Which tests run which lines of the package.

    Args:
        tests: by module and line, the tests' ids.
        seconds: by test, how long it takes.
    """

    tests: Mapping[Path, Mapping[int, Sequence[str]]]
    seconds: Mapping[str, float]
    kills: Counter[str] = field(default_factory=Counter)

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that run a mutant's lines, the most promising first; all of them if it is run at import."""
        lines = self.tests[mutant.path]
        found = {test for line in mutant.lines for test in lines.get(line, [])} & self.seconds.keys()
        return sorted(found or self.seconds, key=lambda test: self.seconds[test] / (1 + self.kills[test]) ** 2)


def survey() -> Survey:
    """Run every test once, on the code as it is.

    Raises:
        ToolError: if one fails, or has a name that does not lead to it.
    """
    tests: defaultdict[Path, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = {}
    with ThreadPoolExecutor(len(_TESTS)) as pool:
        answers = pool.map(lambda part: _in_a_fork(_survey, *part), _TESTS.items())
        for paths, answer in zip(_TESTS, answers, strict=True):
            if answer is None:
                raise ToolError(f"{' '.join(paths)}: a test fails on the code as it is")
            lines_of, seconds_of = answer
            seconds |= seconds_of
            for path, lines in lines_of.items():
                for line, names in lines.items():
                    tests[path][line] += names
    found = Survey(tests, seconds)
    # A name that pytest does not find again would look like a test that fails.
    if not _passes(_UNCHANGED, ["--collect-only", *seconds], found):
        raise ToolError("pytest does not find all tests by their names")
    return found


def survives(mutant: Mutant, found: Survey) -> bool:
    """Whether every test that runs a mutant's lines passes.

    Raises:
        ToolError: if pytest could not tell.
    """
    tests = found.of(mutant)
    # Few tests are quickly collected, and most mutants do not survive them.
    return all(_passes(mutant, some, found) for some in (tests[:_FIRST], tests[_FIRST:]) if some)


def _passes(mutant: Mutant, tests: Sequence[str], found: Survey) -> bool:
    answer = _in_a_fork(_try, mutant, tests, found.seconds)
    if answer is None:
        return False  # a test that hangs has failed: the alarm has ended it
    status, killers = answer
    if status not in _VERDICTS:
        raise ToolError(f"{mutant.name}: pytest ended with {status!r}")
    found.kills.update(killers)
    return status is pytest.ExitCode.OK


def _in_a_fork(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a task returns in a process of its own; None if the process dies first."""
    receiver, sender = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_answer, args=(sender, task, *arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _answer(sender: Connection, task: Callable[..., Any], *arguments: Any) -> None:
    sender.send(task(*arguments))
    os._exit(0)


def _try(mutant: Mutant, tests: Sequence[str], seconds: Mapping[str, float]) -> tuple[pytest.ExitCode, list[str]]:
    gc.freeze()  # pytest collects garbage at its end, and what is shared with the other processes is none
    original = SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        mutated = self.path == str(mutant.path)
        return compile(mutant.source, self.path, "exec") if mutated else original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    watch = _Impatient(seconds)
    return _pytest(tests, watch), watch.killers


class _Impatient:
    """A plugin of pytest's that notes which test fails, and ends the process if one hangs."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds
        self.killers: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        signal.alarm(30 + int(10 * self._seconds[item.nodeid]))
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.killers.append(report.nodeid)


def _survey(paths: Sequence[str], concurrency: str) -> tuple[dict[Path, Any], dict[str, float]] | None:
    import coverage  # noqa: PLC0415 - a tracer has no place in the processes that try mutants

    tracer = coverage.Coverage(data_file=None, source=[PACKAGE], concurrency=concurrency, config_file=False)
    watch = _Watch(tracer)
    tracer.start()
    status = _pytest([*paths, *(f"--ignore={path}" for path in _LEFT_OUT)], watch)
    tracer.stop()
    if status is not pytest.ExitCode.OK:
        return None
    data = tracer.get_data()
    return {Path(path): data.contexts_by_lineno(path) for path in data.measured_files()}, dict(watch.seconds)


class _Watch:
    """A plugin of pytest's that tells coverage which test runs, and notes for how long."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._tracer.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration if report.when == "call" else 0


def _pytest(arguments: Sequence[str], plugin: object) -> pytest.ExitCode:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of this process
    return pytest.ExitCode(pytest.main([*_QUIET, *arguments], [plugin]))
