"""What `make contract` writes into template.yaml and openapi.yaml, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unittest.mock import Mock

import pytest
import yaml

from idempotency.body import Body
from provisioning import resources
from tests.sample import SampleRequest
from tools import contract
from tools.errors import ToolError
from tools.setup import ROOT

THING = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "enum": ["a", "b"]}}}
PLACE = ("Api", "Models")
TEXT = """\
# The first line
Api:   # with a remark
  Models:
    # Said of Before.
    Before: {type: object}   # laid out by hand

    Thing:
      type:   array
      # said of items
      items: &items
        type: string

    # Said of After.
    After:
      properties: {name: !Sub "${Name}"}
  # The end
Other: [1,  2]
"""


class Item(Body):
    """A thing that is sold.

    Args:
        sku: what it is called; the name lasts
            for ever.
    """

    sku: str


class Order(Item):
    """What somebody wants, as a list.

    Not published.

    Args:
        count: how many.

    Raises:
        nobody: is a field of this name.
    """

    count: int = 1
    gift: Item | None = None
    items: Annotated[list[Item] | None, {"maxItems": 3}] = None
    paid: bool = False


class Bare(Body):
    by: str = "sea"


class Own(Body):
    """Described here."""

    any: Any = None

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "description": "Described there.",
        "properties": {"any": {"enum": [{"a": 1}], "description": "Hand-made."}},
    }


NAMES = {id(body.SCHEMA): body.__name__ for body in (Item, Order)}


def put(path: Path, text: str, schemas: Any, **options: Any) -> str:
    """The text of a file with schemas in it."""
    path.write_bytes(text.encode())
    return contract.rewritten(path, PLACE, schemas, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


class TestRewritten:
    def test_replaces_an_entry_and_nothing_else(self, file: Path) -> None:
        before, rest = TEXT.split("      type:   array")
        _, after = rest.split("        type: string\n")
        written = """\
      type: object
      required: [name]
      properties:
        name:
          type: string
          enum: [a, b]
"""

        assert put(file, TEXT, {"Thing": THING}) == f"{before}{written}{after}"

    def test_replaces_what_cloudformation_would_compute(self, file: Path) -> None:
        written = put(file, TEXT, {"After": THING})

        assert "!Sub" not in written
        assert written.endswith("          enum: [a, b]\n  # The end\nOther: [1,  2]\n")

    def test_leaves_an_entry_that_is_right(self, file: Path) -> None:
        schemas = {"Before": {"type": "object"}, "Thing": {"items": {"type": "string"}, "type": "array"}}

        assert put(file, TEXT, schemas) == TEXT
        assert put(file, "Api:\r\n  Models:\r\n    Before: {type: object}", schemas | {"Thing": THING}).startswith(
            "Api:\r\n  Models:\r\n    Thing:\n"
        )

    def test_puts_a_new_entry_first(self, file: Path) -> None:
        before, after = TEXT.split("    # Said of Before.")
        written = put(file, TEXT, {"New": {"type": "object"}, "Newer": {"type": "object"}})

        assert written == (
            f"{before}    New:\n      type: object\n    Newer:\n      type: object\n    # Said of Before.{after}"
        )

    @pytest.mark.parametrize("end", ["\n", "\nOther: 1\n", "\n# The end\n"])
    def test_begins_an_empty_mapping(self, file: Path, end: str) -> None:
        written = put(file, f"Api:\n  Models:{end}", {"Thing": THING})

        assert yaml.safe_load(written)["Api"] == {"Models": {"Thing": THING}}
        assert written.endswith(end.removeprefix("\n"))

    @pytest.mark.parametrize("end", ["", "\n", "\n\n# The end"])
    @pytest.mark.parametrize(
        "value",
        [
            "{type: string}",
            "\n      type: string",
            "\n      a:\n        - b\n        - c: >-\n            d",
            "&x y",
            "'z'",
        ],
    )
    def test_replaces_the_last_entry_whatever_it_is(self, file: Path, value: str, end: str) -> None:
        written = put(file, f"Api:\n  Models:\n    Thing: {value}{end}", {"Thing": THING})

        assert yaml.safe_load(written) == {"Api": {"Models": {"Thing": THING}}}
        assert written.endswith(end.strip("\n"))

    def test_is_the_same_the_second_time(self, file: Path) -> None:
        item = {"type": "object", "description": "Long: " + "word " * 60, "enum": ["on", "1", "é", "#"]}
        written = put(file, TEXT, {"Thing": {"items": item, "not": item}})

        assert put(file, written, {"Thing": {"items": item, "not": item}}) == written
        assert max(map(len, written.splitlines())) <= 120
        assert "*" not in written

    def test_keeps_remarks_that_the_schema_does_not_replace(self, file: Path) -> None:
        text = """\
Api:
  Models:
    Thing:
      title: A thing
      description: Old.
      examples: [{name: a}]
      properties:
        description: {type: string, title: Gone}
        name: {type: integer, title: Its name, description: Old., format: int32}
        title: {type: string, title: Its title}
"""
        schema = {
            "description": "New.",
            "properties": {"name": {"type": "string", "description": "New."}, "title": {"type": "integer"}},
        }

        assert yaml.safe_load(put(file, text, {"Thing": schema}, keep_remarks=True))["Api"]["Models"]["Thing"] == {
            "title": "A thing",
            "description": "New.",
            "examples": [{"name": "a"}],
            "properties": {
                "name": {"type": "string", "title": "Its name", "description": "New."},
                "title": {"type": "integer", "title": "Its title"},
            },
        }
        assert yaml.safe_load(put(file, text, {"Thing": schema}))["Api"]["Models"]["Thing"] == schema

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "file.yaml has no Api.Models in block style"),
            ("[]", "file.yaml has no Api.Models in block style"),
            ("Api:\n  Schemas:\n", "file.yaml has no Api.Models in block style"),
            ("Api: {Models: {}}", "file.yaml has no Api.Models in block style"),
            ("Api:\n  Models: {Thing: {}}", "file.yaml has no Api.Models in block style"),
            ("Api: [", "file.yaml is not valid YAML: while parsing a flow node expected"),
            ("Api:\n  Models: none\n", "file.yaml is not valid YAML: mapping values are not allowed here"),
            (
                "Api:\n  Models:\n    Thing: &thing {}\nOther: *thing",
                "file.yaml is not valid YAML: found undefined alias 'thing'",
            ),
        ],
    )
    def test_says_in_one_line_why_it_cannot(self, file: Path, text: str, why: str) -> None:
        with pytest.raises(ToolError) as error:
            put(file, text, {"Thing": THING})

        assert str(error.value).startswith(why)
        assert "\n" not in str(error.value)


class TestDescribed:
    def test_says_what_docstrings_and_defaults_say(self) -> None:
        schema = contract.described(Order, NAMES)

        assert schema["description"] == "What somebody wants, as a list."
        assert schema["properties"] == {
            "sku": {"type": "string", "description": "What it is called; the name lasts for ever."},
            "count": {"type": "integer", "description": "How many.", "default": 1},
            "gift": {"$ref": "#/components/schemas/Item"},
            "items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}, "maxItems": 3},
            "paid": {"type": "boolean", "default": False},
        }
        assert Order.SCHEMA["properties"]["count"] == {"type": "integer"}

    def test_says_nothing_of_a_class_without_a_docstring(self) -> None:
        assert contract.described(Bare, NAMES) == {
            **Bare.SCHEMA,
            "properties": {"by": {"type": "string", "default": "sea"}},
        }

    def test_says_what_a_schema_of_its_own_says(self) -> None:
        assert contract.described(Own, NAMES) == Own.SCHEMA


class TestBodies:
    def test_are_those_in_src(self) -> None:
        found = contract.bodies().keys()

        assert "ServerRequest" in found
        assert SampleRequest.__name__ not in found, "it is the tests'"

    def test_of_one_name_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        double = type("ServerRequest", (Body,), {"__module__": resources.__name__})
        monkeypatch.setattr(resources, "Double", double, raising=False)

        with pytest.raises(ToolError, match=r"^src/ has two bodies called ServerRequest; "):
            contract.bodies()

    def test_that_cannot_be_imported_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contract, "import_module", Mock(side_effect=TypeError("Thing.name: why")))

        with pytest.raises(ToolError, match=r"^src/api\.py cannot be imported: Thing\.name: why$"):
            contract.bodies()


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
        """A template and a document, neither of which has a schema."""
        template, document = tmp_path / "template.yaml", tmp_path / "openapi.yaml"
        template.write_text("Resources:\n  Api:\n    Properties:\n      Models:\n")
        document.write_text("components:\n  schemas:\n")
        monkeypatch.setattr(contract, "_TEMPLATE", template)
        monkeypatch.setattr(contract, "_DOCUMENT", document)
        return template, document

    @pytest.fixture
    def command(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Function that runs the command with options, and returns its exit code."""

        def run(*options: str) -> int:
            monkeypatch.setattr(sys, "argv", ["contract", *options])
            return contract.main()

        return run

    def test_writes_and_checks(
        self, files: tuple[Path, Path], command: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = [file.read_text() for file in files]

        assert command("--check") == 1
        assert capsys.readouterr() == (
            "",
            "error: template.yaml and openapi.yaml: different from the bodies in src/; run: make contract\n",
        )
        assert [file.read_text() for file in files] == before

        assert (command(), command("--check"), command()) == (0, 0, 0)
        assert capsys.readouterr() == (
            "written: template.yaml and openapi.yaml\n" + "template.yaml and openapi.yaml are up to date\n" * 2,
            "",
        )
        models = yaml.safe_load(files[0].read_text())["Resources"]["Api"]["Properties"]["Models"]
        schemas = yaml.safe_load(files[1].read_text())["components"]["schemas"]
        assert models == {name: body.SCHEMA for name, body in contract.bodies().items()}
        assert schemas["ServerRequest"]["properties"]["size"] == {
            **models["ServerRequest"]["properties"]["size"],
            "description": "How large it is.",
        }

    def test_writes_and_then_names_models_without_a_class(self, files: tuple[Path, Path], command: Any) -> None:
        command()
        written = files[0].read_text()
        files[0].write_text(f"{written.replace('minLength: 1', 'minLength: 2')}        Gone: {{type: object}}\n")

        with pytest.raises(ToolError, match=r"^template\.yaml has models without a class in src/: Gone; delete them$"):
            command()

        assert files[0].read_text() == f"{written}        Gone: {{type: object}}\n"
        with pytest.raises(ToolError, match="Gone"):
            command("--check")

    def test_needs_nothing_but_its_module(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "tools.contract", "--check"],
            cwd=ROOT,
            env={},
            capture_output=True,
            text=True,
            check=False,
        )

        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "template.yaml and openapi.yaml are up to date\n", "")
