"""What the application shows, prepared once for all sessions: ``outputs/<data set>/demo``.

A session's kernel has no Arrow to read Parquet with, which saves each of them 45 MB. Another process writes who rated
what as arrays, which models share, and the rest as JSON.
"""

from __future__ import annotations

import subprocess
import sys

import pandas as pd

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.files import read_json, write_arrays, write_json
from recsys_lib.models.stored import array_hash, arrays_of, interactions_of, load_arrays, pack, unpack
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run, Tables

PARTS = ("history", "test")


def read_prepared(run: Run) -> dict[str, Interactions]:
    """What is prepared, made first where it is not there, damaged, or older than the run; ``run.tables`` is set, too.

    "history" and "test" are Interactions. MissingArtifactError if 02 has not run, OtherDataError if a table is damaged.
    """
    file = run.need(run.paths.processed / "manifest.json").stat()
    source = [file.st_mtime_ns, file.st_size]
    folder = run.paths.outputs / "demo"
    try:
        content = read_json(folder / "about.json")
        arrays = load_arrays(folder / "ratings.safetensors", content["hashes"]) if content["of"] == source else None
    except (OSError, ValueError, KeyError):
        arrays = None
    if arrays is None:
        if "pyarrow" in sys.modules and sys.modules["pyarrow"] is None:  # left out of this kernel
            command = [sys.executable, "-m", __name__, run.dataset]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                kind = ChildProcessError if "Traceback" in done.stderr else OtherDataError
                raise kind(done.stderr.strip().rpartition("\n")[2])
        else:
            _prepare(run, source)
        return read_prepared(run)
    items, users = (pd.DataFrame(content[name]).convert_dtypes() for name in ("items", "users"))
    no_rows = [pd.DataFrame()] * 3  # these are in "history" and "test"
    run.tables = Tables(Split(*no_rows, **content["manifest"]["split"]), items, users, content["manifest"])
    return {name: interactions_of(unpack(content[name], arrays)) for name in PARTS}


def _prepare(run: Run, source: list[int]) -> None:
    tables, arrays = run.tables_with_test("09_demo"), {}
    content = {"of": source, "manifest": tables.manifest}
    for name, frame in zip(PARTS, (tables.history, tables.split.test), strict=True):
        content[name] = pack(arrays_of(Interactions.from_frame(frame)), name, arrays)
    for name, frame in (("items", tables.items), ("users", tables.users)):
        content[name] = frame.astype(object).where(frame.notna(), None).to_dict("list")
    folder = run.paths.outputs / "demo"
    write_arrays(folder / "ratings.safetensors", arrays)
    write_json(folder / "about.json", content | {"hashes": {name: array_hash(arrays[name]) for name in arrays}})


if __name__ == "__main__":
    try:
        read_prepared(Run(sys.argv[1]))
    except (MissingArtifactError, OtherDataError) as error:
        sys.exit(str(error))
