"""What the tests deploy is what users deploy, plus one route."""

from pathlib import Path

import api
from tests.e2e import variant
from tests.e2e.probe import probe
from tools.local import template


def test_the_variant_differs_by_a_handler_a_module_a_route_and_a_media_type(tmp_path: Path) -> None:
    # Given what sam builds: the template, and one directory per function
    built = tmp_path / "built"
    (built / "ApiFunction").mkdir(parents=True)
    (built / "ApiFunction" / "api.py").write_text("handler = None")
    template.dump(template.load(), built / "template.yaml")

    # When the probe is added to a copy
    made = variant.with_probe(built, tmp_path / "made")

    # Then the copy has its module, and its template routes to it through the API's own handler
    assert {path.name for path in (made / "ApiFunction").iterdir()} == {"api.py", "probe.py"}
    changed = template.load(made / "template.yaml")
    function = changed["Resources"]["ApiFunction"]["Properties"]
    assert function["Events"].pop("Probe")["Properties"]["Path"] == "/v1/probe"
    assert function.pop("Handler") == "probe.handler"
    assert probe.handler is api.handler
    assert changed["Resources"]["Api"]["Properties"]["BinaryMediaTypes"].pop() == "*/*"

    # And nothing else differs
    function["Handler"] = "api.handler"
    assert changed == template.load()


def test_what_was_built_stays_as_it_is(tmp_path: Path) -> None:
    built = tmp_path / "built"
    (built / "ApiFunction").mkdir(parents=True)
    template.dump(template.load(), built / "template.yaml")
    before = (built / "template.yaml").read_bytes()

    variant.with_probe(built, tmp_path / "made")

    assert (built / "template.yaml").read_bytes() == before
    assert list((built / "ApiFunction").iterdir()) == []
