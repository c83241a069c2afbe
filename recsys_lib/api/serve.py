"""Start the service: ``python -m recsys_lib.api ml-100k --port 8000``.

All the options that keep it offline and safe stand here, so that `make api`, the tests and the benchmark serve the
same thing. It answers this machine alone unless it is told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from recsys_lib.api.app import Settings, create_app
from recsys_lib.api.guard import LOOPBACK, Limits
from recsys_lib.api.observed import log_as_json
from recsys_lib.paths import Paths

KEY = "RECSYS_API_KEY"
SWITCH = (
    0.0005  # seconds until a thread that loads has to let the one that answers go on; Python's own is ten times that
)
GRACE = 20  # seconds that requests under way have when the service is asked to stop


def warnings_for(host: str, key: str | None) -> list[str]:
    """What a person should know of where the service listens.

    >>> warnings_for("127.0.0.1", None)
    []
    >>> len(warnings_for("0.0.0.0", None)), len(warnings_for("0.0.0.0", "a long enough secret"))
    (2, 1)
    """
    if host in LOOPBACK:
        return []
    told = [f"WARNING: listening on {host}: other machines can reach this service, and it speaks plain HTTP."]
    if not key:
        told.append(f"WARNING: whoever reaches it may ask: set {KEY} to a secret to ask for a key.")
    return told


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends it; requests under way are answered first."""
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.api", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one")
    parser.add_argument("--rate", type=float, default=limits.rate, help="requests a second and client; 0: no limit")
    parser.add_argument("--burst", type=int, default=limits.burst, help="requests of a client at once")
    parser.add_argument("--max-body", type=int, default=limits.body, help="bytes of a request's body")
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two looks for a new champion")
    parser.add_argument("--allow-host", action="append", default=[], help="name by which others may call the service")
    given = parser.parse_args(arguments)
    key = os.environ.get(KEY) or None
    for line in warnings_for(given.host, key):
        print(line, file=sys.stderr, flush=True)
    hosts = (*LOOPBACK, *given.allow_host) if given.host in LOOPBACK else tuple(given.allow_host)
    limits = Limits(given.rate, given.burst, given.max_body)
    settings = Settings(given.dataset, key, hosts, limits, given.poll)
    listening = _listen(given.host, given.port)
    port = listening.getsockname()[1]
    shown = f"[{given.host}]" if ":" in given.host else given.host
    print(f"{Paths(given.dataset).name} at http://{shown}:{port}, its pages at http://{shown}:{port}/docs", flush=True)
    log_as_json()
    run(settings, listening)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    SystemExit
        If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SystemExit(f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port") from error


def run(settings: Settings, listening: socket.socket) -> None:
    """Serve on a socket. Names of clients that a proxy claims are not believed, web sockets are not spoken."""
    config = uvicorn.Config(
        create_app(settings),
        http="h11",  # bounds the size of a request's head, which httptools does not
        loop="asyncio",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE,
    )
    sys.setswitchinterval(SWITCH)
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once it has stopped
        uvicorn.Server(config).run(sockets=[listening])


# ---- a server to look at, for the tests, the benchmark and the examples --------------------------------------


@dataclass
class Server:
    """A running service.

    Attributes
    ----------
    url
        Where it answers.
    process
        Its process.
    log
        File with what it says: lines of JSON.
    """

    url: str
    process: subprocess.Popen
    log: Path

    def lines(self) -> list[dict]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until a model is loaded.

        Raises
        ------
        TimeoutError
            If that takes longer.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"The service is not healthy:\n{self.log.read_text()}")


@contextlib.contextmanager
def running(
    dataset: str,
    log: Path,
    *options: str,
    home: Path | None = None,
    variables: dict[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Server]:
    """Serve on a free port of this machine, in a process of its own, until the block ends.

    Parameters
    ----------
    dataset
        What to serve.
    log
        File for what it says.
    options
        Of the command line.
    home
        The home of the run, if it is not this process's own.
    variables
        Of its environment.
    ready
        Whether to wait until a model is loaded.
    """
    command = [sys.executable, "-m", "recsys_lib.api", dataset, "--port", "0", *options]
    given = {**os.environ, **({"RECSYS_HOME": str(home)} if home else {}), **(variables or {})}
    with log.open("w") as said:
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=said, text=True)
    try:
        first = process.stdout.readline()
        if not first:
            raise ChildProcessError(f"The service has ended:\n{log.read_text()}")
        server = Server(first.split()[2].rstrip(","), process, log)
        if ready:
            server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
