"""Requests to other services: the host makes them, where the node grants it.

    from rustmq import http

    @rustmq.map
    def name(order):
        product = http.get(f"https://products.example/v1/{order['sku']}").ok().json()
        return {"sku": order["sku"], "name": product["name"]}

`send` makes those of a batch together. A batch may be worked again, and makes its requests again. The build
finds that a module makes requests by this import, or by the words `rustmq.http` in its code.
"""

import json as _json
from dataclasses import dataclass, field, replace

from ._record import Reject, Retry, as_bytes, milliseconds, text

PASSING = ("rate", "resolve", "connect", "timeout", "protocol", "other")
"""Troubles that may pass. The others: invalid, denied, tls, too-large, redirect."""

RETRY_MS = 1000


@dataclass
class Request:
    """A request to be made. A body that is text is its bytes."""

    method: str
    url: str
    headers: dict = field(default_factory=dict)
    body: object = None
    timeout_ms: object = None


@dataclass
class Response:
    """An answer, of any status. Names of headers are in lower case; the last of a name counts."""

    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    url: str = ""

    def __post_init__(self):
        self.body = as_bytes(self.body)

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def json(self):
        """The body read from JSON; what is none refuses the row, with the code `http-json`."""
        try:
            return _json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Unreadable("http-json", f"the answer is not as expected: {error}") from None

    def ok(self):
        """Itself, if its status is 2xx; 429 and 5xx ask for the row again later, all else refuses it."""
        if 200 <= self.status < 300:
            return self
        code, message = f"http-{self.status}", f"the answer has status {self.status}"
        if self.status != 429 and self.status < 500:
            raise Reject(code, message)
        after = self.headers.get("retry-after", "")
        seconds = int(after[:12]) if after.isascii() and after.isdigit() else None
        raise Retry(RETRY_MS if seconds is None else seconds * 1000, code, message)


class Unreadable(Reject, ValueError):
    """An answer that is no JSON."""


class Error(Exception):
    """No answer. `trouble` says why; uncaught, it refuses the row, or asks for it again if it may pass."""

    trouble = "other"

    @staticmethod
    def of(trouble, message):
        code = f"http-{trouble}"
        error = _Later(RETRY_MS, code, message) if trouble in PASSING else _Refused(code, message)
        error.trouble = trouble
        return error

    def __str__(self):
        return f"{self.trouble}: {self.message}"


class _Refused(Error, Reject):
    pass


class _Later(Error, Retry):
    pass


class _Host:
    """Who answers: the component's `http`, or a test."""

    send = None


def send(requests):
    """Makes many requests, several at a time: a `Response` or an `Error` for each, in their order."""
    if _Host.send is None:
        raise RuntimeError("nobody answers requests here: a test says who does with rustmq.testing.http")
    return _Host.send([_fitting(request if isinstance(request, Request) else Request(*request))
                       for request in requests])


def _fitting(request):
    """The same as the contract can hold it; raises where the body or a header cannot be that."""
    as_bytes(request.body)
    wait = request.timeout_ms
    return replace(
        request, method=text(request.method), url=text(request.url),
        headers={text(name): _header(name, value) for name, value in request.headers.items()},
        timeout_ms=None if wait is None else milliseconds(wait),
    )


def _header(name, value):
    """The contract's are text: bytes are read as UTF-8, all else is written out."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return text(value)
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        why = f"its bytes are no UTF-8, as those of a request must be: {error}"
        raise ValueError(f"header `{name}`: {why}") from None


def request(method, url, headers=None, body=None, json=None, timeout_ms=None):
    """The answer, of any status. Raises `Error` where there is none."""
    headers = dict(headers or {})
    if json is not None:
        body = _json.dumps(json, ensure_ascii=False, separators=(",", ":"))
        headers.setdefault("content-type", "application/json")
    [answer] = send([Request(method, url, headers, body, timeout_ms)])
    if isinstance(answer, Error):
        raise answer
    return answer


def get(url, **rest):
    return request("GET", url, **rest)


def post(url, **rest):
    return request("POST", url, **rest)
