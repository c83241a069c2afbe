"""Ranking metrics against independent libraries, on thousands of random cases, and where those differ from ours."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score, roc_auc_score

from recsys_lib.evaluation.metrics import ranking
from recsys_lib.models.lists import top_k

ir_measures = pytest.importorskip("ir_measures", reason="environment.yml says where it is")
from ir_measures import AP, RR, P, R, Rprec, Success, nDCG  # noqa: E402

KS = (1, 5, 10, 20)
USERS, ITEMS, LENGTH = 4000, 60, 25


def _name(code):
    """Names whose descending order is the ascending order of the codes: trec_eval puts the later name first."""
    return f"i{ITEMS * 100 - code:06d}"


def _random_case(seed=0):
    """Lists of 0 to 25 items, some of them twice, and 0 to 12 relevant items with worths 1 to 5."""
    rng = np.random.default_rng(seed)
    lists = rng.random((USERS, ITEMS)).argsort(axis=1)[:, :LENGTH]
    relevant = np.zeros((USERS, ITEMS), int)
    order = rng.random((USERS, ITEMS)).argsort(axis=1)
    sizes = rng.integers(0, 13, size=USERS)
    relevant[order < sizes[:, None]] = rng.integers(1, 6, size=sizes.sum())
    lists[np.arange(LENGTH) >= rng.integers(0, LENGTH + 1, size=USERS)[:, None]] = -1
    return lists, relevant


def _run(lists):
    """Lists as trec_eval and ir-measures want them; -1 ends a list, -2 is an item that nobody likes."""
    run = {}
    for user, row in enumerate(lists):
        names = [f"other{place}" if code == -2 else _name(code) for place, code in enumerate(row) if code != -1]
        run[str(user)] = {name: float(LENGTH - place) for place, name in enumerate(names)}
    return run


def _qrels(relevant):
    return {
        str(user): {_name(code): int(row[code]) for code in np.flatnonzero(row)} for user, row in enumerate(relevant)
    }


@pytest.fixture(scope="module")
def case():
    """Random lists, in some of which an item stands twice; for the other libraries the second is an irrelevant one."""
    lists, relevant = _random_case()
    twice = (lists[:, 3] >= 0) & (np.arange(USERS) % 3 == 0)
    once = lists.copy()
    once[twice, 3] = -2
    lists[twice, 3] = lists[twice, 1]
    judged = ranking.judge(lists, csr_matrix(relevant))
    return SimpleNamespace(relevant=relevant, judged=judged, run=_run(once), qrels=_qrels(relevant))


def _independent(run, qrels, measures):
    """Values of pytrec_eval, NaN for users without relevant items (which it reports as 0 or not at all)."""
    table = {measure: np.full(len(run), np.nan) for measure in measures}
    for value in ir_measures.pytrec_eval.iter_calc(measures, {u: row for u, row in qrels.items() if row}, run):
        table[value.measure][int(value.query_id)] = value.value
    return table


def _over_relevant(judged, k):
    """Average precision over all that is relevant, as trec_eval divides."""
    most = np.maximum(judged.n_relevant, 1)
    return ranking.average_precision(judged, k) * np.clip(judged.n_relevant, 1, k) / most


@pytest.mark.parametrize("k", KS)
def test_agree_with_trec_eval(case, k):
    judged = case.judged
    pairs = {
        nDCG @ k: ranking.graded_ndcg(judged, k),
        P @ k: ranking.precision(judged, k),
        R @ k: ranking.recall(judged, k),
        AP @ k: _over_relevant(judged, k),
        Success @ k: ranking.hit_rate(judged, k),
    }
    for measure, other in _independent(case.run, case.qrels, list(pairs)).items():
        np.testing.assert_allclose(pairs[measure], other, atol=1e-6, err_msg=str(measure))
    binary = {user: dict.fromkeys(row, 1) for user, row in case.qrels.items()}
    other = _independent(case.run, binary, [nDCG @ k])[nDCG @ k]
    np.testing.assert_allclose(ranking.ndcg(judged, k), other, atol=1e-6)


def test_without_cut_off_agrees_with_trec_eval(case):
    other = _independent(case.run, case.qrels, [RR, AP])
    np.testing.assert_allclose(ranking.reciprocal_rank(case.judged, LENGTH), other[RR], atol=1e-6)
    np.testing.assert_allclose(_over_relevant(case.judged, LENGTH), other[AP], atol=1e-6)
    lists, relevant = _random_case(seed=4)
    scores = np.full((USERS, ITEMS + 1), np.nan)
    np.put_along_axis(scores, np.where(lists < 0, ITEMS, lists), np.arange(LENGTH, 0, -1.0)[None], axis=1)
    positions = ranking.positions(scores[:, :ITEMS], csr_matrix(relevant))
    other = _independent(_run(lists), _qrels(relevant), [RR, Rprec])
    np.testing.assert_allclose(ranking.full_reciprocal_rank(positions), other[RR], atol=1e-6)
    np.testing.assert_allclose(ranking.r_precision(positions), other[Rprec], atol=1e-6)


def test_ties_go_to_the_lower_code_and_agree_with_trec_eval():
    """trec_eval ignores the order of the run: by score, then by name descending. Named so, it breaks ties as we do."""
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, size=(1000, ITEMS)).astype(np.float32)
    relevant = (rng.random((1000, ITEMS)) < 0.1).astype(int)
    judged = ranking.judge(top_k(scores, 10)[0], csr_matrix(relevant))
    run = {str(u): {_name(c): float(s) for c, s in enumerate(row)} for u, row in enumerate(scores)}
    other = _independent(run, _qrels(relevant), [nDCG @ 10])[nDCG @ 10]
    np.testing.assert_allclose(ranking.ndcg(judged, 10), other, atol=1e-6)


def test_lists_without_room_for_k_places_score_as_lists_padded_to_them():
    """Of a small catalogue, lists are narrower than k; the best list possible is not."""
    lists, relevant = np.array([[2], [0], [-1]]), csr_matrix(np.array([[5, 0, 3, 4], [2, 1, 0, 0], [1, 0, 0, 0]]))
    padded = np.pad(lists, ((0, 0), (0, 4)), constant_values=-1)
    narrow, wide = (ranking.judge(given, relevant) for given in (lists, padded))
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
    for gains in (worth, np.where(worth, 2**worth - 1, 0)):  # linear, and those of Burges et al.
        judged = ranking.judge(top_k(apart, 10)[0], csr_matrix(gains))
        other = ndcg_score(gains, apart, k=10)
        np.testing.assert_allclose(ranking.graded_ndcg(judged, 10).mean(), other, atol=1e-6)


def test_nothing_relevant_is_no_value_and_an_empty_list_is_zero():
    judged = ranking.judge(np.array([[0, 1], [-1, -1]]), csr_matrix(np.array([[0, 0], [1, 0]])))
    for values in ranking.at_cutoffs(judged, (1, 2)).values():
        assert np.isnan(values[0])
        assert values[1] == 0
    nothing = ranking.judge(np.empty((2, 0), int), csr_matrix(np.array([[1, 0], [1, 0]])))
    assert all((values == 0).all() for values in ranking.at_cutoffs(nothing, (1, 2)).values())


def test_relevant_items_that_no_list_can_hold_count():
    relevant = csr_matrix(np.array([[1, 0, 0, 1]]))  # column 3 is outside the catalogue of three
    found = ranking.positions(np.array([[3.0, 2.0, 1.0]]), relevant)
    assert found.rank.tolist() == [1, 0]
    assert ranking.auc(found)[0] == 0.5
    assert ranking.r_precision(found)[0] == 0.5
    only = ranking.positions(np.array([[3.0, 2.0, 1.0]]), csr_matrix(np.array([[0, 0, 0, 1]])))
    assert ranking.auc(only)[0] == 0
    assert ranking.full_reciprocal_rank(only)[0] == 0


def test_places_in_the_whole_ranking_are_those_of_the_lists():
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, size=(300, ITEMS)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    relevant = csr_matrix((rng.random(scores.shape) < 0.1).astype(float))
    seen = csr_matrix(((rng.random(scores.shape) < 0.1) & (relevant.toarray() == 0)).astype(float))
    found = ranking.positions(scores, relevant, exclude=seen)
    judged = ranking.judge(top_k(scores, ITEMS, exclude=seen)[0], relevant)
    np.testing.assert_allclose(ranking.full_reciprocal_rank(found), ranking.reciprocal_rank(judged, ITEMS))
    ranks = np.sort(judged.hits.nonzero()[1] + 1)
    assert np.sort(found.rank[found.rank > 0]).tolist() == ranks.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda j: ranking.precision(j, 0), "k is 0"),
        (lambda j: ranking.ndcg(j, 0), "k is 0"),
        (lambda j: ranking.judge(np.array([[7]]), csr_matrix((1, 3))), "item code 7"),
        (lambda j: ranking.judge(np.array([[0], [1]]), csr_matrix((1, 3))), "1 rows"),
    ],
)
def test_bad_input_is_named(call, message):
    judged = ranking.judge(np.array([[0]]), csr_matrix(np.array([[1]])))
    with pytest.raises(ValueError, match=message):
        call(judged)
