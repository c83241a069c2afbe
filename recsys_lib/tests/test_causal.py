"""The causal transformer: what it sees, what it learns, what it serves, saves and explains."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from recsys_lib.data.interactions import Histories, Interactions
from recsys_lib.models import CausalTransformer, NeuralRanker
from recsys_lib.models.neural import causal_net
from recsys_lib.models.neural.serving import causal_places

SMALL = {"embedding_dim": 8, "max_length": 6, "batch_size": 64, "negatives": 40, "device": "cpu"}
CYCLE = 12


@pytest.fixture(scope="module")
def cycle():
    """Users go round a cycle of 12 items, six steps from anywhere: what follows is certain."""
    rows = [(user, (user + step) % CYCLE, step) for user in range(60) for step in range(6)]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "position"]))


@pytest.fixture(scope="module")
def model(cycle):
    return CausalTransformer(epochs=40, **{**SMALL, "embedding_dim": 16, "dropout": 0.1}).fit(cycle)


@pytest.fixture(scope="module")
def net(model):
    return model._plan(3).module.eval()


def test_it_learns_a_cycle(model, cycle):
    """After six items round the cycle comes the seventh, for users whom it knows and for new ones."""
    lists = model.recommend(cycle.user_ids, k=1)
    assert lists["item_id"].tolist() == [(user + 6) % CYCLE for user in lists["user_id"]]
    assert model.recommend_new([4, 5, 6], k=1)["item_id"].tolist() == [7]


def test_order_comes_from_times_or_positions_alone(model, cycle):
    timed = Interactions.from_frame(cycle.to_frame().rename(columns={"position": "timestamp"}))
    again = CausalTransformer(**model.params()).fit(timed)
    np.testing.assert_array_equal(again.score(timed.rows([5])), model.score(cycle.rows([5])))
    history = cycle.rows([5])
    turned = Histories(history.matrix, history.timestamps[::-1].copy())
    assert not np.allclose(model.score(turned), model.score(history), atol=0.1)


def test_a_later_item_changes_nothing_before_it(net):
    items = torch.tensor([[1, 5, 2, 7, 3, 0]])
    other = items.clone()
    other[0, 4] = 9
    with torch.no_grad():
        before, after = net(items)[0], net(other)[0]
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


def test_a_block_is_torchs_encoder_layer_with_a_causal_mask(net):
    block, theirs = net.blocks[0], nn.TransformerEncoderLayer(16, 1, 16, 0.0, "gelu", batch_first=True, norm_first=True)
    pairs = {
        "self_attn.in_proj_": block.qkv,
        "self_attn.out_proj.": block.out,
        "linear1.": block.up,
        "linear2.": block.down,
        "norm1.": block.before,
        "norm2.": block.between,
    }
    theirs.load_state_dict(
        {name + kind: getattr(own, kind) for name, own in pairs.items() for kind in ("weight", "bias")}
    )
    x = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(0))
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    with torch.no_grad():
        torch.testing.assert_close(block(x), theirs.eval()(x, src_mask=mask, is_causal=True), atol=1e-5, rtol=1e-5)


def test_torch_and_numpy_agree(model, net, cycle):
    """Place by place, and in scores of histories of any length; those longer than it reads give their last items."""
    state = model._state(net)
    items = np.array([[1, 5, 2, 7, 3, 0], [2, 2, 9, 1, 0, 4]])
    with torch.no_grad():
        expected = net(torch.from_numpy(items)).numpy()
    own = causal_places(state, items, model.blocks)
    own /= np.linalg.norm(own, axis=-1, keepdims=True)
    np.testing.assert_allclose(own, expected, atol=1e-5)
    served = model._with([state])
    scores = served.score(served.history_of([2, 3, 7, 4, 0, 9]))
    longer = served.score(served.history_of([8, 10, 2, 3, 7, 4, 0, 9]))
    with torch.no_grad():
        last = net(torch.tensor([[2, 3, 7, 4, 0, 9]]))[0, -1] @ net.candidates(torch.arange(CYCLE)).T
    np.testing.assert_allclose(longer[0] * model.temperature, last.numpy(), atol=1e-5)
    np.testing.assert_allclose(longer, scores, atol=1e-4)


def test_the_loss_over_all_items_is_torchs_cross_entropy(net):
    """With every item drawn it is the softmax over the catalogue, weighted."""
    items, real = torch.tensor([[1, 5, 2], [4, 3, 0]]), torch.tensor([[True, True, True], [True, True, False]])
    targets, weights = torch.tensor([5, 2, 7, 3, 8]), torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0])
    with torch.no_grad():
        loss = causal_net.next_item_loss(net, (items, real, targets, weights, torch.randperm(CYCLE)))
        logits = net(items)[real] @ net.candidates(torch.arange(CYCLE)).T / net.temperature
    each = nn.functional.cross_entropy(logits, targets, reduction="none")
    assert loss.item() == pytest.approx(((weights * each).sum() / weights.sum()).item(), rel=1e-5)


@pytest.mark.parametrize(("longest", "places"), [(6, 5), (2, 2)])
def test_batches_hold_what_follows_what(cycle, longest, places):
    """Each place's target is the next item, also in a stretch of a longer history; low ratings weigh less."""
    ratings = np.where(cycle.matrix.indices < 3, 1, 5).astype(np.float32)
    matrix = csr_matrix((ratings, cycle.matrix.indices, cycle.matrix.indptr), cycle.matrix.shape)
    model = CausalTransformer(max_length=longest, low_weight=0.25, batch_size=50)
    model.train = Interactions(matrix, cycle.user_ids, cycle.item_ids, cycle.timestamps, cycle.dated)
    windows = causal_net.Windows(model, torch.device("cpu"))
    batches = list(windows(np.random.default_rng(0)))
    for items, real, targets, weights, _ in batches:
        assert torch.equal(targets, (items[real] + 1) % CYCLE)
        assert torch.equal(weights, torch.where(targets < 3, 0.25, 1.0))
    assert sum(len(targets) for _, _, targets, _, _ in batches) == 60 * places
    assert len(batches) == windows.steps


def test_it_stops_early_at_the_best_epoch(cycle):
    errors = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    model = CausalTransformer(epochs=9, patience=2, **SMALL).fit(cycle, validate=lambda _: next(errors))
    assert [row["epoch"] for row in model.log] == [1, 2, 3, 4]


def test_an_item_is_explained_by_the_score_without_it(model):
    given, item = [4, 5, 6], 7
    table = model.parts(given, item)
    score = model.score(model.history_of(given))[0, item]
    assert table["contribution"].sum() == pytest.approx(score, abs=1e-4)
    by_item = table[table["part"] == "history"].set_index("item_id")["contribution"]
    for left_out in given:
        rest = [other for other in given if other != left_out]
        expected = score - model.score(model.history_of(rest))[0, item]
        assert by_item[left_out] == pytest.approx(expected, abs=1e-4)
    alone = model.parts([6], item).set_index("part")["contribution"]  # what is left without it: nothing
    assert alone["history"] == pytest.approx(model.score(model.history_of([6]))[0, item], abs=1e-4)


def test_what_it_cannot_learn_from_gets_one_sentence(cycle):
    with pytest.raises(ValueError, match="needs timestamps or positions, and the interactions have neither"):
        CausalTransformer().fit(cycle.to_frame().drop(columns="position"))
    with pytest.raises(ValueError, match="needs users with at least two interactions, and there is none"):
        CausalTransformer().fit(cycle.to_frame().drop_duplicates("user_id"))
    with pytest.raises(ValueError, match="negatives is 1; it must be 2 or more"):
        CausalTransformer(negatives=1)
    with pytest.raises(ValueError, match="epochs is 0; it must be 1 or more"):
        NeuralRanker(epochs=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_learns_the_cycle_too(model, cycle):
    again = CausalTransformer(**{**model.params(), "device": "cuda"}).fit(cycle)
    assert again.recommend_new([4, 5, 6], k=1)["item_id"].tolist() == [7]
