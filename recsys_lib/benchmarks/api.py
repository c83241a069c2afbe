"""How much the service bears: ``python -m recsys_lib.benchmarks.api ml-100k``.

A second process asks for lists of ten for random users at a steady rate, whether answers come or not; a request's
time counts from the moment it was due. In the middle a new champion takes over. A bare endpoint of the same framework,
in the same server, is asked in the same way before: what is above it is ours. Everything happens in a home of its own,
so that the real run is not touched.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import numpy as np
import pandas as pd
import psutil

from recsys_lib.benchmarks.api_load import bare_server, running, start_load
from recsys_lib.files import write_json
from recsys_lib.paths import home
from recsys_lib.run.run import Run


def rows_of(load: subprocess.Popen) -> pd.DataFrame:
    """What the load saw: due (s), ms, status, version."""
    table = pd.DataFrame(json.loads(load.stdout.read()), columns=["due", "ms", "status", "version"])
    load.wait()
    return table.assign(ms=1000 * table["ms"])


def copied(dataset: str, folder: Path) -> Run:
    """Copy what a run needs to be served into a home of its own, and make this the home of this process."""
    run = Run(dataset)
    for source in (run.paths.processed, run.champion.folder, run.paths.outputs / "champion.json"):
        target = folder / source.relative_to(home())
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    os.environ["RECSYS_HOME"] = str(folder)
    return Run(dataset)


def replace_champion(run: Run) -> None:
    """Let a copy of the champion take over, as a version ``again``."""
    champion = run.champion
    folder = champion.folder.with_name("again")
    shutil.copytree(champion.folder, folder)
    record = champion.record | {"version": "again", "folder": folder.relative_to(run.paths.outputs).as_posix()}
    write_json(run.paths.outputs / "champion.json", record)


def cpu_seconds(url: str) -> float:
    """CPU time that the process behind an address of this machine has taken."""
    port = int(url.rpartition(":")[2])
    sockets = psutil.net_connections("tcp")
    pid = next(each.pid for each in sockets if each.laddr.port == port and each.status == "LISTEN")
    return sum(psutil.Process(pid).cpu_times()[:2])


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Times in milliseconds, the rate at which answers came, and how many were not 200."""
    return {
        **{f"p{p}": float(np.percentile(rows["ms"], p)) for p in (50, 95, 99)},
        "longest": float(rows["ms"].max()),
        "requests": len(rows),
        "failed": int((rows["status"] != 200).sum()),
        "per_second": len(rows) / float((rows["due"] + rows["ms"] / 1000).max()),
        "versions": rows["version"].value_counts().to_dict(),
    }


def measure(dataset: str, rate: float, seconds: float) -> dict[str, Any]:
    """Ask a bare endpoint, then the service, at the same rate; a new champion takes over in the middle."""
    figures: dict[str, Any] = {"dataset": dataset, "rate": rate, "seconds": seconds, "cores": psutil.cpu_count()}
    figures["load_before"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-api-") as folder, patch.dict(os.environ):  # put back at the end
        run = copied(dataset, Path(folder))
        figures["model"] = run.champion.name
        users = random.Random(0).choices(run.known.user_ids.tolist(), k=int(rate * seconds))
        ids = [quote(str(user), safe="") for user in users]
        with running(dataset, Path(folder) / "log") as server, bare_server() as bare:
            for what, url, path in (("bare", bare, "/bare/{}?k=10"), ("service", server.url, "/recommend/{}?k=10")):
                paths = [path.format(user) for user in ids]
                rows_of(start_load(url, paths[:200], 50, min(3, seconds / 4)))  # warm up
                busy = cpu_seconds(url)
                load = start_load(url, paths, rate, seconds)
                if what == "service":
                    time.sleep(seconds / 2)
                    replace_champion(run)
                figures[what] = summary(rows_of(load))
                figures[what]["cpu_ms"] = 1000 * (cpu_seconds(url) - busy) / figures[what]["requests"]
            figures["memory_mb"] = psutil.Process(server.process.pid).memory_info().rss / 2**20
    figures["load_after"] = os.getloadavg()[0]
    return figures


def report(figures: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    lines = [
        f"{figures['model']} on {figures['dataset']}, {figures['cores']} cores, load average "
        f"{figures['load_before']:.1f} before and {figures['load_after']:.1f} after; {figures['rate']:g} requests a "
        f"second for {figures['seconds']:g} s"
    ]
    for what, label in (("bare", "a bare endpoint"), ("service", "/recommend/{user_id}?k=10")):
        row = figures[what]
        lines.append(
            f"  {label:<27} p50 {row['p50']:6.1f} ms   p95 {row['p95']:6.1f}   p99 {row['p99']:6.1f}   longest "
            f"{row['longest']:6.1f}   CPU {row['cpu_ms']:.2f} ms   answered {row['per_second']:.0f}/s   "
            f"failed {row['failed']} of {row['requests']:,}"
        )
    versions = ", ".join(f"{version} {n:,}" for version, n in figures["service"]["versions"].items())
    lines.append(f"  a new champion in the middle: answered by {versions}")
    lines.append(f"  memory of the service       {figures['memory_mb']:.0f} MB")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and keep the figures where a file is named."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.api", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    figures = measure(given.dataset, given.rate, given.seconds)
    print(report(figures))
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
