"""The sets behind published tables: what is read, what is refused, how they are cut."""

import json

import numpy as np
import pandas as pd
import published
import pytest

from recsys_lib.files import sha256
from recsys_lib.paths import REPOSITORY

LINES, GENRES = "1 1 2 3 4\n2 2 3 2\n3 3 1 4\n", {"1": [7, 8], "2": [7], "3": [], "4": [9], "5": [9]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a set that passes for Beauty, in the place that MOVIELENS_DIR names."""
    files = [tmp_path / "sequences" / name for name in ("Beauty.txt", "Beauty_item2attributes.json")]
    files[0].parent.mkdir()
    files[0].write_text(LINES)
    files[1].write_text(json.dumps(GENRES))
    monkeypatch.setitem(published.SUMS, "Beauty", tuple(map(sha256, files)))
    monkeypatch.setenv("MOVIELENS_DIR", str(tmp_path))
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    return files[0].parent


def test_a_set_is_cut_as_papers_cut_it(folder):
    table = published.load("Beauty")
    titles = table.items.set_index("item_id")["title"]
    assert titles.sort_index().tolist() != ["1", "2", "3", "4"]  # numbers are dealt out by chance
    parts = [part["item_id"].map(titles).tolist() for part in (table.split.train, table.split.valid, table.split.test)]
    assert parts == [["1", "2", "2", "3"], ["3", "3", "1"], ["4", "2", "4"]]
    assert table.items.set_index("title")["genres"].to_dict() == {"1": ["7", "8"], "2": ["7"], "3": [], "4": ["9"]}
    task = table.task(table.split)
    assert task.known.n_items == 4
    assert task.protocol["relevant_seen_before"] == pytest.approx(1 / 3)
    assert published.load(str(folder / "Beauty.txt")).sha256 == table.sha256


def test_other_files_and_lines_without_items_are_refused(folder, monkeypatch):
    (folder / "Beauty.txt").write_text(LINES + "4\n")
    with pytest.raises(ValueError, match="not the published file: its SHA-256 does not begin"):
        published.load("Beauty")
    with pytest.raises(ValueError, match="line 4 has no items"):
        published.read(folder / "Beauty.txt", folder / "Beauty_item2attributes.json")

    def out_of_reach(url, path):
        raise published.UnreachableError(f"{url} is out of reach")

    monkeypatch.setattr(published, "fetch", out_of_reach)
    with pytest.raises(FileNotFoundError, match=r"LastFM.txt is out of reach; put LastFM.txt into .*MOVIELENS_DIR"):
        published.load("LastFM")


def test_ratings_are_dealt_out_75_to_25_for_each_user():
    frame = pd.DataFrame({"user_id": np.repeat([1, 2, 3], [4, 10, 33]), "item_id": np.arange(47)})
    split = published.stratified(frame)
    sizes = [part["user_id"].value_counts().sort_index().tolist() for part in (split.history, split.test)]
    assert sizes == [[3, 8, 25], [1, 2, 8]]
    rows = pd.concat([split.train, split.valid, split.test]).sort_values("item_id", ignore_index=True)
    pd.testing.assert_frame_equal(rows, frame)


def test_pairs_that_run_one_way():
    """5 before 6 in three sequences; 7 and 8 in either order; 6 next to 9 twice only."""
    visits = ["5 6 9", "5 6 9", "5 6", "7 8", "8 7", "7 8"]
    rows = [(user, int(item), place) for user, line in enumerate(visits) for place, item in enumerate(line.split())]
    found = published.one_way(pd.DataFrame(rows, columns=["user_id", "item_id", "position"]))
    assert (found["pairs"], found["one_way"]) == (2, 0.5)


def test_published_rows_name_their_source_and_what_they_used():
    rows = pd.read_csv(REPOSITORY / "notebooks" / "studies" / "published_tables.csv")
    assert set(rows["dataset"]) == {*published.SUMS, "ml-100k"}
    assert rows.notna().all(axis=None)
    assert not rows.duplicated(["dataset", "model"]).any()
