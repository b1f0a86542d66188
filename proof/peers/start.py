"""A cold start, alone in its process: ``python -m proof.peers.start MODULE ENDPOINT RECORDS ROWS``.

Prints CPU milliseconds from the start of Python to the end of the imports, and to the first answer.
"""

import sys
import time
from importlib import import_module
from uuid import uuid4


def main(module: str, endpoint: str, records: str, rows: str) -> None:
    library = import_module(module).LIBRARY
    imported = time.process_time()
    contract = import_module("proof.peers.libraries.contract")
    worker = library.worker(contract.Site(endpoint, records, rows), contract.Settings())
    answer = worker.post(contract.Request(str(uuid4())), lambda _: contract.Response())
    answered = time.process_time()
    worker.close()
    if answer.status != 201:
        sys.exit(f"error: {module} answered {answer.status}")
    print(imported * 1000, answered * 1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
