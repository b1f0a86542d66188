"""A client of the API for the demo and the tests: it can also hang up before the answer."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3

_RETRIED = frozenset({409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """An HTTP response.

    Args:
        status: the status code.
        body: the bytes of the body.
        headers: the header fields; names in lower case, each with all its values.
    """

    status: int
    body: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.body.decode(errors='replace'):.40}{' (replayed)' if self.replayed else ''}"

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Answer:
        """The answer that the gateway makes from the reply of a function, in its Lambda proxy integration.

        Raises:
            TypeError, ValueError: if Lambda could not pass the reply on.
        """
        handed_over = json.loads(json.dumps(reply))
        if handed_over != reply:
            raise ValueError(f"the reply does not survive JSON: {reply}")
        body = reply.get("body") or ""
        content = base64.b64decode(body) if reply["isBase64Encoded"] else body.encode(errors="surrogatepass")
        headers = {name.lower(): list(values) for name, values in reply["multiValueHeaders"].items()}
        return cls(reply["statusCode"], content, headers)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def replayed(self) -> bool:
        """Whether this is a stored response."""
        return self.headers.get("idempotent-replayed") == ["true"]

    @property
    def problem(self) -> str:
        """The last part of the problem's type (RFC 9457).

        Raises:
            ValueError: if this is no problem, or its type does not lead to SPECIFICATION_URL, if that is set.
        """
        body = self.json if self.headers.get("content-type") == ["application/problem+json"] else {}
        base, _, slug = body.get("type", "").partition("#")
        expected = (self.status, os.environ.get("SPECIFICATION_URL", base))
        if (body.get("status"), base) != expected or not slug or not body.get("title"):
            raise ValueError(f"not a problem of this API: {self!r}")
        return str(slug)


class Client:
    """Calls the API as one principal.

    Args:
        api_url: the API's base URL, stage included.
        token: the bearer token.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, api_url: str, token: str, timeout: float = 120) -> None:
        self._api_url = api_url
        self._token = token
        self._timeout = timeout
        self._http = urllib3.PoolManager(maxsize=64, retries=False)

    def post(self, path: str, body: Any, key: str, prefer: str = "") -> Answer:
        """POST once; see RFC 7240 for what to prefer."""
        headers = {**self._headers(key), **({"Prefer": prefer} if prefer else {})}
        return self._request("POST", path, headers, json.dumps(body).encode())

    def post_until_done(
        self, path: str, body: Any, key: str, *, within: float = 60, seen: Callable[[Answer], None] = lambda _: None
    ) -> Answer:
        """POST again with the same key, after the pauses that the answers ask for, until one is final.

        Args:
            path: the path below the stage.
            body: the JSON value to send.
            key: the idempotency key.
            within: seconds after which the latest answer is returned, whatever it is.
            seen: called with each answer that is not final.
        """
        deadline = time.monotonic() + within
        while True:
            answer = self.post(path, body, key)
            if answer.status not in _RETRIED or time.monotonic() > deadline:
                return answer
            seen(answer)
            time.sleep(float(answer.headers.get("retry-after", ["1"])[0]))

    def post_and_hang_up(self, path: str, body: Any, key: str, until: Callable[[], bool], within: float = 30) -> bool:
        """POST, and close the connection without reading a byte of the answer, as soon as a condition is met.

        Returns:
            Whether the condition was met in time; the connection is closed in any case.
        """
        url = urlsplit(self._api_url)
        content = json.dumps(body).encode()
        headers = {"Host": url.netloc, **self._headers(key), "Content-Length": str(len(content))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((str(url.hostname), url.port or 80)) as connection:
            connection.sendall(f"POST {url.path}{path} HTTP/1.1\r\n{head}\r\n".encode() + content)
            deadline = time.monotonic() + within
            while not (holds := until()) and time.monotonic() < deadline:
                time.sleep(0.01)
        return holds

    def get(self, path: str) -> Answer:
        """GET once."""
        return self._request("GET", path, {"Authorization": f"Bearer {self._token}"})

    def _headers(self, key: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        reply = self._http.request(method, f"{self._api_url}{path}", headers=headers, body=body, timeout=self._timeout)
        return Answer(reply.status, reply.data, {name.lower(): reply.headers.getlist(name) for name in reply.headers})
