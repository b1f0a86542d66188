"""Mutants that behave like the original, so that no test can tell, each with the reason."""

_SHORTCUT = "a shortcut that changes only the cost"

SURVIVORS = {
    "request.py of: same → False": _SHORTCUT,
    "response.py _check_limits: len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH and self._encoded_length() >"
    " _LAMBDA_LIMIT → (self._encoded_length() > _LAMBDA_LIMIT)": _SHORTCUT,
    "response.py _without_nan: 'NaN' in text or 'Infinity' in text → True": _SHORTCUT,
}
