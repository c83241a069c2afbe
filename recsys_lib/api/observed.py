"""What is seen of the service from outside: request ids, one line of JSON for each request, and measures."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_lib.api.problems import ProblemError, problem_response

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

disable_created_metrics()  # a second series for each counter, which says when it began

log = logging.getLogger("recsys_lib.api.requests")


class Measures:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ["method", "route", "status"]
        self.requests = Counter("recsys_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "recsys_request_seconds",
            "Seconds from the request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.underway = Gauge("recsys_requests_underway", "Requests being answered now.", registry=self.registry)
        self.fallbacks = Counter(
            "recsys_fallbacks", "Lists of popular films in place of the model's.", registry=self.registry
        )
        self.loads = Counter("recsys_loads", "Attempts to take up a run.", ["outcome"], registry=self.registry)
        self.model = Gauge("recsys_model", "1 for the champion.", ["name", "version"], registry=self.registry)

    def loaded(self, name: str, version: str) -> None:
        """A run was taken up, and this model is the champion."""
        self.loads.labels("taken up").inc()
        self.model.clear()
        self.model.labels(name, version).set(1)

    def not_loaded(self) -> None:
        """A run could not be taken up."""
        self.loads.labels("failed").inc()


class Observed:
    """ASGI middleware, the outermost: gives every request an id, and logs, counts and times it.

    An error that nothing has caught is logged with the request's id and answered as a problem that tells no more.
    """

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app = app
        self.measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), 0, _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        scope["path"] = scope["raw_path"].decode("ascii", "replace")  # as sent: an id may hold a slash

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        self.measures.underway.inc()
        try:
            await self.app(scope, receive, tagged)
        except Exception:
            log.exception("a request failed", extra={"fields": {"request_id": request_id}})
            if not status:
                problem = ProblemError(500, f"Something went wrong; the log says what, under {request_id}.")
                await problem_response(scope, problem)(scope, receive, tagged)
        finally:
            self.measures.underway.dec()
            self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.measures.requests.labels(method, route, status).inc()
        self.measures.seconds.labels(route).observe(seconds)
        fields = {
            "request_id": scope["state"]["request_id"],
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"][:20],
            "path": scope["path"][:300],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 2),
        }
        log.info("request", extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    """The id that came with the request, where it is one; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode()
    return uuid.uuid4().hex


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the fields that came along."""

    def format(self, record: logging.LogRecord) -> str:
        """Turn a record into its line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(level: str = "INFO") -> None:
    """Let everything that is logged go to standard error, a line of JSON each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
