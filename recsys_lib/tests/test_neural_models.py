"""The hybrid and the ranker on made data: what they learn, what they must not know, what they save and explain."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.data.splits import temporal_user
from recsys_lib.evaluation.metrics.rating import bias_predictions, predictions, rmse
from recsys_lib.evaluation.task import mean_ndcg
from recsys_lib.models import NeuralHybrid, NeuralRanker, Popularity, load_model
from recsys_lib.models.features.pairs import Catalogue, PairFeatures
from recsys_lib.models.neural import serving
from recsys_lib.models.neural.training import TrainingFailedError

SMALL = {"embedding_dim": 8, "hidden": (16, 8), "batch_size": 256, "device": "cpu"}
RANKER = {"embedding_dim": 8, "hidden": 16, "epochs": 60, "batch_size": 40, "device": "cpu"}


@pytest.fixture(scope="module")
def split(tables):
    return temporal_user(tables[0], test=0.2, valid=0)


@pytest.fixture(scope="module")
def content(tables):
    return {"items": tables[1], "users": tables[2]}


@pytest.fixture(scope="module")
def hybrid(split, content):
    return NeuralHybrid(epochs=12, **SMALL).fit(Interactions.from_frame(split.train), **content)


@pytest.fixture(scope="module")
def ranker(split, content):
    return NeuralRanker(**RANKER).fit(Interactions.from_frame(split.train), **content)


# ---- the hybrid ----------------------------------------------------------------------------------------------------


def test_hybrid_beats_the_biases(hybrid, split):
    found = rmse(predictions(hybrid, split.test)["error"].to_numpy())
    biases = bias_predictions(split.train, split.test) - split.test["rating"].to_numpy()
    assert found < rmse(biases)


def test_hybrid_stays_on_the_scale(hybrid, tables):
    predicted = predictions(hybrid, tables[0])["predicted"]
    assert predicted.between(1, 5).all()


def test_no_training_row_knows_its_own_rating(tables):
    """Changing one rating changes neither the dense features nor the own-less sums of that row."""
    frame = tables[0]
    other = frame.copy()
    row = 17
    other.loc[row, "rating"] = 6 - other.loc[row, "rating"] if other.loc[row, "rating"] != 3 else 5
    found = []
    for table in (frame, other):
        known = Interactions.from_frame(table)
        knowledge = PairFeatures(known, Catalogue.of(known, tables[1], tables[2]))
        own = np.flatnonzero(
            (known.user_ids[known.row_of_entry] == frame["user_id"][row])
            & (known.item_ids[known.matrix.indices] == frame["item_id"][row])
        )[0]
        training = knowledge.training()
        person, film = knowledge.users.rows[own], knowledge.items.rows[own]
        gaps = knowledge.users.gaps.copy()
        gaps[own] = 0
        mine = gaps[knowledge.users.rows == person]
        raters = knowledge.items.gaps.copy()
        raters[own] = 0
        found.append((training["dense"][own], mine, raters[knowledge.items.rows == film]))
    for first, second in zip(*found, strict=True):
        # what depends on the mean of all ratings moves by its share of one rating, nothing else moves
        np.testing.assert_allclose(first, second, atol=5 / len(frame))


def test_ratings_of_the_same_moment_leave_the_own_out():
    """Person 0 gave two ratings in one second, a third a minute later, a fourth the next day; person 1 gave one."""
    from recsys_lib.models.features.pairs import Side

    gaps, times = np.array([1.0, -2.0, 0.5, 3.0, 9.0]), np.array([100, 100, 160, 90_000, 100])
    side = Side(np.array([0, 0, 0, 0, 1]), gaps, gaps, 2, times, 1.0, (), (0, 60))
    none, mean = np.zeros(5), np.full(1, 0.5)
    alone = side._within(side.rows, None, np.arange(5), 0, none)
    np.testing.assert_allclose(alone, [-2 / 3, 1 / 3, 0, 0, 0])
    minute = side._within(side.rows, None, np.arange(5), 60, none)
    np.testing.assert_allclose(minute, [-1.5 / 4, 1.5 / 4, -1 / 4, 0, 0])
    asked = side._within(np.zeros(1, int), np.array([100]), None, 0, mean)
    np.testing.assert_allclose(asked, (-1 - 2 * 0.5) / 4)
    assert side._within(np.zeros(1, int), None, None, 60, mean) == 0
    assert side.names()[-2:] == ["ratings of the same second", "ratings within 60 s"]


def test_net_does_not_see_the_own_rating(split, content):
    """Another own rating, in both histories and in what is taken out of them, leaves the pair's score as it was."""
    from recsys_lib.models.neural.rating_net import RatingBatch

    model = NeuralHybrid(epochs=1, **SMALL).fit(Interactions.from_frame(split.train), **content)
    net = model._task(3)[0].module.eval()
    columns = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in model.features.training().items()}
    entry = 7
    batch = RatingBatch(**{name: value[[entry]] for name, value in columns.items()})
    before = net(batch).item()
    raters = net.histories[1]
    start, end = raters.starts[batch.items[0]], raters.starts[batch.items[0] + 1]
    net.histories[0].gaps[entry] += 2
    raters.gaps[start + int(torch.searchsorted(raters.columns[start:end], batch.users[0]))] += 2
    changed = RatingBatch(**{**vars(batch), "user_gaps": batch.user_gaps + 2, "item_gaps": batch.item_gaps + 2})
    assert net(changed).item() == pytest.approx(before, abs=1e-5)
    assert net(batch).item() != pytest.approx(before, abs=1e-5)  # not taken out, it would be seen


def test_mixed_precision_trains_the_same_net(split, content):
    """What a GPU does, on the CPU: with products in 16 bits, the gradients are those of 32 bits but for rounding."""
    from recsys_lib.models.neural.rating_net import RatingBatch, squared_loss

    model = NeuralHybrid(epochs=1, **SMALL).fit(Interactions.from_frame(split.train), **content)
    training = model.features.training()
    batch = RatingBatch(**{name: torch.from_numpy(np.ascontiguousarray(v[::9])) for name, v in training.items()})
    found = []
    for half in (False, True):
        net = model._task(3)[0].module.train()
        torch.manual_seed(7)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = squared_loss(net, batch)
        loss.backward()
        found.append(torch.cat([parameter.grad.ravel() for parameter in net.parameters()]))
    assert all(gradient.dtype == torch.float32 for gradient in found)
    assert torch.cosine_similarity(*found, dim=0) > 0.999


def test_torch_and_numpy_agree_on_ratings(split, content):
    """A pair that is in no history scores the same in the net and in what serves it."""
    model = NeuralHybrid(epochs=2, batch_norm=True, **SMALL).fit(Interactions.from_frame(split.train), **content)
    known = model.features
    net = model._task(5)[0].module.eval()
    state = model._state(net)
    model = model._with([state])
    users, items = np.array([3, 50, 7]), np.array([0, 5, 79])
    people, bias = model._user_vectors(state)
    dense = known.pairs(users, items, None)
    with torch.no_grad():
        u, v = torch.from_numpy(people[users]), torch.from_numpy(state["items"][items])
        expected = net.head(u, v, torch.from_numpy(dense)).numpy()
    np.testing.assert_allclose(
        serving.rating_pairs(state, people[users], state["items"][items], dense), expected, atol=1e-5
    )
    grid = model.score(model.train.rows(model.train.user_codes([4, 51, 8])), [4, 51, 8])
    ids = known.catalogue.item_ids[items]
    pairs = known.mean + expected + bias[users] + state["item_bias"][items]
    np.testing.assert_allclose(grid[np.arange(3), model.train.item_codes(ids)], pairs, atol=1e-4)


def test_vectors_of_the_net_are_those_that_serve(split, content):
    """Without the pair itself, and with the ID, a person's vector in the net equals the served one of that history."""
    model = NeuralHybrid(epochs=1, **SMALL).fit(Interactions.from_frame(split.train), **content)
    from recsys_lib.models.neural.rating_net import RatingBatch

    net = model._task(1)[0].module.eval()
    state = model._state(net)
    training = model.features.training()
    batch = RatingBatch(**{name: torch.from_numpy(np.ascontiguousarray(v[:1])) for name, v in training.items()})
    with torch.no_grad():
        vectors, _ = net.encode(batch, torch.ones(1), torch.ones(1))
    matrix = model.features.matrix[0].copy()
    kept = matrix.indices != training["items"][0]
    without = csr_matrix((matrix.data[kept], matrix.indices[kept], [0, kept.sum()]), shape=matrix.shape)
    gaps = without.data - model.features.item_means[without.indices]
    served, _ = model._vectors(state, without, gaps, np.array([0]))
    np.testing.assert_allclose(served[0], vectors[0].numpy(), atol=1e-5)


def test_shuffled_test_ratings_change_no_prediction(hybrid, split):
    shuffled = split.test.assign(rating=split.test["rating"].to_numpy()[::-1])
    first, second = (predictions(hybrid, frame)["predicted"] for frame in (split.test, shuffled))
    assert first.equals(second)


def test_an_item_without_ratings_is_predicted_from_its_content(split, content):
    train = Interactions.from_frame(split.train[split.train["item_id"] != 40])
    model = NeuralHybrid(epochs=6, history_dropout=0.1, **SMALL).fit(train, **content)
    predicted = model.predict([1, 1], [40, 12345])
    assert predicted[0] != predicted[1]  # 40 has genres and a year, 12345 has nothing


def test_hybrid_is_saved_and_loaded(hybrid, split, tmp_path):
    hybrid.save(tmp_path / "hybrid")
    again = load_model(tmp_path / "hybrid")
    assert np.array_equal(predictions(again, split.test)["predicted"], predictions(hybrid, split.test)["predicted"])
    assert again.params() == hybrid.params()


def test_hybrid_needs_ratings_that_differ(known):
    ones = Interactions(known.matrix.sign(), known.user_ids, known.item_ids)
    with pytest.raises(ValueError, match="all alike; use NeuralRanker"):
        NeuralHybrid(epochs=1).fit(ones)


def test_hybrid_without_time_and_content(split):
    train = Interactions.from_frame(split.train.drop(columns="timestamp"))
    model = NeuralHybrid(epochs=3, **SMALL).fit(train)
    assert np.isfinite(model.score(train.rows(np.array([0, 1])), train.user_ids[:2])).all()
    assert not any("then" in name for name in model.features.names())


def test_two_seeds_are_averaged(split, content):
    train = Interactions.from_frame(split.train)
    both = NeuralHybrid(epochs=2, n_models=2, seed=0, **SMALL).fit(train, **content)
    apart = [both._with([state]).score(train.rows(np.array([2]))) for state in both.states]
    np.testing.assert_allclose(both.score(train.rows(np.array([2]))), np.mean(apart, axis=0), atol=1e-5)
    assert not np.allclose(*apart)


def test_a_huge_rate_stops_with_the_place(split, content):
    with pytest.raises(TrainingFailedError, match=r"epoch \d+, batch \d+"):
        NeuralHybrid(epochs=3, **{**SMALL, "lr": 1e30}, schedule="constant").fit(
            Interactions.from_frame(split.train), **content
        )


# ---- the ranker ----------------------------------------------------------------------------------------------------


def test_ranker_beats_popularity(ranker, split):
    popular = Popularity().fit(Interactions.from_frame(split.train))
    assert mean_ndcg(ranker, split) > mean_ndcg(popular, split)


def test_torch_and_numpy_agree_on_ranking(ranker):
    from recsys_lib.models.neural.ranking_net import RankingBatch

    train, net = ranker.train, ranker._task(3)[0].module.eval()
    histories = train.rows(np.array([4, 9]))
    codes, around = ranker._inputs(histories, train.user_ids[[4, 9]])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = RankingBatch(
        torch.from_numpy(histories.matrix.indices.astype(np.int64)),
        torch.from_numpy(codes),
        torch.from_numpy(histories.steps_back().astype(np.float32)),
        torch.from_numpy(histories.matrix.indptr[:-1].astype(np.int64)),
        torch.from_numpy(around),
        (empty, empty),
        (empty, empty),
        torch.zeros(0),
    )
    with torch.no_grad():
        expected = net(batch).numpy()
    np.testing.assert_allclose(
        serving.ranking_scores(ranker._state(net), histories, codes, around), expected, atol=2e-5
    )


def test_a_person_is_only_their_history(ranker):
    """Somebody known without demographics, and a new user with the same history, get the same list."""
    history = ranker.train.rows(np.array([3]))
    named = ranker.score(history, [10_000])
    np.testing.assert_array_equal(named, ranker.score(history))


def test_order_matters_with_time_only(ranker, split, content):
    history = ranker.train.rows(np.array([3]))
    turned = Histories(history.matrix, history.timestamps[::-1].copy())
    assert not np.allclose(ranker.score(history), ranker.score(turned))
    timeless = NeuralRanker(**{**RANKER, "epochs": 2})
    timeless.fit(Interactions.from_frame(split.train.drop(columns="timestamp")), **content)
    assert np.isfinite(timeless.score(history.matrix)).all()


def test_ranker_on_implicit_feedback(split):
    train = Interactions.from_frame(split.train[["user_id", "item_id", "timestamp"]])
    model = NeuralRanker(**{**RANKER, "epochs": 2}).fit(train)
    assert len(model.recommend([1, 2], 5)) == 10


def test_ranker_is_saved_and_loaded(ranker, tmp_path):
    ranker.save(tmp_path / "ranker")
    again = load_model(tmp_path / "ranker")
    history = ranker.train.rows(np.arange(5))
    assert np.array_equal(again.score(history), ranker.score(history))
    assert again.log == ranker.log


def test_ranker_needs_two_interactions():
    one = Interactions.from_frame(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2]}))
    with pytest.raises(ValueError, match="at least two interactions"):
        NeuralRanker(epochs=1).fit(one)


def test_serving_does_not_import_torch(ranker, hybrid, tmp_path):
    ranker.save(tmp_path / "ranker")
    hybrid.save(tmp_path / "hybrid")
    code = (
        "import sys; from recsys_lib.models import load_model\n"
        f"ranker, hybrid = load_model({str(tmp_path / 'ranker')!r}), load_model({str(tmp_path / 'hybrid')!r})\n"
        "ranker.recommend_new([1, 2], 3); ranker.explain(1, 5); hybrid.predict([1], [2]); hybrid.parts(1, 5)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- explanations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [5, {1: 5.0, 7: 2.0}])
def test_parts_sum_to_the_score(hybrid, ranker, who):
    for model in (hybrid, ranker):
        history, user, column = model._asked(who, 3)
        score = model.score(history, None if user is None else [user])[0, column]
        table = model.parts(who, 3)
        assert table["contribution"].sum() == pytest.approx(score, abs=1e-4)
        assert (table["part"] == "history").sum() == history.matrix.nnz


def test_the_rest_is_the_net_of_nothing(hybrid):
    """What no input explains is the score of all zeros: integrated gradients are complete."""
    state, dim = hybrid.states[0], hybrid.embedding_dim
    nothing = np.zeros((1, dim), np.float32)
    start = serving.rating_pairs(state, nothing, nothing, np.zeros((1, sum(hybrid.features.blocks())), np.float32))
    table = hybrid.parts(5, 3)
    found = table.loc[table["part"] == "start", "contribution"].iloc[0]
    assert found == pytest.approx(hybrid.features.mean + start[0], abs=2e-3)


def test_a_linear_net_explains_itself_exactly(hybrid):
    """With the perceptron silenced the net is linear and bilinear: each film's share is known by hand."""
    state = {name: value.copy() for name, value in hybrid.states[0].items()}
    state["last.weight"][:] = 0
    model = hybrid._with([state])
    history = model.train.rows(model.train.user_codes([5]))
    known, column = model.features, int(model.train.item_codes([3])[0])
    gaps = history.matrix.data - known.item_means[history.matrix.indices]
    words = state["seen"][history.matrix.indices] + gaps[:, None] * state["weighted"][history.matrix.indices]
    by_hand = 0.5 * words @ state["items"][column] / np.sqrt(history.matrix.nnz + 1)  # <u, v> shares between u and v
    np.testing.assert_allclose(model._contributions(history, column, 5), by_hand, atol=1e-5)


def test_same_attributions_as_captum(hybrid):
    captum = pytest.importorskip("captum.attr")
    state, dim = hybrid.states[0], hybrid.embedding_dim
    net = hybrid._task(0)[0].module.eval()
    state = hybrid._state(net)
    people, _ = hybrid._user_vectors(state)
    dense = hybrid.features.pairs(np.array([4]), np.array([3]), None)
    inputs = tuple(torch.from_numpy(x) for x in (people[[4]], state["items"][[3]], dense))
    found = captum.IntegratedGradients(net.head).attribute(inputs, n_steps=64, method="riemann_middle")
    point = np.concatenate([x[0].numpy() for x in inputs])
    expected = np.concatenate([x[0].detach().numpy() for x in found])
    np.testing.assert_allclose(point * serving.rating_slopes(state, point, dim), expected, atol=1e-4)


def test_ranker_speaks_for_what_it_saw_together():
    """Two camps that never meet: a film of one's own camp is explained by the camp's films."""
    rng = np.random.default_rng(0)
    rows = [
        {"user_id": user, "item_id": int(item) + 20 * (user % 2), "rating": 5.0, "timestamp": 1000 * user + place}
        for user in range(60)
        for place, item in enumerate(rng.permutation(20)[:12])
    ]
    model = NeuralRanker(**{**RANKER, "batch_size": 30}).fit(Interactions.from_frame(pd.DataFrame(rows)))
    mine = model.parts([1, 2, 3], 5)
    theirs = model.parts([1, 2, 3], 25)
    speaks = [table.loc[table["part"] == "history", "contribution"].sum() for table in (mine, theirs)]
    assert speaks[0] > 0 > speaks[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_learns_what_the_cpu_learns(split, content):
    known = Interactions.from_frame(split.train)
    errors = {}
    for device in ("cpu", "cuda"):
        model = NeuralHybrid(epochs=12, **{**SMALL, "device": device}).fit(known, **content)
        errors[device] = rmse(predictions(model, split.test)["error"].to_numpy())
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=0.02)
    ranked = [mean_ndcg(NeuralRanker(**{**RANKER, "device": device}).fit(known, **content), split) for device in errors]
    assert ranked[1] == pytest.approx(ranked[0], rel=0.15)
