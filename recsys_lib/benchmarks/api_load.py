"""The processes beside the service in its benchmark; light, so that they take little from what is measured.

``python -m recsys_lib.benchmarks.api_load ask URL RATE SECONDS`` reads paths as JSON, asks for them at a steady rate
and prints what came; ``... bare`` serves an endpoint that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

CONNECTIONS = 32


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
    """Ask at a steady rate: due time, seconds until answered, status, version that answered, of each request."""
    host, port = url.removeprefix("http://").split(":")
    pool: asyncio.Queue = asyncio.Queue()
    for _ in range(CONNECTIONS):
        pool.put_nowait(None)
    began, rows, tasks = time.perf_counter(), [], set()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(_ask(pool, (host, int(port)), paths[number % len(paths)], due, rows))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.sleep(0.01)
    return [(due - began, *rest) for due, *rest in rows]


def bare_main() -> None:
    """A server whose only endpoint does nothing: the limit."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/bare/{user_id}")
    async def bare(user_id: str, k: int = 10) -> dict[str, Any]:
        return {"user_id": user_id, "k": k}

    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, http="h11", loop="asyncio", ws="none", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


def main() -> None:
    """Be one of the two."""
    what, *given = sys.argv[1:]
    if what == "bare":
        bare_main()
    else:
        url, rate, seconds = given
        print(json.dumps(asyncio.run(_load(url, json.loads(sys.stdin.read()), float(rate), float(seconds)))))


if __name__ == "__main__":
    main()
