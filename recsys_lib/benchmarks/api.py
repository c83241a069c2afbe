"""How much the service bears: ``python -m recsys_lib.benchmarks.api ml-100k``.

A second process asks for lists of ten for random people at a steady rate, whether answers come or not; a request's
time counts from the moment it was due. In the middle a new champion is registered. A bare endpoint of the same
framework, in the same server, is asked in the same way before: what is above it is ours. Everything happens in a
home of its own, so that the registry of the real run is not touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import psutil

from recsys_lib.files import read_json, write_json
from recsys_lib.models.base import load_model
from recsys_lib.paths import Paths, home
from recsys_lib.run import artifacts, registry
from recsys_lib.run.reading import best_model

LOAD = "recsys_lib.benchmarks.api_load"
BARE = "/bare/{}?k=10"
LISTS = "/recommend/{}?k=10"


# ---- the load, in a process of its own -----------------------------------------------------------------------


def started_load(url: str, paths: list[str], rate: float, seconds: float) -> subprocess.Popen:
    """Begin to ask in a second process."""
    command = [sys.executable, "-m", LOAD, "ask", url, str(rate), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(paths))
    process.stdin.close()
    return process


def rows_of(process: subprocess.Popen) -> pd.DataFrame:
    """What the second process found: due (s), ms, status, version."""
    table = pd.DataFrame(json.loads(process.stdout.read()), columns=["due", "ms", "status", "version"])
    process.wait()
    return table.assign(ms=1000 * table["ms"]).sort_values("due", ignore_index=True)


# ---- what is asked -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bare_server() -> Iterator[str]:
    """Address of a bare endpoint, until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", LOAD, "bare"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def copied(dataset: str, folder: Path) -> tuple[Paths, str]:
    """Copy a run's tables and best model into a home of its own, and make this the home of this process."""
    real = Paths(dataset)
    board = read_json(artifacts.require(real.metrics / "leaderboard.json"))
    name = best_model(board)
    sources = [real.processed, real.models / name, real.metrics / "leaderboard.json"]
    sources.append(artifacts.require(real.metrics / "per_user" / f"{name}.parquet"))
    for source in sources:
        target = folder / source.relative_to(home())
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    os.environ["RECSYS_HOME"] = str(folder)
    return Paths(dataset), name


def enter(paths: Paths, name: str) -> registry.Version:
    """Register the saved model and make it champion."""
    board = read_json(paths.metrics / "leaderboard.json")
    board["protocol"] = {"fingerprint": "benchmark", "ranked_by": "ndcg@10"}
    evaluation = SimpleNamespace(per_user=pd.read_parquet(paths.metrics / "per_user" / f"{name}.parquet"))
    version = registry.register(paths, name, evaluation, board)
    return registry.promote(paths, name, version.version)


def people(url: str, number: int) -> list[str]:
    """Random ids, ready for a path."""
    total = httpx.get(f"{url}/users?limit=1").json()["total"]
    pages = range(0, min(total, 10_000), 100)
    ids = [user["user_id"] for page in pages for user in asked_users(url, page)]
    return [quote(str(user), safe="") for user in random.Random(0).choices(ids, k=number)]


def asked_users(url: str, offset: int) -> list[dict[str, Any]]:
    """A page of people."""
    return httpx.get(f"{url}/users?limit=100&offset={offset}").json()["items"]


def cpu_seconds(url: str) -> float:
    """CPU time that the process behind an address of this machine has taken."""
    port = int(url.rpartition(":")[2])
    listening = next(
        each for each in psutil.net_connections("tcp") if each.laddr.port == port and each.status == "LISTEN"
    )
    times = psutil.Process(listening.pid).cpu_times()
    return times.user + times.system


# ---- the measurement -----------------------------------------------------------------------------------------


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Times in milliseconds, the rate at which answers came, and how many were not 200."""
    ended = rows["due"] + rows["ms"] / 1000
    found = {f"p{p}": float(np.percentile(rows["ms"], p)) for p in (50, 95, 99)}
    return found | {
        "longest": float(rows["ms"].max()),
        "requests": len(rows),
        "failed": int((rows["status"] != 200).sum()),
        "per_second": len(rows) / float(ended.max()),
        "versions": dict(Counter(rows["version"])),
    }


def measure(dataset: str, rate: float, seconds: float) -> dict[str, Any]:
    """Ask a bare endpoint, then the service, at the same rate; register a new champion in the middle."""
    from recsys_lib.api.serve import running

    found: dict[str, Any] = {"dataset": dataset, "rate": rate, "seconds": seconds, "cores": psutil.cpu_count()}
    found["load_before"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-api-") as folder, patch.dict(os.environ):  # put back at the end
        paths, name = copied(dataset, Path(folder))
        enter(paths, name)
        found["model"] = name
        with running(dataset, Path(folder) / "log", "--rate", "0") as server, bare_server() as bare:
            ids = people(server.url, int(rate * seconds))
            asked = {"bare": (bare, BARE), "service": (server.url, LISTS)}
            for url, path in asked.values():
                rows_of(
                    started_load(url, [path.format(user) for user in ids[:200]], 50, min(3, seconds / 4))
                )  # warm up
            for what, (url, path) in asked.items():
                busy = cpu_seconds(url)
                process = started_load(url, [path.format(user) for user in ids], rate, seconds)
                if what == "service":
                    time.sleep(seconds / 2)
                    facts = artifacts.model_facts(paths, name)["data"]
                    load_model(paths.models / name).save(paths.models / name, data=facts | {"again": True})
                    enter(paths, name)
                found[what] = summary(rows_of(process))
                found[what]["cpu_ms"] = 1000 * (cpu_seconds(url) - busy) / found[what]["requests"]
            found["memory_mb"] = psutil.Process(server.process.pid).memory_info().rss / 2**20
    found["load_after"] = os.getloadavg()[0]
    return found


def report(found: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    lines = [
        f"{found['model']} on {found['dataset']}, {found['cores']} cores, load average {found['load_before']:.1f} "
        f"before and {found['load_after']:.1f} after; {found['rate']:g} requests a second for {found['seconds']:g} s"
    ]
    for what, label in (("bare", "a bare endpoint"), ("service", "/recommend/{user_id}?k=10")):
        row = found[what]
        lines.append(
            f"  {label:<27} p50 {row['p50']:6.1f} ms   p95 {row['p95']:6.1f}   p99 {row['p99']:6.1f}   longest "
            f"{row['longest']:6.1f}   CPU {row['cpu_ms']:.2f} ms   answered {row['per_second']:.0f}/s   "
            f"failed {row['failed']} of {row['requests']:,}"
        )
    versions = ", ".join(f"{version} {n:,}" for version, n in found["service"]["versions"].items())
    lines.append(f"  a new champion in the middle: answered by {versions}")
    lines.append(f"  memory of the service       {found['memory_mb']:.0f} MB")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and keep the figures where a file is named."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.api", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    found = measure(given.dataset, given.rate, given.seconds)
    print(report(found))
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
