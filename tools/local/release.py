"""What tells one deployment from the next: a digest of the code, the template and the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from tools.setup import ROOT

BUILT = ROOT / ".aws-sam" / "build"
"""Where `sam build` puts the template, and each function's artifact."""


def release(built: Path, parameter_overrides: Iterable[str]) -> str:
    """The value of the template's parameter ``Release``; another one makes SAM publish, and deploy the API.

    Args:
        built: what `sam build` built; parameters without an override have their default in its template.
        parameter_overrides: ``Name=value`` each.

    Returns:
        Forty hexadecimal digits, which are the same for the same deployment on any machine.
    """
    digest = sha256()
    template = built / "template.yaml"
    artifacts = (path for path in built.glob("*/**/*") if path.is_file())
    parts = [template.read_bytes(), *(override.encode() for override in sorted(parameter_overrides))]
    for path in sorted(artifacts):
        parts += [str(path.relative_to(built)).encode(), path.read_bytes()]
    for part in parts:
        digest.update(sha256(part).digest())
    return digest.hexdigest()[:40]
