"""This project and its peers, measured in one run on the same DynamoDB Local, by ``make bench``."""
