"""Mutants that behave like the original, so that no test can tell, each with the reason."""

SURVIVORS = {
    "response.py _check_limits: len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH and self._encoded_length() >"
    " _LAMBDA_LIMIT → (self._encoded_length() > _LAMBDA_LIMIT)": "a shortcut that changes only the cost",
}
