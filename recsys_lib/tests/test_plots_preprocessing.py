"""Figures of 02 and of the study of splits: they show what they are given."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import split_plots

from recsys_lib import splits
from recsys_lib.models.features.pairs import PairFeatures
from recsys_lib.plots import preprocessing as plots
from recsys_lib.plots.style import use_style

mpl.use("agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_parts_in_time_counts_every_row(tables):
    split = splits.temporal_user(tables[0])
    (axes,) = plots.parts_in_time(split, bins=10).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation", "test"]
    heights = sum(bar.get_height() for container in axes.containers for bar in container)
    assert heights == len(tables[0])
    untimed = splits.random(tables[0].drop(columns="timestamp"))
    (axes,) = plots.parts_in_time(untimed).axes
    assert axes.get_xlabel() == "interactions of a user"


def test_feature_distributions_draws_one_panel_a_feature_and_bears_emptiness(tables):
    split = splits.temporal_user(tables[0])
    fitted = PairFeatures.of(split.train, tables[1])
    table = fitted.table()
    names = ["user: mean rating", "item: mean rating", "time"]
    figure = plots.feature_distributions(table, fitted.table(split.valid), names, columns=2)
    assert [axes.get_title() for axes in figure.axes] == [*names, ""]
    plots.feature_distributions(table.assign(time=np.nan), table.iloc[:0], names)
    plots.feature_distributions(table, table, [])


def test_a_notebook_that_shows_the_features_leaves_their_places_alone(tables):
    with mpl.rc_context():
        use_style()
        numbers = pd.DataFrame(np.random.default_rng(0).random((50, 7)), columns=list("abcdefg"))
        figure = plots.feature_distributions(numbers, numbers, list(numbers))
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
    assert [label.get_text() for label in axes.get_yticklabels()] == ["random", "temporal_user"]
    (axes,) = split_plots.results_in_time(results, "NDCG@10").axes
    assert len(axes.lines) == 2
