"""How long the classic models take: ``python -m recsys_lib.benchmarks.models [--large]``.

On a data set: fit and top-10 for everybody, each model with its defaults and with the parameters that the notebooks use
for that data set, and what wrapping costs beside calling ``implicit`` itself. ``--large``: ALS on made interactions, 20
million of 138,000 people with 27,000 items, with memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models import ALS, BPR, EASE, ItemKNN, Popularity, Recommender, SequenceKNN
from recsys_lib.models.base import one_blas_thread
from recsys_lib.paths import REPOSITORY
from recsys_lib.run.parameters import read_parameters

K = 10


def power_law(n_users: int, n_items: int, n: int, seed: int = 0) -> Interactions:
    """Made interactions: items and activity of people follow power laws, times are random."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(n_users) + 50) ** 0.6
    lengths = np.minimum(np.maximum(rng.poisson(share / share.sum() * n * 2), 5), n_items // 3)
    users = np.repeat(np.arange(n_users), lengths)
    items = np.minimum((n_items + 30) ** rng.random(len(users)) * 30 ** rng.random(len(users)), n_items - 1).astype(int)
    keys = np.unique(users * np.int64(n_items) + items)
    if len(keys) > n:
        keys = np.delete(keys, rng.choice(len(keys), len(keys) - n, replace=False, shuffle=False))
    rows, columns = keys // n_items, (keys % n_items).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_users))]).astype(np.int32)
    ratings = rng.choice(np.arange(1, 6), len(keys), p=[0.06, 0.11, 0.27, 0.34, 0.22]).astype(np.float32)
    when = rng.integers(880_000_000, 900_000_000, len(keys))
    shape = (n_users, n_items)
    return Interactions(csr_matrix((ratings, columns, indptr), shape), np.arange(n_users), np.arange(n_items), when)


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Shortest of some runs."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def configurations(dataset: str) -> dict[str, Recommender]:
    """Models by name: those of their own defaults, then those of the parameter file of a data set, if it has one."""
    found = {model.__name__: model() for model in (Popularity, ALS, BPR, ItemKNN, SequenceKNN, EASE)}
    file = REPOSITORY / "notebooks" / "params" / f"{dataset}.yaml"
    if file.is_file():
        matrix, items = (read_parameters(file, notebook) for notebook in ("04_als", "05_item_models"))
        found |= {"als_tuned": ALS(**_own(ALS, matrix)), "als_recent": ALS(**matrix["recent"])}
        found |= {"bpr": BPR(**matrix["bpr"]), "item_knn": ItemKNN(**items["item_knn"])}
        found |= {"sequence_knn": SequenceKNN(**items["sequence_knn"]), "ease": EASE(**items["ease"])}
    return found


def _own(model: type[Recommender], given: dict[str, object]) -> dict[str, object]:
    """Those of a notebook's parameters that are the model's."""
    return {name: value for name, value in given.items() if name in model().params()}


def compare(name: str, model: Recommender, known: Interactions) -> dict[str, object]:
    """Fit, scores and lists for everybody."""
    _, fit = once(lambda: model.fit(known))
    histories = known.rows(np.arange(known.n_users))
    return {
        "model": name,
        "fit s": fit[0],
        "scores ms": 1000 * seconds(lambda: model.score(histories)),
        "top-10 table ms": 1000 * seconds(lambda: model.recommend(known.user_ids, K)),
    }


def once(work: Callable[[], object]) -> tuple[object, np.ndarray]:
    """What some work gives, and its seconds: wall clock, and CPU of all threads, (2,)."""
    start = np.array([time.perf_counter(), time.process_time()])
    found = work()
    return found, np.array([time.perf_counter(), time.process_time()]) - start


def beside_implicit(known: Interactions, iterations: int, repeats: int) -> pd.DataFrame:
    """ALS here and implicit's own calls on the same weights, in turn: fit, and lists for everybody.

    Returns
    -------
    DataFrame
        Index fit, lists; ours s, implicit s (wall clock), ratio, CPU ratio: shortest of the repeats.
    """
    people = np.arange(known.n_users)
    ours = ALS(factors=64, iterations=iterations)
    ours.train = known
    weights = ours._weights(Histories(known.matrix))
    with one_blas_thread():
        solver = AlternatingLeastSquares(64, regularization=20, alpha=5, iterations=iterations, random_state=42)
    taken: dict[str, list[np.ndarray]] = {}
    for _ in range(repeats):
        with one_blas_thread():
            taken.setdefault("implicit fit", []).append(once(lambda: solver.fit(weights, show_progress=False))[1])
        taken.setdefault("our fit", []).append(once(lambda: ours.fit(known))[1])
        with one_blas_thread():
            direct = once(lambda: solver.recommend(people, weights, N=K, recalculate_user=True))[1]
        taken.setdefault("implicit lists", []).append(direct)
        taken.setdefault("our lists", []).append(once(lambda: ours.recommend(known.user_ids, K))[1])
    least = {name: np.min(times, axis=0) for name, times in taken.items()}
    rows = {}
    for work in ("fit", "lists"):
        mine, theirs = least[f"our {work}"], least[f"implicit {work}"]
        rows[work] = {"ours s": mine[0], "implicit s": theirs[0], "ratio": mine[0] / theirs[0]}
        rows[work]["CPU ratio"] = mine[1] / theirs[1]
    return pd.DataFrame(rows).T


def main() -> None:
    """Print a table for a data set, and one for the large matrix where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.models", description=main.__doc__)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--large", action="store_true", help="also 20 million interactions: minutes, and 4 GB")
    parser.add_argument("--iterations", type=int, default=15, help="of ALS on the large matrix (15)")
    given = parser.parse_args()
    known = Interactions.from_frame(splits.temporal_user(load_dataset(given.dataset).interactions).history)
    print(known)
    rows = [compare(name, model, known) for name, model in configurations(given.dataset).items()]
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    print(beside_implicit(known, 15, 5).round(3).to_string(), flush=True)
    if given.large:
        large = power_law(138_000, 27_000, 20_000_000)
        print(large, flush=True)
        print(beside_implicit(large, given.iterations, 1).round(3).to_string())
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
