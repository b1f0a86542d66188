from tests.dynamodb_local import dynamodb_client, dynamodb_local

__all__ = ["dynamodb_client", "dynamodb_local"]
