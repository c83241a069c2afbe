"""The prepared tables for the kernels of the application, which have no Arrow to read Parquet with.

One process that has it writes them into ``outputs/<data set>/demo/tables.safetensors``; all kernels map that file, and so
share its memory. A file of other tables than those that are there now is written anew.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.splits import Split
from recsys_lib.files import read_arrays, write_arrays
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts
from recsys_lib.run.artifacts import Prepared

TABLES = (*artifacts.PARTS, "items", "users")
KEPT = ("Int8", "Int16", "Int32", "Int64", "Float32", "Float64", "boolean", "str")  # other types become objects


def read_tables(paths: Paths) -> Prepared:
    """Read the prepared tables, the test part included; from Parquet where Arrow is there.

    Raises
    ------
    MissingArtifactError
        If a file is not there.
    ChildProcessError
        If the tables cannot be read.
    """
    if importlib.util.find_spec("pyarrow"):
        return artifacts.read_prepared(paths, test=True)
    for name in TABLES:
        artifacts.require(paths.processed / f"{name}.parquet")
    manifest = artifacts.require(paths.processed / "manifest.json").read_bytes()
    if not _is_of(paths, manifest):
        command = [sys.executable, "-m", "recsys_lib.app.tables", paths.dataset]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChildProcessError(f"the tables of {paths.name} cannot be read:\n{done.stderr}")
    arrays = read_arrays(_file(paths))
    content = json.loads(bytes(arrays["manifest"]))
    tables = {name: _decoded(arrays, name) for name in TABLES}
    split = Split(*(tables[part] for part in artifacts.PARTS), **content["split"])
    return Prepared(split, tables["items"], tables["users"], content)


def write_tables(paths: Paths) -> None:
    """Write the tables for kernels without Arrow."""
    manifest = (paths.processed / "manifest.json").read_bytes()
    prepared = artifacts.read_prepared(paths, test=True)
    split = {part: getattr(prepared.split, part) for part in artifacts.PARTS}
    arrays = {"manifest": np.frombuffer(manifest, np.uint8)}
    for name, table in {**split, "items": prepared.items, "users": prepared.users}.items():
        arrays |= _encoded(name, table)
    write_arrays(_file(paths), arrays)


def _file(paths: Paths) -> Path:
    return paths.outputs / "demo" / "tables.safetensors"


def _is_of(paths: Paths, manifest: bytes) -> bool:
    """Whether the file is there, and of the tables that the manifest describes."""
    return _file(paths).is_file() and bytes(read_arrays(_file(paths))["manifest"]) == manifest


def _encoded(name: str, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of numbers as arrays, all others as JSON in an array of bytes."""
    arrays = {}
    for column, values in table.items():
        if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
            arrays[f"{name}.{column}"] = values.to_numpy()
        else:
            missing = values.isna()
            plain = [None if gone else _plain(value) for value, gone in zip(values, missing, strict=True)]
            text = json.dumps({"dtype": str(values.dtype), "values": plain})
            arrays[f"{name}.{column}.json"] = np.frombuffer(text.encode(), np.uint8)
    return arrays


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, int | float | bool) else str(value)


def _decoded(arrays: dict[str, np.ndarray], name: str) -> pd.DataFrame:
    columns = {}
    for stored, values in arrays.items():
        table, _, column = stored.partition(".")
        if table == name and column.endswith(".json"):
            content = json.loads(bytes(values))
            dtype = content["dtype"] if content["dtype"] in KEPT else object
            columns[column.removesuffix(".json")] = pd.Series(content["values"], dtype=dtype)
        elif table == name:
            columns[column] = pd.Series(values, copy=False)
    return pd.DataFrame(columns, copy=False)


if __name__ == "__main__":
    write_tables(Paths(sys.argv[1]))
