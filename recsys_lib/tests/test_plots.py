"""Figures show what they are given: every name, every interval, colours of one meaning, and nothing is left out."""

import io

import evaluation_plots
import matplotlib as mpl
import matplotlib.pyplot as plt
import neural_plots
import numpy as np
import pandas as pd
import preprocessing_plots
import pytest
import split_plots

from recsys_lib import splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.models import NeuralRanker
from recsys_lib.models.features.pairs import PairFeatures
from recsys_lib.plots import evaluation, models
from recsys_lib.plots.style import COLOURS, MAIN, MUTED, draw_lines, use_style

mpl.use("agg")


@pytest.fixture(autouse=True)
def styled():
    with mpl.rc_context():
        use_style()
        yield
    plt.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


@pytest.fixture
def board() -> pd.DataFrame:
    """Three models, the first two not distinct."""
    means = np.array([0.3, 0.28, 0.1])
    table = pd.DataFrame({"rank": [1, 2, 3], "model": ["item_knn", "als_tuned", "popularity"], "n_users": 200})
    table["ndcg@10"], table["ndcg@10_low"], table["ndcg@10_high"] = means, means - 0.02, means + 0.02
    table["difference"] = means - 0.3
    table["difference_low"], table["difference_high"] = table["difference"] - 0.01, table["difference"] + 0.01
    table["p_holm"], table["distinct"], table["smallest_difference"] = [np.nan, 0.2, 0.0001], [False, False, True], 0.02
    table["coverage@10"], table["fit_seconds"] = [0.2, 0.1, 0.3], [1.0, np.nan, 0.1]
    table.attrs["by"] = "ndcg@10"
    return table


def test_a_leaderboard_names_every_model_and_draws_every_interval(board):
    (axes,) = evaluation.leaderboard_figure(board, level="popularity").axes
    assert ticks(axes) == ["Item kNN", "ALS tuned", "Popularity"] and texts(axes) == ["0.300", "0.280", "0.100"]
    bars, points = axes.collections
    assert [segment[:, 0].tolist() for segment in bars.get_segments()][0] == pytest.approx([0.28, 0.32])
    assert [mpl.colors.to_hex(colour) for colour in points.get_facecolors()] == [MAIN, MAIN, MUTED]


def test_differences_to_the_best_stand_with_their_p(board):
    axes = evaluation_plots.forest_figure(board).axes[0]
    assert ticks(axes) == ["ALS tuned", "Popularity"]
    (right,) = axes.child_axes
    assert ticks(right) == ["p = .200", "p < .001"]
    of_one_user = board.assign(smallest_difference=np.nan, difference=0.0, difference_low=0.0, difference_high=0.0)
    of_one_user.attrs = board.attrs
    assert "shaded" not in evaluation_plots.forest_figure(of_one_user).axes[0].get_xlabel()


def test_trade_offs_name_every_model_and_mark_the_front(board):
    aims = {"coverage@10": "coverage", "-fit_seconds": "seconds to fit"}
    first, coverage, seconds = evaluation_plots.trade_off_figure(board, aims).axes
    assert ticks(first) == ["Item kNN", "ALS tuned", "Popularity"]
    fronts = [
        [mpl.colors.to_hex(colour) == MAIN for colour in axes.collections[1].get_facecolors()]
        for axes in (coverage, seconds)
    ]
    assert fronts == [[True, False, True], [True, False, True]], "ALS has no seconds here"
    drawn = evaluation_plots.trade_off_to_explore(board, aims)
    shown = {(trace.marker.color, name) for trace in drawn.data for name in trace.hovertext}
    assert shown == {(MAIN, "Item kNN"), (MAIN, "Popularity"), (MUTED, "ALS tuned")}


def test_lines_are_named_at_their_ends_without_covering_each_other():
    sizes, names = [1, 2, 5], [f"model_{n}" for n in range(8)]
    rows = [{"size": size, "model": name, "mean": 0.2 + 0.001 * n} for n, name in enumerate(names) for size in sizes]
    table = pd.DataFrame(rows).assign(low=lambda t: t["mean"] - 0.05, high=lambda t: t["mean"] + 0.05)
    figure, axes = plt.subplots()
    draw_lines(axes, table, "size", "mean", "model")
    assert sorted(texts(axes)) == [f"Model {n}" for n in range(8)]
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 2 for below, above in zip(boxes, boxes[1:], strict=False))
    assert all(box.height > 0 and not text.get_annotation_clip() for text, box in zip(axes.texts, boxes, strict=True))
    assert [text.get_color() for text in axes.texts if text.get_text() == "Model 7"] == [MUTED], "past seven"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "5"]


def test_a_sweep_draws_the_interval_of_the_difference_to_the_best():
    table = pd.DataFrame(
        {"half_life": [1, 10], "ndcg@10": [0.1, 0.2], "difference_low": [-0.15, 0], "difference_high": [-0.05, 0]}
    )
    (axes,) = models.sweep_figure(table, "half_life", "title", level=("popularity", 0.02)).axes
    (bars,) = (container[2][0] for container in axes.containers)
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.05, 0.15])
    assert axes.get_xlabel().startswith("Half-life, items") and axes.get_ylim()[0] < 0.02


def test_the_map_has_a_colour_a_genre_and_names_the_best_known(monkeypatch):
    monkeypatch.setattr(models, "NAMED", 2)
    films = pd.DataFrame(
        {"x": range(9), "y": range(9), "count": range(9, 0, -1), "title": [f"Film {n}, The" for n in range(9)]}
    )
    drawn = models.map_figure(films.assign(genre=list("abcdefghi")))
    colours = [trace.marker.color for trace in drawn.data]
    assert [trace.name for trace in drawn.data][-1] == "other" and len(set(colours)) == len(colours) == len(COLOURS)
    assert [note.text for note in drawn.layout.annotations][0] == "The Film 0" and len(drawn.layout.annotations) == 2


def test_the_share_of_users_falls_with_what_is_asked():
    values = pd.DataFrame({"model": "ease", "ndcg@10": [0.0, 0.5, 0.5, 1.0]})
    (axes,) = evaluation_plots.distribution_figure(values, "ndcg@10").axes
    (line,) = (container[0] for container in axes.containers)
    assert line.get_ydata()[[0, 5, 10]].tolist() == [0.25, 0.75, 0.75]


def test_figures_of_the_nets_are_drawn(tables):
    log = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "valid": [0.9, 0.8], "lr": [0.1, 0.1]})
    assert len(neural_plots.curves_figure(log, "a constant learning rate is no panel").axes) == 2
    assert len(neural_plots.curves_figure(log.assign(valid=None, lr=[0.1, 0.2]), "no validation").axes) == 2
    split = splits.temporal_user(tables[0], test=0.2, valid=0)
    model = NeuralRanker(embedding_dim=4, hidden=8, epochs=1).fit(Interactions.from_frame(split.train))
    ablation = pd.DataFrame({"variant": ["whole", "a"], "rmse": [0.9, 1.0], "spread": [0.01, None]})
    assert ticks(neural_plots.ablation_figure(ablation, "rmse", "title").axes[0]) == ["Whole", "A"]
    assert neural_plots.diagram_figure(8, (16, 8), 4, 8).axes
    assert neural_plots.parts_figure(model.parts(1, 3), pd.Series(dtype=str), "why").axes


def test_parts_in_time_counts_every_row(tables):
    split = splits.temporal_user(tables[0])
    (axes,) = preprocessing_plots.parts_in_time(split, bins=10).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation", "test"]
    heights = sum(bar.get_height() for container in axes.containers for bar in container)
    assert heights == len(tables[0])
    untimed = splits.random(tables[0].drop(columns="timestamp"))
    (axes,) = preprocessing_plots.parts_in_time(untimed).axes
    assert axes.get_xlabel() == "interactions of a user"


def test_feature_distributions_draws_one_panel_a_feature_and_bears_emptiness(tables):
    split = splits.temporal_user(tables[0])
    fitted = PairFeatures.of(split.train, tables[1])
    table = fitted.table()
    names = ["user: mean rating", "item: mean rating", "time"]
    figure = preprocessing_plots.feature_distributions(table, fitted.table(split.valid), names, columns=2)
    assert [axes.get_title("left") for axes in figure.axes] == [*names, ""]
    preprocessing_plots.feature_distributions(table.assign(time=np.nan), table.iloc[:0], names)
    preprocessing_plots.feature_distributions(table, table, [])


def test_a_notebook_that_shows_the_features_leaves_their_places_alone():
    numbers = pd.DataFrame(np.random.default_rng(0).random((50, 7)), columns=list("abcdefg"))
    figure = preprocessing_plots.feature_distributions(numbers, numbers, list(numbers))
    places = [axes.get_position().bounds for axes in figure.axes]
    figure.savefig(io.BytesIO(), bbox_inches="tight")  # as notebooks do
    figure.savefig(io.BytesIO())
    assert [axes.get_position().bounds for axes in figure.axes] == places


def test_results_stand_beside_their_split():
    rows = [
        {"split": split, "model": model, "cut": cut, "mean": 0.2, "low": 0.1, "high": 0.3}
        for split, cut in (("random", 0.7), ("temporal_user", 0.8))
        for model in ("popularity", "EASE")
    ]
    results = pd.DataFrame(rows)
    (axes,) = split_plots.results_by_split(results, "NDCG@10").axes
    assert ticks(axes) == ["Random", "Temporal user"] and texts(axes) == ["Popularity", "EASE"]
    (axes,) = split_plots.results_in_time(results, "NDCG@10").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["70%", "80%"]
