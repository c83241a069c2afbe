"""How the stages of a run grow with the data: ``python -m recsys_lib.benchmarks.scale [rows ...]``.

For each size a made table, and for each stage its CPU seconds, the peak memory of its process (GiB; each model has a
process of its own, forked from the one with the data) and the slope: 1 where twice the rows take twice the time.
``implicit`` is the library's own ALS on the same weights. ``--runs`` adds what the steps of whole runs took. Written to
``reports/scale.json``, which the report shows; stages and runs that are not measured now stay as they stand there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from implicit.cpu.als import AlternatingLeastSquares

from recsys_lib.data import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.task import Task, evaluate
from recsys_lib.files import read_json, write_json
from recsys_lib.models import (
    ALS,
    BPR,
    EASE,
    Blend,
    ItemKNN,
    NeuralHybrid,
    NeuralRanker,
    Popularity,
    Recommender,
    Reranker,
    SequenceKNN,
)
from recsys_lib.models.base import one_blas_thread
from recsys_lib.models.weights import confidence, whole
from recsys_lib.paths import Paths, home
from recsys_lib.run.sizing import size_of
from recsys_lib.run.steps import STEPS

GENRES = ["Action", "Comedy", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "War"]


def made_tables(rows: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make interactions and items in the proportions of MovieLens (at 1 million 7,000 users and 3,700 items, at 10 x 10, x 2.9).

    Popularity and activity follow power laws; choices, ratings and genres follow latent factors; each user comes in
    sittings from a moment of their own on.
    """  # noqa: E501
    rng = np.random.default_rng(seed)
    n_users, n_items = max(20, rows // 143), max(40, int(3700 * (rows / 1e6) ** 0.46))
    tastes, traits = (rng.normal(size=(n, len(GENRES))).astype(np.float32) for n in (n_users, n_items))
    traits += 1.5 * np.eye(len(GENRES), dtype=np.float32)[rng.integers(len(GENRES), size=n_items)]
    activity = np.cumsum((rng.permutation(n_users) + n_users / 50.0) ** -0.8)
    popularity = np.cumsum((rng.permutation(n_items) + n_items / 100.0) ** -1.3)
    keys = np.empty(0, np.int64)
    while len(keys) < rows:
        size = min(4 * (rows - len(keys)) + 1000, 20_000_000)
        users, items = (np.searchsorted(edges, rng.random(size) * edges[-1]) for edges in (activity, popularity))
        liking = np.einsum("ij,ij->i", tastes[users], traits[items])
        kept = rng.random(size) < 1 / (1 + np.exp(2 - 0.7 * liking))
        keys = np.union1d(keys, users[kept] * n_items + items[kept])
    users, items = np.divmod(np.sort(rng.permutation(keys)[:rows]), n_items)
    liking = np.einsum("ij,ij->i", tastes[users], traits[items]) / len(GENRES) ** 0.5
    quality = rng.normal(scale=0.4, size=n_items)
    ratings = np.clip(np.rint(3.4 + 0.6 * liking + quality[items] + rng.normal(scale=0.7, size=rows)), 1, 5)
    pauses = np.where(rng.random(rows) < 0.05, rng.exponential(3e6, rows), rng.exponential(60, rows))
    order = np.lexsort((rng.random(rows), users))
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    passed = np.cumsum(pauses)
    when = passed - np.repeat(passed[starts], np.diff(starts, append=rows)) + rng.uniform(9e8, 1.2e9, n_users)[users]
    interactions = pd.DataFrame({"user_id": users[order] + 1, "item_id": items[order] + 1})
    interactions["rating"] = ratings[order].astype(np.float32)
    interactions["timestamp"] = when.astype(np.int64)
    has = traits >= np.maximum(np.sort(traits, axis=1)[:, -3, None], 1)
    has[np.arange(n_items), traits.argmax(axis=1)] = True
    titles, names = [f"Film {i + 1}" for i in range(n_items)], np.array(GENRES, dtype=object)
    table = {"item_id": np.arange(1, n_items + 1), "title": titles, "genres": [list(names[row]) for row in has]}
    years = pd.array(2005 - rng.exponential(15, n_items).astype(int), dtype="Int16")
    return interactions, pd.DataFrame({**table, "year": years})


MODELS: dict[str, Callable[[], Recommender]] = {
    "Popularity": Popularity,
    "ALS": ALS,
    "BPR": BPR,
    "ItemKNN": ItemKNN,
    "SequenceKNN": SequenceKNN,
    "EASE": EASE,
    "Reranker": lambda: Reranker(Blend({"als": ALS(), "item_knn": ItemKNN(), "popularity": Popularity()})),
    "NeuralHybrid, one epoch": lambda: NeuralHybrid(epochs=1),
    "NeuralRanker, one epoch": lambda: NeuralRanker(epochs=1),
}


class Stages:
    """What each stage took: ``rows`` of stage, rows (of the table), cpu_s, peak_gib."""

    def __init__(self, size: int) -> None:
        self.size, self.rows = size, []

    def measure(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do it, and note what it took in this process."""
        start = time.process_time()
        result = work()
        taken = {"cpu_s": time.process_time() - start}
        taken["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of KiB
        self.rows.append({"stage": stage, "rows": self.size, **taken})
        print(f"{self.size:>12,} {stage:<44} {taken['cpu_s']:8.2f} s {taken['peak_gib']:6.2f} GiB", flush=True)
        return result

    def apart(self, work: Callable[[Stages], None]) -> None:
        """Do it in a forked process, which sees this one's data without a copy, and take over what it noted."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def run() -> None:
            stages = Stages(self.size)
            work(stages)
            sender.send(stages.rows)

        process = context.Process(target=run)
        process.start()
        sender.close()
        self.rows += receiver.recv()
        process.join()


def model_stages(stages: Stages, name: str, task: Task, items: pd.DataFrame) -> None:
    """Fit a model, list for everybody, evaluate."""
    model, known = MODELS[name](), task.known
    stages.measure(f"{name}: fit", lambda: model.fit(known, items=items))
    if not model.predicts_ratings:  # nobody lists by those
        stages.measure(f"{name}: ten for everybody", lambda: model.recommend(known.user_ids, 10))
    if name in ("Popularity", "ALS"):
        stages.measure(f"{name}: evaluate, all metrics", lambda: evaluate(model, task))


def implicit_stages(stages: Stages, known: Interactions) -> None:
    """The same of implicit's own ALS, with the weights and parameters of ours."""
    ours, weights = ALS(), confidence(whole(known), known, low_weight=ALS().low_weight)
    how = {"regularization": ours.regularization, "alpha": ours.alpha, "iterations": ours.iterations}
    solver = AlternatingLeastSquares(ours.factors, **how, random_state=ours.seed)
    with one_blas_thread():
        stages.measure("implicit: fit", lambda: solver.fit(weights, show_progress=False))
        everybody = np.arange(known.n_users)
        listing = {"N": 10, "recalculate_user": True}
        stages.measure("implicit: ten for everybody", lambda: solver.recommend(everybody, weights, **listing))


def measured(size: int, models: list[str]) -> list[dict[str, Any]]:
    """All stages at one size."""
    stages = Stages(size)
    interactions, items = stages.measure("made table", lambda: made_tables(size))
    split = stages.measure("temporal_user", lambda: splits.temporal_user(interactions))
    task = stages.measure("Task (Interactions)", lambda: Task.from_split(split, items=items))
    for name in models:
        stages.apart(lambda own, name=name: model_stages(own, name, task, items))
        if name == "ALS":
            stages.apart(lambda own: implicit_stages(own, task.known))
    return stages.rows


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a stage: CPU seconds and peak memory at each size, ascending, and the slope from the first to the last.

    >>> growth([{"stage": "fit", "rows": n, "cpu_s": cpu, "peak_gib": 1.0} for n, cpu in ((10, 1.0), (100, 100.0))])
    [{'stage': 'fit', 'cpu_s': [1.0, 100.0], 'peak_gib': [1.0, 1.0], 'slope': 2.0}]
    """
    table = pd.DataFrame(rows).pivot_table(["cpu_s", "peak_gib"], "stage", "rows", sort=False).sort_index(axis=1)
    sizes, cpu = sorted({row["rows"] for row in rows}), table["cpu_s"]
    slope = np.log(cpu[sizes[-1]] / cpu[sizes[0]]) / np.log(max(sizes[-1] / sizes[0], 1 + 1e-9))
    lists = {name: table[name].round(2).to_numpy().tolist() for name in ("cpu_s", "peak_gib")}
    return pd.DataFrame({"stage": table.index, **lists, "slope": slope.round(2).to_numpy()}).to_dict("records")


def run_of(dataset: str) -> dict[str, Any]:
    """What each step of a data set's run took, from the runner's logs: dataset, rows, users, items, steps."""
    paths, size = Paths(dataset), size_of(dataset)
    steps = [read_json(paths.logs / "times" / f"{step.name}.json") for step in STEPS]
    return {"dataset": paths.name, "rows": size.rows, "users": size.users, "items": size.items, "steps": steps}


def main(arguments: list[str] | None = None) -> int:
    """Measure each size, print the table and write it; with ``--runs`` alone, add those."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.scale", description=main.__doc__)
    parser.add_argument("sizes", nargs="*", type=float, help="rows (1e5 1e6); 1e7 takes 10 GB")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--runs", nargs="*", default=[], help="data sets whose `make run` ended")
    given, file = parser.parse_args(arguments), home() / "reports" / "scale.json"
    content = {"runs": []} | (read_json(file) if file.is_file() else {})
    content |= {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
    if sizes := sorted(given.sizes or [1e5, 1e6] * (not given.runs)):
        stages = growth([row for size in sizes for row in measured(int(size), given.models)])
        print(pd.DataFrame(stages).to_string(index=False))
        rows = [int(size) for size in sizes]
        before = content.get("stages", []) if content.get("rows") == rows else []
        named = {row["stage"]: row for row in [*before, *stages]}  # of other models what was measured before stays
        content |= {"rows": rows, "stages": list(named.values())}
    runs = {run["dataset"]: run for run in [*content["runs"], *map(run_of, given.runs)]}
    content["runs"] = sorted(runs.values(), key=lambda run: run["rows"])
    print(f"Written: {write_json(file, content)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
