"""Start the service: ``python -m recsys_lib.api ml-100k --port 8000``.

The options that keep it offline and safe stand here, so that `make api`, the tests and the benchmark serve the same
thing. It answers this machine alone unless ``--host`` says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any

import h11
import uvicorn
from asgi_correlation_id import correlation_id
from uvicorn.protocols.http.h11_impl import H11Protocol

from recsys_lib.api.app import create_app
from recsys_lib.files import may_open
from recsys_lib.paths import run_name

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SWITCH = 0.0005  # seconds until a thread that computes lets the one that answers go on; Python's own is ten times that
PATIENCE = 10  # seconds: for a whole request to arrive, and until an idle connection is closed
DRAIN = 1.0  # seconds in which kept-alive connections can still send a request when the service is asked to stop
GRACE = 20  # seconds that requests under way have then
CONNECTIONS = 1000  # at once; a third of the files that the process may open where that is less
LEAST_FILES = 128  # with fewer, those that wait to be accepted could take what the service needs for its own
BACKLOG = 32  # connections that wait to be accepted; asyncio takes them in at once, before those too many are closed
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request id; for a request its parts, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Turn a record into its line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := correlation_id.get():
            line["request_id"] = request_id
        if record.name == "uvicorn.access":
            line |= zip(("client", "method", "path", "http", "status"), record.args, strict=True)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Connection(H11Protocol):
    """uvicorn's protocol, which would wait without end for the rest of a request and accept whoever comes.

    A connection that has not sent a whole request within ``PATIENCE`` seconds is closed, and so is one too many.
    """

    limit = CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(PATIENCE, transport.abort)
        if len(self.connections) > self.limit:
            transport.write(BUSY)
            transport.close()

    def handle_events(self) -> None:
        """Take what has arrived; stop waiting once that is a whole request."""
        super().handle_events()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._late.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have arrived already."""
        self._late.cancel()
        self._late = self.loop.call_later(PATIENCE, self.transport.abort)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._late.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """uvicorn's server, which cuts kept-alive connections off when it stops, also those whose request is on its way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, let each one's next answer be its last, then stop."""
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        until = time.monotonic() + DRAIN
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. It names TCP as its protocol: only then asyncio sets TCP_NODELAY on what it accepts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # so that a second service is refused now
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"cannot listen on {host}:{port} ({reason}): choose another --port")
    return listening


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends it; requests under way are answered first."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.api", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one")
    parser.add_argument("--allow-host", action="append", default=[], help="name by which others may call the service")
    given = parser.parse_args(arguments)
    key, hosts = os.environ.get("RECSYS_API_KEY"), tuple(given.allow_host)
    if given.host in LOOPBACK:
        hosts += LOOPBACK
    else:
        warn = f"WARNING: listening on {given.host}: other machines can reach this service, and it speaks plain HTTP."
        print(warn if key else f"{warn} Set RECSYS_API_KEY to a secret to ask for a key.", file=sys.stderr, flush=True)
    try:
        files = may_open(LEAST_FILES)
    except OSError as few:
        sys.exit(str(few))
    listening = listen(given.host, given.port)
    shown = f"[{given.host}]" if ":" in given.host else given.host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    print(f"{run_name(given.dataset)} at {address}, its pages at {address}/docs", flush=True)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level="INFO", handlers=[handler], force=True)
    Connection.limit = min(CONNECTIONS, files // 3)
    sys.setswitchinterval(SWITCH)
    config = uvicorn.Config(
        create_app(given.dataset, key=key, hosts=hosts),
        http=Connection,  # h11 bounds the size of a request's head, which httptools does not
        loop="asyncio",
        ws="none",
        proxy_headers=False,  # names of clients that a proxy claims are not believed
        server_header=False,
        log_config=None,
        headers=[("x-content-type-options", "nosniff")],
        backlog=BACKLOG,
        timeout_keep_alive=PATIENCE,
        timeout_graceful_shutdown=GRACE,
    )
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once it has stopped
        Server(config).run(sockets=[listening])
