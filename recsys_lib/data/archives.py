"""Archives from outside, unpacked without trusting them."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from recsys_lib.files import replacing_folder, sha256

MAX_BYTES = 8_000_000_000
_BLOCK = 1 << 20


class BadArchiveError(ValueError):
    """An archive that is cut, corrupt or not safe to unpack."""


def _target(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Path of a member below the folder that it is unpacked to; refuses all that could lead out of it."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]) or "\0" in name:
        raise BadArchiveError(f"{archive} is not safe: its member {member.filename!r} leads out of the folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadArchiveError(
            f"{archive} is not safe: its member {member.filename!r} is a link or a device, not a file"
        )
    return path


def _copy(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, archive: Path) -> int:
    """Write one member and return how many bytes may still follow; counts what comes, not what the header says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(member) as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise BadArchiveError(f"{archive} is not safe: it unpacks to more than the limit of bytes")
            writer.write(block)
    return left


def unpack(archive: Path, folder: Path, *, only: tuple[str, ...] = (), max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a zip archive to a folder that is whole or absent.

    Refused are absolute paths, ``..``, links, devices, a file that stands there twice, and more than ``max_bytes``
    bytes in all. The zip's own CRC of every member is checked on the way.

    Parameters
    ----------
    archive
        A zip file.
    folder
        Takes the members; replaced if it is there.
    only
        Names of the members to unpack; all of them if there is none.
    max_bytes
        Limit of all members together, unpacked.

    Raises
    ------
    BadArchiveError
        With the member and what is wrong with it.
    """
    try:
        with zipfile.ZipFile(archive) as source, replacing_folder(folder) as temporary:
            members = [(member, _target(member, archive)) for member in source.infolist()]
            left = max_bytes
            for member, path in members:
                if not member.is_dir() and (not only or member.filename in only):
                    left = _copy(source, member, temporary / path, left, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadArchiveError(f"{archive} is cut or corrupt ({error})") from error
    except FileExistsError as error:
        raise BadArchiveError(f"{archive} is not safe: it holds {Path(error.filename).name!r} twice") from error
    except (NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"{archive} cannot be unpacked ({error})") from error
    return folder


def unpacked(archive: Path, below: Path, *, only: tuple[str, ...] = ()) -> Path:
    """Unpack below a folder, once for each content of the archive: the folder carries its name and checksum."""
    folder = below / f"{archive.stem}-{sha256(archive)[:12]}"
    return folder if folder.is_dir() else unpack(archive, folder, only=only)
