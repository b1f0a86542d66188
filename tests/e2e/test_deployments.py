"""What a second deployment of the same stack does, on the local cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NEEDS
from tests.e2e.conftest import building
from tools.local import cloud, stack
from tools.local.release import BUILT
from tools.local.samconfig import deploy_parameters
from tools.local.stack import Stack

pytestmark = [*NEEDS["stack"], pytest.mark.slow]

_OTHER_TTL = "77777"


def running_versions(deployed: Stack) -> dict[str, tuple[str, ...]]:
    """The version of the API's function that answers, its time to live, and every version that there is."""
    functions = deployed.client("lambda")
    live: dict[str, Any] = functions.get_function_configuration(FunctionName=deployed.function_name, Qualifier="live")
    kept = functions.list_versions_by_function(FunctionName=deployed.function_name)["Versions"]
    return {
        "live": (live["Version"], live["Environment"]["Variables"]["IDEMPOTENCY_TTL_SECONDS"]),
        "kept": tuple(sorted(each["Version"] for each in kept if each["Version"] != "$LATEST")),
    }


def events(deployed: Stack) -> list[str]:
    """The ids of all that CloudFormation ever did to the stack."""
    name = deploy_parameters("local")["stack_name"]
    pages = deployed.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=name)
    return [event["EventId"] for page in pages for event in page["StackEvents"]]


def test_changes_nothing_unless_a_parameter_changes_which_then_reaches_the_running_function(tmp_path: Path) -> None:
    home = tmp_path / "cloud"
    with building(), stack.running(home) as deployed:
        local = cloud.find(home)
        assert local
        parameters: dict[str, str] = {
            # example campaigns
            "MyFunnelApiUrl": deployed.myfunnel_url,
            "MyFunnelSecretId": "provision-once/myfunnel",
            "DnsZoneId": deployed.dns_zone_id,
            # end of example
        }
        first, history = running_versions(deployed), events(deployed)

        # When the same is deployed again
        stack.deploy(local, BUILT, parameters)

        # Then nothing happens
        assert events(deployed) == history
        assert running_versions(deployed) == first

        # But when a parameter differs
        stack.deploy(local, BUILT, {**parameters, "IdempotencyTtlSeconds": _OTHER_TTL})

        # Then a new version has it, which is the one that answers, and the old one is gone
        version, ttl = running_versions(deployed)["live"]
        assert (version, ttl) == ("2", _OTHER_TTL)
        assert first["live"][0] == "1"
        assert running_versions(deployed)["kept"] == ("2",)
