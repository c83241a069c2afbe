"""How fast the ranking metrics are, beside those of other libraries, on the same lists in one run.

``python -m recsys_lib.benchmarks.metrics``: 100,000 people, lists of 20, ten relevant items each, three cut-offs, one
thread. Where the definitions are the same, so must the values be: the run fails if they differ by more than 1e-6.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys_lib.evaluation.metrics import ranking

KS = (5, 10, 20)
LENGTH = 20
RELEVANT = 10


def made_lists(people: int, items: int = 10_000, seed: int = 0) -> tuple[np.ndarray, csr_matrix]:
    """Lists and relevant items that overlap as much as those of a good model: about one place in five is a hit.

    Returns
    -------
    lists : ndarray of int64, (people, 20)
    relevant : csr_matrix, (people, items)
        Ten stored entries a row.
    """
    rng = np.random.default_rng(seed)
    step = rng.integers(1, items // (LENGTH + RELEVANT), size=(people, 1))
    pool = (rng.integers(items, size=(people, 1)) + step * np.arange(LENGTH + RELEVANT)) % items
    pool = np.take_along_axis(pool, rng.random(pool.shape).argsort(axis=1), axis=1)
    lists = pool[:, :LENGTH]
    hits = rng.binomial(RELEVANT, 0.4, size=(people, 1))
    ranked = np.take_along_axis(lists, rng.random(lists.shape).argsort(axis=1)[:, :RELEVANT], axis=1)
    relevant = np.where(np.arange(RELEVANT) < hits, ranked, pool[:, LENGTH:])
    indptr = np.arange(people + 1) * RELEVANT
    matrix = csr_matrix((np.ones(relevant.size), np.sort(relevant, axis=1).ravel(), indptr), shape=(people, items))
    return lists, matrix


def ours(lists: np.ndarray, relevant: csr_matrix) -> dict[str, np.ndarray]:
    """All metrics of the package at all cut-offs, and those without one."""
    judged = ranking.judge(lists, relevant)
    columns = ranking.at_cutoffs(judged, KS)
    return columns | {"mrr": ranking.reciprocal_rank(judged), "r_precision": ranking.r_precision(judged)}


def _dictionaries(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict, dict]:
    """The same as dictionaries of names, as ranx and ir-measures want them."""
    columns = relevant.indices.reshape(len(lists), -1).astype(str).tolist()
    worth = [float(LENGTH - place) for place in range(LENGTH)]
    qrels = {str(person): dict.fromkeys(row, 1) for person, row in enumerate(columns)}
    run = {str(p): dict(zip(row, worth, strict=True)) for p, row in enumerate(lists.astype(str).tolist())}
    return qrels, run


def with_ranx(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict[str, float], dict[str, float]]:
    """Means by ranx, and CPU seconds to compile its functions, to build its objects, and to compute."""
    from ranx import Qrels, Run, evaluate

    shared = ("ndcg", "precision", "recall", "hit_rate", "mrr")
    wanted = [f"{name}@{k}" for name in (*shared, "map") for k in KS]
    few = [{key: part[key] for key in list(part)[:10]} for part in _dictionaries(lists[:10], relevant[:10])]
    compiling = timed(lambda: evaluate(Qrels(few[0]), Run(few[1]), wanted))[1]
    qrels, run = _dictionaries(lists, relevant)
    built, building = timed(lambda: (Qrels(qrels), Run(run)))
    found, computing = timed(evaluate, *built, wanted)
    means = {name: value for name, value in found.items() if not name.startswith("map")}  # divides by all relevant
    return means, {"compute": computing, "build": building, "compile": compiling}


def with_ir_measures(lists: np.ndarray, relevant: csr_matrix) -> tuple[dict[str, float], dict[str, float]]:
    """Means by ir-measures (trec_eval compiled), and CPU seconds."""
    import ir_measures
    from ir_measures import AP, P, R, Success, nDCG

    names = {"ndcg": nDCG, "precision": P, "recall": R, "hit_rate": Success}
    wanted = {f"{name}@{k}": measure @ k for name, measure in names.items() for k in KS}
    (qrels, run), building = timed(_dictionaries, lists, relevant)
    measures = [*wanted.values(), *(AP @ k for k in KS)]
    found, computing = timed(ir_measures.pytrec_eval.calc_aggregate, measures, qrels, run)
    return {name: found[measure] for name, measure in wanted.items()}, {"compute": computing, "build": building}


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
        found, taken = timed(
            lambda k=k: ranking_metrics_at_k(saved, nothing, relevant, K=k, show_progress=False, num_threads=1)
        )
        computing += taken
        means |= {f"ndcg@{k}": found["ndcg"], f"map@{k}": found["map"]}
    return means, {"compute": computing}


def timed(function: Callable, *arguments: Any, repeats: int = 1) -> tuple[Any, float]:
    """Result and the CPU seconds of the fastest of ``repeats`` calls."""
    fastest = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = function(*arguments)
        fastest = min(fastest, time.process_time() - start)
    return result, fastest


PEERS = {"ranx": with_ranx, "ir-measures": with_ir_measures, "implicit": with_implicit}


def run(people: int, peers: list[str], repeats: int = 5) -> list[dict[str, Any]]:
    """Measure ours and the peers on the same lists.

    Returns
    -------
    list of dict
        library, seconds (CPU, by what they were spent on), compared (how many means are of the same definition),
        largest (absolute difference of those to ours).
    """
    lists, relevant = made_lists(people)
    columns, seconds = timed(ours, lists, relevant, repeats=repeats)
    own = {name: float(np.nanmean(values)) for name, values in columns.items()}
    rows = [{"library": "recsys_lib", "seconds": {"compute": seconds}, "compared": len(own), "largest": 0.0}]
    for name in peers:
        means, taken = PEERS[name](lists, relevant)
        largest = max(abs(value - own[metric]) for metric, value in means.items())
        rows.append({"library": name, "seconds": taken, "compared": len(means), "largest": largest})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; fail if a peer's values differ from ours."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.metrics", description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    given = parser.parse_args(arguments)
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # ranx's, read when it is first imported
    with threadpool_limits(1):
        rows = run(given.people, given.peers)
    write = sys.stdout.write
    write(f"{given.people:,} people, lists of {LENGTH}, {RELEVANT} relevant each, cut-offs {KS}; CPU seconds\n")
    for row in rows:
        times = row["seconds"]["compute"] / rows[0]["seconds"]["compute"]
        spent = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["seconds"].items())
        write(f"{row['library']:<12} x{times:<7.1f} {spent:<44} {row['compared']} means, ")
        write(f"largest difference {row['largest']:.1e}\n")
    return 0 if max(row["largest"] for row in rows) <= 1e-6 else 1


if __name__ == "__main__":
    raise SystemExit(main())
