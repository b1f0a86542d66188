"""Temporary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast, dataclass_transform

import fastjsonschema

from idempotency.errors import Problem


@dataclass_transform(frozen_default=True)
class Body:
    """A body."""

    SCHEMA: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read."""
        try:
            return cast("Callable[..., Self]", cls)(
                **fastjsonschema.compile(cls.SCHEMA, use_default=False, fast_fail=False)(value)
            )
        except fastjsonschema.JsonSchemaValuesException as invalid:
            raise Problem(
                "body-invalid", "The body does not match its schema.", errors=_field_errors(invalid.errors)
            ) from invalid


def _field_errors(errors: Any) -> list[dict[str, str]]:
    details: dict[str, str] = {}
    for error in errors:
        pointer = "#" + "".join(f"/{name}" for name in error.path[1:])
        match error.rule:
            case "required":
                missing = [name for name in error.rule_definition if name not in error.value]
                found = {f"{pointer}/{name}": "is required" for name in missing}
            case "additionalProperties":
                known = error.definition["properties"]
                found = {f"{pointer}/{name}": "is not known here" for name in error.value if name not in known}
            case _:
                found = {pointer: error.message.removeprefix(str(error.name)).strip()}
        details = found | details
    return [{"pointer": pointer, "detail": detail} for pointer, detail in details.items()]
