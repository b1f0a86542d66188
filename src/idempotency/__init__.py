"""Idempotent POST endpoints on API Gateway, Lambda and DynamoDB: the life of an idempotency record."""
