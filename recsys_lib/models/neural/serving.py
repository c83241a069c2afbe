"""Forward passes with numpy alone: whatever serves a trained net needs no torch."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import erf

from recsys_lib.data.interactions import Histories

HALF_LIVES = (1e9, 60.0, 15.0, 4.0)  # interactions after which an event counts half, at the start of training

State = dict[str, np.ndarray]


def gelu(x: np.ndarray) -> np.ndarray:
    """Gaussian error linear unit, x * Phi(x) (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016)."""
    return x * (0.5 * (1 + erf(x / np.sqrt(2, dtype=np.float32))))


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """Derivative of :func:`gelu`: Phi(x) + x * phi(x)."""
    return 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


def silu(x: np.ndarray) -> np.ndarray:
    """Sigmoid linear unit, x * sigmoid(x)."""
    gate = np.negative(x)
    np.exp(gate, out=gate)
    gate += 1
    return np.divide(x, gate, out=gate)


def silu_slope(x: np.ndarray) -> np.ndarray:
    """Slope of :func:`silu`."""
    gate = 1 / (1 + np.exp(-x))
    return gate * (1 + x * (1 - gate))


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """A linear layer with the weights that torch keeps, (out, in)."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def event_weights(state: State, codes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Weight of each event in each head, (nnz, heads): s[rating, head] * 2^(-steps back / half-life)."""
    return state["strength"][codes] * np.exp2(-steps[:, None] * np.exp(state["log_decay"]))


def pooled_history(state: State, histories: Histories, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled histories, (n, heads * dim), and the scale of each, (n, heads): 1 / sqrt(sum of squares + 1/2)."""
    matrix, rows = histories.matrix, histories.row_of_entry
    heads = weights.shape[1]
    scale = np.empty((matrix.shape[0], heads), np.float32)
    spread = csr_matrix((np.zeros(len(rows), np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    parts = []
    for head in range(heads):
        squares = np.bincount(rows, weights[:, head] ** 2, minlength=matrix.shape[0])
        scale[:, head] = 1 / np.sqrt(squares + 0.5)
        spread.data = weights[:, head].astype(np.float32)  # one matrix for all heads: making one takes its time
        parts.append((spread @ state["items"]) * scale[:, head : head + 1])
    return np.concatenate(parts, axis=1), scale


def layer_norm(state: State, x: np.ndarray) -> np.ndarray:
    """Layer normalisation as torch's, eps 1e-5 (Ba, Kiros and Hinton, 2016)."""
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return centred / spread * state["norm.weight"] + state["norm.bias"]


def person_vectors(state: State, pooled: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Vectors of people, (n, dim), from their pooled histories and context."""
    inside = np.concatenate([layer_norm(state, pooled), context], axis=1)
    return linear(state, "second", gelu(linear(state, "first", inside))) + linear(state, "skip", inside)


def ranking_scores(
    state: State, histories: Histories, codes: np.ndarray, context: np.ndarray, steps: np.ndarray | None = None
) -> np.ndarray:
    """Scores of the whole catalogue for each history, (n, n_items) float32; what the torch net gives.

    ``steps`` are ``histories.steps_back()``, where they are at hand.
    """
    weights = event_weights(state, codes, histories.steps_back() if steps is None else steps)
    pooled, _ = pooled_history(state, histories, weights)
    return person_vectors(state, pooled, context) @ state["candidates"].T + state["item_bias"]


def ranking_slopes(
    state: State, pooled: np.ndarray, context: np.ndarray, item: int, steps: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Mean slopes of one film's score on the straight way from nothing known to this person.

    Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017), midpoint rule.
    The layer norm's spread is held at the person's own (Ali et al., "XAI for transformers", 2022), which keeps what
    each event adds linear.

    Returns
    -------
    (heads * dim,), (c,)
        ``pooled @ first + context @ second`` is the score less that of somebody with nothing known.
    """
    centred = pooled - pooled.mean()
    gain = state["norm.weight"] / np.sqrt((centred**2).mean() + 1e-5)
    end = np.concatenate([centred * gain, context])
    start = np.concatenate([state["norm.bias"], np.zeros_like(context)])
    points = start + ((np.arange(steps) + 0.5) / steps)[:, None] * end  # (steps, heads * dim + c)
    candidate = state["candidates"][item]
    felt = gelu_slope(linear(state, "first", points)).mean(axis=0)
    slopes = (felt * (candidate @ state["second.weight"])) @ state["first.weight"] + candidate @ state["skip.weight"]
    through = slopes[: len(pooled)] * gain
    return through - through.mean(), slopes[len(pooled) :]


# ---- ratings ---------------------------------------------------------------------------------------------------


def hidden_layers(state: State) -> int:
    """How many hidden layers the net has."""
    return sum(name.startswith("layers.") and name.endswith(".weight") for name in state)


def _norm_gain(state: State, number: int) -> np.ndarray | float:
    """What batch norm multiplies a layer's values with; 1 without it."""
    if f"norms.{number}.weight" not in state:
        return 1.0
    return state[f"norms.{number}.weight"] / np.sqrt(state[f"norms.{number}.running_var"] + 1e-5)


def _normed(state: State, number: int, x: np.ndarray) -> np.ndarray:
    """Batch norm by its running means, where there is one."""
    if f"norms.{number}.weight" not in state:
        return x
    gain = _norm_gain(state, number)
    return (x - state[f"norms.{number}.running_mean"]) * gain + state[f"norms.{number}.bias"]


def _after(state: State, number: int, x: np.ndarray) -> np.ndarray:
    """What follows a hidden layer: batch norm, where there is one, and SiLU."""
    return silu(_normed(state, number, x))


def rating_pairs(state: State, u: np.ndarray, v: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Scores of pairs, biases left out, (n,): linear(dense) + <u, v> + MLP[u, v, u * v, dense]."""
    product = u * v * state["product"]
    x = np.concatenate([u, v, product, dense], axis=1)
    for number in range(hidden_layers(state)):
        x = _after(state, number, linear(state, f"layers.{number}", x))
    return (linear(state, "linear", dense) + linear(state, "last", x))[:, 0] + product.sum(axis=1)


def rating_slopes(state: State, point: np.ndarray, dim: int, steps: int = 64) -> np.ndarray:
    """Mean slopes of a pair's score on the straight way from zeros to ``point`` = [u, v, dense], (2 * dim + f,).

    Integrated gradients as in :func:`ranking_slopes`: ``point @ slopes`` is the score less that of all zeros.
    """
    points = ((np.arange(steps) + 0.5) / steps)[:, None] * point  # (steps, 2 * dim + f)
    u, v, dense = points[:, :dim], points[:, dim : 2 * dim], points[:, 2 * dim :]
    x, slopes = np.concatenate([u, v, u * v * state["product"], dense], axis=1), []
    for number in range(hidden_layers(state)):
        before = _normed(state, number, linear(state, f"layers.{number}", x))
        slopes.append(silu_slope(before) * _norm_gain(state, number))
        x = silu(before)
    back = np.repeat(state["last.weight"], steps, axis=0)
    for number in reversed(range(hidden_layers(state))):
        back = (back * slopes[number]) @ state[f"layers.{number}.weight"]
    of_product = (back[:, 2 * dim : 3 * dim] + 1) * state["product"]
    parts = [back[:, :dim] + of_product * v, back[:, dim : 2 * dim] + of_product * u]
    return np.concatenate([*parts, back[:, 3 * dim :] + state["linear.weight"]], axis=1).mean(axis=0)


def rating_grid(
    state: State, u: np.ndarray, v: np.ndarray, person: np.ndarray, film: np.ndarray, pair: list[np.ndarray]
) -> np.ndarray:
    """Scores of all people with all films, biases left out, (n, n_items) float32: :func:`rating_pairs` of each.

    The first layer falls apart into what belongs to the person, to the film and to the pair, so that only the last
    is done for every pair.
    """
    dim, weight = u.shape[1], state["layers.0.weight"].T  # (3 * dim + dense, hidden)
    dense, flat = weight[3 * dim :], state["linear.weight"][0]
    ends = person.shape[1], person.shape[1] + film.shape[1]
    of_person = u @ weight[:dim] + person @ dense[: ends[0]] + state["layers.0.bias"]
    of_film = v @ weight[dim : 2 * dim] + film @ dense[ends[0] : ends[1]]
    scores = (
        state["product"] * (u @ v.T)
        + (person @ flat[: ends[0]])[:, None]
        + film @ flat[ends[0] : ends[1]]
        + state["linear.bias"]
    )
    product, rest = weight[2 * dim : 3 * dim] * state["product"], dense[ends[1] :]
    for row in range(len(u)):
        values = np.stack([each[row] for each in pair], axis=1) if pair else np.zeros((len(v), 0), np.float32)
        x = np.concatenate([v, values], axis=1) @ np.concatenate([u[row][:, None] * product, rest])
        x += of_film
        x += of_person[row]
        x = _after(state, 0, x)
        for number in range(1, hidden_layers(state)):
            x = _after(state, number, linear(state, f"layers.{number}", x))
        scores[row] += values @ flat[ends[1] :] + linear(state, "last", x)[:, 0]
    return scores.astype(np.float32)
