"""Forward passes and slopes with numpy alone: whatever serves a trained net needs no torch."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit, softmax

from recsys_lib.data.interactions import Histories, with_values

LAYERS_BLOCK = 2**18  # pairs that go through the layers at once: some 500 MB
HALF_LIVES = (1e9, 60.0, 15.0, 4.0)  # interactions after which an event counts half, at the start of training

State = dict[str, np.ndarray]
_STEPS = ((np.arange(64) + 0.5) / 64)[:, None]  # of the integral in integrated gradients


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """A linear layer with the weights that torch keeps, (out, in)."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """Layer normalisation as torch has it (Ba, Kiros and Hinton, 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """Gaussian error linear unit, x * Phi(x) (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016)."""
    return x * (0.5 * (1 + erf(x / np.sqrt(2, dtype=np.float32))))


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """Derivative of :func:`gelu`: Phi(x) + x * phi(x)."""
    return 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


# ---- ranking -----------------------------------------------------------------------------------------------------


def event_weights(state: State, codes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Weight of each event in each head, (nnz, heads): s[rating, head] * 2^(-steps back / half-life)."""
    return state["strength"][codes] * np.exp2(-steps[:, None] * np.exp(state["log_decay"]))


def pooled_history(state: State, histories: Histories, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled histories, (n, heads * dim), and the scale of each, (n, heads): 1 / sqrt(sum of squares + 1/2)."""
    matrix, rows = histories.matrix, histories.row_of_entry
    scale = np.empty((matrix.shape[0], weights.shape[1]), np.float32)
    spread = with_values(matrix, np.zeros(len(rows), np.float32))
    parts = []
    for head, of_head in enumerate(weights.T):
        scale[:, head] = 1 / np.sqrt(np.bincount(rows, of_head**2, minlength=matrix.shape[0]) + 0.5)
        spread.data = of_head.astype(np.float32)  # one matrix for all heads: making one takes its time
        parts.append((spread @ state["items"]) * scale[:, head : head + 1])
    return np.concatenate(parts, axis=1), scale


def ranking_scores(
    state: State, histories: Histories, codes: np.ndarray, context: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """Scores of the whole catalogue for each history, (n, n_items) float32; what the torch net gives.

    ``steps`` are ``histories.steps_back()``.
    """
    pooled, _ = pooled_history(state, histories, event_weights(state, codes, steps))
    inside = np.concatenate([layer_norm(state, "norm", pooled), context], axis=1)
    vectors = linear(state, "second", gelu(linear(state, "first", inside))) + linear(state, "skip", inside)
    return vectors @ state["candidates"].T + state["item_bias"]


def ranking_slopes(state: State, pooled: np.ndarray, context: np.ndarray, item: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean slopes of one item's score on the straight line from nothing known to this user.

    Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017), midpoint rule.
    The layer norm's spread is held at the user's own (Ali et al., "XAI for transformers", 2022), which keeps what
    each event adds linear.

    ``pooled @ first + context @ second``, (heads * dim,) and (c,), is the score less that of a user with nothing known.
    """
    centred = pooled - pooled.mean()
    gain = state["norm.weight"] / np.sqrt((centred**2).mean() + 1e-5)
    end = np.concatenate([centred * gain, context])
    start = np.concatenate([state["norm.bias"], np.zeros_like(context)])
    points = start + _STEPS * end  # (steps, heads * dim + c)
    candidate = state["candidates"][item]
    activation = gelu_slope(linear(state, "first", points)).mean(axis=0)  # (hidden,)
    slopes = (activation * (candidate @ state["second.weight"])) @ state["first.weight"]
    slopes += candidate @ state["skip.weight"]  # (heads * dim + c,)
    through = slopes[: len(pooled)] * gain
    return through - through.mean(), slopes[len(pooled) :]


# ---- ratings -----------------------------------------------------------------------------------------------------


def silu(x: np.ndarray) -> np.ndarray:
    """Sigmoid linear unit, x * sigmoid(x)."""
    gate = np.negative(x)
    np.exp(gate, out=gate)
    gate += 1
    return np.divide(x, gate, out=gate)


def hidden_layers(state: State) -> list[str]:
    """Names of the hidden layers, the first first."""
    return [f"layers.{number}" for number in range(sum(name.startswith("layers.") for name in state) // 2)]


def rating_pairs(state: State, u: np.ndarray, v: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Scores of pairs, biases left out, (n,): linear(dense) + <u, v> + MLP[u, v, u * v, dense]."""
    scores = []
    for start in range(0, max(1, len(u)), LAYERS_BLOCK):
        of_u, of_v, of_dense = (table[start : start + LAYERS_BLOCK] for table in (u, v, dense))
        product = of_u * of_v * state["product"]
        x = np.concatenate([of_u, of_v, product, of_dense], axis=1)
        for name in hidden_layers(state):
            x = silu(linear(state, name, x))
        scores.append((linear(state, "linear", of_dense) + linear(state, "last", x))[:, 0] + product.sum(axis=1))
    return np.concatenate(scores)


def rating_slopes(state: State, point: np.ndarray, dim: int) -> np.ndarray:
    """Mean slopes of a pair's score on the straight line from zeros to ``point`` = [u, v, dense], (2 * dim + f,).

    Integrated gradients as in :func:`ranking_slopes`: ``point @ slopes`` is the score less that of all zeros.
    """
    points = _STEPS * point  # (steps, 2 * dim + f)
    u, v, dense = points[:, :dim], points[:, dim : 2 * dim], points[:, 2 * dim :]
    x, slopes = np.concatenate([u, v, u * v * state["product"], dense], axis=1), {}
    for name in hidden_layers(state):
        before = linear(state, name, x)
        gate = expit(before)
        slopes[name] = gate * (1 + before * (1 - gate))  # of silu
        x = before * gate
    back = np.repeat(state["last.weight"], len(_STEPS), axis=0)
    for name in reversed(slopes):
        back = (back * slopes[name]) @ state[f"{name}.weight"]
    of_product = (back[:, 2 * dim : 3 * dim] + 1) * state["product"]
    parts = [back[:, :dim] + of_product * v, back[:, dim : 2 * dim] + of_product * u]
    return np.concatenate([*parts, back[:, 3 * dim :] + state["linear.weight"]], axis=1).mean(axis=0)


def rating_grid(
    state: State, u: np.ndarray, v: np.ndarray, user: np.ndarray, item: np.ndarray, pair: list[np.ndarray]
) -> np.ndarray:
    """Scores of all users with all items, biases left out, (n, n_items) float32: :func:`rating_pairs` of each.

    ``user``, ``item`` and ``pair`` are the dense features, as :meth:`.features.pairs.PairFeatures.grid` gives them.
    The first layer falls apart into what belongs to the user, to the item and to the pair, so that only the last is
    done for every pair.
    """
    dim = u.shape[1]
    ends = np.cumsum([dim, dim, dim, user.shape[1], item.shape[1]])
    of_u, of_v, of_product, of_user, of_item, of_pair = np.split(state["layers.0.weight"].T, ends)  # (., hidden)
    flat_user, flat_item, flat_pair = np.split(state["linear.weight"][0], ends[3:] - ends[2])
    by_user = u @ of_u + user @ of_user + state["layers.0.bias"]
    by_item = v @ of_v + item @ of_item
    scores = state["product"] * (u @ v.T) + (user @ flat_user)[:, None] + item @ flat_item + state["linear.bias"]
    of_product = of_product * state["product"]
    for row in range(len(u)):
        values = np.stack([each[row] for each in pair], axis=1) if pair else np.zeros((len(v), 0), np.float32)
        x = np.concatenate([v, values], axis=1) @ np.concatenate([u[row][:, None] * of_product, of_pair])
        x += by_item
        x += by_user[row]
        x = silu(x)
        for name in hidden_layers(state)[1:]:
            x = silu(linear(state, name, x))
        scores[row] += values @ flat_pair + linear(state, "last", x)[:, 0]
    return scores.astype(np.float32)


# ---- sequences --------------------------------------------------------------------------------------------------


def causal_places(state: State, items: np.ndarray, blocks: int) -> np.ndarray:
    """Run the transformer over histories, oldest item first: (n, L) int64 to (n, L, dim) float32, a vector a place."""
    length, dim = items.shape[1], state["items"].shape[1]
    x = state["items"][items] * np.float32(np.sqrt(dim)) + state["positions"][:length]
    later = np.triu(np.full((length, length), -np.inf, np.float32), 1)
    for name in (f"blocks.{number}." for number in range(blocks)):
        query, key, value = np.split(linear(state, f"{name}qkv", layer_norm(state, f"{name}before", x)), 3, axis=-1)
        weights = softmax(query @ key.swapaxes(1, 2) / np.float32(np.sqrt(dim)) + later, axis=-1)  # (n, L, L)
        x = x + linear(state, f"{name}out", weights @ value)
        inner = gelu(linear(state, f"{name}up", layer_norm(state, f"{name}between", x)))
        x = x + linear(state, f"{name}down", inner)
    return layer_norm(state, "last", x)
