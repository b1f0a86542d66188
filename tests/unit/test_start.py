"""What a new environment of a function has to do before its first request, and what a snapshot takes off it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import api
import snapshot
from idempotency import body
from tools.setup import ROOT

_VARIABLES = {
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_LAMBDA_FUNCTION_NAME": "api",
    "IDEMPOTENCY_TABLE": "records",
    "RECOVERY_QUEUE_URL": "https://queue.example/recovery",
    "POWERTOOLS_METRICS_NAMESPACE": "ProvisionOnce",
    "POWERTOOLS_SERVICE_NAME": "provision-once",
}
# Of each package that is not Python's own. Before another one is added: what does the first request need it for?
_PACKAGES = {
    "aws_lambda_powertools",
    "botocore",
    "cachetools",
    "certifi",
    "dateutil",
    "jmespath",
    "rfc8785",
    "six",
    "urllib3",
}
# Of ours, what only some requests need.
_LATER = {
    "idempotency.testing",
    "provisioning.ec2",
    # example campaigns
    "provisioning.dns",
    "provisioning.funnels",
    # end of example
}


def imported(statement: str) -> set[str]:
    """The modules that a new process has imported after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**environment, **_VARIABLES, "PYTHONPATH": str(ROOT / "src")},
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def modules() -> set[str]:
    return imported("import api") - imported("")


def test_imports_no_package_that_it_does_not_need(modules: set[str]) -> None:
    packages = {name.partition(".")[0] for name in modules if not name.startswith("__")} - sys.stdlib_module_names
    ours = {path.stem for path in (ROOT / "src").iterdir()}
    # Typing's own, which Powertools imports where it is there.
    assert packages - ours - {"typing_extensions"} == _PACKAGES, (
        "import it in the function that needs it first, or add it to _PACKAGES: every cold start pays for it"
    )


def test_imports_of_the_project_only_what_each_request_needs(modules: set[str]) -> None:
    assert "idempotency.store" in modules
    assert modules & _LATER == set()


class TestSnapshot:
    @pytest.fixture
    def hooks(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Callable[[], object]]]:
        """Lambda's runtime, which keeps what is registered with it."""
        hooks: dict[str, list[Callable[[], object]]] = {"before": [], "after": []}
        monkeypatch.setattr(snapshot, "register_before_snapshot", hooks["before"].append)
        monkeypatch.setattr(snapshot, "register_after_restore", hooks["after"].append)
        return hooks

    def test_clones_do_not_share_what_is_random(self, hooks: dict[str, list[Callable[[], object]]]) -> None:
        snapshot.prepare(lambda: None)
        kept = random.getstate()
        drawn = []

        for _ in range(2):
            random.setstate(kept)
            [restored] = hooks["after"]
            restored()
            drawn.append(random.random())

        assert drawn[0] != drawn[1]

    def test_has_what_the_first_request_would_make(
        self, hooks: dict[str, list[Callable[[], object]]], service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body._validator.cache_clear()
        api.provider.cache_clear()
        snapshot.prepare(api.prime)

        for hook in hooks["before"]:
            hook()

        assert body._validator.cache_info().currsize == len(api.idempotent.declared)
        assert api.provider.cache_info().currsize == 1

    def test_is_lambdas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = ModuleType("snapshot_restore_py")
        registered: list[Any] = []
        runtime.register_before_snapshot = registered.append  # type: ignore[attr-defined]
        runtime.register_after_restore = registered.append  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "snapshot_restore_py", runtime)
        monkeypatch.delitem(sys.modules, "snapshot")
        fresh = import_module("snapshot")
        fresh.prepare(print)

        assert registered == [print, random.seed]
