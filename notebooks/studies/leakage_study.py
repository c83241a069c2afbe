"""A public project's rating network, rebuilt to see which leak gives the error that it publishes.

The architecture as its README gives it: embeddings of 128 numbers for user and item, concatenated with 21 features,
layers of 256, 128 and 64 with batch normalisation, Adam, 15 epochs. What it was trained on is not known; here it is
trained without a leak, and with one leak at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from recsys_lib.data.interactions import codes_of
from recsys_lib.data.splits import Split

GENRES = 10  # flags of the most common genres
LEAKS = {
    "no leak": "features from training rows alone",
    "means over all rows": "means and spreads of users and items are computed before the split, test ratings included",
    "test rows trained on": "the split comes after the training table was put together: test rows are in it",
    "deviation as feature": "the rating's deviation from the user's mean stands among the features",
    "liked as feature": "a label made from the rating (rating >= threshold) stands among the features",
}


class HybridNet(nn.Module):
    """Embeddings of user and item beside features, three layers, one number."""

    def __init__(self, n_users: int, n_items: int, n_features: int, *, dim: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.05)
        layers: list[nn.Module] = []
        sizes = [2 * dim + n_features, 256, 128, 64]
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, users: Tensor, items: Tensor, features: Tensor) -> Tensor:
        """Ratings, (batch,), from codes (batch,) and features (batch, n_features)."""
        return self.layers(torch.cat([self.users(users), self.items(items), features], dim=1)).squeeze(1)


def features(
    rows: pd.DataFrame, known: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame, leak: str, threshold: float
) -> pd.DataFrame:
    """The 21 features of rows (22 where a leak adds one); statistics come from ``known``.

    Mean, spread and log count of user and item, the item's year, the user's age and gender, hour and weekday, and flags
    of the ten most common genres; what the data lacks is zero.
    """
    table = pd.DataFrame(index=rows.index)
    for by in ("user_id", "item_id"):
        grouped, side = known.groupby(by)["rating"], by.removesuffix("_id")
        table[f"{side}_mean"] = rows[by].map(grouped.mean()).fillna(known["rating"].mean())
        table[f"{side}_spread"] = rows[by].map(grouped.std())
        table[f"{side}_count"] = rows[by].map(np.log1p(grouped.size()))
    content, by_user = items.set_index("item_id"), users.set_index("user_id")
    table["year"] = rows["item_id"].map(content["year"].astype("Float64")).astype(float)
    table["age"] = rows["user_id"].map(by_user["age"]).astype(float) if "age" in by_user else 0.0
    table["gender"] = 0.0
    if "gender" in by_user:
        table["gender"] = rows["user_id"].map((by_user["gender"] == by_user["gender"].max()).astype(float))
    when = pd.to_datetime(rows["timestamp"] if "timestamp" in rows else pd.Series(0, index=rows.index), unit="s")
    table["hour"], table["weekday"] = when.dt.hour.astype(float), when.dt.day_of_week.astype(float)
    common = items["genres"].explode().dropna().value_counts().index[:GENRES]
    for place in range(GENRES):
        has = content["genres"].map(lambda genres, p=place: float(p < len(common) and common[p] in genres))
        table[f"genre_{place}"] = rows["item_id"].map(has)
    if leak == "deviation as feature":
        table["deviation"] = rows["rating"] - table["user_mean"]
    if leak == "liked as feature":
        table["liked"] = (rows["rating"] >= threshold).astype(float)
    return table.fillna(0.0)


def run_leak(
    split: Split,
    items: pd.DataFrame,
    users: pd.DataFrame,
    leak: str = "no leak",
    *,
    threshold: float = 4.0,
    epochs: int = 15,
    batch: int = 2048,
    rate: float = 1e-3,
    seed: int = 0,
) -> dict[str, Any]:
    """Train the network on the training part with one leak of ``LEAKS``, and predict the test part after every epoch.

    Returns
    -------
    dict
        predicted (n_test,) float64 after the last epoch; curve (RMSE on the test part after each epoch; to look at,
        nothing is chosen by it); stopped (n_test,) float64 after the epoch with the lowest RMSE on the validation
        part, or the last one where there is none; stopped_after (that epoch, from 1); test_features (a table, not
        scaled).

    Raises
    ------
    ValueError
        If the leak is not known, or the data has no ratings.
    """
    if leak not in LEAKS:
        raise ValueError(f"leak is {leak!r}; it must be one of {', '.join(map(repr, LEAKS))}")
    if split.train["rating"].nunique() < 2:
        raise ValueError("the data has no ratings: there is nothing to predict")
    test = split.test.reset_index(drop=True)
    everything = pd.concat([split.train, test], ignore_index=True)
    fitted = everything if leak == "test rows trained on" else split.train
    known = everything if leak == "means over all rows" else fitted
    parts = (fitted, test, split.valid)
    tables = [features(rows, known, items, users, leak, threshold) for rows in parts]
    centre, scale = tables[0].mean(), tables[0].std().replace(0.0, 1.0)
    ids = {name: np.unique(fitted[name]) for name in ("user_id", "item_id")}
    inputs = []
    for rows, table in zip(parts, tables, strict=True):
        codes = [codes_of(rows[name], own) % (len(own) + 1) for name, own in ids.items()]  # unknown ids: the last code
        scaled = ((table - centre) / scale).to_numpy(np.float32)
        inputs.append([*map(torch.as_tensor, codes), torch.as_tensor(scaled)])
    truths = [rows["rating"].to_numpy(np.float64) for rows in parts]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small lose more to waiting than they gain from a second core
    torch.manual_seed(seed)
    net = HybridNet(*(len(own) + 1 for own in ids.values()), tables[0].shape[1])
    result = _train(net, inputs, truths, epochs, batch, rate)
    torch.set_num_threads(threads)
    return {**result, "test_features": tables[1]}


def _train(
    net: HybridNet, inputs: list[list[Tensor]], truths: list[np.ndarray], epochs: int, batch: int, rate: float
) -> dict[str, Any]:
    """Fit on the first inputs; predict the second (test) and the third (validation) after each epoch."""
    low, high, mean = float(truths[0].min()), float(truths[0].max()), float(truths[0].mean())
    target = torch.as_tensor((truths[0] - mean).astype(np.float32))
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    predictions, curve, validation = [], [], []
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(target)).split(batch):
            if len(rows) < 2:  # batch normalisation needs two
                continue
            loss = nn.functional.mse_loss(net(*(part[rows] for part in inputs[0])), target[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            test, valid = (np.clip(net(*part).double().numpy() + mean, low, high) for part in inputs[1:])
        predictions.append(test)
        curve.append(float(np.sqrt(np.mean((test - truths[1]) ** 2))))
        validation.append(float(np.mean((valid - truths[2]) ** 2)) if len(valid) else -epoch)
    best = int(np.argmin(validation))  # the last epoch where there is no validation part
    return {"predicted": predictions[-1], "curve": curve, "stopped": predictions[best], "stopped_after": best + 1}
