"""Kills at random moments: ``python -m recsys_lib.benchmarks.chaos --kills 20``, or ``make chaos``.

A small run on a made table is done once undisturbed, and once while its processes are killed with SIGKILL, all of them
or one, and Make is started again, until so many kills were done. Then its leaderboard must be that of the undisturbed
run bit by bit, its databases sound, and no temporary file and no process left. Prints what it saw, and keeps it in
``reports/ml-100k/benchmark_chaos.json``, which the report takes up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from recsys_lib.files import read_json, write_json
from recsys_lib.paths import REPOSITORY, Paths, run_name
from recsys_lib.tests.made import write_ml_100k

PARAMETERS = REPOSITORY / "notebooks" / "params" / "test.yaml"
PATIENCE = 60  # seconds for a process to finish what it does when the one above it is gone


class Lab:
    """A home of its own in which Make runs the real notebooks of this checkout on a made table."""

    def __init__(self, home: Path, data: Path) -> None:
        home.mkdir()
        for name in ("Makefile", "notebooks", "recsys_lib"):
            (home / name).symlink_to(REPOSITORY / name)
        self.home, self.outputs = home, home / "outputs" / run_name(str(data))
        self.command = ["make", "run", f"DATASET={data}", f"PARAMS={PARAMETERS}"]
        self.command += [f"PY={sys.executable}", f"PYTHON={sys.executable}"]

    def start(self) -> subprocess.Popen:
        """Start ``make run``; what it says goes to ``make.log``."""
        given = os.environ | {"RECSYS_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)}
        given |= {"MAKEFLAGS": "", "RECSYS_REMOTE": ""}
        with (self.home / "make.log").open("a") as log:
            return subprocess.Popen(self.command, cwd=self.home, env=given, stdout=log, stderr=log)

    def finish(self) -> float:
        """Run to the end and return seconds; RuntimeError with the end of what it said if it fails."""
        began = time.perf_counter()
        if self.start().wait():
            raise RuntimeError((self.home / "make.log").read_text()[-2000:])
        return time.perf_counter() - began

    def processes(self) -> list[psutil.Process]:
        """All processes that work in this home."""
        living = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RECSYS_HOME") == str(self.home) and process.status() != "zombie":
                    living.append(process)
        return living

    def leaderboard(self) -> list[dict[str, Any]]:
        """Models and metrics, without the seconds."""
        models = read_json(self.outputs / "metrics" / "leaderboard.json")["models"]
        return [{name: value for name, value in model.items() if name != "fit_seconds"} for model in models]


def main() -> int:
    """Kill processes of a small run at random moments, and compare what it gives in the end."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.chaos", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, orphans = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        data = write_ml_100k(Path(folder) / "made", n_users=150, n_items=90, per_user=40)
        whole, lab = Lab(Path(folder) / "whole", data), Lab(Path(folder) / "killed", data)
        seconds = whole.finish()
        print(f"undisturbed: {seconds:.0f} s", flush=True)
        kills = 0
        while kills < given.kills:
            running, everything = lab.start(), draw.random() < 0.5
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(draw.uniform(0.3, seconds / 4))  # it is done: have a part of it done again
                draw.choice(sorted((lab.outputs / "notebooks").iterdir())).unlink()
                continue
            there = lab.processes()
            victims = there if everything else [draw.choice(there)]
            for process in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            running.wait()
            orphans += len(psutil.wait_procs(lab.processes(), timeout=PATIENCE)[1])
            kills += 1
            print(f"kill {kills}: {len(victims)} of {len(there)} processes", flush=True)
        lab.finish()
        databases = sorted(lab.home.rglob("*.db"))
        checks = [sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone()[0] for file in databases]
        result = {
            "at": date.today().isoformat(),
            "kills": given.kills,
            "equal": lab.leaderboard() == whole.leaderboard(),
            "leftovers": len(list(lab.home.rglob(".*.part*"))),
            "orphans": orphans,
            "databases_sound": set(checks) <= {"ok"},
        }
    print(result)
    write_json(Paths("ml-100k").reports / "benchmark_chaos.json", result)
    return int(not result["equal"] or not result["databases_sound"] or result["leftovers"] + orphans > 0)


if __name__ == "__main__":
    raise SystemExit(main())
