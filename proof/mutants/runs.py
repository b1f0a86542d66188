"""Runs the tests once per mutant, each time in a process of their own.

Every process is a fork of one that has already imported the packages, but nothing of `src`: otherwise, a single test
would spend most of its time on imports.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
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
# Grouped by the kind of concurrency that coverage has to follow.
_TESTS = {
    ("tests/unit", "tests/tools"): "thread",
    ("tests/integration",): "thread",
    ("proof/explorer/test_invariants.py",): "greenlet",
}
# Slow ones start other processes, which would not see the mutant. A lifecycle that is broken already, and caught, says
# nothing of the mutant.
_SELECTED = ("-m", "not slow", "--deselect", "proof/explorer/test_invariants.py::test_broken_lifecycle_is_caught")
_FEW = 60
_COLLECTING_SECONDS = 5
_HANGS = 2
"""How many tests may hang under a mutant before the remaining ones are skipped."""
# Passed; failed; or a test module or a conftest.py could not even be imported.
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
_PACKAGES = ["moto.core", "moto.backends", "boto3", "aws_lambda_powertools.event_handler", "greenlet", "rich"]
_forks.set_forkserver_preload([*_PACKAGES, *_PLUGINS, "proof.mutants.preload"])


class Verdict(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    """A test failed."""
    SURVIVED = "survived"
    """Every test passed."""
    TIMED_OUT = "timed out"
    """No test failed, but one took too long."""


Judgement = tuple[Mutant, Verdict]


@dataclass(frozen=True)
class Limit:
    """How long a test may take under a mutant.

    Args:
        seconds: the time that every test may take.
        times: how many times its usual time a test may take on top of that.
    """

    seconds: float
    times: float

    def of(self, usual: float) -> float:
        """The limit, in seconds, for a test that usually takes this many."""
        return self.seconds + self.times * usual


FIRST = Limit(15, 10)
ALONE = Limit(60, 30)


@dataclass(frozen=True)
class Survey:
    """Which tests run which lines of the package.

    Args:
        tests: module → line → ids of the tests that run it.
        seconds: test → how long it takes.
        kills: test → how many mutants it has killed.
    """

    tests: Mapping[Path, Mapping[int, Sequence[str]]]
    seconds: Mapping[str, float]
    kills: Counter[str] = field(default_factory=Counter)

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that run a mutant's lines, the most promising first; all of them if it is run at import.

        A module's own tests come first. Thousands of others run its lines too, and look at something else.
        """
        lines = self.tests[mutant.path]
        found = {test for line in mutant.lines for test in lines.get(line, [])} & self.seconds.keys()
        own = f"/test_{mutant.path.stem}.py"
        return sorted(
            found or self.seconds, key=lambda test: (own not in test, self.seconds[test] / (1 + self.kills[test]) ** 2)
        )


def survey() -> Survey:
    """Run every test once, on the unchanged code, however long it takes.

    Raises:
        ToolError: if one fails, or pytest cannot find it by its name.
    """
    tests: defaultdict[Path, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = {}
    with ThreadPoolExecutor(len(_TESTS)) as pool:
        answers = pool.map(lambda part: _in_a_fork(_survey, *part), _TESTS.items())
        for paths, (told, exit_code) in zip(_TESTS, answers, strict=True):
            if not told:
                raise ToolError(f"{' '.join(paths)}: the tests' process ended with {exit_code}")
            [(failures, lines_of, seconds_of)] = told
            if failures:
                raise ToolError(f"on the unchanged code, {failures[0]}")
            seconds |= seconds_of
            for path, lines in lines_of.items():
                for line, names in lines.items():
                    tests[path][line] += names
    found = Survey(tests, seconds)
    # A name that pytest does not find again would look like a test that fails.
    run = _run(_UNCHANGED, ["--collect-only", *seconds], found, ALONE)
    if run.failed or run.hung:
        raise ToolError("pytest does not find all tests by their names")
    return found


def judge(tried: Sequence[Mutant], found: Survey, first: Limit = FIRST, alone: Limit = ALONE) -> Iterator[Judgement]:
    """Say what became of each mutant: first several at a time, then one by one those that took too long.

    How busy the machine is must not decide: a mutant that took too long is tried again on its own, with more time.

    Args:
        tried: the mutants.
        found: which tests run their lines.
        first: how long a test may take while others run.
        alone: how long a test may take on its own.

    Raises:
        ToolError: if pytest ends without a verdict.
    """
    late = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, verdict in zip(tried, pool.map(lambda each: _try(each, found, first), tried), strict=True):
            if verdict is Verdict.TIMED_OUT:
                late.append(mutant)
            else:
                yield mutant, verdict
    yield from ((mutant, _try(mutant, found, alone)) for mutant in late)


def _try(mutant: Mutant, found: Survey, limit: Limit) -> Verdict:
    """Run the tests that run a mutant's lines, until one fails; one that hangs is left out from then on."""
    tests, hung = found.of(mutant), 0
    # A few tests are collected quickly, and most mutants do not survive them.
    for some in (tests[:_FEW], tests[_FEW:]):
        left = some
        while left and hung < _HANGS:
            run = _run(mutant, left, found, limit)
            if run.failed:
                return Verdict.KILLED
            hung += run.hung
            left = [test for test in left if run.hung and test not in run.begun]
    return Verdict.TIMED_OUT if hung else Verdict.SURVIVED


@dataclass(frozen=True)
class _Run:
    """How some tests ended.

    Args:
        begun: the tests that began.
        failed: whether one failed.
        hung: whether the last one took too long.
    """

    begun: Collection[str]
    failed: bool
    hung: bool


def _run(mutant: Mutant, tests: Sequence[str], found: Survey, limit: Limit) -> _Run:
    told, exit_code = _in_a_fork(_try_in_fork, mutant, tests, found.seconds, limit)
    begun = frozenset(test for test in told if isinstance(test, str))
    if exit_code == -signal.SIGALRM:
        return _Run(begun, failed=False, hung=True)
    if exit_code:
        raise ToolError(f"{mutant.name}: the tests' process ended with {exit_code}")
    status, killers = told[-1]
    if status not in _VERDICTS:
        raise ToolError(f"{mutant.name}: pytest ended with {status!r}")
    found.kills.update(killers)
    return _Run(begun, failed=status is not pytest.ExitCode.OK, hung=False)


def _in_a_fork(task: Callable[..., None], *arguments: Any) -> tuple[list[Any], int | None]:
    """Run a task in a process of its own; everything that it sends, and its exit code."""
    receiver, sender = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_end_after, args=(task, sender, *arguments))
    process.start()
    sender.close()
    told = []
    with suppress(EOFError):
        while True:
            told.append(receiver.recv())
    process.join()
    return told, process.exitcode


def _end_after(task: Callable[..., None], *arguments: Any) -> None:
    task(*arguments)
    os._exit(0)


def _try_in_fork(
    sender: Connection, mutant: Mutant, tests: Sequence[str], seconds: Mapping[str, float], limit: Limit
) -> None:
    gc.freeze()  # pytest collects garbage at its end, but what is shared with other processes is not garbage
    original = SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        mutated = self.path == str(mutant.path)
        return compile(mutant.source, self.path, "exec") if mutated else original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    signal.setitimer(signal.ITIMER_REAL, limit.of(_COLLECTING_SECONDS))
    watch = _Impatient(sender, seconds, limit)
    sender.send((_pytest(tests, watch), watch.killers))


class _Impatient:
    """A pytest plugin that tells which tests begin and which fail, and ends the process if one takes too long."""

    def __init__(self, sender: Connection, seconds: Mapping[str, float], limit: Limit) -> None:
        self._sender = sender
        self._seconds = seconds
        self._limit = limit
        self.killers: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._sender.send(item.nodeid)
        signal.setitimer(signal.ITIMER_REAL, self._limit.of(self._seconds[item.nodeid]))
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.killers.append(report.nodeid)


def _survey(sender: Connection, paths: Sequence[str], concurrency: str) -> None:
    import coverage  # noqa: PLC0415 - the processes that try mutants need no tracer

    tracer = coverage.Coverage(data_file=None, source=[PACKAGE], concurrency=concurrency, config_file=False)
    watch = _Watch(tracer)
    tracer.start()
    status = _pytest([*_SELECTED, *paths], watch)
    tracer.stop()
    if status is not pytest.ExitCode.OK and not watch.failures:
        watch.failures.append(f"pytest ended with {status!r}")
    data = tracer.get_data()
    lines_of = {Path(path): data.contexts_by_lineno(path) for path in data.measured_files()}
    sender.send((watch.failures, lines_of, dict(watch.seconds)))


class _Watch:
    """A pytest plugin that tells coverage which test runs, and notes for how long, and which fail."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failures: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._tracer.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration if report.when == "call" else 0
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else report.longreprtext
            self.failures.append(f"{report.nodeid} fails: {' '.join(reason.split())}")


def _pytest(arguments: Sequence[str], plugin: object) -> pytest.ExitCode:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of this process
    return pytest.ExitCode(pytest.main([*_QUIET, *arguments], [plugin]))
