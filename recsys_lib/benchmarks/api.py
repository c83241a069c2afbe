"""Measure how much the service bears: ``python -m recsys_lib.benchmarks.api ml-100k``.

A process of its own asks for lists of ten for random users at a steady rate, whether answers come or not; a request's
time counts from the moment it was due. In the middle a new champion takes over. A bare endpoint of the same framework
is asked in the same way before: what is above it is ours. Everything happens in a home of its own, so that the real
run is not touched.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import httpx
import pandas as pd
import psutil
import uvicorn
from fastapi import FastAPI

from recsys_lib.api.server import listen
from recsys_lib.benchmarks.demo import Server, free_port, started
from recsys_lib.files import write_json
from recsys_lib.paths import home
from recsys_lib.run.run import Run

CONNECTIONS = 32
SPAWN = multiprocessing.get_context("spawn")


class Service(Server):
    """A running service."""

    def lines(self) -> list[dict[str, Any]]:
        """The lines it has logged; one that is being written is left out."""
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def wait_until_ready(self) -> None:
        """Wait until a model is loaded; TimeoutError if that takes longer than a minute."""
        until, answer = time.monotonic() + 60, None
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}/health")
                if answer.status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"The service is not healthy: {answer.json()['detail'] if answer else 'it does not answer'}")


@contextlib.contextmanager
def running(dataset: str, log: Path, *options: str, ready: bool = True, shell: str = ":") -> Iterator[Service]:
    """Serve on a free port of this machine, in a process of its own, until the block ends.

    - ``options``: of the command line.
    - ``ready``: whether to wait until a model is loaded.
    - ``shell``: what a shell does before, such as ``ulimit -n 256``.
    """
    command = ["sh", "-c", f'{shell}; exec "$@"', "sh", sys.executable, "-m", "recsys_lib.api", dataset, *options]
    port = free_port()
    with started([*command, "--port", str(port)], f"http://127.0.0.1:{port}", log, "its pages at", {}) as server:
        service = Service(**vars(server))
        if ready:
            service.wait_until_ready()
        yield service


async def _ask(url: str, paths: list[str], rate: float, seconds: float) -> list[tuple[float, float, int, str]]:
    """Ask for the paths in turn at a steady rate; give due (s), ms, status (0: no answer) and version of each.

    By hand, on kept-alive connections: httpx takes as much of the processor as the service does.
    """
    host, port = url.removeprefix("http://").split(":")
    rows, tasks, pool = [], [], asyncio.Queue()  # first in, first out: no connection is idle for long
    for _ in range(CONNECTIONS):
        pool.put_nowait(None)

    async def one(path: str, due: float) -> None:
        connection, status, version = await pool.get(), 0, ""
        try:
            connection = connection or await asyncio.open_connection(host, int(port))
            connection[1].write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = (await connection[0].readuntil(b"\r\n\r\n")).lower()
            body = await connection[0].readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            status, version = int(head[9:12]), body.partition(b'"version":"')[2].partition(b'"')[0].decode()
        except (OSError, EOFError):
            connection = None
        rows.append((due - began, 1000 * (time.perf_counter() - due), status, version))
        pool.put_nowait(connection)

    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(paths[number % len(paths)], due)))
    await asyncio.gather(*tasks)
    return rows


def _load(*given: Any) -> pd.DataFrame:
    return pd.DataFrame(asyncio.run(_ask(*given)), columns=["due", "ms", "status", "version"])


def _serve_bare(listening: socket.socket) -> None:
    app = FastAPI()

    @app.get("/recommend/{user_id}")
    async def bare(user_id: str, k: int = 10) -> dict[str, Any]:
        return {"user_id": user_id, "k": k}

    config = uvicorn.Config(app, http="h11", loop="asyncio", ws="none", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


def _copied(dataset: str, folder: Path) -> Run:
    """Copy what a run needs to be served into a home of its own, and make this the home of this process."""
    run = Run(dataset)
    for source in (run.paths.processed, run.champion.folder, run.paths.outputs / "champion.json"):
        target = folder / source.relative_to(home())
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    os.environ["RECSYS_HOME"] = str(folder)
    return Run(dataset)


def _replace_champion(run: Run) -> None:
    """Let a copy of the champion take over, as a version ``again``."""
    champion = run.champion
    folder = champion.folder.with_name("again")
    shutil.copytree(champion.folder, folder)
    record = champion.record | {"version": "again", "folder": folder.relative_to(run.paths.outputs).as_posix()}
    write_json(run.paths.outputs / "champion.json", record)


def measure(dataset: str, rate: float = 200, seconds: float = 30) -> tuple[pd.DataFrame, dict[str, int]]:
    """Ask a bare endpoint, then the service, at the same rate; a new champion takes over in the middle.

    Returns a table with a row each: p50, p95, p99, longest (ms), requests, failed, answered (a second), CPU (ms a
    request), memory (MB); and how many requests each version of the champion answered.
    """
    table, listening = {}, listen("127.0.0.1", 0)
    bare = SPAWN.Process(target=_serve_bare, args=(listening,), daemon=True)
    bare.start()
    with tempfile.TemporaryDirectory(prefix="bench-api-") as folder, patch.dict(os.environ):  # put back at the end
        run = _copied(dataset, Path(folder))
        users = random.Random(0).choices(run.known.user_ids.tolist(), k=int(rate * seconds))
        paths = [f"/recommend/{quote(str(user), safe='')}?k=10" for user in users]
        with running(dataset, Path(folder) / "log") as server, ProcessPoolExecutor(1, SPAWN) as pool:
            bare_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            for what, url, pid in (("bare", bare_url, bare.pid), (run.champion.name, server.url, server.process.pid)):
                process = psutil.Process(pid)
                pool.submit(_load, url, paths[:200], 50, min(3, seconds / 4)).result()  # warm up
                busy = sum(process.cpu_times()[:2])
                load = pool.submit(_load, url, paths, rate, seconds)
                if url == server.url:
                    time.sleep(seconds / 2)
                    _replace_champion(run)
                rows = load.result()
                table[what] = {
                    **rows["ms"].quantile([0.5, 0.95, 0.99]).set_axis(["p50", "p95", "p99"]),
                    "longest": rows["ms"].max(),
                    "requests": len(rows),
                    "failed": (rows["status"] != 200).sum(),
                    "answered": len(rows) / (rows["due"] + rows["ms"] / 1000).max(),
                    "CPU": 1000 * (sum(process.cpu_times()[:2]) - busy) / len(rows),
                    "memory": process.memory_info().rss / 2**20,
                }
    bare.terminate()
    return pd.DataFrame(table).T, rows["version"].value_counts().to_dict()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.api", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    given = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    table, versions = measure(given.dataset)
    print(
        f"{given.dataset}, {os.cpu_count()} cores, load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )
    print(table.to_string(float_format="{:,.1f}".format))
    print(f"A new champion took over in the middle; answered by version: {versions}")


if __name__ == "__main__":
    main()
