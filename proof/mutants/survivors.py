"""Mutants that no test can tell from the original, each with its reason."""

SURVIVORS = {
    "response.py _check_limits: len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH and self._encoded_length() >"
    " _LAMBDA_LIMIT → (self._encoded_length() > _LAMBDA_LIMIT)": "a shortcut: the answer is the same, only dearer",
}
