"""Who may ask, and how often and how much."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys_lib.api.problems import ProblemError, problem_response

OPEN = ("/health", "/docs", "/openapi.json")  # say nothing of the data: no key is needed
OPEN_BELOW = "/static-offline-docs/"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLIENTS = 10_000  # remembered at most


@dataclass(frozen=True)
class Limits:
    """What one client may do.

    Attributes
    ----------
    rate, burst
        Requests a second over time, and at once; rate 0: no limit.
    body
        Bytes of a request's body.
    """

    rate: float = 500.0
    burst: int = 1000
    body: int = 64 * 1024


class TokenBuckets:
    """A bucket of tokens for each client: a request takes one, and ``rate`` of them come back each second.

    >>> buckets = TokenBuckets(rate=1, burst=2)
    >>> [buckets.wait("a", now) for now in (0.0, 0.0, 0.0, 1.0)], buckets.wait("b", 0.0)
    ([0.0, 0.0, 1.0, 0.0], 0.0)
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Take a token; 0, or the seconds until there is one."""
        if self.rate <= 0:
            return 0.0
        tokens, then = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        enough = tokens >= 1
        self._buckets[client] = (tokens - enough, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self.rate


class Guard:
    """ASGI middleware that answers in place of the application where a request is not to be let through.

    Parameters
    ----------
    key
        What a client has to show as ``X-API-Key`` or ``Authorization: Bearer``; none: everybody may ask.
    hosts
        Names by which the service may be called, so that no page of the web that gave its own name this machine's
        address reads it from a browser (DNS rebinding); none: any.
    limits
        Rate, burst and size.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: tuple[str, ...], limits: Limits) -> None:
        self.app = app
        self.key = key.encode() if key else None
        self.hosts = hosts
        self.limits = limits
        self.buckets = TokenBuckets(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ProblemError as problem:
                await problem_response(scope, problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        wait = self.buckets.wait((scope.get("client") or ("",))[0], time.monotonic())
        if wait:
            seconds = {"Retry-After": str(math.ceil(wait))}
            raise ProblemError(429, f"At most {self.limits.rate:g} requests a second, please.", headers=seconds)
        if self.hosts and _host(headers.get("host", "")) not in self.hosts:
            raise ProblemError(421, f"This service is called {' or '.join(self.hosts)}.")
        free = scope["path"] in OPEN or scope["path"].startswith(OPEN_BELOW)
        if self.key and not free and not self._has_key(headers):
            told = {"WWW-Authenticate": "Bearer"}
            raise ProblemError(401, "A key is needed, in the header X-API-Key.", headers=told)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.limits.body:
            raise ProblemError(413, f"A request may have {self.limits.body:,} bytes.")

    def _has_key(self, headers: Headers) -> bool:
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode("latin-1"), self.key)


def _host(header: str) -> str:
    """The name without the port.

    >>> _host("localhost:8000"), _host("[::1]:8000"), _host("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()
