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
from recsys_lib.run.parameters import NOTEBOOKS, parameters_for

K = 10


def power_law(n_users: int, n_items: int, n: int, seed: int = 0) -> Interactions:
    """Made interactions whose items and lengths of histories follow power laws; times are random."""
    rng = np.random.default_rng(seed)
    users = n_users * rng.random(2 * n) ** 2.5
    items = (n_items + 30) ** rng.random(2 * n) * 30 ** rng.random(2 * n)
    keys = np.unique(users.astype(np.int64) * n_items + np.minimum(items, n_items - 1).astype(np.int64))
    keys = np.sort(rng.permutation(keys)[:n])
    ratings = rng.choice(np.arange(1, 6), len(keys), p=[0.06, 0.11, 0.27, 0.34, 0.22]).astype(np.float32)
    when = rng.integers(880_000_000, 900_000_000, len(keys))
    matrix = csr_matrix((ratings, np.divmod(keys, n_items)), (n_users, n_items))
    return Interactions(matrix, np.arange(n_users), np.arange(n_items), when)


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Wall-clock time of the shortest of some runs."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def configurations(dataset: str) -> dict[str, Recommender]:
    """Models by name: those of their own defaults, then those of the parameter file of a data set, if it has one."""
    models = {model.__name__: model() for model in (Popularity, ALS, BPR, ItemKNN, SequenceKNN, EASE)}
    file = NOTEBOOKS / "params" / f"{dataset}.yaml"
    if file.is_file():
        tuned = parameters_for(NOTEBOOKS / "05_item_models.ipynb", file)
        classes = {"als_plain": ALS, "als": ALS, "bpr": BPR}
        classes |= {"item_knn": ItemKNN, "sequence_knn": SequenceKNN, "ease": EASE}
        models |= {name: model(**tuned[name]) for name, model in classes.items()}
    return models


def measure(name: str, model: Recommender, known: Interactions) -> dict[str, object]:
    """Time fit, scores and lists of all users."""
    histories = known.rows(np.arange(known.n_users))
    return {
        "model": name,
        "fit s": seconds(lambda: model.fit(known)),
        "scores ms": 1000 * seconds(lambda: model.score(histories), 7),
        "top-10 table ms": 1000 * seconds(lambda: model.recommend(known.user_ids, K), 7),
    }


def beside_implicit(known: Interactions, iterations: int, repeats: int) -> pd.DataFrame:
    """Time ALS here and implicit's own calls on the same weights: fit, and lists of all users; the shortest runs."""
    ours = ALS(factors=64, iterations=iterations)
    weights, users = confidence(whole(known), known, low_weight=ours.low_weight), np.arange(known.n_users)
    with one_blas_thread():
        solver = AlternatingLeastSquares(64, regularization=20, alpha=5, iterations=iterations, random_state=42)
        mine = seconds(lambda: ours.fit(known), repeats), seconds(lambda: ours.recommend(known.user_ids, K), repeats)
        theirs = (
            seconds(lambda: solver.fit(weights, show_progress=False), repeats),
            seconds(lambda: solver.recommend(users, weights, N=K, recalculate_user=True), repeats),
        )
    table = pd.DataFrame({"ours s": mine, "implicit s": theirs}, index=["fit", "lists"])
    return table.assign(ratio=table["ours s"] / table["implicit s"])


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
