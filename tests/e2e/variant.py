"""A variant of what `sam build` built, with the route that only tests need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tools.local import template

_PROBE = Path(__file__).with_name("probe") / "probe.py"
_ROUTE = {
    "Type": "Api",
    "Properties": {"RestApiId": {"Ref": "Api"}, "Method": "POST", "Path": "/v1/probe"},
}


def with_probe(built: Path, into: Path) -> Path:
    """Copy what was built, and add the probe to the API's function.

    Args:
        built: the directory of artifact and template.
        into: the directory to make.

    Returns:
        The new directory.
    """
    shutil.copytree(built, into)
    shutil.copy(_PROBE, into / "ApiFunction")
    changed = template.load(built / "template.yaml")
    add_probe(changed)
    template.dump(changed, into / "template.yaml")
    return into


def add_probe(built: dict[str, Any]) -> None:
    """Route to the probe, whose module imports `api` with all of its routes, and may answer with an image."""
    function = built["Resources"]["ApiFunction"]["Properties"]
    function["Handler"] = "probe.handler"
    function["Events"]["Probe"] = _ROUTE
    built["Resources"]["Api"]["Properties"]["BinaryMediaTypes"].append("*/*")
