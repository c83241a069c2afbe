"""The benchmarks compare and measure what they say."""

import numpy as np
import pytest

from recsys_lib.benchmarks import metrics, scale
from recsys_lib.files import read_json


def test_values_are_those_of_implicit_and_trec_eval(capsys):
    pytest.importorskip("ir_measures", reason="environment.yml says where it is")
    assert metrics.main(["--users", "400", "--peers", "implicit", "ir-measures"]) == 0  # 1 where values differ
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [(row.split()[0], row.count(" 6 means"), row.count(" 12 means")) for row in rows] == [
        ("implicit", 1, 0),
        ("ir-measures", 0, 1),
    ]


def test_made_lists_are_what_they_are_said_to_be():
    lists, relevant = metrics.made_lists(500)
    assert lists.shape == (500, metrics.LENGTH)
    assert (np.sort(lists, axis=1)[:, 1:] != np.sort(lists, axis=1)[:, :-1]).all()
    assert (np.diff(relevant.indptr) == metrics.RELEVANT).all()
    judged = metrics.ranking.judge(lists, relevant)
    assert 0.15 < judged.hits.mean() < 0.25


def test_made_tables_have_their_size_and_a_structure_to_learn(lab_home, capsys):
    interactions, items = scale.made_tables(20_000)
    assert len(interactions) == 20_000 and not interactions.duplicated(["user_id", "item_id"]).any()
    assert set(interactions["item_id"]) <= set(items["item_id"]) and interactions["rating"].between(1, 5).all()
    assert scale.main(["2e4", "4e4", "--models", "Popularity", "ALS"]) == 0
    assert "slope" in capsys.readouterr().out
    content = read_json(lab_home / "reports" / "scale.json")
    stages = content["stages"]
    assert content["rows"] == [20_000, 40_000] and all(len(stage["peak_gib"]) == 2 for stage in stages)
    assert {"implicit: fit", "ALS: fit", "ALS: evaluate, all metrics"} <= {stage["stage"] for stage in stages}
    assert scale.main(["2e4", "4e4", "--models", "Popularity"]) == 0  # what is not measured again stays
    again = read_json(lab_home / "reports" / "scale.json")["stages"]
    assert [stage["stage"] for stage in again] == [stage["stage"] for stage in stages]
