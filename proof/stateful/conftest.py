"""The functions in this process, as the black-box suite has them."""

from tests.dynamodb_local import dynamodb_client, dynamodb_local
from tests.e2e.conftest import in_process, issued, tables

__all__ = ["dynamodb_client", "dynamodb_local", "in_process", "issued", "tables"]
