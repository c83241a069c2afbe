"""Measure what an engine takes to read a table, divide it and fit ALS: ``python spark_costs.py pandas table.parquet``.

Prints JSON: rows, seconds on the clock, CPU seconds, and the peak memory in GB of this process (as the system counts
it) and of Spark's (its JVM and the Python processes of the workers; looked at five times a second). A process of its
own for each measurement: peaks do not go down again.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import temporal_user
from recsys_lib.models import ALS

ENGINES = ("pandas", "spark")
SETTINGS = {"factors": 64, "regularization": 30, "iterations": 15, "alpha": 10}
HEAP = "1g"  # of Spark's JVM
PAUSE = 0.2  # seconds between two looks at the memory


def with_pandas(table: str) -> int:
    """Read, divide and fit by pandas, scipy and implicit; the number of rows."""
    frame = pd.read_parquet(table)
    ALS(**SETTINGS, threads=1).fit(Interactions.from_frame(temporal_user(frame).history))
    return len(frame)


def with_spark(table: str) -> int:
    """The same on Spark, with two cores and a heap of ``HEAP``."""
    from recsys_lib.scale import spark

    spark.session("local[2]", spark__driver__memory=HEAP)
    frame = spark.read(table)
    divided = spark.temporal_user(frame)
    spark.als(divided.where("part != 'test'").drop("part"), ALS(**SETTINGS))
    return frame.count()


class Meter(threading.Thread):
    """Looks at this process and those that it started: CPU seconds of each, and peak memory of the others in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended, self.cpu, self.peak = threading.Event(), {}, 0

    def run(self) -> None:
        """Look until :attr:`ended`."""
        while not self.ended.wait(PAUSE):
            self.look()

    def look(self) -> None:
        """Take the memory and the CPU seconds of all processes once."""
        this, used = psutil.Process(), 0
        for process in [this, *this.children(recursive=True)]:
            with suppress(psutil.Error):  # it has ended meanwhile
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                used += process.memory_full_info().uss if process != this else 0  # workers share pages
        self.peak = max(self.peak, used)


def peak_of_this() -> int:
    """Peak memory of this process in bytes; on Linux without that of its parent, which ``getrusage`` hands down."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(engine: str, table: str) -> dict[str, float]:
    """Run one engine in this process and measure it."""
    meter, start = Meter(), time.perf_counter()
    meter.start()
    rows = {"pandas": with_pandas, "spark": with_spark}[engine](table)
    seconds = time.perf_counter() - start
    meter.ended.set()
    meter.join()
    meter.look()
    costs = {"engine": engine, "rows": rows, "seconds": seconds, "cpu_seconds": sum(meter.cpu.values())}
    return {**costs, "own_gb": peak_of_this() / 1e9, "spark_gb": meter.peak / 1e9}


def measured_apart(engine: str, table: Path) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, engine, str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{engine} failed on {table.name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:3])))
