"""Files are whole or absent."""

import numpy as np
import pytest

from recsys_lib.files import read_json, read_npz, replacing, replacing_folder, write_json, write_npz


def test_a_stop_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_a_full_disk_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="No space"), replacing(tmp_path / "new.txt") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / name).write_text(name)
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "third").write_text("half")
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_json_takes_numpy_and_gives_null_for_nan(tmp_path):
    path = write_json(
        tmp_path / "a.json", {"a": np.float32(0.5), "b": np.nan, "c": np.arange(2), 3: {"d": np.int64(1)}}
    )
    assert read_json(path) == {"a": 0.5, "b": None, "c": [0, 1], "3": {"d": 1}}


def test_arrays_come_back_and_objects_are_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", ids=np.array(["x", "yy"]), values=np.eye(2))
    back = read_npz(path)
    assert back["ids"].tolist() == ["x", "yy"]
    np.testing.assert_array_equal(back["values"], np.eye(2))
    with pytest.raises(TypeError, match="'ids' holds Python objects"):
        write_npz(tmp_path / "b.npz", ids=np.array(["x", 1], dtype=object))
    assert not (tmp_path / "b.npz").exists()
