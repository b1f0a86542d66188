"""What a million requests of a kind cost, at published prices on demand."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tools.setup import ROOT

_LIST = json.loads((ROOT / "tools" / "prices.json").read_text())
_DYNAMODB, _LAMBDA = _LIST["prices"]["dynamodb"], _LIST["prices"]["lambda"]
GATEWAY: float = _LIST["prices"]["apigateway"]["million requests"]
"""US dollars for a million requests to a REST API."""
PLACE = f"{_LIST['region']}, {_LIST['as_of']}"
"""Region and month of the prices."""
MEMORY_GB = 1.0
"""Memory of the function, as the template has it by default."""


@dataclass(frozen=True)
class Price:
    """US dollars for a million requests.

    Args:
        dynamodb: capacity.
        function: Lambda's requests and duration.
    """

    dynamodb: float
    function: float

    @classmethod
    def of(cls, write_units: float, read_units: float, milliseconds: float) -> Price:
        """Price a request by its capacity and its duration."""
        capacity = write_units * _DYNAMODB["million WRU"] + read_units * _DYNAMODB["million RRU"]
        duration = milliseconds * 1000 * MEMORY_GB * _LAMBDA["GB-second arm64"]
        return cls(capacity, _LAMBDA["million requests"] + duration)

    def __str__(self) -> str:
        return f"{self.dynamodb:.2f} + {self.function:.2f}"
