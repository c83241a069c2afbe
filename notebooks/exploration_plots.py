"""Figures of 01: what a data set looks like before any model touches it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from recsys_lib.plots.style import ACCENT, COLOURS, MAIN, MUTED, WIDTH, draw_rows

_THOUSANDS = "{x:,.0f}"


def ratings_figure(interactions: pd.DataFrame) -> Figure:
    """How ratings are spread: over the scale, and over the means of users and films."""
    figure, (left, right) = plt.subplots(1, 2)
    shares = interactions["rating"].value_counts(normalize=True).sort_index()
    left.bar([f"{value:g}" for value in shares.index], shares.to_numpy(), color=MUTED)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set(title="Ratings", xlabel="stars", ylabel="share of all ratings")
    left.grid(visible=False, axis="x")
    for ids, name, colour in (("user_id", "users", MAIN), ("item_id", "films", ACCENT)):
        grouped = interactions.groupby(ids)["rating"].agg(["mean", "size"])
        means = grouped.loc[grouped["size"] >= 5, "mean"]
        sns.kdeplot(x=means, ax=right, color=colour, fill=True, label=name)
    right.set(title="Means of users and films", xlabel="mean stars, of 5 ratings or more", ylabel="density")
    right.legend(loc="upper left")
    return figure


def long_tail_figure(interactions: pd.DataFrame) -> Figure:
    """How unequal films and users are: ratings by rank, and the share that the first part of them holds."""
    figure, (left, right) = plt.subplots(1, 2)
    for ids, name, colour, side in (("item_id", "films", ACCENT, "right"), ("user_id", "users", MAIN, "left")):
        counts = interactions[ids].value_counts().to_numpy()
        left.plot(np.arange(1, len(counts) + 1), counts, color=colour, linewidth=2)
        share = np.concatenate([[0], np.cumsum(counts) / counts.sum()])
        right.plot(np.linspace(0, 1, len(share)), share, color=colour, linewidth=2)
        place, away = (1 / 3, share[len(share) // 3]), (-6, 2) if side == "right" else (7, -10)
        right.annotate(name, place, away, textcoords="offset points", ha=side, color=colour, fontsize=10)
    left.set(title="The long tail", xlabel="rank, most first", ylabel="ratings", xscale="log", yscale="log")
    left.xaxis.set_major_formatter(_THOUSANDS)
    left.yaxis.set_major_formatter(_THOUSANDS)
    right.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    right.annotate("all equal", (0.66, 0.52), color=MUTED, fontsize=9)
    right.set(title="Who holds the ratings", xlabel="share of films, of users", ylabel="share of ratings")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def genre_table(interactions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Films, ratings, mean rating and its spread by genre; most rated first.

    A film of several genres counts in each.
    """
    exploded = items[["item_id", "genres"]].explode("genres").dropna().rename(columns={"genres": "genre"})
    joined = interactions.merge(exploded, on="item_id")
    table = joined.groupby("genre").agg(ratings=("rating", "size"), mean=("rating", "mean"), spread=("rating", "std"))
    return table.join(exploded.groupby("genre").size().rename("films")).sort_values("ratings", ascending=False)


def genres_figure(table: pd.DataFrame) -> Figure:
    """How much each genre is watched, beside how much it is liked; ``table`` comes from :func:`genre_table`.

    Where all are liked alike, as without ratings, that side is left out.
    """
    rated = table["mean"].nunique() > 1
    figure, axes = plt.subplots(1, 1 + rated, figsize=(WIDTH, 0.25 * len(table) + 1.2), sharey=True, squeeze=False)
    left, right = axes[0, 0], axes[0, -1]
    left.barh(np.arange(len(table))[::-1], table["ratings"], color=MUTED)
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.xaxis.set_major_formatter(_THOUSANDS)
    left.set(title="Ratings a genre gets", xlabel="ratings (an item counts in each of its genres)")
    left.set_yticks(np.arange(len(table))[::-1], table.index)
    left.grid(visible=False, axis="y")
    if not rated:
        return figure
    reach = 1.96 * table["spread"] / np.sqrt(table["ratings"])
    ends = table.assign(mean_low=table["mean"] - reach, mean_high=table["mean"] + reach)
    draw_rows(right, table.index, ends, "mean", np.ones(len(table), bool))
    right.set(title="How they are rated", xlabel="mean stars, with 95% interval")
    return figure


def time_figure(interactions: pd.DataFrame) -> Figure:
    """When ratings were given: by week, and how long after a user's first one."""
    figure, (left, right) = plt.subplots(1, 2)
    when = pd.to_datetime(interactions["timestamp"], unit="s", utc=True).dt.tz_localize(None)
    span = (when.max() - when.min()).days
    by_period = when.dt.to_period("W" if span < 1500 else "M").value_counts().sort_index()
    left.fill_between(by_period.index.to_timestamp(), by_period.to_numpy(), color=MAIN, alpha=0.7, linewidth=0)
    left.set(title=f"Ratings a {'week' if span < 1500 else 'month'}", xlabel="", ylabel="ratings")
    left.yaxis.set_major_formatter(_THOUSANDS)
    left.xaxis.set_major_formatter(ConciseDateFormatter(left.xaxis.get_major_locator()))
    since = interactions["timestamp"] - interactions.groupby("user_id")["timestamp"].transform("min")
    limits = {
        "a minute": 60,
        "ten minutes": 600,
        "an hour": 3600,
        "a day": 86_400,
        "a week": 604_800,
        "a month": 2_592_000,
    }
    shares = [float((since <= limit).mean()) for limit in limits.values()]
    right.barh([f"within {limit}" for limit in limits][::-1], shares[::-1], color=ACCENT)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(title="After a user's first rating", xlabel="share of all ratings")
    right.grid(visible=False, axis="y")
    return figure


def users_figure(users: pd.DataFrame, interactions: pd.DataFrame) -> Figure:
    """Who the users are (age, gender, occupation), and how many ratings a user of each occupation gives."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.6))
    known = users.assign(ratings=users["user_id"].map(interactions["user_id"].value_counts()))
    genders = known["gender"].value_counts().index
    ages = [known.loc[known["gender"] == gender, "age"].dropna().astype(float) for gender in genders]
    labels = [f"{gender} ({len(values):,})" for gender, values in zip(genders, ages, strict=True)]
    left.hist(ages, bins=range(5, 80, 5), stacked=True, label=labels, color=COLOURS[: len(ages)])
    left.set(title="Age and gender", xlabel="age", ylabel="users")
    left.legend()
    table = known.groupby("occupation").agg(users=("user_id", "size"), median=("ratings", "median"))
    table = table.sort_values("users")
    bars = right.barh(table.index, table["users"], color=MUTED)
    right.bar_label(bars, [f"{median:.0f}" for median in table["median"]], padding=4, fontsize=9)
    right.set(title="Occupations", xlabel="users; beside it, the median of their ratings")
    right.grid(visible=False, axis="y")
    return figure


def sparsity_figure(interactions: pd.DataFrame, limit: int = 2_000) -> Figure:
    """The matrix itself: one dot a rating, users and films in the order of how many ratings they have."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    orders = {ids: interactions[ids].value_counts().index for ids in ("item_id", "user_id")}
    x, y = (interactions[ids].map(pd.Series(range(len(order)), index=order)) for ids, order in orders.items())
    shown = (x < limit) & (y < limit)
    axes.plot(x[shown], y[shown], ",", color=MAIN, alpha=0.5)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.set(title="Every rating", xlabel="films, most rated first", ylabel="users, most active first")
    axes.grid(visible=False)
    return figure
