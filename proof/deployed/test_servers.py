"""Servers of the deployed stack, when the worker dies before, during or after a call, up to the completion."""

from __future__ import annotations

from typing import get_args

from tests.e2e.faults import Faults, Side
from tests.e2e.targets import LocalCloud
from tests.e2e.test_servers import COMMIT, RUN, assert_killed_and_retried_each_server_has_one_instance
from tools.local.client import Client
from tools.local.stack import Stack


def test_killed_anywhere_around_the_ec2_call_a_server_has_one_instance(
    local_cloud: LocalCloud, stack: Stack, faults: Faults, alice: Client
) -> None:
    kills = [(call, side) for call in (RUN, COMMIT) for side in get_args(Side)]

    assert_killed_and_retried_each_server_has_one_instance(kills, local_cloud, stack, faults, alice)
