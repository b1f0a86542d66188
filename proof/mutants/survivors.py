"""Mutants that behave like the original, so that no test can tell, each with the reason."""

_SHORTCUT = "a shortcut that changes only the cost"
_TYPES = "for the type checker: it is never None here"

SURVIVORS = {
    "idempotent.py __init__: record.request or b'' → (record.request)": _TYPES,
    "idempotent.py _show: self._app.exception_handler_manager.lookup_exception_handler(type(error)) or"
    " self._show_problem → (self._app.exception_handler_manager.lookup_exception_handler(type(error)))": _TYPES,
    "operation.py failure: self._record.failure or {} → (self._record.failure)": _TYPES,
    "operation.py undo_of: undo is None → False": "for the type checker: what is no function accepts no arguments",
    "progress.py of: record.response or {} → (record.response)": _TYPES,
    "request.py of: same → False": _SHORTCUT,
    "response.py _check_limits: len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH and self._encoded_length() >"
    " _LAMBDA_LIMIT → (self._encoded_length() > _LAMBDA_LIMIT)": _SHORTCUT,
    "response.py _check_limits: len(self.body) > _LAMBDA_LIMIT // _JSON_GROWTH →"
    " (len(self.body) >= _LAMBDA_LIMIT // _JSON_GROWTH)": _SHORTCUT,
    "response.py _without_nan: 'NaN' in text or 'Infinity' in text → True": _SHORTCUT,
    "store.py response: record.response is None → False": _TYPES,
}
