"""Ranking metrics against independent libraries, on thousands of random cases, and where those differ from ours."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Rprec, Success, nDCG
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score, roc_auc_score

from recsys_lib.evaluation.metrics import ranking
from recsys_lib.models.lists import top_k

KS = (1, 5, 10, 20)
PEOPLE, ITEMS, LENGTH = 4000, 60, 25


def _name(code):
    """Names whose descending order is the ascending order of the codes: trec_eval puts the later name first."""
    return f"i{ITEMS * 100 - code:06d}"


def _random_case(seed=0):
    """Lists of 0 to 25 items, some of them twice, and 0 to 12 relevant items with worths 1 to 5."""
    rng = np.random.default_rng(seed)
    lists = rng.random((PEOPLE, ITEMS)).argsort(axis=1)[:, :LENGTH]
    relevant = np.zeros((PEOPLE, ITEMS), int)
    order = rng.random((PEOPLE, ITEMS)).argsort(axis=1)
    sizes = rng.integers(0, 13, size=PEOPLE)
    relevant[order < sizes[:, None]] = rng.integers(1, 6, size=sizes.sum())
    lists[np.arange(LENGTH) >= rng.integers(0, LENGTH + 1, size=PEOPLE)[:, None]] = -1
    return lists, relevant


@pytest.fixture(scope="module")
def case():
    """Lists and relevance as ours and as dictionaries, as the other libraries want them."""
    lists, relevant = _random_case()
    repeated = lists.copy()
    twice = (repeated[:, 3] >= 0) & (np.arange(PEOPLE) % 3 == 0)
    repeated[twice, 3] = repeated[twice, 1]
    judged = ranking.judge(repeated, csr_matrix(relevant), graded=True)
    run, qrels = {}, {}
    for person in range(PEOPLE):  # what stands a second time is replaced by something that nobody likes
        shown = [f"again{place}" if place == 3 and twice[person] else _name(c) for place, c in enumerate(lists[person])]
        filled = shown[: int((lists[person] >= 0).sum())]
        run[str(person)] = {name: float(LENGTH - place) for place, name in enumerate(filled)}
        qrels[str(person)] = {_name(c): int(relevant[person, c]) for c in np.flatnonzero(relevant[person])}
    return SimpleNamespace(lists=repeated, relevant=relevant, judged=judged, run=run, qrels=qrels)


def _independent(case, measures):
    """Values of pytrec_eval, NaN for people without relevant items (which it reports as 0 or not at all)."""
    table = {measure: np.full(PEOPLE, np.nan) for measure in measures}
    qrels = {person: found for person, found in case.qrels.items() if found}
    for value in ir_measures.pytrec_eval.iter_calc(measures, qrels, case.run):
        table[value.measure][int(value.query_id)] = value.value
    return table


@pytest.mark.parametrize("k", KS)
def test_agree_with_trec_eval(case, k):
    judged = case.judged
    pairs = {
        nDCG @ k: ranking.graded_ndcg(judged, k),
        P @ k: ranking.precision(judged, k),
        R @ k: ranking.recall(judged, k),
        AP @ k: ranking.average_precision(judged, k, divisor="relevant"),
        Success @ k: ranking.hit_rate(judged, k),
    }
    for measure, other in _independent(case, list(pairs)).items():
        np.testing.assert_allclose(pairs[measure], other, atol=1e-6, err_msg=str(measure))


def test_binary_ndcg_agrees_with_trec_eval(case):
    flat = SimpleNamespace(run=case.run, qrels={p: dict.fromkeys(found, 1) for p, found in case.qrels.items()})
    for k in KS:
        other = _independent(flat, [nDCG @ k])[nDCG @ k]
        np.testing.assert_allclose(ranking.ndcg(case.judged, k), other, atol=1e-6)


def test_without_cut_off_agrees_with_trec_eval(case):
    other = _independent(case, [RR, Rprec, AP])
    np.testing.assert_allclose(ranking.reciprocal_rank(case.judged), other[RR], atol=1e-6)
    np.testing.assert_allclose(ranking.r_precision(case.judged), other[Rprec], atol=1e-6)
    whole = ranking.average_precision(case.judged, LENGTH, divisor="relevant")
    np.testing.assert_allclose(whole, other[AP], atol=1e-6)


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
given = json.load(sys.stdin)
found = evaluate(Qrels(given["qrels"]), Run(given["run"]), given["names"], return_mean=False)
print(json.dumps({name: list(map(float, values)) for name, values in found.items()}))
"""


def test_agree_with_ranx(case):
    """ranx takes no empty list, and its lists hold nothing twice; otherwise the same definitions as trec_eval's.

    In a process of its own, because compiling its functions takes a minute where interpreting them takes seconds.
    """
    kept = [p for p in sorted(case.run) if case.run[p] and case.qrels[p]][:1500]
    ours = {
        "ndcg@10": ranking.graded_ndcg(case.judged, 10),
        "ndcg_burges@10": ranking.graded_ndcg(case.judged, 10, gain="exponential"),
        "map@10": ranking.average_precision(case.judged, 10, divisor="relevant"),
        "mrr@5": ranking.reciprocal_rank(case.judged, 5),
        "precision@10": ranking.precision(case.judged, 10),
        "recall@10": ranking.recall(case.judged, 10),
        "hit_rate@1": ranking.hit_rate(case.judged, 1),
        "r-precision": ranking.r_precision(case.judged),
    }
    given = {"names": list(ours), "qrels": {p: case.qrels[p] for p in kept}, "run": {p: case.run[p] for p in kept}}
    done = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps(given),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = np.array(kept, dtype=int)
    for name, values in json.loads(done.stdout).items():
        np.testing.assert_allclose(ours[name][rows], values, atol=1e-6, err_msg=name)


def test_ties_go_to_the_lower_code_and_agree_with_trec_eval():
    """trec_eval ignores the order of the run: by score, then by name descending. Named so, it breaks ties as we do."""
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, size=(1000, ITEMS)).astype(np.float32)
    relevant = (rng.random((1000, ITEMS)) < 0.1).astype(int)
    lists, _ = top_k(scores, 10)
    judged = ranking.judge(lists, csr_matrix(relevant))
    qrels = {str(p): {_name(c): 1 for c in np.flatnonzero(row)} for p, row in enumerate(relevant) if row.any()}
    run = {str(p): {_name(c): float(s) for c, s in enumerate(row)} for p, row in enumerate(scores)}
    for value in ir_measures.pytrec_eval.iter_calc([nDCG @ 10], qrels, run):
        assert value.value == pytest.approx(ranking.ndcg(judged, 10)[int(value.query_id)], abs=1e-6)


def test_lists_without_room_for_k_places_score_as_lists_padded_to_them():
    """Of a small catalogue, lists are narrower than k; the best list possible is not."""
    lists, relevant = np.array([[2], [0], [-1]]), csr_matrix(np.array([[5, 0, 3, 4], [2, 1, 0, 0], [1, 0, 0, 0]]))
    padded = np.pad(lists, ((0, 0), (0, 4)), constant_values=-1)
    narrow, wide = (ranking.judge(given, relevant, graded=True) for given in (lists, padded))
    for metric in (ranking.graded_ndcg, ranking.ndcg, ranking.precision, ranking.recall, ranking.average_precision):
        np.testing.assert_array_equal(metric(narrow, 3), metric(wide, 3), metric.__name__)
    best = 5 + 4 / np.log2(3) + 3 / 2
    assert ranking.graded_ndcg(narrow, 3)[0] == pytest.approx(3 / best)


def test_auc_and_graded_ndcg_agree_with_scikit_learn():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 30, size=(500, ITEMS)).astype(float)  # many ties: they count one half
    worth = np.where(rng.random((500, ITEMS)) < 0.15, rng.integers(1, 6, size=(500, ITEMS)), 0)
    worth[:, 0], worth[:, 1] = 1, 0
    found = ranking.positions(scores, csr_matrix(worth))
    other = [roc_auc_score(w > 0, s) for w, s in zip(worth, scores, strict=True)]
    np.testing.assert_allclose(ranking.auc(found), other, atol=1e-6)
    apart = scores + rng.permuted(np.tile(np.arange(ITEMS) / ITEMS, (500, 1)), axis=1)
    judged = ranking.judge(top_k(apart, 10)[0], csr_matrix(worth), graded=True)
    np.testing.assert_allclose(ranking.graded_ndcg(judged, 10).mean(), ndcg_score(worth, apart, k=10), atol=1e-6)
    burges = ndcg_score(2.0**worth - 1, apart, k=10)
    np.testing.assert_allclose(ranking.graded_ndcg(judged, 10, gain="exponential").mean(), burges, atol=1e-6)


def test_agrees_with_implicit(case):
    """implicit's NDCG has our ideal and discount; its precision is a micro-average over min(k, relevant)."""
    from implicit.evaluation import ranking_metrics_at_k

    class Saved:
        """Hands out lists that are there already, as implicit's evaluator asks for them."""

        def recommend(self, rows, _, N, **__):
            return lists[rows, :N].astype(np.int32), np.ones((len(rows), N), np.float32)

    rng = np.random.default_rng(3)
    lists = rng.random((PEOPLE, ITEMS)).argsort(axis=1)[:, :10]
    relevant = csr_matrix(case.relevant > 0, dtype=np.float64)
    nothing = csr_matrix((PEOPLE, ITEMS))
    found = ranking_metrics_at_k(Saved(), nothing, relevant, K=10, show_progress=False, num_threads=1)
    judged = ranking.judge(lists, relevant)
    assert np.nanmean(ranking.ndcg(judged, 10)) == pytest.approx(found["ndcg"], abs=1e-6)
    most = np.minimum(judged.n_relevant, 10)
    micro = np.nansum(ranking.precision(judged, 10, divisor="min") * most) / most.sum()
    assert micro == pytest.approx(found["precision"], abs=1e-6)
    assert np.nanmean(ranking.precision(judged, 10)) < found["precision"]
    assert np.nanmean(ranking.average_precision(judged, 10)) == pytest.approx(found["map"], abs=1e-6)


def test_where_conventions_differ_by_hand():
    """One relevant item, found at the second of ten places."""
    judged = ranking.judge(np.arange(10)[None], csr_matrix(([1], ([0], [1])), shape=(1, 12)))
    assert ranking.ndcg(judged, 10)[0] == pytest.approx(1 / np.log2(3))
    assert ranking.ndcg(judged, 10, ideal="k")[0] == pytest.approx(1 / np.log2(3) / ranking.discounts(10).sum())
    assert ranking.ndcg(judged, 10, discount="lenskit")[0] == pytest.approx(1.0)  # places one and two weigh the same
    assert ranking.precision(judged, 10)[0] == 0.1
    assert ranking.precision(judged, 10, divisor="min")[0] == 1.0
    assert ranking.average_precision(judged, 10)[0] == 0.5
    assert ranking.average_precision(judged, 10, divisor="k")[0] == 0.05
    many = ranking.judge(np.arange(2)[None], csr_matrix(np.ones((1, 12))))
    assert ranking.recall(many, 2)[0] == pytest.approx(2 / 12)
    assert ranking.recall(many, 2, divisor="min")[0] == 1.0
    assert ranking.average_precision(many, 2)[0] == 1.0
    assert ranking.average_precision(many, 2, divisor="relevant")[0] == pytest.approx(2 / 12)


def test_perfect_list_scores_one_and_one_item_lists_are_no_exception():
    judged = ranking.judge(np.array([[4, 0, 1], [4, 5, -1]]), csr_matrix(([1, 1, 1], ([0, 1, 1], [4, 4, 5])), (2, 6)))
    for metric in (ranking.ndcg, ranking.average_precision, ranking.recall, ranking.reciprocal_rank):
        np.testing.assert_allclose(metric(judged, 3), 1.0)


def test_nothing_relevant_is_no_value_and_an_empty_list_is_zero():
    judged = ranking.judge(np.array([[0, 1], [-1, -1]]), csr_matrix(np.array([[0, 0], [1, 0]])))
    for values in ranking.at_cutoffs(judged, (1, 2)).values():
        assert np.isnan(values[0])
        assert values[1] == 0
    nothing = ranking.judge(np.empty((2, 0), int), csr_matrix(np.array([[1, 0], [1, 0]])))
    assert all((values == 0).all() for values in ranking.at_cutoffs(nothing, (1, 2)).values())
    assert ranking.r_precision(nothing).tolist() == [0, 0]


def test_relevant_items_that_no_list_can_hold_count():
    relevant = csr_matrix(np.array([[1, 0, 0, 1]]))  # column 3 is outside the catalogue of three
    found = ranking.positions(np.array([[3.0, 2.0, 1.0]]), relevant)
    assert found.rank.tolist() == [1, 0]
    assert ranking.auc(found)[0] == 0.5
    assert ranking.full_r_precision(found)[0] == 0.5
    only = ranking.positions(np.array([[3.0, 2.0, 1.0]]), csr_matrix(np.array([[0, 0, 0, 1]])))
    assert ranking.auc(only)[0] == 0
    assert ranking.full_reciprocal_rank(only)[0] == 0


def test_places_in_the_whole_ranking_are_those_of_the_lists():
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, size=(300, ITEMS)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    relevant = csr_matrix((rng.random(scores.shape) < 0.1).astype(float))
    seen = csr_matrix(((rng.random(scores.shape) < 0.1) & (relevant.toarray() == 0)).astype(float))
    lists, _ = top_k(scores, ITEMS, exclude=seen)
    found = ranking.positions(scores, relevant, exclude=seen)
    judged = ranking.judge(lists, relevant)
    np.testing.assert_allclose(ranking.full_reciprocal_rank(found), ranking.reciprocal_rank(judged))
    np.testing.assert_allclose(ranking.full_r_precision(found), ranking.r_precision(judged))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_bounds_and_monotonicity(seed, k):
    rng = np.random.default_rng(seed)
    lists = rng.integers(-1, 15, size=(8, 12))
    judged = ranking.judge(lists, csr_matrix((rng.random((8, 15)) < 0.3).astype(float)), graded=True)
    values = ranking.at_cutoffs(judged, (k, k + 1))
    known = judged.n_relevant > 0
    for value in values.values():
        assert ((value[known] >= 0) & (value[known] <= 1 + 1e-12)).all()
    for name in ("recall", "hit_rate", "mrr"):
        assert (values[f"{name}@{k}"][known] <= values[f"{name}@{k + 1}"][known] + 1e-12).all()


@given(st.integers(0, 2**32 - 1))
def test_moving_a_hit_up_never_hurts(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(10)
    relevant = csr_matrix((rng.random((1, 10)) < 0.4).astype(float))
    judged = ranking.judge(order[None], relevant)
    places = np.flatnonzero(judged.hits[0] & ~np.r_[True, judged.hits[0][:-1]])
    if len(places) == 0:
        return
    better = order.copy()
    better[[places[0] - 1, places[0]]] = better[[places[0], places[0] - 1]]
    moved = ranking.judge(better[None], relevant)
    for metric in (ranking.ndcg, ranking.average_precision, ranking.reciprocal_rank, ranking.precision):
        assert metric(moved, 5)[0] >= metric(judged, 5)[0] - 1e-12
    assert ranking.ndcg(moved, 10)[0] > ranking.ndcg(judged, 10)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda j: ranking.precision(j, 0), "k is 0"),
        (lambda j: ranking.ndcg(j, 5, ideal="max"), "ideal is 'max'"),
        (lambda j: ranking.graded_ndcg(j, 5), "needs worths"),
        (lambda j: ranking.judge(np.array([[7]]), csr_matrix((1, 3))), "item code 7"),
        (lambda j: ranking.judge(np.array([[0], [1]]), csr_matrix((1, 3))), "1 rows"),
    ],
)
def test_bad_input_is_named(call, message):
    judged = ranking.judge(np.array([[0]]), csr_matrix(np.array([[1]])))
    with pytest.raises(ValueError, match=message):
        call(judged)
