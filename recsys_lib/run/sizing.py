"""Parameters by the size of the data, for a data set without a parameter file."""

from __future__ import annotations

from typing import Any

import yaml

from recsys_lib.paths import Paths

LARGE = 500_000  # rows from which the defaults of the notebooks take too long
EASE_ITEMS = 6000  # that EASE models; time grows with their cube, memory with their square: 24 bytes a pair


def sized(rows: int, users: int, items: int) -> dict[str, dict[str, Any]]:
    """Parameters by notebook for so much data; of a parameter that is a dictionary, what changes in it.

    Nets train on about as many steps as on 100,000 rows, searches try fewer values.

    >>> sized(100_000, 943, 1682), sized(10_000_000, 70_000, 10_700)["06_neural_hybrid"]["batch_size"]
    ({}, 250000)
    """
    if rows < LARGE:
        return {}
    less = (LARGE / rows) ** 0.5
    bpr = {"iterations": max(20, round(100 * less))}
    sections: dict[str, dict[str, Any]] = {
        "03_popularity": {"half_lives": [30, 120, 1000], "genre_weights": [0.0, 0.3, 0.6]},
        "04_als": {"regularizations": [3, 100], "bpr": bpr},
        "05_item_models": {"lambdas": [100, 1000], "half_lives": [7, 40], "bpr": dict(bpr)},
        "06_neural_hybrid": {
            "epochs": max(2, round(5 * less)),
            "batch_size": rows // 40,
            "ranker_epochs": min(130, max(4, 260_000 // users)),
            "ranker_models": 1,
        },
        "07_evaluation": {"curve_sizes": [1, 5, 20], "curve_shares": [0.1, 1.0], "refit_seeds": 2},
    }
    if items > EASE_ITEMS:
        sections["05_item_models"]["ease"] = {"max_items": EASE_ITEMS}
    return sections


def sized_for(dataset: str) -> dict[str, dict[str, Any]]:
    """:func:`sized` for what 02 prepared of a data set; nothing where it has not yet."""
    size = size_of(dataset)
    return sized(*size) if size else {}


def size_of(dataset: str) -> tuple[int, int, int] | None:
    """Rows, users and items of the prepared tables; None where there are none."""
    import pyarrow.compute as pc  # not for the application, whose kernels are to stay light
    import pyarrow.parquet as pq

    tables = [Paths(dataset).processed / f"{part}.parquet" for part in ("train", "valid", "test")]
    if not all(table.is_file() for table in tables):
        return None
    rows = sum(pq.read_metadata(table).num_rows for table in tables)
    known = pq.read_table(tables[0], columns=["user_id", "item_id"])
    return rows, *(pc.count_distinct(known[column]).as_py() for column in ("user_id", "item_id"))


def announcement(dataset: str) -> str:
    """What a run will use, take and can be given instead; empty where the notebooks' own defaults do."""
    size = size_of(dataset)
    sections = sized(*size) if size else {}
    if not sections:
        return ""
    rows, users, items = size
    million = rows / 1e6
    lines = [
        f"{rows:,} rows, {users:,} users, {items:,} items: searches and nets are made smaller, so that the run takes "
        f"about {15 * million**1.1:,.0f} CPU minutes and {2.2 + 0.8 * million:,.1f} GB."
    ]
    if "ease" in sections["05_item_models"]:
        lines += [f"EASE models the {EASE_ITEMS:,} most popular items; the others have no score by it."]
    lines += ["More is had with PARAMS=<a file of these lines, changed>:", yaml.safe_dump(sections, sort_keys=False)]
    return "\n".join(lines).rstrip()
