"""Arrays of saved models: mapped, shared, and the same numbers as ever."""

import gc
import mmap
import zipfile

import numpy as np
import psutil
import pytest

from recsys_lib.data.interactions import Interactions
from recsys_lib.files import write_npz
from recsys_lib.models import ALS, EASE, Blend, ItemKNN, load_model
from recsys_lib.models.stored import give_back, read_arrays
from recsys_lib.tests.made import made_tables

LARGE = np.random.default_rng(0).random((100, 100), dtype=np.float32)


@pytest.fixture(scope="module")
def known():
    return Interactions.from_frame(made_tables()[0])


@pytest.mark.parametrize(
    "array",
    [
        LARGE,
        np.asfortranarray(LARGE),
        LARGE[:0],
        np.array(7.5),
        np.array(["x", "Zoë"] * 5000),
        np.arange(5000).astype(bool),
        np.array([-0.0, np.nan]),
    ],
)
def test_arrays_come_back_bit_by_bit(tmp_path, array):
    path = write_npz(tmp_path / "a.npz", before=np.arange(3, dtype=np.int8), array=array)
    for back in (read_arrays(path)["array"], np.load(path)["array"]):
        assert (back.dtype, back.shape, back.flags.f_contiguous) == (array.dtype, array.shape, array.flags.f_contiguous)
        assert back.tobytes("A") == array.tobytes("A")


def test_large_arrays_are_mapped_and_those_of_older_files_are_read(tmp_path):
    path = write_npz(tmp_path / "new.npz", x=np.zeros(1), y=LARGE)
    new = read_arrays(path)
    assert isinstance(new["y"].base.base, mmap.mmap)
    assert new["y"].ctypes.data % 64 == 0
    assert not isinstance(new["x"].base.base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        new["y"][0] = 1
    del new
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "old.npz", xx=np.zeros(1), y=LARGE + 1)
        assert (read_arrays(tmp_path / "old.npz")["y"] == LARGE + 1).all()


def test_equal_arrays_are_held_once_and_as_long_as_they_are_needed(tmp_path):
    one, two = (read_arrays(write_npz(tmp_path / f"{name}.npz", **{name: LARGE * 2})) for name in "ab")
    assert one["a"].base is two["b"].base
    del one
    gc.collect()
    assert (two["b"] == LARGE * 2).all()
    other = read_arrays(write_npz(tmp_path / "c.npz", a=LARGE * 3))
    assert other["a"].base is not two["b"].base


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system takes no memory back")
def test_memory_of_what_is_mapped_can_be_given_back(tmp_path):
    large = np.arange(2**23, dtype=np.float32)  # 32 MB
    array = read_arrays(write_npz(tmp_path / "a.npz", x=large))["x"]
    assert (array == large).all()
    resident = psutil.Process().memory_info().rss
    give_back()
    assert psutil.Process().memory_info().rss < resident - 2**24
    assert (array == large).all()


def test_a_file_may_be_replaced_while_it_is_mapped(tmp_path):
    path = write_npz(tmp_path / "a.npz", y=LARGE * 5)
    old = read_arrays(path)["y"]
    write_npz(path, y=LARGE * 6)
    assert (old == LARGE * 5).all()
    assert (read_arrays(path)["y"] == LARGE * 6).all()


def test_damage_is_noticed_and_objects_are_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", y=LARGE * 7)
    damaged = bytearray(path.read_bytes())
    damaged[20_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(zipfile.BadZipFile, match="not what was written"):
        read_arrays(path)
    np.savez(tmp_path / "b.npz", y=np.array([{}] * 5000, dtype=object))
    with pytest.raises(ValueError, match="[Oo]bject"):
        read_arrays(tmp_path / "b.npz")


def test_models_of_a_run_share_what_is_equal_and_score_as_before(tmp_path, known):
    parts = {"ease": EASE().fit(known), "item_knn": ItemKNN().fit(known), "als": ALS(factors=8).fit(known)}
    models = {**parts, "blend": Blend(parts, weights={"ease": 1.0, "item_knn": 0.5}).fit(known)}
    again = {name: load_model(model.save(tmp_path / name)) for name, model in models.items()}
    blend = again["blend"]
    trains = [*(model.train for model in again.values()), *(part.train for part in blend.models.values())]
    assert len({id(train) for train in trains}) == 1
    assert blend.models["ease"].weights_.base is again["ease"].weights_.base
    assert blend.models["item_knn"]._similarity.data.base is again["item_knn"]._similarity.data.base
    histories = known.rows(np.arange(known.n_users))
    for name, model in models.items():
        np.testing.assert_array_equal(again[name].score(histories), model.score(histories))


def test_neighbours_score_one_person_as_they_score_many(known):
    model = ItemKNN(neighbours=20).fit(known)
    many = model.score(known.rows(np.arange(known.n_users)))
    for user in range(0, known.n_users, 7):
        np.testing.assert_array_equal(model.score(known.rows([user]))[0], many[user])
