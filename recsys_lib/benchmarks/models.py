"""How long the classic models take: ``python -m recsys_lib.benchmarks.models [--large]``.

On a data set: fit and top-10 for all users, each model with its defaults and with the parameters that the notebooks use
for that data set, and what wrapping costs beside calling ``implicit`` itself. ``--large``: ALS on made interactions, 20
million of 138,000 users with 27,000 items, with memory.
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
from recsys_lib.data.interactions import Interactions
from recsys_lib.models import ALS, BPR, EASE, ItemKNN, Popularity, Recommender, SequenceKNN
from recsys_lib.models.base import one_blas_thread
from recsys_lib.models.weights import confidence, whole
from recsys_lib.paths import REPOSITORY
from recsys_lib.run.parameters import NOTEBOOKS, parameters_for

K = 10


def power_law(n_users: int, n_items: int, n: int, seed: int = 0) -> Interactions:
    """Made interactions whose items and lengths of histories follow power laws; times are random."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(n_users) + 50) ** 0.6
    lengths = np.minimum(np.maximum(rng.poisson(share / share.sum() * n * 2), 5), n_items // 3)
    users = np.repeat(np.arange(n_users), lengths)
    items = np.minimum((n_items + 30) ** rng.random(len(users)) * 30 ** rng.random(len(users)), n_items - 1).astype(int)
    keys = np.unique(users * np.int64(n_items) + items)
    keys = np.sort(rng.permutation(keys)[:n])
    ratings = rng.choice(np.arange(1, 6), len(keys), p=[0.06, 0.11, 0.27, 0.34, 0.22]).astype(np.float32)
    when = rng.integers(880_000_000, 900_000_000, len(keys))
    matrix = csr_matrix((ratings, np.divmod(keys, n_items)), (n_users, n_items))
    return Interactions(matrix, np.arange(n_users), np.arange(n_items), when)


def timed(work: Callable[[], object]) -> np.ndarray:
    """Seconds that some work takes: wall clock, and CPU of all threads, (2,)."""
    start = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - start


def shortest(work: Callable[[], object], repeats: int = 7) -> float:
    """Milliseconds of the shortest of some runs."""
    return 1000 * min(timed(work)[0] for _ in range(repeats))


def configurations(dataset: str) -> dict[str, Recommender]:
    """Models by name: those of their own defaults, then those of the parameter file of a data set, if it has one."""
    models = {model.__name__: model() for model in (Popularity, ALS, BPR, ItemKNN, SequenceKNN, EASE)}
    file = REPOSITORY / "notebooks" / "params" / f"{dataset}.yaml"
    if file.is_file():
        als, neighbours = (parameters_for(NOTEBOOKS / f"{name}.ipynb", file) for name in ("04_als", "05_item_models"))
        tuned = {name: value for name, value in als.items() if name in ALS().params()}
        models |= {"als_tuned": ALS(**tuned), "als_recent": ALS(**als["recent"]), "bpr": BPR(**als["bpr"])}
        classes = {"item_knn": ItemKNN, "sequence_knn": SequenceKNN, "ease": EASE}
        models |= {name: model(**neighbours[name]) for name, model in classes.items()}
    return models


def measure(name: str, model: Recommender, known: Interactions) -> dict[str, object]:
    """Time fit, scores and lists of all users."""
    histories = known.rows(np.arange(known.n_users))
    return {
        "model": name,
        "fit s": timed(lambda: model.fit(known))[0],
        "scores ms": shortest(lambda: model.score(histories)),
        "top-10 table ms": shortest(lambda: model.recommend(known.user_ids, K)),
    }


def beside_implicit(known: Interactions, iterations: int, repeats: int) -> pd.DataFrame:
    """Time ALS here and implicit's own calls on the same weights, in turn: fit, and lists of all users.

    Returns
    -------
    DataFrame
        Index fit, lists; ours s, implicit s (wall clock), ratio, CPU ratio: shortest of the repeats.
    """
    ours = ALS(factors=64, iterations=iterations)
    weights, users = confidence(whole(known), known, low_weight=ours.low_weight), np.arange(known.n_users)
    with one_blas_thread():
        solver = AlternatingLeastSquares(64, regularization=20, alpha=5, iterations=iterations, random_state=42)
        theirs = {
            "fit": lambda: solver.fit(weights, show_progress=False),
            "lists": lambda: solver.recommend(users, weights, N=K, recalculate_user=True),
        }
        mine = {"fit": lambda: ours.fit(known), "lists": lambda: ours.recommend(known.user_ids, K)}
        rows = {}
        for work in ("fit", "lists"):
            times = np.array([[timed(mine[work]), timed(theirs[work])] for _ in range(repeats)]).min(axis=0)
            (wall, cpu), (their_wall, their_cpu) = times
            rows[work] = {"ours s": wall, "implicit s": their_wall, "ratio": wall / their_wall}
            rows[work]["CPU ratio"] = cpu / their_cpu
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
    rows = [measure(name, model, known) for name, model in configurations(given.dataset).items()]
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    print(beside_implicit(known, 15, 5).round(3).to_string(), flush=True)
    if given.large:
        large = power_law(138_000, 27_000, 20_000_000)
        print(large, flush=True)
        print(beside_implicit(large, given.iterations, 1).round(3).to_string())
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
