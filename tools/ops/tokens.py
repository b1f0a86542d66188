"""Issue bearer tokens, each shown once, and revoke them.

    python -m tools.ops.tokens issue PRINCIPAL [--env ENV] [--days N]
    python -m tools.ops.tokens revoke TOKEN [--env ENV]

Without --env, on the local stack. If a token begins with a hyphen, write -- before it.
"""

from __future__ import annotations

import argparse
import sys

from tools import tokens
from tools.errors import ToolError, run
from tools.ops import environments

_MISSING = {
    "issue": "for which principal? For example: make token PRINCIPAL=alice",
    "revoke": "which token? For example: make revoke TOKEN=…",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Issue and revoke bearer tokens.")
    parser.add_argument("action", choices=["issue", "revoke"])
    parser.add_argument("subject", metavar="PRINCIPAL|TOKEN")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    parser.add_argument(
        "--days", type=float, default=tokens.DEFAULT_DAYS, help="how many days it is valid (default: 90)"
    )
    arguments = parser.parse_args()
    if not arguments.subject:
        raise ToolError(_MISSING[arguments.action])
    environment = environments.find(arguments.env)
    dynamodb, table = environment.client("dynamodb"), environment.outputs["TokensTable"]
    if arguments.action == "revoke":
        tokens.revoke(dynamodb, table, arguments.subject)
        print("revoked", file=sys.stderr)
    else:
        print(tokens.issue(dynamodb, table, arguments.subject, arguments.days))
        print("shown once: only its hash is stored", file=sys.stderr)


if __name__ == "__main__":
    run(main)
