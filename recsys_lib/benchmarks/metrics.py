"""Benchmark of the ranking metrics beside those of other libraries, on the same lists in one run.

``python -m recsys_lib.benchmarks.metrics``: 100,000 users, lists of 20, ten relevant items each, three cut-offs, one
thread. Where the definitions are the same, so must the values be: the run fails if they differ by more than 1e-6.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys_lib.evaluation.metrics import ranking

KS = (5, 10, 20)
LENGTH = 20
RELEVANT = 10


def made_lists(users: int, items: int = 10_000) -> tuple[np.ndarray, csr_matrix]:
    """Lists and relevant items that overlap as much as those of a good model: about one place in five is a hit.

    Returns the lists, (users, 20) int64, and what is relevant, (users, items), ten stored entries a row.
    """
    rng = np.random.default_rng(0)
    step = rng.integers(1, items // (LENGTH + RELEVANT), size=(users, 1))
    pool = (rng.integers(items, size=(users, 1)) + step * np.arange(LENGTH + RELEVANT)) % items
    pool = np.take_along_axis(pool, rng.random(pool.shape).argsort(axis=1), axis=1)
    lists = pool[:, :LENGTH]
    hits = rng.binomial(RELEVANT, 0.4, size=(users, 1))
    ranked = np.take_along_axis(lists, rng.random(lists.shape).argsort(axis=1)[:, :RELEVANT], axis=1)
    relevant = np.where(np.arange(RELEVANT) < hits, ranked, pool[:, LENGTH:])
    indptr = np.arange(users + 1) * RELEVANT
    matrix = csr_matrix((np.ones(relevant.size), np.sort(relevant, axis=1).ravel(), indptr), shape=(users, items))
    return lists, matrix


def ours(lists: np.ndarray, relevant: csr_matrix) -> dict[str, np.ndarray]:
    """All metrics with a cut-off, at all cut-offs."""
    return ranking.at_cutoffs(ranking.judge(lists, relevant), KS)


def _dictionaries(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict, dict]:
    """The same as dictionaries of names, as ranx and ir-measures want them."""
    columns = relevant.indices.reshape(len(lists), -1).astype(str).tolist()
    worth = [float(LENGTH - place) for place in range(LENGTH)]
    qrels = {str(user): dict.fromkeys(row, 1) for user, row in enumerate(columns)}
    run = {str(user): dict(zip(row, worth, strict=True)) for user, row in enumerate(lists.astype(str).tolist())}
    return qrels, run


def with_ranx(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict[str, float], dict[str, float]]:
    """Means by ranx, and CPU seconds to compile its functions, to build its objects, and to compute."""
    from ranx import Qrels, Run, evaluate

    shared = ("ndcg", "precision", "recall", "hit_rate", "mrr")
    wanted = [f"{name}@{k}" for name in (*shared, "map") for k in KS]
    few = _dictionaries(lists[:10], relevant[:10])
    compiling = timed(lambda: evaluate(Qrels(few[0]), Run(few[1]), wanted))[1]
    qrels, run = _dictionaries(lists, relevant)
    built, building = timed(lambda: (Qrels(qrels), Run(run)))
    values, computing = timed(evaluate, *built, wanted)
    means = {name: value for name, value in values.items() if not name.startswith("map")}  # divides by all relevant
    return means, {"compute": computing, "build": building, "compile": compiling}


def with_ir_measures(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict[str, float], dict[str, float]]:
    """Means by ir-measures (trec_eval compiled), and CPU seconds."""
    import ir_measures
    from ir_measures import AP, P, R, Success, nDCG

    names = {"ndcg": nDCG, "precision": P, "recall": R, "hit_rate": Success}
    wanted = {f"{name}@{k}": measure @ k for name, measure in names.items() for k in KS}
    (qrels, run), building = timed(_dictionaries, lists, relevant)
    measures = [*wanted.values(), *(AP @ k for k in KS)]
    values, computing = timed(ir_measures.pytrec_eval.calc_aggregate, measures, qrels, run)
    return {name: values[measure] for name, measure in wanted.items()}, {"compute": computing, "build": building}


class _Saved:
    """Hands out lists that are there already, as implicit's evaluator asks a model for them."""

    def __init__(self, lists: np.ndarray) -> None:
        self.lists = lists.astype(np.int32)

    def recommend(self, rows: np.ndarray, _: Any, N: int, **__: Any) -> tuple[np.ndarray, None]:
        return self.lists[rows, :N], None


def with_implicit(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict[str, float], dict[str, float]]:
    """Means by implicit's evaluator (precision of another definition, MAP, NDCG, AUC at each cut-off), CPU seconds."""
    from implicit.evaluation import ranking_metrics_at_k

    saved, nothing, means, computing = _Saved(lists), csr_matrix(relevant.shape), {}, 0.0
    for k in KS:
        options = {"K": k, "show_progress": False, "num_threads": 1}
        values, seconds = timed(ranking_metrics_at_k, saved, nothing, relevant, **options)
        computing += seconds
        means |= {f"ndcg@{k}": values["ndcg"], f"map@{k}": values["map"]}
    return means, {"compute": computing}


def timed(function: Callable, *arguments: Any, repeats: int = 1, **options: Any) -> tuple[Any, float]:
    """Result and the CPU seconds of the fastest of ``repeats`` calls."""
    fastest = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = function(*arguments, **options)
        fastest = min(fastest, time.process_time() - start)
    return result, fastest


PEERS = {"ranx": with_ranx, "ir-measures": with_ir_measures, "implicit": with_implicit}


def run(users: int, peers: list[str]) -> list[dict[str, Any]]:
    """Measure ours and the peers on the same lists.

    Returns of each: library, seconds (CPU, by what they were spent on), compared (how many means are of the same
    definition), largest (absolute difference of those to ours).
    """
    lists, relevant = made_lists(users)
    columns, seconds = timed(ours, lists, relevant, repeats=5)
    own = {name: float(np.nanmean(values)) for name, values in columns.items()}
    rows = [{"library": "recsys_lib", "seconds": {"compute": seconds}, "compared": len(own), "largest": 0.0}]
    for name in peers:
        means, spent = PEERS[name](lists, relevant)
        largest = max(abs(value - own[metric]) for metric, value in means.items())
        rows.append({"library": name, "seconds": spent, "compared": len(means), "largest": largest})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; fail if a peer's values differ from ours."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.metrics", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    there = [peer for peer in PEERS if find_spec(peer.replace("-", "_"))]
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=there)
    given = parser.parse_args(arguments)
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # ranx's, read when it is first imported
    with threadpool_limits(1):
        rows = run(given.users, given.peers)
    print(f"{given.users:,} users, lists of {LENGTH}, {RELEVANT} relevant each, cut-offs {KS}; CPU seconds")
    for row in rows:
        times = row["seconds"]["compute"] / rows[0]["seconds"]["compute"]
        spent = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["seconds"].items())
        compared = f"{row['compared']} means, largest difference {row['largest']:.1e}"
        print(f"{row['library']:<12} x{times:<7.1f} {spent:<44} {compared}")
    return 0 if max(row["largest"] for row in rows) <= 1e-6 else 1


if __name__ == "__main__":
    raise SystemExit(main())
