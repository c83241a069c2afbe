"""Files that are whole or absent: written beside their name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

SEAL = "content_sha256"  # the key under which a file has the hash of its content
_WRITTEN: dict[Path, float] = {}
_SWEPT: set[Path] = set()
_COUNT = count()  # two threads may write one file


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; take its place only when the block ends well.

    A stop half way (an exception, Ctrl-C, a full disk) leaves the old file, or none, and no temporary one. What a
    killed process left is removed by the next process that writes in that folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> sorted(p.name for p in folder.iterdir())
    ['a.txt']
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
        _WRITTEN[path.resolve()] = time.time()
    except OSError as error:
        error.filename = error.filename or str(path)  # what a full disk raises names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def written() -> dict[Path, float]:
    """The files that this process has written with :func:`replacing`, and when (UNIX seconds)."""
    return dict(_WRITTEN)


@contextmanager
def replacing_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; its files take the place of those of ``path`` in the end.

    They are renamed one by one, those in folders below first, so that every name always has a whole file, the old or
    the new one; then what only the old folder had is removed.
    """
    path = Path(path)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        names = [file.relative_to(temporary) for file in temporary.rglob("*") if file.is_file()]
        for name in sorted(names, key=lambda name: (-len(name.parts), name)):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(path / name)
        for old in path.rglob("*"):
            if old.is_file() and old.relative_to(path) not in names:
                old.unlink()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A temporary name beside a path, used once; leftovers in that folder are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.resolve())
    return path.with_name(swept(path.stem).removesuffix(".") + path.suffix)


def swept(name: str = "") -> str:
    """Begin the name of something temporary, used once: when this process is killed, the next one removes it."""
    return f".{name}.{os.getpid()}-{next(_COUNT)}.part."


def _sweep(folder: Path) -> None:
    """Remove temporary files of processes that are gone; looked for once a folder."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    for leftover in folder.glob(".*.part*"):
        maker = re.fullmatch(r"\..*\.(\d+)-\d+\.part(\.[^.]*)?", leftover.name)
        if maker and not psutil.pid_exists(int(maker[1])):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def link(source: Path | str, target: Path | str) -> None:
    """Give a file a second name, which costs no space; copy it where the disk cannot do that.

    The second name keeps the content when the first one is written anew, as long as that is done with this module. What
    had that name before is removed.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold a lock that one process of this machine can have at a time; others wait. The file stays, and is empty.

    A process that dies lets go of it.
    """
    from filelock import FileLock  # it imports asyncio, which whoever only reads does not need

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def may_open(least: int) -> int:
    """How many files this process may have open at once; OSError if fewer than ``least``."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] % 2**63  # -1 is no limit
    if most < least:
        raise OSError(f"{most} open files at once are too few, {least} are needed: `ulimit -n {least}` allows them")
    return most


def _plain(value: Any) -> Any:
    """Turn numpy and pandas scalars, arrays and NaN into what JSON knows (NaN becomes null)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp | Path):
        return str(value)
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value


def write_json(path: Path | str, content: Any) -> Path:
    """Write JSON with sorted-as-given keys and two-space indent; numpy scalars are turned into plain ones.

    A mapping gets its own hash as one key more, which :func:`read_json` compares and takes away.
    """
    content = _plain(content)
    if isinstance(content, dict):
        content[SEAL] = json_hash(content)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: Path | str) -> Any:
    """Read JSON; ValueError if it is none, or if :func:`write_json` wrote it and it has been changed since."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if isinstance(content, dict) and SEAL in content and content.pop(SEAL) != json_hash(content):
        raise ValueError(f"{path} is damaged: it is not what was written")
    return content


def json_hash(content: Any) -> str:
    """SHA-256 of what JSON can hold, 64 hexadecimal digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_parquet(path: Path | str, frame: pd.DataFrame) -> Path:
    """Write a table without its index; the file's hash stands in it, and :func:`read_parquet` compares it."""
    unsealed, frame = b"0" * 64, frame.copy(deep=False)
    frame.attrs = {SEAL: unsealed.decode()}  # pandas keeps them in the file
    content = frame.to_parquet(index=False)
    seal = hashlib.sha256(content).hexdigest().encode()
    with replacing(path) as temporary:
        temporary.write_bytes(content.replace(unsealed, seal))
    return Path(path)


def read_parquet(path: Path | str) -> pd.DataFrame:
    """Read what :func:`write_parquet` wrote; ValueError if it has been changed since.

    >>> import tempfile
    >>> file = write_parquet(Path(tempfile.mkdtemp()) / "a.parquet", pd.DataFrame({"x": [1, 2]}))
    >>> read_parquet(file)["x"].tolist()
    [1, 2]
    """
    content = Path(path).read_bytes()
    seal = re.search(rf'(?<="{SEAL}": ")[0-9a-f]{{64}}'.encode(), content)
    if not seal or hashlib.sha256(content.replace(seal[0], b"0" * 64)).hexdigest() != seal[0].decode():
        raise ValueError(f"{path} is damaged, or another version of the lab wrote it")
    frame = pd.read_parquet(BytesIO(content))
    frame.attrs = {}
    return frame


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays as safetensors; text is kept as its UCS-4 code points.

    TypeError if an array holds Python objects, which could not be read back without pickle.
    """
    from safetensors import SafetensorError  # 2 MB that whatever reads does without
    from safetensors.numpy import save_file

    numeric, text = {}, {}
    for name, given in arrays.items():
        array = np.asarray(given, order="C")
        if array.dtype.kind == "U":
            text[name] = str(array.dtype.itemsize // 4)
            array = array.view(np.uint32).reshape(*array.shape, -1)
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; give it a numeric or string dtype")
        numeric[name] = array
    with replacing(path) as temporary:
        try:
            save_file(numeric, temporary, metadata={"layout": json.dumps({"names": list(numeric), "text": text})})
        except SafetensorError as error:  # the disk is full
            raise OSError(f"{path}: {error}") from error
    return Path(path)


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote; the arrays are read-only views of the file's content in memory.

    The file is not mapped: one that is written over in place would change what was checked, or, when it gets shorter,
    end the process.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "arrays.safetensors"
    >>> _ = write_arrays(file, {"ids": np.array(["a", "bc"]), "x": np.arange(3)})
    >>> {name: array.tolist() for name, array in read_arrays(file).items()}
    {'ids': ['a', 'bc'], 'x': [0, 1, 2]}
    """
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    layout, arrays = json.loads(header["__metadata__"]["layout"]), {}
    for name in layout["names"]:
        about = header[name]
        shape, dtype = about["shape"], _DTYPES[about["dtype"]]
        if name in layout["text"]:
            shape, dtype = shape[:-1], f"<U{layout['text'][name]}"
        arrays[name] = np.ndarray(shape, dtype, content, start + about["data_offsets"][0])
    return arrays


_DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"}
_DTYPES |= {"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
