"""Arrays of saved models, read so that they take as little memory as they can.

Large arrays are mapped from their file: what is not looked at takes no memory, and processes that serve the same
model share what is. Arrays that are equal are held once, in whichever models they stand: the parts of a blend are
those of the models beside it, and all models of a run were fitted on the same interactions.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

import numpy as np
from scipy.sparse import csr_matrix

from recsys_lib.data.interactions import Interactions

LEAST = 2**14  # bytes; a smaller array is not worth a mapping of its own
LOCAL_HEADER = 30  # bytes of a member's header in a ZIP file, before its name and its extra field
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_arrays: WeakValueDictionary[tuple[int, int], np.ndarray] = WeakValueDictionary()  # by CRC-32 and length
_interactions: WeakValueDictionary[tuple[int, ...], Interactions] = WeakValueDictionary()  # by what they are made of


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, for reading only; never unpickles.

    The file may be replaced meanwhile, as :mod:`recsys_lib.files` does it, and not be written into.

    Raises
    ------
    ValueError
        If an array holds Python objects.
    zipfile.BadZipFile
        If the file is no archive, or what it holds has changed since it was written.
    """
    with Path(path).open("rb") as handle, zipfile.ZipFile(handle) as archive:
        return {member.filename.removesuffix(".npy"): _array(handle, archive, member) for member in archive.infolist()}


def interactions_of(stored: Mapping[str, np.ndarray]) -> Interactions:
    """Interactions from the arrays of their matrix, ids and timestamps: one object for the same arrays.

    Parameters
    ----------
    stored
        "matrix", "indices", "indptr", "user_ids", "item_ids" and, where known, "timestamps"; from :func:`read_arrays`.
    """
    names = ("matrix", "indices", "indptr", "user_ids", "item_ids", "timestamps")
    key = tuple(id(stored[name].base) for name in names if name in stored)
    found = _interactions.get(key)
    if found is None:
        shape = (len(stored["user_ids"]), len(stored["item_ids"]))
        matrix = csr_matrix((stored["matrix"], stored["indices"], stored["indptr"]), shape=shape)
        found = Interactions(matrix, stored["user_ids"], stored["item_ids"], stored.get("timestamps"))
        if matrix.data.base is stored["matrix"].base and matrix.indices.base is stored["indices"].base:
            _interactions[key] = found  # it keeps its arrays alive, so that nothing else can have their identities
    return found


def give_back() -> None:
    """Give back the memory of all that is mapped; what is looked at again comes back from the system's cache."""
    for array in list(_arrays.values()):
        _forget(array)


def _forget(array: np.ndarray) -> None:
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def _array(handle: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array: the one that is held already, if it is equal; else mapped or, where that cannot be, read."""
    found = _mapped(handle, member)
    if found is None:
        found = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
        found = found if found.base is None else found.copy("K")
        found.flags.writeable = False
    key = member.CRC, member.file_size
    held = _arrays.get(key)
    if held is None or not _same(held, found):
        _arrays[key] = held = found
    _forget(held)  # what was read to compare comes back when it is wanted
    return held[...]  # a view: sparse matrices keep views, and each of them keeps alive what is held


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal bit by bit."""
    alike = one.dtype == other.dtype and one.shape == other.shape and one.strides == other.strides
    return alike and np.array_equal(one.ravel("K").view(np.uint8), other.ravel("K").view(np.uint8))


def _mapped(handle: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray | None:
    """Map a member's array; None for one that is small or compressed, or lies where its type may not.

    ``files.write_npz`` puts arrays at multiples of 64 bytes.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.file_size < LEAST:
        return None
    handle.seek(member.header_offset)
    header = handle.read(LOCAL_HEADER)
    lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))  # of the name and the extra field
    begin = member.header_offset + LOCAL_HEADER + sum(lengths)
    handle.seek(begin)
    version = np.lib.format.read_magic(handle)
    if version not in HEADERS:
        return None
    shape, fortran, dtype = HEADERS[version](handle)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never read")
    place, end = handle.tell(), begin + member.file_size
    if place % dtype.alignment or place + math.prod(shape) * dtype.itemsize != end:
        return None
    page = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    mapping = mmap.mmap(handle.fileno(), end - page, access=mmap.ACCESS_READ, offset=page)
    with memoryview(mapping) as whole, whole[begin - page :] as part:
        if zlib.crc32(part) != member.CRC:
            raise zipfile.BadZipFile(f"{member.filename} is not what was written")
    return np.ndarray(shape, dtype, mapping, place - page, order="F" if fortran else "C")
