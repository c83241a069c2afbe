"""The benchmark of the metrics compares what it says it compares."""

import numpy as np

from recsys_lib.benchmarks import metrics


def test_values_are_those_of_implicit_and_trec_eval():
    rows = metrics.run(400, ["implicit", "ir-measures"], repeats=1)
    assert [row["library"] for row in rows] == ["recsys_lib", "implicit", "ir-measures"]
    assert max(row["largest"] for row in rows) < 1e-6
    assert rows[1]["compared"] == 6
    assert rows[2]["compared"] == 12


def test_made_lists_are_what_they_are_said_to_be():
    lists, relevant = metrics.made_lists(500)
    assert lists.shape == (500, metrics.LENGTH)
    assert (np.sort(lists, axis=1)[:, 1:] != np.sort(lists, axis=1)[:, :-1]).all()
    assert (np.diff(relevant.indptr) == metrics.RELEVANT).all()
    judged = metrics.ranking.judge(lists, relevant)
    assert 0.15 < judged.hits.mean() < 0.25


def test_command(capsys):
    assert metrics.main(["--users", "200", "--peers", "implicit"]) == 0
    assert "largest difference" in capsys.readouterr().out
