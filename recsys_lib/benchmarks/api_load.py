"""The processes beside the benchmark of the service: the service itself, a bare endpoint, and the load.

``python -m recsys_lib.benchmarks.api_load ask URL RATE SECONDS`` reads paths as JSON, asks for them at a steady rate on
kept-alive connections and prints what came; ``... bare`` serves an endpoint that does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CONNECTIONS = 32
STOP = 30  # seconds that the service has to stop


@dataclass
class Server:
    """A running service: its address, its process, and the file with its log."""

    url: str
    process: subprocess.Popen
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

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
        until, answer = time.monotonic() + seconds, None
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}/health")
                if answer.status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"The service is not healthy: {answer.json()['detail'] if answer else 'it does not answer'}")


@contextlib.contextmanager
def running(dataset: str, log: Path, *options: str, ready: bool = True, shell: str = "") -> Iterator[Server]:
    """Serve on a free port of this machine, in a process of its own, until the block ends.

    Parameters
    ----------
    options
        Of the command line.
    ready
        Whether to wait until a model is loaded.
    shell
        What a shell does before, such as ``ulimit -n 256``.
    """
    command = [sys.executable, "-m", "recsys_lib.api", dataset, "--port", "0", *options]
    if shell:
        command = ["sh", "-c", f'{shell}; exec "$@"', "sh", *command]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
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
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def bare_server() -> Iterator[str]:
    """Address of a bare endpoint, until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, "bare"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def start_load(url: str, paths: list[str], rate: float, seconds: float) -> subprocess.Popen:
    """Begin to ask in a process of its own; its output is a JSON list of due (s), seconds, status, version."""
    command = [sys.executable, "-m", __spec__.name, "ask", url, str(rate), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(paths))
    process.stdin.close()
    return process


# ---- in those processes --------------------------------------------------------------------------------------


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return int(head[9:12]), await reader.readexactly(int(length))


async def _ask(pool: asyncio.Queue, address: tuple[str, int], path: str, due: float, rows: list) -> None:
    """One request, by a connection that is free; an error of any kind is a row with status 0."""
    connection, status, version = await pool.get(), 0, ""
    try:
        if connection is None:
            connection = await asyncio.open_connection(*address)
        connection[1].write(f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode())
        status, body = await _answer(connection[0])
        version = body.partition(b'"version":"')[2].partition(b'"')[0].decode()
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        version, connection = repr(error), None
    rows.append((due, time.perf_counter() - due, status, version))
    pool.put_nowait(connection)


async def _load(url: str, paths: list[str], rate: float, seconds: float) -> list[tuple]:
    host, port = url.removeprefix("http://").split(":")
    pool: asyncio.Queue = asyncio.Queue()  # first in, first out: no connection is idle for long
    for _ in range(CONNECTIONS):
        pool.put_nowait(None)
    began, rows, tasks = time.perf_counter(), [], []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(_ask(pool, (host, int(port)), paths[number % len(paths)], due, rows)))
    await asyncio.gather(*tasks)
    return [(due - began, *rest) for due, *rest in rows]


def _bare_main() -> None:
    """A server whose only endpoint does nothing: the limit."""
    import uvicorn
    from fastapi import FastAPI

    from recsys_lib.api.server import listen

    app = FastAPI()

    @app.get("/bare/{user_id}")
    async def bare(user_id: str, k: int = 10) -> dict[str, Any]:
        return {"user_id": user_id, "k": k}

    listening = listen("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, http="h11", loop="asyncio", ws="none", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    what, *arguments = sys.argv[1:]
    if what == "bare":
        _bare_main()
    else:
        address, per_second, duration = arguments
        answers = _load(address, json.loads(sys.stdin.read()), float(per_second), float(duration))
        print(json.dumps(asyncio.run(answers)))
