"""Files are whole or absent."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recsys_lib.files import read_json, replacing, replacing_folder, write_json


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stop_half_way_leaves_the_old_file_or_none(tmp_path, stop):
    (tmp_path / "kept.txt").write_text("old")
    for name in ("kept.txt", "new.txt"):
        with pytest.raises((KeyboardInterrupt, OSError)) as stopped, replacing(tmp_path / name) as temporary:
            temporary.write_text("half")
            raise stop
        assert stopped.type is KeyboardInterrupt or str(tmp_path) in str(stopped.value), "the sentence names the file"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"kept.txt": "old"}


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "pages"
    for name in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / name).write_text(name)
            (temporary / "index").write_text(name)
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "third").write_text("half")
        raise RuntimeError
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"index": "second", "second": "second"}
    assert [p.name for p in tmp_path.iterdir()] == ["pages"]


def test_a_folder_that_is_replaced_always_has_its_files(tmp_path, monkeypatch):
    folder = tmp_path / "pages"
    with replacing_folder(folder) as temporary:
        (temporary / "index").write_text("old")
    for name in ("rename", "replace"):  # at every single step, as a process killed there would leave it
        step = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, step=step: (step(*given), seen.append((folder / "index").is_file()))
        )
    seen = []
    with replacing_folder(folder) as temporary:
        (temporary / "index").write_text("new")
        (temporary / "more").write_text("new")
    assert seen
    assert all(seen)


KILLED = """
import os, sys
from recsys_lib.files import replacing, replacing_folder
with replacing(sys.argv[1] + "/a.txt") as file, replacing_folder(sys.argv[1] + "/b") as folder:
    file.write_text("half")
    (folder / "c").write_text("half")
    os._exit(9)
"""


def test_leftovers_of_a_killed_process_go_with_the_next_and_those_of_a_living_one_stay(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2, "the premise"
    living = tmp_path / f".d.{os.getppid()}-0.part.txt"
    living.write_text("half")
    with replacing(tmp_path / "kept.txt") as temporary:
        temporary.write_text("whole")
    assert {p.name for p in tmp_path.iterdir()} == {"kept.txt", living.name}


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path):
    def write(letter):
        for _ in range(50):
            with replacing(tmp_path / "a.txt") as temporary:
                temporary.write_text(letter * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert (tmp_path / "a.txt").read_text() in {letter * 1000 for letter in "abcd"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_takes_numpy_and_gives_null_for_nan(tmp_path):
    path = write_json(
        tmp_path / "a.json", {"a": np.float32(0.5), "b": np.nan, "c": np.arange(2), 3: {"d": np.int64(1)}}
    )
    assert read_json(path) == {"a": 0.5, "b": None, "c": [0, 1], "3": {"d": 1}}
