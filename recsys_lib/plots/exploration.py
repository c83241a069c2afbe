"""Figures of 01_exploration: what a data set looks like before anything is done to it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from recsys_lib.plots.style import ACCENT, MAIN, MUTED

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def ratings_figure(interactions: pd.DataFrame) -> Figure:
    """How ratings are spread: over the scale, and over people's and films' means."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    shares = interactions["rating"].value_counts(normalize=True).sort_index()
    left.bar([f"{value:g}" for value in shares.index], shares.to_numpy(), color=MAIN)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set(title="Ratings", xlabel="stars", ylabel="share of all ratings")
    left.grid(visible=False, axis="x")
    for ids, label, colour in (("user_id", "users", MAIN), ("item_id", "films", ACCENT)):
        grouped = interactions.groupby(ids)["rating"].agg(["mean", "size"])
        sns.kdeplot(x=grouped.loc[grouped["size"] >= 5, "mean"], ax=right, label=label, color=colour, fill=True)
    right.set(title="Mean rating of users and of films with 5 or more", xlabel="mean stars", ylabel="density")
    right.legend()
    return figure


def long_tail_figure(interactions: pd.DataFrame) -> Figure:
    """How unequal films and people are: ratings by rank, and the share that the first part of them holds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for ids, label, colour in (("item_id", "films", ACCENT), ("user_id", "users", MAIN)):
        counts = interactions[ids].value_counts().to_numpy()
        left.plot(np.arange(1, len(counts) + 1), counts, color=colour, label=label, linewidth=2)
        share = np.concatenate([[0], np.cumsum(counts) / counts.sum()])
        right.plot(np.linspace(0, 1, len(share)), share, color=colour, label=label, linewidth=2)
    left.set(title="The long tail", xlabel="rank, most first", ylabel="ratings", xscale="log", yscale="log")
    left.xaxis.set_major_formatter(_THOUSANDS)
    left.yaxis.set_major_formatter(_THOUSANDS)
    left.legend()
    right.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    right.annotate("all equal", (0.62, 0.58), color=MUTED, rotation=33, fontsize=9)
    right.set(title="Who holds the ratings", xlabel="share of films, of users", ylabel="share of ratings")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.legend(loc="lower right")
    return figure


def genre_table(interactions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Films, ratings, mean rating and share of ratings from ``liked`` stars on, by genre; most rated first.

    A film of several genres counts in each.
    """
    exploded = items[["item_id", "genres"]].explode("genres").dropna().rename(columns={"genres": "genre"})
    joined = interactions.merge(exploded, on="item_id")
    table = joined.groupby("genre").agg(ratings=("rating", "size"), mean=("rating", "mean"), spread=("rating", "std"))
    return table.join(exploded.groupby("genre").size().rename("films")).sort_values("ratings", ascending=False)


def genres_figure(table: pd.DataFrame) -> Figure:
    """How much each genre is watched, beside how much it is liked; ``table`` comes from :func:`genre_table`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.24 * len(table) + 1.2), sharey=True)
    names = table.index[::-1]
    left.barh(names, table.loc[names, "ratings"], color=MAIN)
    left.xaxis.set_major_formatter(_THOUSANDS)
    left.set(title="Ratings a genre gets", xlabel="ratings (a film counts in each of its genres)")
    error = 1.96 * table["spread"] / np.sqrt(table["ratings"])
    right.errorbar(table.loc[names, "mean"], names, xerr=error[names], fmt="o", color=ACCENT, markersize=5)
    right.set(title="How they are rated", xlabel="mean stars, with 95 % interval")
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    return figure


def time_figure(interactions: pd.DataFrame) -> Figure:
    """When ratings were given: by week, and how long after a person's first one."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    when = pd.to_datetime(interactions["timestamp"], unit="s", utc=True).dt.tz_localize(None)
    span = (when.max() - when.min()).days
    by_period = when.dt.to_period("W" if span < 1500 else "M").value_counts().sort_index()
    left.fill_between(by_period.index.to_timestamp(), by_period.to_numpy(), color=MAIN, alpha=0.7, linewidth=0)
    left.set(title=f"Ratings a {'week' if span < 1500 else 'month'}", xlabel="", ylabel="ratings")
    left.yaxis.set_major_formatter(_THOUSANDS)
    left.tick_params(axis="x", rotation=30)
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
    right.barh(list(limits)[::-1], shares[::-1], color=ACCENT)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(title="Given within ... of a user's first rating", xlabel="share of all ratings")
    right.grid(visible=False, axis="y")
    return figure


def users_figure(users: pd.DataFrame, interactions: pd.DataFrame) -> Figure:
    """Who the people are (age, gender, occupation), and how many ratings a person of each group gives."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=[1, 1.1])
    known = users.assign(ratings=users["user_id"].map(interactions["user_id"].value_counts()))
    genders = known["gender"].value_counts().index
    ages = [known.loc[known["gender"] == gender, "age"].dropna().astype(float) for gender in genders]
    labels = [f"{gender} ({len(values):,})" for gender, values in zip(genders, ages, strict=True)]
    left.hist(ages, bins=range(5, 80, 5), stacked=True, label=labels, color=[MAIN, ACCENT, MUTED][: len(ages)])
    left.set(title="Age and gender", xlabel="age", ylabel="users")
    left.legend()
    _occupations(right, known)
    return figure


def _occupations(axes: Axes, known: pd.DataFrame) -> None:
    """Bars of people by occupation, with the median number of ratings behind each."""
    table = known.groupby("occupation").agg(people=("user_id", "size"), median=("ratings", "median"))
    table = table.sort_values("people")
    axes.barh(table.index, table["people"], color=MAIN)
    for place, (people, median) in enumerate(table.itertuples(index=False)):
        axes.annotate(f"{median:.0f}", (people, place), xytext=(4, 0), textcoords="offset points", va="center", size=8)
    axes.set(title="Occupation, with median ratings a user", xlabel="users")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=False, axis="y")


def sparsity_figure(interactions: pd.DataFrame, limit: int = 2_000) -> Figure:
    """The matrix itself: one dot a rating, people and films in the order of how many ratings they have."""
    figure, axes = plt.subplots(figsize=(7, 4.4))
    places = [
        interactions[ids].map(pd.Series(range(n), index=interactions[ids].value_counts().index))
        for ids, n in (("item_id", interactions["item_id"].nunique()), ("user_id", interactions["user_id"].nunique()))
    ]
    shown = (places[0] < limit) & (places[1] < limit)
    axes.plot(places[0][shown], places[1][shown], ",", color=MAIN, alpha=0.5)
    axes.invert_yaxis()
    axes.set(title="Every rating", xlabel="films, most rated first", ylabel="users, most active first")
    axes.grid(visible=False)
    return figure
