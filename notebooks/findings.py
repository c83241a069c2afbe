"""Sentences and tables of 07_evaluation, computed from the results."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from refitting import has_seed
from served_worst import user_traits

from recsys_lib.data.catalogue import label
from recsys_lib.evaluation import inference, return_visits
from recsys_lib.evaluation.task import BEYOND_AT, Evaluation, Task, ceilings, pareto
from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths
from recsys_lib.run.environment import commit
from recsys_lib.run.run import Tables

SINGLE = (
    "als_tuned",
    "als_recent",
    "bpr",
    "item_knn",
    "sequence_knn",
    "ease",
)  # collaborative, and close to each other


def protocol(task: Task, ks: list[int]) -> str:
    """The protocol as a box of markdown."""
    p = task.protocol
    best = ceilings(task.n_relevant, ks)
    given = ", ".join(f"{key} {value}" for key, value in p["split"]["params"].items())
    rule = f"rated {p['relevant_from']:g} or higher" if p["relevant_from"] else "every interaction (implicit feedback)"
    reach = ", ".join(f"{best[f'precision@{k}']:.3f} at {k}" for k in ks)
    seen = p["relevant_seen_before"]
    again = f" {seen:.1%} of them repeat an item of the history, which no list holds: they are missed." if seen else ""
    lines = [
        f"**Split** {p['split']['name']} ({given}). Models were fitted on the history (train and validation).",
        f"**Relevant** {rule}: {p['relevant']:,} items of {p['users_kept']:,} users, median "
        f"{p['relevant_per_user']['median']:g} each.",
        f"**Users** {p['users_in_test']:,} in the test part; {p['users_dropped']:,} have nothing relevant there and "
        f"are left out; {p['users_without_history']:,} have no history and get the popular items.",
        f"**Ranked** the whole catalogue of {p['catalogue']:,} items, never a sample, without those seen before. "
        f"{p['relevant_outside_catalogue']:.1%} of the relevant items are outside it: they stay relevant, unreachable."
        + again,
        f"**Precision** divides by k; the best that any list could reach is {reach}. NDCG's ideal and MAP's "
        "divisor take min(k, relevant). Ties go to the lower item code.",
        "**Intervals** percentile bootstrap over users. **Tests** paired, to the first, Holm-corrected.",
    ]
    return "\n".join(f"> {line}  " for line in lines)


def readable(board: pd.DataFrame, metrics: list[str]) -> Styler:
    """A leaderboard to look at: each mean with its interval in brackets."""
    table = pd.DataFrame({"model": board["model"]})
    for metric in [name for name in metrics if name in board]:
        table[metric] = [_cell(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for _, row in board.iterrows()]
    return table.style.hide().set_properties(**{"text-align": "left"})


def _cell(mean: float, low: float, high: float) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.3f}" if pd.isna(low) else f"{mean:.3f} ({low:.3f}-{high:.3f})"


def _p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"


def power(board: pd.DataFrame) -> str:
    """Say what differences this sample could show, in one or two sentences."""
    if len(board) < 2:
        return "There is one model: nothing to compare."
    by, first, second = board.attrs["by"], board.iloc[0], board.iloc[1]
    reach = float(second["smallest_difference"])
    apart = int(board["distinct"].sum())
    seen, effect = abs(second["difference"]), abs(second["effect_size"])
    return (
        f"{apart} of {len(board) - 1} models are distinct from `{first['model']}`. With {int(first['n_users']):,} "
        f"users, a difference of {reach:.4f} to `{second['model']}` (the first's {label(by)} is {first[by]:.4f}) "
        f"would be distinct, after Holm's correction, with 80% power; seen was {seen:.4f} (effect size {effect:.2f})."
    )


def beside(table: pd.DataFrame) -> Styler:
    """Ratios to the baselines to look at, a column each: the ratio, its interval, the corrected p."""
    wide = table.assign(text=_ratios(table)).pivot(index="model", columns="baseline", values="text")
    wide = wide.reindex(index=table["model"].unique(), columns=table["baseline"].unique())
    return wide.rename_axis(columns=None).fillna("").style.set_properties(**{"text-align": "left"})


def _ratios(table: pd.DataFrame) -> list[str]:
    """Ratio, interval and corrected p of each row; empty where there is none."""
    return [
        f"{row['ratio']:.2f} x ({row['ratio_low']:.2f}-{row['ratio_high']:.2f}), {_p(row['p_holm'])}"
        if pd.notna(row["ratio"])
        else ""
        for row in table.to_dict("records")
    ]


def by_visit(table: pd.DataFrame, order: list[str], baseline: str, metric: str) -> Styler:
    """The metric on each visit to look at, models in a given order; and the ratios on the first visit after a pause."""
    heads = {visit: f"{visit} ({int(part['n_users'].iloc[0]):,} users)" for visit, part in table.groupby("visit")}
    columns = [metric, f"{metric}_low", f"{metric}_high"]
    cells = [_cell(*row) for row in table[columns].itertuples(index=False)]
    wide = table.assign(cell=cells).pivot(index="model", columns="visit", values="cell").reindex(order)
    wide = wide[table["visit"].unique()].rename(columns=heads)
    for visit in [visit for visit in table["visit"].unique() if visit != return_visits.SAME][:1]:
        part = table[table["visit"] == visit]
        wide[f"times {baseline}, {visit}"] = pd.Series(_ratios(part), part["model"])
    return wide.rename_axis(columns=None).fillna("").style.set_properties(**{"text-align": "left"})


def coming_back(table: pd.DataFrame, best: str, baseline: str, metric: str) -> str:
    """Two sentences: which model serves users best who come back, and how the leaderboard's first does there.

    Parameters
    ----------
    table
        From :func:`recsys_lib.evaluation.return_visits.table`.
    """
    later = table[table["visit"] != return_visits.SAME]
    if later.empty:
        return "Nobody comes back in the test part: only the rest of a sitting is measured here."
    visit = later["visit"].iloc[0]
    part = later[later["visit"] == visit].set_index("model")
    first, own = part.iloc[0], part.loc[best]
    mean = _cell(*first[[metric, f"{metric}_low", f"{metric}_high"]])
    n_users = int(first["n_users"])
    text = f"Of {n_users:,} users who come back {visit}, `{first.name}` serves best: {label(metric)} {mean}"
    text += ", as on the leaderboard." if first.name == best else f"; the leaderboard's `{best}` has {own[metric]:.3f}."
    of_best = table[(table["model"] == best) & table["ratio"].notna()].set_index("visit")
    if not {visit, return_visits.SAME} <= set(of_best.index):
        return text
    same, back = (
        f"{row['ratio']:.2f} times ({row['ratio_low']:.2f}-{row['ratio_high']:.2f}, {_p(row['p_holm'])})"
        for row in of_best.loc[[return_visits.SAME, visit]].to_dict("records")
    )
    ahead = own["distinct"] and own["ratio"] > 1
    ending = "it leads on both." if ahead else "its lead is on what is rated next, and is not shown for a later visit."
    return (
        f"{text} `{best}` has {same} the mean of `{baseline}` on the rest of the sitting in which a history ends, and "
        f"{back} {visit}: {ending}"
    )


def net_gain(
    questions: Mapping[str, Mapping[str, Evaluation]], net: str, classic: str, seconds: Mapping[str, float], metric: str
) -> str:
    """Say what a net adds to the same model without it, on each question, and what it costs.

    Parameters
    ----------
    seconds
        CPU seconds to fit, by model.
    """
    if any(name not in results for results in questions.values() for name in (net, classic)):
        return f"`{net}` and `{classic}` are not both among the models."
    texts, changes = [], {}
    for question, results in questions.items():
        values = results[net].per_user[metric] - results[classic].per_user[metric]
        changes[question] = inference.paired_table(values.dropna().to_numpy()[:, None]).iloc[0]
    p_values = inference.holm(np.array([change["p_permutation"] for change in changes.values()]))
    for (question, change), p in zip(changes.items(), p_values, strict=True):
        low, high = change["difference_low"], change["difference_high"]
        texts.append(f"{change['difference']:+.4f} {question} (95% interval {low:+.4f} to {high:+.4f}, {_p(p)})")
    spent = f"{seconds[net]:.1f} instead of {seconds[classic]:.1f} CPU seconds to fit"
    return f"The net in `{net}` changes {label(metric)} of `{classic}` by {' and by '.join(texts)}, for {spent}."


def baselines(table: pd.DataFrame) -> str:
    """Who is ahead of each baseline, by how much, where the difference is no chance."""
    sentences = []
    for baseline, part in table.groupby("baseline", sort=False):
        ahead = part[part["distinct"] & (part["ratio"] > 1)]
        named = ", ".join(f"`{row['model']}` {row['ratio']:.2f} times" for row in ahead.to_dict("records"))
        sentences.append(f"ahead of `{baseline}`: {named or 'none'}")
    if not sentences:
        return "None of the baselines is among the models."
    return f"Significantly (Holm over all {len(table)} comparisons) {'; '.join(sentences)}."


def ways(values: Mapping[str, pd.DataFrame], baseline: str) -> pd.DataFrame:
    """Means of the same models measured in several ways, and their ratios to a baseline.

    Parameters
    ----------
    values
        By way: a row a user, a column a model.

    Returns
    -------
    DataFrame
        way, model, mean, low, high, n_users, ratio, ratio_low, ratio_high.
    """
    names = {"low": "ratio_low", "high": "ratio_high"}
    tables = {}
    for way, table in values.items():
        over = baseline if baseline in table else table.columns[0]
        tables[way] = inference.intervals(table).join(inference.ratios(table, over).rename(columns=names))
    return pd.concat(tables, names=["way", "model"]).reset_index()


def by_way(table: pd.DataFrame) -> Styler:
    """Means and ratios of :func:`ways` to look at, a column a way."""
    cells = [
        f"{_cell(row.mean, row.low, row.high)}; {row.ratio:.2f} x ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
        for row in table.itertuples()
    ]
    wide = table.assign(cell=cells).pivot(index="model", columns="way", values="cell")
    wide = wide.reindex(index=table["model"].unique(), columns=table["way"].unique())
    return wide.rename_axis(columns=None).style.set_properties(**{"text-align": "left"})


def holds(table: pd.DataFrame, baseline: str) -> str:
    """How each model's ratio to the baseline changes with the way it is measured in, in a sentence."""
    if table.empty:
        return "Nothing is fitted again here: the data has no dates, or none of the models is there."
    texts = []
    for name, part in table[table["model"] != baseline].groupby("model", sort=False):
        rows = part.itertuples()
        ratios = [f"{row.ratio:.2f} times ({row.ratio_low:.2f}-{row.ratio_high:.2f}) {row.way}" for row in rows]
        texts.append(f"`{name}` has {', '.join(ratios)}")
    levels = table[table["model"] == baseline].set_index("way")["mean"]
    own = ", ".join(f"{mean:.3f} {way}" for way, mean in levels.items())
    return f"Beside `{baseline}` ({own}): {'; '.join(texts)}."


def trade_off(board: pd.DataFrame, aims: Mapping[str, str]) -> str:
    """Which models nothing beats in accuracy and each other aim."""
    by, sentences = board.attrs["by"], []
    for name, title in aims.items():
        column = name.removeprefix("-")
        known = board.loc[board[column].notna(), ["model", column, by]].copy()
        if len(known):
            known[column] *= -1 if name.startswith("-") else 1
            kept = known[pareto(known, column, by)]
            named = ", ".join(f"`{model}`" for model in kept["model"])
            sentences.append(f"{named} (accuracy and {title})")
    return "Nothing is better in both: " + "; ".join(sentences) + "."


def seeds(seeds: Mapping[str, Mapping[str, float]], left: Mapping[str, float]) -> str:
    """How far seeds move the means, beside how far users do; ``left``: seconds to fit of models not fitted again."""
    rest = ", ".join(f"`{name}` ({taken:.0f} s)" for name, taken in left.items())
    rest = f" Not fitted again, for the time it takes: {rest}." if rest else ""
    if not seeds:
        return f"No model was fitted with several seeds: the intervals are about users only.{rest}"
    parts = [f"`{name}` by {row['sd_seeds']:.4f}" for name, row in seeds.items()]
    of_users = max(row["se_users"] for row in seeds.values())
    return (
        f"Seeds move the mean (standard deviation) of {', '.join(parts)}; drawing other users would move it by up to "
        f"{of_users:.4f}. The intervals above are about users, for the seed that was saved.{rest}"
    )


def validation_agrees(board: pd.DataFrame, before: Mapping[str, float]) -> str:
    """Whether validation (``before``, means by model) put the models in the order of the test part."""
    by = board.attrs["by"]
    known = board.loc[board["model"].isin(list(before)), ["model", by]]
    if len(known) < 3:
        return "Fewer than three models kept their value on validation: nothing to compare."
    then = known["model"].map(before)
    if then.nunique() == 1 or known[by].nunique() == 1:
        return "All models have the same value on validation or on test: nothing to compare."
    agreement = float(then.rank().corr(known[by].rank()))
    close = known["model"].isin(SINGLE)
    single = ""
    if close.sum() > 2:
        alone = float(then[close].rank().corr(known.loc[close, by].rank()))
        single = f" ({alone:.2f} over the {close.sum()} single collaborative models alone)"
    chosen, first = known.loc[then.idxmax(), "model"], known["model"].iloc[0]
    ending = "and on test as well" if chosen == first else f"and on test `{first}` is"
    return (
        f"Of {len(known)} models with a value on validation, `{chosen}` is first there, {ending}; the rank "
        f"correlation between both is {agreement:.2f}{single}. Test means are "
        f"{float((known[by] / then).median()):.2f} times validation's (median): the parts differ in size, so levels "
        "are not comparable, orders are."
    )


def threats(task: Task, prepared: Tables, board: pd.DataFrame) -> str:
    """List what could make the results wrong, with the numbers that say how much."""
    p, split, lines = task.protocol, prepared.split, []
    test = split.test
    if "timestamp" in test:
        tied = split.history.merge(test, on=["user_id", "timestamp"], how="inner")["user_id"].size
        border = test.groupby("user_id")["timestamp"].min()
        last = split.history.groupby("user_id")["timestamp"].max()
        cut = int((border == last.reindex(border.index)).sum())
        lines.append(
            f"The cut between history and test runs through one second for {cut:,} of {p['users_in_test']:,} users "
            f"({tied:,} pairs of rows): which of these items are test is decided by a hash, not by time."
        )
        when = np.sort(split.history["timestamp"].to_numpy())
        later = 1 - float(np.searchsorted(when, test["timestamp"].to_numpy(), side="right").mean()) / len(when)
        lines.append(
            f"For the average row of the test part, {later:.0%} of the history is later than it: other users' future "
            "is in the training, which flatters models that learn from co-occurrence."
        )
    lines.append(
        f"What a user did not meet counts as not relevant, though it may be liked: all means are lower bounds, and "
        f"popular items are favoured. {p['relevant_outside_catalogue']:.1%} of relevant items could not be listed."
    )
    lines.append(
        f"{p['users_dropped']:,} users with nothing relevant are left out; each user counts once, however "
        "many interactions they have."
    )
    lines.append(
        f"{len(board)} models were compared on one split; the first of several is flattered by having been the maximum."
    )
    return "\n".join(f"- {line}" for line in lines)


def footer(paths: Paths, prepared: Tables, models: Mapping[str, Recommender], seed: int) -> str:
    """Where the results come from: data, commit, versions, seeds."""
    versions = [f"{name} {version(name)}" for name in ("numpy", "scipy", "pandas", "scikit-learn", "implicit", "torch")]
    seeds = [f"{name} {model.params()['seed']}" for name, model in models.items() if has_seed(model)]
    data = prepared.manifest["data"]
    stamp = prepared.manifest.get("files", {}).get("test.parquet", {}).get("sha256", "")
    return (
        f"---\n`{paths.name}`: interactions sha256 `{str(data['sha256'])[:16]}`, test part sha256 `{stamp[:16]}` · "
        f"commit `{commit()}` · Python {platform.python_version()}, {', '.join(versions)} · seeds: bootstrap {seed}, "
        f"{', '.join(seeds)}"
    )


def for_whom(by_user: pd.DataFrame, by_item: pd.DataFrame, model: str, metric: str) -> str:
    """Where a model does best and worst, where intervals do not overlap."""
    own = by_user[(by_user["model"] == model) & (by_user["n_users"] >= inference.LEAST_USERS // 4)]
    sentences = []
    for segment, part in own.groupby("segment", sort=False):
        top, low = part.loc[part["mean"].idxmax()], part.loc[part["mean"].idxmin()]
        if len(part) > 1 and top["low"] > low["high"]:
            sentences.append(f"{segment}: {top['group']} {top['mean']:.3f}, {low['group']} {low['mean']:.3f}")
    items = by_item[(by_item["model"] == model) & (by_item["segment"] == "known")]
    recalls = ", ".join(f"{row['group']} {row['mean']:.3f}" for row in items.to_dict("records"))
    apart = "; ".join(sentences) or "no group of users stands apart from the others"
    start = f"`{model}`, {label(metric)} where intervals do not overlap: {apart}"
    return f"{start}. Recall@{BEYOND_AT} by how often an item was met: {recalls}."


def curve(curve: pd.DataFrame, model: str) -> str:
    """How much a model gains from more of a user's history."""
    own = curve[curve["model"] == model].sort_values("size") if len(curve) else curve
    if len(own) < 2:
        return "Histories are too short here to draw a curve."
    first, last = own.iloc[0], own.iloc[-1]
    lead = curve.sort_values("mean").groupby("size")["model"].last()
    both = "and with" if lead.iloc[0] == lead.iloc[-1] else f"is `{lead.iloc[0]}`, with"
    return (
        f"`{model}` goes from {first['mean']:.3f} with {first['size']} of a user's items to {last['mean']:.3f} "
        f"with {last['size']} ({int(last['n_users']):,} users). The best with {lead.index[0]} {both} "
        f"{lead.index[-1]} is `{lead.iloc[-1]}`."
    )


def more_users(curve: pd.DataFrame) -> str:
    """Say what fitting on all users gives over fitting on a part of them."""
    if len(curve) == 0:
        return "No model is quick enough to fit again here."
    most, parts = curve["size"].max(), []
    for name, own in curve.groupby("model", sort=False):
        whole, less = own.loc[own["size"].idxmax(), "mean"], own.loc[own["size"].idxmin()]
        parts.append(f"`{name}` {less['mean']:.3f} to {whole:.3f}")
    return (
        f"From {curve['size'].min():,} users to {most:,}: {', '.join(parts)}. A curve that still rises at its end "
        "would gain from more data."
    )


def reliable(results: Mapping[str, Evaluation], tables: Mapping[str, pd.DataFrame]) -> str:
    """Best RMSE, and how far its predictions are from what was given."""
    if not tables:
        return "No model here predicts ratings."
    best = min(tables, key=lambda name: results[name].rating["rmse"]["mean"])
    error, table = results[best].rating["rmse"], tables[best]
    off = float((table["rating"] - table["predicted"]).abs().mean())
    slope = float(np.polyfit(table["predicted"], table["rating"], 1)[0]) if len(table) > 1 else float("nan")
    return (
        f"`{best}` has the lowest RMSE, {error['mean']:.3f} stars (95% interval {error['low']:.3f} to "
        f"{error['high']:.3f}, {error['n_rows']:,} rows of {error['n_users']:,} users). Its deciles are off by "
        f"{off:.3f} stars on average, and ratings rise by {slope:.2f} stars for each star predicted."
    )


def failures(failed: pd.DataFrame, result: Evaluation, task: Task) -> str:
    """Say what the users served worst have in common."""
    if failed.empty:
        return "No user has so many relevant items that being served worst would say something."
    traits = user_traits(result, task)
    met, usual = failed["popularity"].median(), traits["popularity"].median()
    known, others = failed["history"].median(), traits["history"].median()
    return (
        f"What they liked had been met by {met:.0f} users (median; {usual:.0f} for all users); they themselves had met "
        f"{known:.0f} items before ({others:.0f}). What they liked stands at rank "
        f"{failed['median_rank'].median():.0f} (median; {traits['median_rank'].median():.0f} for all users)."
    )
