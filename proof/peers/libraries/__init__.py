"""The libraries that are compared, each behind the same small contract, configured as its documentation recommends."""
