"""What AWS makes of template.yaml: the transformation of AWS::Serverless, with SAM's own translator."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from boto3 import Session
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from tools.local.aws import REGION

# It warns of toggles and metrics that only AWS has.
logging.getLogger("samtranslator").setLevel(logging.ERROR)
_PARTS = ("Parameters", "Rules", "Conditions", "Resources", "Outputs")


def transform(template: Mapping[str, Any], parameters: Mapping[str, str], code: str = "code") -> dict[str, Any]:
    """Transform a template for some values of its parameters, as a deployment does before anything else.

    Args:
        template: the template, with intrinsic functions in their long form.
        parameters: values of parameters; the others have their defaults.
        code: the name of the artifact in S3; `sam deploy` makes it of the content.

    Raises:
        samtranslator.model.exceptions.InvalidDocumentException: if it is not valid.
    """
    deployed = json.loads(json.dumps(template))  # no part of it is shared
    deployed["Globals"]["Function"]["CodeUri"] = f"s3://artifacts/{code}"
    defaults = {name: str(each["Default"]) for name, each in template["Parameters"].items() if "Default" in each}
    pseudo = {"AWS::Region": REGION, "AWS::Partition": "aws"}
    translator = Translator({}, Parser(), boto_session=Session(region_name=REGION))
    made = translator.translate(deployed, {**pseudo, **defaults, **parameters})
    transformed: dict[str, Any] = json.loads(json.dumps({part: made[part] for part in _PARTS if part in made}))
    return transformed
