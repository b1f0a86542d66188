"""Provision a server, once."""

from typing import Literal, Protocol

from idempotency import Body, Completion, Operation
from provisioning.resources import Resources

Region = Literal["eu-west", "eu-central", "us-east", "us-west"]
REGIONS: dict[Region, str] = {
    "eu-west": "eu-west-1",
    "eu-central": "eu-central-1",
    "us-east": "us-east-1",
    "us-west": "us-west-2",
}
"""Our regions → AWS regions."""
Size = Literal["small", "medium", "large"]
SIZES: dict[Size, str] = {"small": "t4g.small", "medium": "t4g.medium", "large": "t4g.large"}
"""Our sizes → EC2 instance types (arm64)."""


class ServerRequest(Body):
    """The body of ``POST /v1/servers/provision``.

    Args:
        region: where the server is.
        size: how large it is.
    """

    region: Region
    size: Size


class Provider(Protocol):
    """Whatever servers come from."""

    def provision(self, server: ServerRequest, operation: Operation) -> dict[str, str]:
        """Provision the server of an operation; again in a later attempt, it is the same server.

        Returns:
            What the server's representation says of it besides id, region and size; ``status`` at least.

        Raises:
            Retry: if it cannot be done now.
        """


class InventoryProvider:
    """Provisions nothing: the row in the table is the server. Costs nothing, and needs no rights."""

    def provision(self, server: ServerRequest, operation: Operation) -> dict[str, str]:  # noqa: ARG002
        """See `Provider`."""
        return {"status": "provisioned"}


def provision(server: ServerRequest, operation: Operation, provider: Provider, resources: Resources) -> Completion:
    """Provision a server; its row and the operation's completion are one transaction."""
    details = provider.provision(server, operation)
    representation = {
        "id": f"srv-{operation.derived_id('server')}",
        "region": server.region,
        "size": server.size,
        **details,
    }
    return Completion(
        201,
        representation,
        headers={"Location": f"{operation.request.base_path}/v1/servers/{representation['id']}"},
        rows=[resources.row("server", representation, operation.principal)],
    )
