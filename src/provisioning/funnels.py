# example campaigns
"""MyFunnelAPI: landing pages."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict
from urllib.parse import quote

import fastjsonschema
import urllib3

from idempotency import Rejected, Retry

_FUNNEL = fastjsonschema.compile(
    {
        "type": "object",
        "required": ["id", "hostname"],
        "properties": {"id": {"type": "string", "minLength": 1}, "hostname": {"type": "string", "minLength": 1}},
    },
    use_default=False,
)
# Only these speak of the request. A refused token may be a rotated one, and the next attempt reads the secret again; a
# redirection, an unknown path or method, or an unpaid bill is for an operator to mend.
_FINAL = frozenset({400, 413, 422, 451})
_GONE = frozenset({404, 410})
_DEFAULT_PAUSE = 5
_LONGEST_PAUSE = 300


class Funnel(TypedDict):
    """A landing page.

    Args:
        id: what MyFunnelAPI calls it.
        hostname: where it is served.
    """

    id: str
    hostname: str


class Funnels:
    """Client of MyFunnelAPI.

    Every call carries an idempotency key or is idempotent by itself. So it is sent again here, once, if the connection
    cannot be made, or dies before any answer: MyFunnelAPI may have closed it while the function was frozen. Anything
    slower is left to the next attempt, which goes on from the last checkpoint.

    Args:
        base_url: where MyFunnelAPI is.
        secret: returns the bearer token; called at each request, so that a rotated one is picked up.
    """

    def __init__(self, base_url: str, secret: Callable[[], str]) -> None:
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        retries = urllib3.Retry(
            connect=1, read=False, redirect=False, status=0, other=0, respect_retry_after_header=False
        )
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=3), retries=retries)

    def create(self, name: str, domain: str, key: str) -> Funnel:
        """Create a landing page; again with the same key, it is the same one.

        Raises:
            Retry: if MyFunnelAPI cannot do it now, or its answer makes no sense.
            Rejected: ``funnel-rejected`` (422) if it never will.
        """
        answer = self._request("POST", "/v1/funnels", {"Idempotency-Key": key}, {"name": name, "domain": domain})
        try:
            funnel = _FUNNEL(json.loads(answer.data))
        except (ValueError, fastjsonschema.JsonSchemaException) as error:
            raise Retry(f"MyFunnelAPI answered {answer.status} with no funnel.", _DEFAULT_PAUSE) from error
        return {"id": funnel["id"], "hostname": funnel["hostname"]}

    def delete(self, id_: str) -> None:
        """Delete a landing page; succeeds if it is already gone.

        Raises:
            Retry: if MyFunnelAPI cannot do it now.
            Rejected: ``funnel-rejected`` (422) if it never will.
        """
        self._request("DELETE", f"/v1/funnels/{quote(id_, safe='')}", gone=True)

    def _request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None, *, gone: bool = False
    ) -> urllib3.BaseHTTPResponse:
        try:
            answer = self._send(
                method,
                f"{self._base_url}{path}",
                headers={"Authorization": f"Bearer {self._secret()}", **(headers or {})},
                json=body,
            )
            _ = answer.data  # read the body, which gives the connection back
        except urllib3.exceptions.HTTPError as error:
            raise Retry("MyFunnelAPI cannot be reached.", _DEFAULT_PAUSE) from error
        if answer.status in _FINAL:
            raise Rejected(
                "funnel-rejected",
                f"MyFunnelAPI rejected the landing page ({answer.status}).",
                status=422,
                title="The landing page was rejected",
            )
        if answer.status >= 300 and not (gone and answer.status in _GONE):
            raise Retry(f"MyFunnelAPI answered {answer.status}.", _pause(answer))
        return answer

    def _send(self, method: str, url: str, **request: Any) -> urllib3.BaseHTTPResponse:
        send = partial(self._http.request, method, url, preload_content=False, **request)
        try:
            return send()
        except urllib3.exceptions.ProtocolError as error:
            if not isinstance(error.args[-1], ConnectionError):
                raise
        return send()


def _pause(answer: urllib3.BaseHTTPResponse) -> int:
    """Seconds to wait, as the answer asks for (RFC 9110, section 10.2.3)."""
    seconds = answer.headers.get("Retry-After", "")
    return min(int(seconds), _LONGEST_PAUSE) if seconds.isdecimal() else _DEFAULT_PAUSE
