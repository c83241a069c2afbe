"""Saved models: whole or absent, checked, shared, and the same numbers as before."""

import contextlib
import gc
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from recsys_lib.files import read_arrays, write_arrays
from recsys_lib.models import ALS, EASE, Blend, ItemKNN, base, load_model
from recsys_lib.models.stored import array_hash, load_arrays

LARGE = np.random.default_rng(0).random((100, 100), dtype=np.float32)


ARRAYS = {
    "table": LARGE,
    "columns first": np.asfortranarray(LARGE),
    "nothing": LARGE[:0],
    "number": np.array(7.5),
    "text": np.array(["x", "Zoë"] * 5000),
    "flags": np.arange(5000).astype(bool),
    "odd values": np.array([-0.0, np.nan]),
    "odd width": np.arange(3, dtype=np.int8),
}


def test_arrays_come_back_bit_by_bit_and_objects_are_refused(tmp_path):
    back = read_arrays(write_arrays(tmp_path / "a.safetensors", ARRAYS))
    for name, array in ARRAYS.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        assert back[name].tobytes() == array.tobytes(), name
        with pytest.raises(ValueError, match="read-only"):
            back[name][...] = array
    with pytest.raises(TypeError, match="Python objects"):
        write_arrays(tmp_path / "b", {"y": np.array([{}] * 5, dtype=object)})


def saved(path, **arrays):
    """Write arrays and load them as a model's arrays are."""
    return load_arrays(write_arrays(path, arrays), {name: array_hash(array) for name, array in arrays.items()})


def test_equal_arrays_are_held_once_and_as_long_as_they_are_needed(tmp_path):
    one, two = (saved(tmp_path / name, **{name: LARGE * 2}) for name in "ab")
    assert one["a"].base is two["b"].base
    del one
    gc.collect()
    new = saved(tmp_path / "b", b=LARGE * 3)["b"]
    assert (two["b"] == LARGE * 2).all()
    assert (new == LARGE * 3).all()


WRITTEN_OVER = """
import sys
from recsys_lib.files import read_arrays
arrays = read_arrays(sys.argv[1])
with open(sys.argv[1], "r+b") as file:
    file.truncate(10)
    file.write(b"other" * 10)
print(int(sum(array.sum() for array in arrays.values())))
"""


def test_a_file_that_is_written_over_in_place_ends_no_reader_and_changes_nothing(tmp_path):
    """In a process of its own, because what a reader had mapped would end it with SIGBUS."""
    path = write_arrays(tmp_path / "a.safetensors", {"large": np.ones((1000, 1000)), "small": np.ones(3)})
    done = subprocess.run([sys.executable, "-c", WRITTEN_OVER, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000003"]


@pytest.mark.parametrize("name", list(base.MODULES))
def test_single_flipped_bits_are_noticed(tmp_path, known, fitted, name):
    """Whichever bit it is, of the arrays or of what names them: refused, or the model is as it was."""
    folder, rng = fitted[name].save(tmp_path / "model"), np.random.default_rng(0)
    expected = fitted[name].recommend(known.user_ids[:9])
    for file in (next(folder.glob("arrays-*")), folder / "config.json"):
        whole = file.read_bytes()
        for bit in rng.integers(8 * min(len(whole), 20_000), size=12):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            with contextlib.suppress(ValueError, FileNotFoundError):
                pd.testing.assert_frame_equal(load_model(folder).recommend(known.user_ids[:9]), expected)
                assert file.suffix == ".json"  # an array has no bit that means nothing
        file.write_bytes(whole)
    pd.testing.assert_frame_equal(load_model(folder).recommend(known.user_ids[:9]), expected)


def test_a_model_saved_anew_while_it_is_loaded_is_the_new_one(tmp_path, known, monkeypatch):
    folder = ItemKNN(neighbours=5).fit(known).save(tmp_path / "model")
    new, read = [ItemKNN(neighbours=20).fit(known)], base.read_json

    def read_json(path):
        content = read(path)
        while new:
            new.pop().save(folder)  # right after the first read
        return content

    monkeypatch.setattr(base, "read_json", read_json)
    assert load_model(folder).neighbours == 20
    next(folder.glob("arrays-*")).unlink()
    with pytest.raises(FileNotFoundError):
        load_model(folder)


def test_models_of_a_run_share_what_is_equal_and_score_as_before(tmp_path, known):
    parts = {"ease": EASE().fit(known), "item_knn": ItemKNN().fit(known), "als": ALS(factors=8).fit(known)}
    models = {**parts, "blend": Blend(parts, weights={"ease": 1.0, "item_knn": 0.5}).fit(known)}
    again = {name: load_model(model.save(tmp_path / name)) for name, model in models.items()}
    blend = again["blend"]
    trains = [*(model.train for model in again.values()), *(part.train for part in blend.models.values())]
    assert len({id(train) for train in trains}) == 1
    assert blend.models["ease"].weights_.base is again["ease"].weights_.base
    assert blend.models["item_knn"].similarity_.data.base is again["item_knn"].similarity_.data.base
    histories = known.rows(np.arange(known.n_users))
    for name, model in models.items():
        np.testing.assert_array_equal(again[name].score(histories), model.score(histories))
