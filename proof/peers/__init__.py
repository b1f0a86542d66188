"""Ours and its peers, measured in one run on the same DynamoDB Local. Run by ``make bench``."""
