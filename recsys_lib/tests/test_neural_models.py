"""The hybrid and the ranker on made data: what they learn, what they must not know, what they save and explain."""

import numpy as np
import pandas as pd
import pytest
import torch

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import temporal_user
from recsys_lib.evaluation.metrics.rating import bias_predictions, predictions, rmse
from recsys_lib.evaluation.task import mean_ndcg
from recsys_lib.models import NeuralHybrid, NeuralRanker, Popularity
from recsys_lib.models.neural import nets, serving

SMALL = {"embedding_dim": 8, "hidden": (16, 8), "batch_size": 256, "device": "cpu"}
RANKER = {"embedding_dim": 8, "hidden": 16, "epochs": 60, "batch_size": 40, "device": "cpu"}


@pytest.fixture(scope="module")
def split(tables):
    return temporal_user(tables[0], test=0.2, valid=0)


@pytest.fixture(scope="module")
def train(split):
    return Interactions.from_frame(split.train)


@pytest.fixture(scope="module")
def hybrid(train, content):
    return NeuralHybrid(epochs=12, **SMALL).fit(train, **content)


@pytest.fixture(scope="module")
def ranker(train, content):
    return NeuralRanker(**RANKER).fit(train, **content)


def rating_batch(model: NeuralHybrid, chosen: slice | list[int]) -> nets.RatingBatch:
    """Some of the pairs that a hybrid learns from."""
    columns = {name: torch.from_numpy(value[chosen].copy()) for name, value in model.features.training().items()}
    return nets.RatingBatch(**columns)


# ---- the hybrid ----------------------------------------------------------------------------------------------------


def test_hybrid_beats_the_biases_and_stays_on_the_scale(hybrid, split, tables):
    biases = bias_predictions(split.train, split.test) - split.test["rating"].to_numpy()
    assert rmse(predictions(hybrid, split.test)["error"].to_numpy()) < rmse(biases)
    assert predictions(hybrid, tables[0])["predicted"].between(1, 5).all()
    assert hybrid.predict([], []).shape == (0,)


def test_net_does_not_see_the_own_rating(hybrid):
    """Another own rating, in both histories and in what is taken out of them, leaves the pair's score as it was."""
    net, entry = hybrid._plan(3).module.eval(), 7
    batch = rating_batch(hybrid, [entry])
    before = net(batch).item()
    raters = net.histories[1]
    start, end = raters.starts[batch.items[0]], raters.starts[batch.items[0] + 1]
    net.histories[0].gaps[entry] += 2
    raters.gaps[start + int(torch.searchsorted(raters.columns[start:end], batch.users[0]))] += 2
    changed = nets.RatingBatch(**{**vars(batch), "user_gaps": batch.user_gaps + 2, "item_gaps": batch.item_gaps + 2})
    assert net(changed).item() == pytest.approx(before, abs=1e-5)
    assert net(batch).item() != pytest.approx(before, abs=1e-5)  # not taken out, it would be seen


def test_long_histories_are_estimated_without_bias(hybrid, monkeypatch):
    """With few entries taken of each history, sums are right on average, and still without the pair itself."""
    net, batch = hybrid._plan(1).module, rating_batch(hybrid, slice(400))
    inputs = batch.users, batch.items, batch.user_gaps, net.seen, net.weighted
    with torch.no_grad():
        exact = net.histories[0].total(*inputs)
        monkeypatch.setattr(nets, "MAX_ENTRIES", 150)  # of about 400
        monkeypatch.setattr(nets, "ENTRIES_PER_PAIR", 0)
        torch.manual_seed(0)
        draws = torch.stack([net.histories[0].total(*inputs) for _ in range(3000)])
    spread = draws.std(dim=0)
    assert spread.mean() > 0.1
    assert ((draws.mean(dim=0) - exact).abs() < 5 * spread / 3000**0.5 + 1e-5).all()


def test_mixed_precision_trains_the_same_net(hybrid):
    """What a GPU does, on the CPU: with products in 16 bits, the gradients are those of 32 bits but for rounding."""
    batch, gradients = rating_batch(hybrid, slice(None, None, 9)), []
    for half in (False, True):
        net = hybrid._plan(3).module.train()
        torch.manual_seed(7)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = nets.squared_loss(net, batch)
        loss.backward()
        gradients.append(torch.cat([parameter.grad.ravel() for parameter in net.parameters()]))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize("batch_norm", [False, True])
def test_torch_and_numpy_agree_on_ratings(train, content, batch_norm):
    """A pair that is in no history scores the same in the net, and pair by pair and in a grid in what serves it."""
    model = NeuralHybrid(epochs=2, batch_norm=batch_norm, **SMALL).fit(train, **content)
    plan = model._plan(5)
    if batch_norm:
        nets.squared_loss(plan.module.train(), rating_batch(model, slice(500)))  # moves the running means
    net = plan.module.eval()
    state = model._state(net)
    model = model._with([state])
    users, items = np.array([3, 50, 7]), np.array([0, 5, 79])
    u, v, user_bias, item_bias = model.pair_vectors(state, users, items)
    dense = model.features.pairs(users, items, None)
    with torch.no_grad():
        expected = net.head(*(torch.from_numpy(x) for x in (u, v, dense))).numpy()
    np.testing.assert_allclose(serving.rating_pairs(state, u, v, dense), expected, atol=1e-5)
    grid = model.score(train.rows(train.user_codes([4, 51, 8])), [4, 51, 8])
    ids = model.catalogue.item_ids[items]
    pairs = model.features.mean + expected + user_bias + item_bias
    np.testing.assert_allclose(grid[np.arange(3), train.item_codes(ids)], pairs, atol=1e-4)


def test_vectors_of_the_net_are_those_that_serve(hybrid):
    """Without the pair itself, and with the ID, a user's vector in the net equals the served one of that history."""
    net, batch = hybrid._plan(1).module.eval(), rating_batch(hybrid, [0])
    with torch.no_grad():
        vectors, _ = net.encode(batch, torch.ones(1), torch.ones(1))
    without = hybrid.features.matrix[0].copy()
    without.data[without.indices == batch.items[0].item()] = 0
    without.eliminate_zeros()
    gaps = without.data - hybrid.features.item_means[without.indices]
    served, _ = hybrid._vectors(hybrid._state(net), without, gaps, np.array([0]))
    np.testing.assert_allclose(served[0], vectors[0].numpy(), atol=1e-5)


def test_an_item_without_ratings_is_predicted_from_its_content(split, content):
    train = split.train[split.train["item_id"] != 40]
    model = NeuralHybrid(epochs=6, history_dropout=0.1, **SMALL).fit(train, **content)
    predicted = model.predict([1, 1], [40, 12345])
    assert predicted[0] != predicted[1]  # 40 has genres and a year, 12345 has nothing


def test_what_nothing_can_be_learnt_from_is_refused():
    ones = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2]})
    for kind, says in ((NeuralHybrid, "all alike; use NeuralRanker"), (NeuralRanker, "at least two interactions")):
        with pytest.raises(ValueError, match=says):
            kind(epochs=1).fit(ones)
    with pytest.raises(ValueError, match="without has 'x'; what can be left out is history, ids,"):
        NeuralHybrid(without=["x"])


def test_hybrid_without_time_and_content(split):
    train = Interactions.from_frame(split.train.drop(columns="timestamp"))
    model = NeuralHybrid(epochs=1, **SMALL).fit(train)
    assert np.isfinite(model.score(train.rows(np.array([0, 1])), train.user_ids[:2])).all()
    assert not any("then" in name for name in model.features.names())


def test_two_seeds_are_averaged(train, content):
    both = NeuralHybrid(epochs=2, n_models=2, seed=0, **SMALL).fit(train, **content)
    apart = [model.score(train.rows(np.array([2]))) for model in both.by_seed]
    np.testing.assert_allclose(both.score(train.rows(np.array([2]))), np.mean(apart, axis=0), atol=1e-5)
    assert not np.allclose(*apart)


# ---- the ranker ----------------------------------------------------------------------------------------------------


def test_ranker_beats_popularity(ranker, split, train):
    assert mean_ndcg(ranker, split) > mean_ndcg(Popularity().fit(train), split)


def test_torch_and_numpy_agree_on_ranking(ranker, train):
    net = ranker._plan(3).module.eval()
    histories = train.rows(np.array([4, 9]))
    codes, around = ranker._inputs(histories, train.user_ids[[4, 9]])
    steps, none = histories.steps_back(), torch.zeros(0, dtype=torch.int64)
    events = (histories.matrix.indices.astype(np.int64), codes, steps.astype(np.float32))
    given = [torch.from_numpy(x) for x in (*events, histories.matrix.indptr[:-1].astype(np.int64), around)]
    with torch.no_grad():
        expected = net(nets.RankingBatch(*given, (none, none), (none, none), torch.zeros(0))).numpy()
    scores = serving.ranking_scores(ranker._state(net), histories, codes, around, steps)
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_a_user_is_only_their_history(ranker):
    """A user known without demographics, and a new user with the same history, get the same list."""
    history = ranker.train.rows(np.array([3]))
    np.testing.assert_array_equal(ranker.score(history, [10_000]), ranker.score(history))


def test_order_matters_with_time_only(ranker, split, content):
    history = ranker.train.rows(np.array([3]))
    turned = Histories(history.matrix, history.timestamps[::-1].copy())
    assert not np.allclose(ranker.score(history), ranker.score(turned))
    timeless = NeuralRanker(**{**RANKER, "epochs": 2}).fit(split.train.drop(columns="timestamp"), **content)
    assert np.isfinite(timeless.score(history.matrix)).all()


# ---- served and explained ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hybrid", "ranker"])
@pytest.mark.parametrize("user", [5, {1: 5.0, 7: 2.0}])
def test_parts_sum_to_the_score(request, name, user):
    model = request.getfixturevalue(name)
    history, known, column = model._asked(user, 3)
    table = model.parts(user, 3)
    score = model.score(history, None if known is None else [known])[0, column]
    assert table["contribution"].sum() == pytest.approx(score, abs=1e-4)
    assert (table["part"] == "history").sum() == history.matrix.nnz


def test_the_rest_is_the_net_of_nothing(hybrid):
    """What no input explains is the score of all zeros: integrated gradients are complete."""
    nothing, dense = np.zeros((1, hybrid.embedding_dim)), np.zeros((1, sum(hybrid.features.blocks())))
    start = serving.rating_pairs(hybrid.states[0], nothing, nothing, dense)
    rest = hybrid.parts(5, 3).set_index("part").loc["start", "contribution"]
    assert rest == pytest.approx(hybrid.features.mean + start[0], abs=2e-3)


def test_a_linear_net_explains_itself_exactly(hybrid):
    """With the perceptron silenced the net is linear and bilinear: each item's share is known by hand."""
    state = {**hybrid.states[0], "last.weight": np.zeros_like(hybrid.states[0]["last.weight"])}
    model = hybrid._with([state])
    history = model.train.rows(model.train.user_codes([5]))
    column = int(model.train.item_codes([3])[0])
    gaps = history.matrix.data - model.features.item_means[history.matrix.indices]
    rated = state["seen"][history.matrix.indices] + gaps[:, None] * state["weighted"][history.matrix.indices]
    by_hand = 0.5 * rated @ state["items"][column] / np.sqrt(history.matrix.nnz + 1)  # <u, v>: half to u, half to v
    np.testing.assert_allclose(model._contributions(history, column, 5), by_hand, atol=1e-5)


def test_same_attributions_as_captum(hybrid):
    captum = pytest.importorskip("captum.attr")
    net = hybrid._plan(0).module.eval()
    state, user, item = hybrid._state(net), np.array([4]), np.array([3])
    inputs = (*hybrid.pair_vectors(state, user, item)[:2], hybrid.features.pairs(user, item, None))
    tensors = tuple(torch.from_numpy(x) for x in inputs)
    theirs = captum.IntegratedGradients(net.head).attribute(tensors, n_steps=64, method="riemann_middle")
    point = np.concatenate(inputs, axis=1)[0]
    ours = point * serving.rating_slopes(state, point, hybrid.embedding_dim)
    np.testing.assert_allclose(ours, torch.cat(theirs, dim=1)[0].detach().numpy(), atol=1e-4)


def test_ranker_explains_by_what_is_rated_together():
    """Two camps that never meet: an item of one's own camp is explained by the camp's items."""
    rng = np.random.default_rng(0)
    rows = [
        {"user_id": user, "item_id": int(item) + 20 * (user % 2), "rating": 5.0, "timestamp": 1000 * user + place}
        for user in range(60)
        for place, item in enumerate(rng.permutation(20)[:12])
    ]
    model = NeuralRanker(**{**RANKER, "batch_size": 30}).fit(pd.DataFrame(rows))
    own, other = (model.parts([1, 2, 3], item).groupby("part")["contribution"].sum()["history"] for item in (5, 25))
    assert own > 0 > other


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_learns_what_the_cpu_learns(split, train, content):
    errors, ranked = {}, {}
    for device in ("cpu", "cuda"):
        model = NeuralHybrid(epochs=12, **{**SMALL, "device": device}).fit(train, **content)
        errors[device] = rmse(predictions(model, split.test)["error"].to_numpy())
        ranked[device] = mean_ndcg(NeuralRanker(**{**RANKER, "device": device}).fit(train, **content), split)
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=0.02)
    assert ranked["cuda"] == pytest.approx(ranked["cpu"], rel=0.15)
