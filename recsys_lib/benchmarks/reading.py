"""Speed of reading: ``python -m recsys_lib.benchmarks.reading [--rows N] [--plays]``.

Makes a table with a power law in users and items and the types of MovieLens, then measures, each in a process of its
own so that the memory is its own too: the bare readers (pandas with dtypes, pyarrow) and the lab: reading, checking,
indexing and splitting. ``--plays``: ids that are text, no ratings, no timestamps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv
from tabulate import tabulate

from recsys_lib.benchmarks.scale import made_tables

TYPES = {"userId": np.int64, "movieId": np.int64, "rating": np.float32, "timestamp": np.int64}


def made_ratings(folder: Path, rows: int) -> Path:
    """Write :func:`.scale.made_tables` as ratings.csv and movies.csv in the format of ml-25m."""
    folder.mkdir(parents=True, exist_ok=True)
    interactions, items = made_tables(rows)
    names = {"user_id": "userId", "item_id": "movieId"}
    table = pa.Table.from_pandas(interactions.rename(columns=names), preserve_index=False)
    csv.write_csv(table, folder / "ratings.csv", csv.WriteOptions(quoting_style="none"))
    titles = items["title"] + items["year"].map(" ({})".format)
    films = pd.DataFrame({"movieId": items["item_id"], "title": titles, "genres": items["genres"].str.join("|")})
    films.to_csv(folder / "movies.csv", index=False)
    return folder


def made_plays(folder: Path, rows: int) -> Path:
    """Write plays.csv, a table of another shape: listener and track as text, nothing else, some pairs twice."""
    plays = made_tables(rows)[0].sample(rows, replace=True, random_state=0)
    texts = {"listener": plays["user_id"].map("u-{:07x}".format), "track": plays["item_id"].map("t:{:06d}".format)}
    pd.DataFrame(texts).to_csv(folder / "plays.csv", index=False)
    return folder


def read_pandas(folder: Path) -> int:
    """pandas.read_csv with dtypes."""
    return len(pd.read_csv(folder / "ratings.csv", dtype=TYPES))


def read_pyarrow(folder: Path) -> int:
    """pyarrow.csv.read_csv with types, as its own table."""
    types = {name: pa.from_numpy_dtype(kind) for name, kind in TYPES.items()}
    return len(csv.read_csv(folder / "ratings.csv", convert_options=csv.ConvertOptions(column_types=types)))


def lab(folder: Path) -> tuple[int, dict[str, float]]:
    """The lab: read, check, index, split; CPU seconds of each."""
    from recsys_lib import Interactions, load_dataset, splits

    columns = None if (folder / "ratings.csv").exists() else {"listener": "user_id", "track": "item_id"}
    clock = [time.process_time()]
    data = load_dataset(folder, columns=columns)
    clock.append(time.process_time())
    Interactions.from_frame(data.interactions)
    clock.append(time.process_time())
    (splits.temporal_user if data.has_timestamps else splits.random)(data.interactions)
    clock.append(time.process_time())
    seconds = dict(zip(("read and check", "index", "split"), np.diff(clock).tolist(), strict=True))
    return len(data.interactions), seconds


def measure(case: Callable, folder: Path) -> dict[str, Any]:
    """Run one case in this process: what it is, rows, seconds, CPU seconds, of its steps too, peak memory (GiB)."""
    start, cpu = time.perf_counter(), time.process_time()
    result = case(folder)
    rows, steps = result if isinstance(result, tuple) else (result, {})
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB to GiB
    return {"case": case.__doc__, "rows": rows, "seconds": taken, "cpu": cpu, "peak_gib": peak, "steps": steps}


def _apart(work: Callable, *given: object) -> Any:
    """Do something in a process of its own, which begins with little memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *given).result()


def table_of(results: list[dict]) -> str:
    """The results as a table to read."""
    rows = [
        {
            "": result["case"],
            "rows/s": f"{result['rows'] / result['seconds']:,.0f}",
            "seconds": f"{result['seconds']:.1f}",
            "CPU s": f"{result['cpu']:.1f}",
            "peak GiB": f"{result['peak_gib']:.2f}",
            "CPU s of": ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["steps"].items()),
        }
        for result in results
    ]
    return tabulate(rows, headers="keys", disable_numparse=True)


def main() -> None:
    """Make the table and print what each case takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the made table (25 million: --rows 25000000)")
    parser.add_argument("--plays", action="store_true", help="text ids, no ratings, no timestamps")
    given = parser.parse_args()
    make, cases = (made_plays, [lab]) if given.plays else (made_ratings, [read_pandas, read_pyarrow, lab])
    with tempfile.TemporaryDirectory() as temporary:
        folder = _apart(make, Path(temporary), given.rows)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{given.rows:,} rows, {size:,.0f} MB, {os.cpu_count()} cores")
        results = [_apart(measure, case, folder) for case in cases]
    print(table_of(results))
    for bare in results[:-1]:
        times = results[-1]["steps"]["read and check"] / bare["cpu"]
        print(f"to read and to check takes {times:.1f} times the CPU seconds of {bare['case'].rstrip('.')}")


if __name__ == "__main__":
    main()
