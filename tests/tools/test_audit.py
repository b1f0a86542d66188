"""What the linters of infrastructure are given, and what they are told to leave."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.transformed import deployed
from tools.local import template
from tools.ops import audit
from tools.setup import ROOT

_WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "deliver.yml").read_text())


@pytest.mark.parametrize("condition", template.load()["Conditions"])
def test_templates_are_looked_at_with_each_condition_true_and_false(condition: str) -> None:
    assert {deployed(parameters).holds(condition) for parameters in audit.STACKS.values()} == {True, False}


def test_templates_are_those_that_are_deployed(tmp_path: Path) -> None:
    written = audit.write_templates(tmp_path)

    assert len(written) == len(audit.STACKS)
    types = {made["Type"] for path in written for made in json.loads(path.read_text())["Resources"].values()}
    assert "AWS::ApiGateway::Stage" in types
    assert not [type_ for type_ in types if type_.startswith("AWS::Serverless")]


@pytest.mark.parametrize(
    "accepted", [audit.ACCEPTED_BY_CFN_LINT, audit.ACCEPTED_BY_CHECKOV], ids=["cfn-lint", "checkov"]
)
def test_what_is_left_has_its_reason(accepted: Mapping[str, str]) -> None:
    assert all(re.fullmatch(r"[WE][0-9]{4}|CKV_AWS_[0-9]+", check) for check in accepted)
    assert all(len(reason) > 20 for reason in accepted.values())


def test_a_report_of_vulnerabilities_says_what_is_vulnerable_and_what_is_not_known() -> None:
    report = {
        "dependencies": [
            {"name": "urllib3", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"]}]},
            {"name": "rfc8785", "version": "1.0", "vulns": []},
            {"name": "jmespath", "skip_reason": "not found"},
        ]
    }

    assert audit._read(json.dumps(report)) == (["urllib3 1.0: PYSEC-1, mended in ['2.0']"], ["jmespath"])
    assert audit._read("") == ([], [])


class TestTheWorkflow:
    def test_deploys_what_was_checked_to_staging_tries_it_there_and_then_deploys_it_to_production(self) -> None:
        jobs = _WORKFLOW["jobs"]
        runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}

        assert runs == {
            "check": [".ci/run"],
            "staging": ["make deploy ENV=staging", "make smoke ENV=staging"],
            "production": ["make deploy ENV=prod"],
        }
        assert (jobs["staging"]["needs"], jobs["production"]["needs"]) == ("check", "staging")
        assert jobs["staging"]["if"] == "github.event_name == 'push'"

    def test_pins_what_it_uses_and_asks_for_no_right_that_it_does_not_need(self) -> None:
        used = [step["uses"] for job in _WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]

        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used)
        assert _WORKFLOW["permissions"] == {}
        assert _WORKFLOW["jobs"]["check"]["permissions"] == {"contents": "read"}
