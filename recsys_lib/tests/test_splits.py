"""Splits: shares, order in time, ties, and what they say of themselves."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib import splits
from recsys_lib.data.splits import Split
from recsys_lib.evaluation.task import Task
from recsys_lib.paths import REPOSITORY

TIMED = ("temporal_user", "return_visit", "temporal_global", "leave_one_out")
ANY = (*TIMED, "random")


def split_or_refusal(frame: pd.DataFrame, name: str, **arguments: float) -> Split | None:
    """The split, or None where it rightly says that it leaves nothing to train on."""
    try:
        return splits.by_name(frame, name, **arguments)
    except ValueError as error:
        assert "nothing to train on" in str(error)
        return None


@st.composite
def interactions(draw) -> pd.DataFrame:
    """Small tables with many ties in time and users of very different activity."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 12)), min_size=1, max_size=60, unique=True))
    users, items = zip(*pairs, strict=True)
    when = draw(st.lists(st.integers(0, 8), min_size=len(pairs), max_size=len(pairs)))
    return pd.DataFrame({"user_id": users, "item_id": items, "rating": np.float32(3), "timestamp": when})


def pairs_of(frame: pd.DataFrame) -> set:
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


@given(interactions(), st.sampled_from(ANY), st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.0, 0.1, 0.3]))
@settings(max_examples=150, deadline=None)
def test_every_row_is_in_one_part_in_its_order_and_the_order_of_rows_does_not_matter(frame, name, test, valid):
    split = split_or_refusal(frame, name, test=test, valid=valid)
    if split is None:
        return
    place = {pair: row for row, pair in enumerate(zip(frame["user_id"], frame["item_id"], strict=True))}
    parts = [split.train, split.valid, split.test]
    rows = [[place[pair] for pair in zip(part["user_id"], part["item_id"], strict=True)] for part in parts]
    assert sorted(sum(rows, [])) == list(range(len(frame)))
    assert all(places == sorted(places) for places in rows)
    assert all(part.index.tolist() == list(range(len(part))) for part in parts)
    shuffled = splits.by_name(frame.sample(frac=1, random_state=1), name, test=test, valid=valid)
    for one, other in zip(parts, (shuffled.train, shuffled.valid, shuffled.test), strict=True):
        assert pairs_of(one) == pairs_of(other)


@given(interactions(), st.sampled_from([0.1, 0.2, 0.34]), st.sampled_from([0.0, 0.1, 0.25]))
@settings(max_examples=100, deadline=None)
def test_temporal_user_cuts_each_user_in_time_by_whole_shares(frame, test, valid):
    split = splits.temporal_user(frame, test=test, valid=valid)
    for user, rows in frame.groupby("user_id"):
        train, validation, last = (
            part.loc[part["user_id"] == user, "timestamp"] for part in (split.train, split.valid, split.test)
        )
        assert len(last) == int(test * len(rows) + 1e-9)
        assert len(validation) == int(valid * len(rows) + 1e-9)
        assert train.max() <= min([*validation, *last], default=np.inf)
        assert max([*train, *validation]) <= min(last, default=np.inf)


@given(interactions())
@settings(max_examples=100, deadline=None)
def test_temporal_global_never_divides_a_second(frame):
    split = split_or_refusal(frame, "temporal_global")
    if split is not None:
        times = [set(part["timestamp"]) for part in (split.train, split.valid, split.test)]
        assert max(times[0]) < min(times[1] | times[2])
        assert not times[1] or max(times[1]) < min(times[2])
        assert len(split.test) >= int(0.2 * len(frame) + 1e-9)


@given(interactions())
@settings(max_examples=60, deadline=None)
def test_leave_one_out_takes_the_last_and_the_one_before(frame):
    split = split_or_refusal(frame, "leave_one_out")
    if split is not None:
        size = frame.groupby("user_id").size()
        assert set(split.test["user_id"]) == set(size[size >= 2].index)
        assert set(split.valid["user_id"]) == set(size[size >= 3].index)
        assert not split.test["user_id"].duplicated().any()
        last = split.test.set_index("user_id")["timestamp"]
        assert (last == frame.groupby("user_id")["timestamp"].max()[last.index]).all()


def test_random_takes_exact_shares_and_follows_its_seed():
    frame = pd.DataFrame({"user_id": np.repeat(np.arange(50), 20), "item_id": np.tile(np.arange(20), 50)})
    split = splits.random(frame, test=0.29, valid=0.1, seed=3)
    sizes = (len(split.train), len(split.valid), len(split.test))
    assert sizes == (610, 100, 290)  # 0.29 * 1000 is below 290 in floats
    assert pairs_of(split.test) == pairs_of(splits.random(frame, test=0.29, valid=0.1, seed=3).test)
    others = [pairs_of(splits.random(frame, test=0.29, valid=0.1, seed=seed).test) for seed in range(4, 24)]
    shared = np.mean([len(pairs_of(split.test) & other) / 290 for other in others])
    assert 0.24 < shared < 0.34  # as chance has it


def test_ties_follow_the_hash_of_the_pair_and_not_the_item_id():
    frame = pd.DataFrame({"user_id": 1, "item_id": np.arange(100), "rating": 3.0, "timestamp": 7})
    split = splits.temporal_user(frame)
    assert split.test["item_id"].tolist() != list(range(80, 100))
    assert 25 < split.test["item_id"].mean() < 75
    order = np.argsort(pd.util.hash_pandas_object(frame[["user_id", "item_id"]], index=False).to_numpy())
    assert set(split.test["item_id"]) == set(order[-20:])


def test_times_that_are_too_far_apart_to_be_packed_give_the_same_parts():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user_id": rng.integers(5, size=300), "item_id": rng.integers(1000, size=300)})
    frame = frame.drop_duplicates(["user_id", "item_id"], ignore_index=True)
    frame["timestamp"] = rng.integers(0, 6, size=len(frame))
    far = splits.temporal_user(frame.assign(timestamp=frame["timestamp"] * 2**60))
    assert pairs_of(far.test) == pairs_of(splits.temporal_user(frame).test)


def test_string_ids_and_no_rows_for_a_user_are_fine():
    frame = pd.DataFrame({"user_id": list("aab"), "item_id": ["x", "y", "x"], "timestamp": [1, 2, 3]})
    assert splits.leave_one_out(frame).test["item_id"].tolist() == ["y"]
    assert splits.random(frame, test=0.34, valid=0).test.shape[0] == 1
    given_order = splits.leave_one_out(pd.DataFrame({"user_id": [1, 2, 1, 1], "item_id": [9, 7, 8, 3]}))
    assert (given_order.test["item_id"].tolist(), given_order.valid["item_id"].tolist()) == ([3], [8])


@pytest.mark.parametrize(
    ("name", "order", "proposed"),
    [
        ("temporal_user", {}, ["random", "leave_one_out"]),
        ("temporal_global", {}, ["random", "leave_one_out"]),
        ("rolling", {}, ["random", "leave_one_out"]),
        ("temporal_global", {"position": [0, 1, 2, 3, 4] * 4}, ["temporal_user", "leave_one_out"]),
    ],
)
def test_a_split_that_needs_timestamps_names_others_that_do_not(name, order, proposed):
    frame = pd.DataFrame({"user_id": np.repeat([1, 2, 3, 4], 5), "item_id": range(20), **order})
    with pytest.raises(ValueError, match=f"{name} needs timestamps.*; use {' or '.join(proposed)}$"):
        next(splits.rolling(frame)) if name == "rolling" else splits.by_name(frame, name)
    for other in proposed:
        assert len(splits.by_name(frame, other).test) > 0


@pytest.mark.parametrize(
    "repeats, train, history",
    [
        ("last", [(1, 5, 2), (2, 1, 4), (2, 2, 5)], [(1, 5, 3), (2, 1, 4), (2, 2, 5)]),
        ("first", [(1, 5, 1), (2, 1, 4), (2, 2, 5)], [(1, 5, 1), (2, 1, 4), (2, 2, 5)]),
        ("count", [(1, 5, 2, 2), (2, 1, 4, 1), (2, 2, 5, 1)], [(1, 5, 3, 3), (2, 1, 4, 1), (2, 2, 5, 1)]),
    ],
)
def test_leave_one_out_keeps_one_row_of_a_repeated_item_and_all_that_is_held_out(repeats, train, history):
    """User 1 has item 5 at every turn; the order is that of the positions, not of the rows."""
    rows = [(1, 5, 4), (1, 5, 3), (2, 1, 4), (2, 2, 5), (1, 5, 2), (1, 5, 1), (2, 3, 6), (2, 1, 7)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "position"])
    split = splits.leave_one_out(frame, repeats=repeats)
    found = [part.sort_values(["user_id", "item_id"]) for part in (split.train, split.history, split.test)]
    assert list(found[0].itertuples(index=False, name=None)) == train
    assert list(found[1][found[1]["item_id"] != 3].itertuples(index=False, name=None)) == history
    assert found[2][["user_id", "item_id", "position"]].values.tolist() == [[1, 5, 4], [2, 1, 7]]
    task = Task.from_split(split, strict=True)
    assert task.protocol["relevant_seen_before"] == 1.0
    assert task.relevant.nnz == 2  # a count is no threshold


@pytest.mark.parametrize("shares", [{"test": 0.0}, {"test": 1.0}, {"test": 0.6, "valid": 0.4}, {"valid": -0.1}])
def test_shares_that_leave_nothing_are_refused(shares):
    frame = pd.DataFrame({"user_id": 1, "item_id": range(10), "timestamp": range(10)})
    for way in (splits.temporal_user, splits.temporal_global, splits.random):
        with pytest.raises(ValueError, match="leave something to train on"):
            way(frame, **shares)


def test_an_empty_table_and_an_unknown_name_are_refused_in_one_sentence():
    empty = pd.DataFrame({"user_id": [], "item_id": [], "timestamp": []}).astype(np.int64)
    for name in ANY:
        with pytest.raises(ValueError, match="nothing to train on: there are 0 interactions"):
            splits.by_name(empty, name)
    with pytest.raises(ValueError, match="there is no split 'by_moon'; the splits are temporal_user"):
        splits.by_name(empty, "by_moon")


def test_rolling_slices_follow_each_other_and_need_a_history():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"user_id": rng.integers(30, size=2000), "item_id": np.arange(2000)})
    frame["timestamp"] = np.arange(2000) + frame["user_id"] * 200  # users arrive one after the other
    cuts = list(splits.rolling(frame, cuts=(0.5, 0.7, 0.9), span=0.05, min_history=5))
    assert [split.params["cut"] for split in cuts] == [0.5, 0.7, 0.9]
    for split in cuts:
        assert split.train["timestamp"].max() < split.valid["timestamp"].min()
        assert split.valid["timestamp"].max() < split.test["timestamp"].min()
        assert len(split.history) == pytest.approx(split.params["cut"] * 2000, abs=2)
        assert (split.history["user_id"].value_counts()[split.test["user_id"].unique()] >= 5).all()
        rows = len(split.train) + len(split.valid) + len(split.test)
        assert rows + sum(split.dropped.values()) == len(frame)
        new = split.dropped["test rows of users without enough history"]
        assert new == pytest.approx(100 - len(split.test), abs=2)
    assert sum(split.dropped["test rows of users without enough history"] for split in cuts) > 10
    everybody = list(splits.rolling(frame, cuts=(0.5,), span=0.05, min_history=0))[0]
    assert len(everybody.test) == 100
    with pytest.raises(ValueError, match="must lie between span"):
        next(splits.rolling(frame, cuts=(0.99,), span=0.05))


def test_without_future_leaves_others_later_rows_out(tables):
    whole = splits.temporal_user(tables[0])
    groups = list(splits.without_future(whole, groups=5))
    assert len(groups) == 5
    assert sum(len(part.test) for part in groups) == len(whole.test)
    for part in groups:
        people, begin = part.test["user_id"].unique(), part.test["timestamp"].min()
        others = part.train[~part.train["user_id"].isin(people)]
        assert others["timestamp"].max() < begin or others.empty
        own = whole.history[whole.history["user_id"].isin(people)]
        assert pairs_of(own) <= pairs_of(part.train)
        assert splits.future_share(part) < splits.future_share(whole)
    with pytest.raises(ValueError, match="needs timestamps"):
        next(splits.without_future(splits.random(tables[0].drop(columns="timestamp"))))


def test_future_share_is_zero_for_a_cut_and_about_half_for_chance(tables):
    assert splits.future_share(splits.temporal_global(tables[0])) == 0
    assert 0.4 < splits.future_share(splits.random(tables[0])) < 0.6
    assert np.isnan(splits.future_share(splits.random(tables[0].drop(columns="timestamp"))))


@given(interactions(), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_k_core_is_the_largest_table_in_which_everybody_has_enough(frame, min_user, min_item):
    kept, steps = splits.k_core(frame, min_user=min_user, min_item=min_item)
    assert (kept["user_id"].value_counts() >= min_user).all()
    assert (kept["item_id"].value_counts() >= min_item).all()
    assert steps["rows"].iloc[-1] == len(kept)
    assert steps["dropped_rows"].sum() == len(frame) - len(kept)
    slow = frame  # the definition: drop what has too few until nothing has
    while True:
        enough_user = slow.groupby("user_id")["item_id"].transform("size") >= min_user
        enough_item = slow.groupby("item_id")["user_id"].transform("size") >= min_item
        if (enough_user & enough_item).all():
            break
        slow = slow[enough_user & enough_item]
    assert pairs_of(kept) == pairs_of(slow)


def test_describe_counts_what_is_unknown():
    train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [0, 10, 20]})
    test = pd.DataFrame({"user_id": [1, 3, 3, 2], "item_id": [9, 1, 9, 2], "timestamp": [30, 30, 40, 86_400]})
    table = Split(train, train.iloc[:0], test, "made").describe().set_index("part")
    counts = ["rows", "users", "items", "new_users", "new_items", "gone_users", "gone_items"]
    assert table[counts].to_numpy().tolist() == [[3, 2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2, 2], [4, 3, 3, 1, 1, 0, 0]]
    assert table.loc["test", ["cold_user_rows", "cold_item_rows", "cold_rows"]].tolist() == [0.5, 0.5, 0.75]
    assert table.loc["test", "last"] == pd.Timestamp("1970-01-02")
    assert table.loc[["train", "valid"], "cold_rows"].isna().all()


def test_for_validation_does_not_hold_the_test_part():
    frame = pd.DataFrame({"user_id": 1, "item_id": range(10), "timestamp": range(10)})
    split = splits.temporal_user(frame)
    earlier = split.for_validation()
    assert pairs_of(earlier.test) == pairs_of(split.valid)
    assert not (pairs_of(earlier.history) | pairs_of(earlier.test)) & pairs_of(split.test)


# ---- the published folds of ml-100k ------------------------------------------------------------------------------

# A slice of the published u1.test; it lies at this place only if all that is before it is alike.
PUBLISHED_SLICE = slice(93_000, 93_738)
PUBLISHED_SLICE_SHA256 = "d9b5ee5a25bc1cfa3127e63df47e03fa0458ca736c0fad5fc2a2d09320792929"
# Sizes in bytes of the published u1.base and u1.test, u2.base, ..., which GroupLens cuts from u.data (its script
# mku.sh): two parts of its 1,979,173 bytes. Where the archive is at hand, the files themselves are compared.
FOLD_BYTES = {
    1: (1_586_544, 392_629),
    2: (1_583_948, 395_225),
    3: (1_582_546, 396_627),
    4: (1_581_878, 397_295),
    5: (1_581_776, 397_397),
}
# The last rows of the published u1.test to u5.test: where they stand depends on every row before them.
FOLD_ENDS = {
    1: b"459\t934\t3\t879563639\n460\t10\t3\t882912371\n462\t682\t5\t886365231\n",
    2: b"655\t918\t2\t892436609\n655\t1403\t3\t888813372\n658\t276\t4\t875145572\n",
    3: b"875\t772\t5\t876465188\n876\t294\t4\t879428145\n877\t382\t3\t882677012\n",
    4: b"943\t1067\t2\t875501756\n943\t1074\t4\t888640250\n943\t1188\t3\t888640250\n",
    5: b"943\t1047\t2\t875502146\n943\t1228\t3\t888640275\n943\t1330\t3\t888692465\n",
}


def made_100k() -> pd.DataFrame:
    """100,000 rows that are not ml-100k."""
    return pd.DataFrame({"user_id": np.repeat(np.arange(1000), 100), "item_id": np.tile(np.arange(100), 1000)})


def test_canonical_folds_are_slices_of_the_file_and_cover_it():
    frame = made_100k().sample(frac=1, random_state=0, ignore_index=True)
    tests = [splits.canonical_fold(frame, k).test for k in range(1, 6)]
    pd.testing.assert_frame_equal(pd.concat(tests, ignore_index=True), frame)
    split = splits.canonical_fold(frame, 2)
    assert (len(split.train), len(split.valid), len(split.test)) == (70_000, 10_000, 20_000)
    assert pairs_of(split.history) == pairs_of(frame) - pairs_of(frame.iloc[20_000:40_000])


def test_canonical_fold_refuses_other_tables_and_other_folds():
    with pytest.raises(ValueError, match="needs the 100,000 rows of u.data in file order.* have 99,999"):
        splits.canonical_fold(made_100k().iloc[1:])
    for k in (0, 6, 1.5):
        with pytest.raises(ValueError, match="k must be 1, 2, 3, 4 or 5"):
            splits.canonical_fold(made_100k(), k)
    with pytest.raises(ValueError, match="below 0.8"):
        splits.canonical_fold(made_100k(), valid=0.8)


def real_100k() -> dict[str, bytes]:
    """Files of ml-100k by name, from MOVIELENS_DIR or data/raw; u.data alone comes from the package copy."""
    folders = [os.environ.get("MOVIELENS_DIR"), REPOSITORY / "data" / "raw" / "ml-100k"]
    for folder in folders:
        for archive in sorted(Path(folder).rglob("*")) if folder else []:
            if archive.suffix in (".zip", ".whl") and zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    names = {name.rpartition("ml-100k/")[2]: name for name in opened.namelist() if "ml-100k/" in name}
                    wanted = [name for name in names if name in ("u.data", "ml-100k.inter") or name[:1] == "u"]
                    if "u.data" in wanted or "ml-100k.inter" in wanted:
                        return {name: opened.read(names[name]) for name in wanted}
    pytest.skip("ml-100k is neither in MOVIELENS_DIR nor in data/raw")


def as_published(frame: pd.DataFrame) -> bytes:
    """The bytes of a fold as GroupLens's mku.sh writes it: sorted by user and item, tab separated."""
    ordered = frame.sort_values(["user_id", "item_id"])
    return ordered.to_csv(sep="\t", header=False, index=False, lineterminator="\n").encode()


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, bytes], pd.DataFrame]:
    files = real_100k()
    raw = files.get("u.data") or files["ml-100k.inter"].partition(b"\n")[2]
    rows = [line.split(b"\t") for line in raw.splitlines()]
    table = np.array([[int(float(value)) for value in row] for row in rows])
    return files, pd.DataFrame(table, columns=["user_id", "item_id", "rating", "timestamp"])


@pytest.mark.parametrize("k", range(1, 6))
def test_canonical_folds_equal_the_published_files(published, k):
    files, interactions = published
    split = splits.canonical_fold(interactions, k)
    base, test = as_published(split.history), as_published(split.test)
    assert (len(base), len(test)) == FOLD_BYTES[k]
    assert test.endswith(FOLD_ENDS[k])
    for name, made in ((f"u{k}.base", base), (f"u{k}.test", test)):
        if name in files:
            assert hashlib.md5(made).hexdigest() == hashlib.md5(files[name]).hexdigest(), name


def test_the_first_published_fold_is_that_of_462_users(published):
    test = splits.canonical_fold(published[1], 1).test
    assert (test["user_id"].min(), test["user_id"].max(), test["user_id"].nunique()) == (1, 462, 459)
    assert hashlib.sha256(as_published(test)[PUBLISHED_SLICE]).hexdigest() == PUBLISHED_SLICE_SHA256
