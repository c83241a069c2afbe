"""Speed of reading: ``python -m recsys_lib.benchmarks.reading [--rows N]``.

Makes a table with a power law in users and films and the types of MovieLens, then measures, each in a process of its
own so that the memory is its own too: the bare readers (pandas with dtypes, pyarrow) and the lab: reading, checking,
indexing and splitting. ``--plays`` measures a table of another shape instead: ids that are text, no ratings, no
timestamps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv
from tabulate import tabulate

TYPES = {"userId": np.int64, "movieId": np.int64, "rating": np.float32, "timestamp": np.int64}
_CHUNK = 5_000_000


def _power_law(rng: np.random.Generator, n_ids: int, exponent: float, size: int) -> np.ndarray:
    """Draw codes 0..n_ids-1, code i with a chance like 1 / (i + 10)^exponent, (size,) int64."""
    weight = 1 / (np.arange(n_ids) + 10.0) ** exponent
    edges = np.cumsum(weight)
    return np.searchsorted(edges, rng.random(size) * edges[-1], side="right")


def made_pairs(rows: int, n_users: int, n_items: int, seed: int = 0) -> Iterator[pd.DataFrame]:
    """Pairs of user and item, no pair twice, users in ascending order as in MovieLens, in chunks of rows."""
    if 10 * rows > n_users * n_items:
        raise ValueError(f"{rows:,} rows are too many for {n_users:,} users and {n_items:,} films")
    rng = np.random.default_rng(seed)
    keys = np.empty(0, np.int64)
    while len(keys) < rows:
        size = int((rows - len(keys)) * 1.3) + 1000
        drawn = _power_law(rng, n_users, 0.6, size) * n_items + _power_law(rng, n_items, 0.9, size)
        keys = np.union1d(keys, drawn)
    kept = np.sort(rng.permutation(len(keys))[:rows])
    for start in range(0, rows, _CHUNK):
        part = keys[kept[start : start + _CHUNK]]
        yield pd.DataFrame({"user_id": part // n_items + 1, "item_id": part % n_items + 1})


def _write_chunks(path: Path, chunks: Iterator[pd.DataFrame]) -> None:
    """Write chunks to one CSV file with a header line."""
    writer = None
    for chunk in chunks:
        table = pa.Table.from_pandas(chunk, preserve_index=False)
        writer = writer or csv.CSVWriter(path, table.schema, write_options=csv.WriteOptions(quoting_style="none"))
        writer.write_table(table)
    writer.close()


def made_ratings(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write a folder in the format of ml-25m: ratings.csv and movies.csv, sizes in its proportions."""
    folder.mkdir(parents=True, exist_ok=True)
    n_users, n_items = (int(share * rows**0.5) + 10 for share in (32, 12))  # at 25 million as many as ml-25m has
    rng = np.random.default_rng(seed)

    def chunks() -> Iterator[pd.DataFrame]:
        for pairs in made_pairs(rows, n_users, n_items, seed):
            stars = (rng.integers(1, 11, len(pairs)) / 2).astype(np.float32)
            when = rng.integers(800_000_000, 1_600_000_000, len(pairs))
            named = pairs.rename(columns={"user_id": "userId", "item_id": "movieId"})
            yield named.assign(rating=stars, timestamp=when)

    _write_chunks(folder / "ratings.csv", chunks())
    ids = np.arange(1, n_items + 1)
    films = pd.DataFrame({"movieId": ids, "title": [f"Film {i} (1999)" for i in ids], "genres": "Drama|War"})
    films.to_csv(folder / "movies.csv", index=False)
    return folder


def made_plays(path: Path, rows: int, seed: int = 0) -> Path:
    """Write a table of another shape: listener and track as text, nothing else, some pairs twice."""
    rng = np.random.default_rng(seed)
    listeners, tracks = max(20, rows // 50), max(50, rows // 40)
    codes = _power_law(rng, listeners, 0.6, rows), _power_law(rng, tracks, 0.9, rows)
    frame = pd.DataFrame({"listener": codes[0], "track": codes[1]})
    frame["listener"] = "u-" + frame["listener"].map("{:07x}".format).astype("str")
    frame["track"] = "t:" + frame["track"].map("{:06d}".format).astype("str")
    _write_chunks(path, iter([frame]))
    return path


def read_pandas(folder: Path) -> int:
    """Bare pandas with dtypes."""
    return len(pd.read_csv(folder / "ratings.csv", dtype=TYPES))


def read_pyarrow(folder: Path) -> int:
    """Bare pyarrow with types, as its own table."""
    types = {name: pa.from_numpy_dtype(kind) for name, kind in TYPES.items()}
    return len(csv.read_csv(folder / "ratings.csv", convert_options=csv.ConvertOptions(column_types=types)))


def _steps(path: Path, split_by: str, **options: object) -> tuple[int, dict[str, float]]:
    """Load, index and split; how many rows, and the seconds of each."""
    from recsys_lib import Interactions, load_dataset, splits

    clock = [time.perf_counter()]
    data = load_dataset(path, **options)
    clock.append(time.perf_counter())
    Interactions.from_frame(data.interactions)
    clock.append(time.perf_counter())
    getattr(splits, split_by)(data.interactions)
    clock.append(time.perf_counter())
    seconds = dict(zip(("read and check", "index", "split"), np.diff(clock).tolist(), strict=True))
    return len(data.interactions), seconds


def lab_ratings(folder: Path) -> tuple[int, dict[str, float]]:
    """The lab: read, check, index, split."""
    return _steps(folder, "temporal_user")


def lab_plays(folder: Path) -> tuple[int, dict[str, float]]:
    """The lab, text ids: read, check, index, split."""
    return _steps(folder / "plays.csv", "random", columns={"listener": "user_id", "track": "item_id"})


CASES: dict[str, Callable] = {case.__name__: case for case in (read_pandas, read_pyarrow, lab_ratings, lab_plays)}


def measure(case: str, folder: Path) -> dict:
    """Run one case in this process and say what it took."""
    start, cpu = time.perf_counter(), time.process_time()
    result = CASES[case](folder)
    rows, steps = result if isinstance(result, tuple) else (result, {})
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB to GiB
    return {"case": CASES[case].__doc__, "rows": rows, "seconds": taken, "cpu": cpu, "peak_gib": peak, "steps": steps}


def _apart(work: Callable, *given: object) -> Any:
    """Do something in a process of its own, which begins with little memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *given).result()


def table_of(results: list[dict]) -> str:
    """The results for people to read."""
    rows = [
        {
            "": result["case"],
            "rows/s": f"{result['rows'] / result['seconds']:,.0f}",
            "seconds": f"{result['seconds']:.1f}",
            "CPU s": f"{result['cpu']:.1f}",
            "peak GiB": f"{result['peak_gib']:.2f}",
            "seconds of": ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["steps"].items()),
        }
        for result in results
    ]
    return tabulate(rows, headers="keys", disable_numparse=True)


def main() -> None:
    """Make the table and print what each case takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the made table (25 million: --rows 25000000)")
    parser.add_argument("--plays", action="store_true", help="text ids, no ratings, no timestamps")
    parser.add_argument("--folder", type=Path, help="where to make the table; by default a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        if given.plays:
            _apart(made_plays, folder / "plays.csv", given.rows)
        else:
            _apart(made_ratings, folder, given.rows)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{given.rows:,} rows, {size:,.0f} MB, {os.cpu_count()} cores")
        cases = ["lab_plays"] if given.plays else ["read_pandas", "read_pyarrow", "lab_ratings"]
        print(table_of([_apart(measure, case, folder) for case in cases]))


if __name__ == "__main__":
    main()
