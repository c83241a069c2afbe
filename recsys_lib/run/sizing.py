"""Parameters by the size and the form of the data, for a data set without a parameter file."""

from __future__ import annotations

from typing import Any, NamedTuple

import psutil

from recsys_lib.paths import Paths

LARGE = 500_000  # rows from which the defaults of the notebooks take too long,
MANY = 5000  # and users of a set of sequences
EASE_ITEMS = 6000  # that EASE models; time grows with their cube, memory with their square: 24 bytes a pair

# Of histories with an order and no times. Searched on the items before the last of Beauty, Toys_and_Games and LastFM.
_ALS = {"factors": 128, "alpha": 30, "half_life": 3}
_DIRECTED = {"window": 20, "neighbours": 1000, "shrinkage": 0, "decay": 0.4, "backward": 0.35}
_DIRECTED |= {"power": 0.3, "next_power": 0.15, "half_life": 1.4}
SEQUENCES: dict[str, dict[str, Any]] = {
    "04_als": {"alpha": 30.0, "regularizations": [3, 100], "recent": _ALS},
    "05_item_models": {
        "item_knn": {"half_life": 3},
        "sequence_knn": _DIRECTED,
        "ease": {"regularization": 100, "half_life": 2, "max_items": EASE_ITEMS // 2},
        "als": _ALS,
        "lambdas": [30, 300],
        "half_lives": [1, 3, 10],
        "penalty": 0.01,
    },
    "06_neural_hybrid": {
        "causal": {"embedding_dim": 64, "epochs": 30, "batch_size": 1000, "dropout": 0.5, "temperature": 0.05}
    },
}


class Size(NamedTuple):
    """How much data there is, and whether it is histories with an order and without times."""

    rows: int
    users: int
    items: int
    sequences: bool = False

    @property
    def gigabytes(self) -> float:
        """What a run takes at its peak, 10^9 bytes, by runs of a hundred thousand, a million and ten million rows."""
        return 1.0 + 1.7 * (self.rows / 1e6) ** 0.7


def sized(size: Size) -> dict[str, dict[str, Any]]:
    """Parameters by notebook for such data; of a parameter that is a dictionary, what changes in it.

    Nets train on about as many steps as on 100,000 rows, searches try fewer values.

    >>> sized(Size(100_000, 943, 1682)), sized(Size(10_000_000, 70_000, 10_700))["06_neural_hybrid"]["batch_size"]
    ({}, 250000)
    >>> sized(Size(1000, 100, 60, sequences=True))["05_item_models"]["sequence_knn"]["half_life"]
    1.4
    """
    form = SEQUENCES if size.sequences else {}
    if size.rows < LARGE and not (size.sequences and size.users > MANY):
        return {name: dict(section) for name, section in form.items()}
    less = min(1.0, LARGE / size.rows) ** 0.5
    bpr = {"iterations": max(20, round(100 * less))}
    epochs = (90_000 if size.sequences else 260_000) // size.users
    sections: dict[str, dict[str, Any]] = {
        "03_popularity": {"half_lives": [30, 120, 1000], "genre_weights": [0.0, 0.3, 0.6]},
        "04_als": {"regularizations": [3, 100], "bpr": bpr},
        "05_item_models": {"lambdas": [100, 1000], "half_lives": [7, 40], "bpr": dict(bpr)},
        "06_neural_hybrid": {
            "epochs": max(2, round(5 * less)),
            "batch_size": size.rows // 40,
            "ranker_epochs": min(130, max(4, epochs)),
            "ranker_models": 1,
        }
        | ({"trees": 0} if size.sequences else {}),
        "07_evaluation": {
            "curve_sizes": [1, 5, 20],
            "curve_shares": [0.1, 1.0],
            "refit_seeds": 2,
            "elsewhere": ["popularity", "als_tuned"],
        },
    }
    if size.items > EASE_ITEMS:
        sections["05_item_models"]["ease"] = {"max_items": EASE_ITEMS}
    return {name: section | form.get(name, {}) for name, section in sections.items()}


def sized_for(dataset: str) -> dict[str, dict[str, Any]]:
    """:func:`sized` for what 02 prepared of a data set; nothing where it has not yet."""
    size = size_of(dataset)
    return sized(size) if size else {}


def size_of(dataset: str) -> Size | None:
    """Size of the prepared tables; None where there are none, or damaged ones: their reader raises then."""
    import pyarrow as pa  # not for the application, whose kernels are to stay light
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tables = [Paths(dataset).processed / f"{part}.parquet" for part in ("train", "valid", "test")]
    if not all(table.is_file() for table in tables):
        return None
    try:
        rows = sum(pq.read_metadata(table).num_rows for table in tables)
        known = pq.read_table(tables[0], columns=["user_id", "item_id"])
        names = pq.read_schema(tables[0]).names
    except (OSError, pa.ArrowException):
        return None
    counts = [pc.count_distinct(known[column]).as_py() for column in ("user_id", "item_id")]
    return Size(rows, *counts, sequences="position" in names and "timestamp" not in names)


def announcement(dataset: str) -> str:
    """Say what a run will use and take, and what may be passed instead; empty where defaults and memory will do."""
    import yaml  # see parameters.read_file

    size = size_of(dataset)
    sections = sized(size) if size else {}
    needed, free = (size.gigabytes if size else 0.0), psutil.virtual_memory().available / 1e9
    short = (
        f"A run takes about {needed:.1f} GB of memory, {free:.1f} are free: end other programs, or it may be killed."
    )
    if not sections:
        return short if free < needed else ""
    lines = [f"{size.rows:,} rows, {size.users:,} users, {size.items:,} items"]
    if size.sequences:
        lines[0] += ": histories with an order and no times. Each user's last item is asked for; what follows what "
        lines[0] += "counts by direction and distance, and the last items of a history count most."
    else:
        minutes = 13 * size.rows / 1e6
        lines[0] += ": searches and nets are made smaller, so that the run takes "
        lines[0] += f"about {minutes:,.0f} CPU minutes and {needed:,.1f} GB."
    if (most := sections["05_item_models"].get("ease", {}).get("max_items", size.items)) < size.items:
        lines += [f"EASE models the {most:,} most popular items; the others have no score by it."]
    lines += [short] if free < needed else []
    lines += ["For more, pass PARAMS=<a file with these lines, changed>:", yaml.safe_dump(sections, sort_keys=False)]
    return "\n".join(lines).rstrip()
