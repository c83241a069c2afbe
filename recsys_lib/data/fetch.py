"""Get the files of a known data set: a folder of one's own, an earlier download, GroupLens, PyPI; unpack archives."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import pooch
import requests

from recsys_lib.data.known import KnownDataset
from recsys_lib.data.readers import PACKAGE_FILES, RawTables, find_root, read_files, read_package
from recsys_lib.data.s3 import local_copy
from recsys_lib.files import replacing, replacing_folder, sha256
from recsys_lib.paths import REPOSITORY, Paths, is_remote

FOLDER_VARIABLE = "MOVIELENS_DIR"
TRIES, CONNECT_SECONDS, READ_SECONDS, WAIT_SECONDS = 2, 5, 30, 0.5
MAX_BYTES = 8_000_000_000
# the package on PyPI that carries ml-100k, for machines that cannot reach GroupLens; it is read as an archive, never
# installed (W. X. Zhao et al., "RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
# Algorithms", 2021)
REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_PIP_SECONDS = 120
_BLOCK = 1 << 16
_log = logging.getLogger(__name__)


class UnreachableError(OSError):
    """A file that could not be downloaded."""


class BadArchiveError(ValueError):
    """An archive that is truncated, corrupt or not safe to unpack."""


# downloads


def _download(url: str, writer: IO[bytes], *, start: int = 0, progress: bool = False) -> None:
    """Append to ``writer`` what a server sends from byte ``start`` on; an https address must not lead to plain http."""

    def look(response: requests.Response, **_: object) -> None:
        if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
            raise UnreachableError(f"{url} leads to {response.url}, which is not https")
        if response.status_code in (requests.codes.ok, requests.codes.requested_range_not_satisfiable):
            writer.truncate(0)  # the server begins again, or what is there is longer than the file

    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    options = {"headers": headers, "hooks": {"response": look}, "timeout": (CONNECT_SECONDS, READ_SECONDS)}
    pooch.HTTPDownloader(progressbar=progress, chunk_size=_BLOCK, **options)(url, writer, None)


def fetch(url: str, path: Path) -> Path:
    """Download to ``path``, with progress; resume what a stopped download left in ``<path>.part``.

    UnreachableError if the server cannot be reached within ``TRIES`` tries, or has no such file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    tries_left = TRIES
    while True:
        tries_left -= 1
        try:
            with part.open("ab") as writer:
                _download(url, writer, start=part.stat().st_size, progress=True)
            return part.replace(path)
        except requests.RequestException as error:
            answered = error.response is not None and error.response.status_code != 416
            if answered or not tries_left:
                words = "cannot be downloaded" if answered else "is out of reach"
                raise UnreachableError(f"{url} {words} ({_reason(error)})") from error
            time.sleep(WAIT_SECONDS)
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _reason(error: BaseException) -> str:
    """Why a download failed, in a few words."""
    reasons = (
        (requests.exceptions.SSLError, "its certificate is not trusted"),
        (requests.exceptions.ProxyError, "the proxy does not let it through"),
        (requests.Timeout, "no answer in time"),
        (requests.exceptions.ChunkedEncodingError, "it broke off; the next try resumes there"),
        (requests.ConnectionError, "no connection"),
    )
    return next((text for kind, text in reasons if isinstance(error, kind)), str(error).split(" for url")[0])


def _check_md5(archive: Path, known: KnownDataset, *, ask: bool = False) -> None:
    """Refuse an archive that is not the published one: a check against damage, as GroupLens publishes it, not forgery.

    The checksum that is not in the catalogue stands in a ``.md5`` file beside the archive; ``ask`` fetches that first.
    """
    expected, kept = known.md5, archive.with_name(archive.name + ".md5")
    if expected is None and ask:
        content = io.BytesIO()
        kept.unlink(missing_ok=True)
        try:
            _download(known.url + ".md5", content)
            kept.write_bytes(content.getvalue())
        except (requests.RequestException, UnreachableError) as error:
            _log.info("%s.md5 cannot be downloaded (%s)", known.url, _reason(error))
    if expected is None and kept.is_file():
        match = re.search(r"\b[0-9a-f]{32}\b", kept.read_text("latin-1").lower())
        expected = match and match.group()
    if expected and (actual := pooch.file_hash(str(archive), alg="md5")) != expected:
        raise BadArchiveError(f"{archive} is truncated or corrupt: its MD5 is {actual}, and {expected} is published")


# archives


def _target(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Path of a member below the folder that it is unpacked to; refuses all that could lead out of it."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]) or "\0" in name:
        raise BadArchiveError(f"{archive} is not safe: its member {member.filename!r} leads out of the folder")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadArchiveError(f"{archive} is not safe: its member {member.filename!r} is a link or a device")
    return path


def unpack(archive: Path, folder: Path, *, only: tuple[str, ...] = ()) -> Path:
    """Unpack a zip archive, or ``only`` some of its members, to a folder that is whole or absent.

    Refused are absolute paths, ``..``, links, devices, a file that stands there twice, and more than ``MAX_BYTES``
    in all. The zip's own CRC of every member is checked on the way. What macOS adds (``__MACOSX``) is left out.

    BadArchiveError with the member and what is wrong with it.
    """
    try:
        with zipfile.ZipFile(archive) as source, replacing_folder(folder) as temporary:
            members = [(member, _target(member, archive)) for member in source.infolist() if not member.is_dir()]
            if sum(member.file_size for member, _ in members) > MAX_BYTES:  # zipfile reads no more than it says
                raise BadArchiveError(f"{archive} is not safe: it unpacks to more than {MAX_BYTES:,} bytes, the limit")
            for member, path in members:
                if member.filename in only if only else "__MACOSX" not in path.parts:
                    (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                    with source.open(member) as reader, (temporary / path).open("xb") as writer:
                        shutil.copyfileobj(reader, writer)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadArchiveError(f"{archive} is truncated or corrupt ({error})") from error
    except FileExistsError as error:
        raise BadArchiveError(f"{archive} is not safe: it holds {Path(error.filename).name!r} twice") from error
    except (NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"{archive} cannot be unpacked ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)  # of an archive without a file, too
    return folder


def unpacked(archive: Path, below: Path, *, only: tuple[str, ...] = ()) -> Path:
    """Unpack below a folder, once for each content of the archive: the folder carries its name and checksum."""
    folder = below / f"{archive.stem}-{sha256(archive)[:12]}"
    return folder if folder.is_dir() else unpack(archive, folder, only=only)


# sources of the known data sets


@dataclass(frozen=True)
class Source:
    """Where the tables of a data set are: a function that reads them, the place in words, and its path."""

    read: Callable[[], RawTables]
    words: str
    path: Path | None


def resolve(given: Path | str) -> Path | None:
    """The path as given, or below the repository; None where neither exists. Of an s3:// address the local copy."""
    if is_remote(str(given)):
        return local_copy(str(given))
    path = Path(given).expanduser()
    return next((place.resolve() for place in (path, REPOSITORY / path) if place.exists()), None)


def _archive(archive: Path, raw: Path, words: str) -> Source:
    folder = unpacked(archive, raw)
    return Source(partial(read_files, folder), words, archive)


def _folder_or_wheel(known: KnownDataset, folder: Path, raw: Path, where: str, wheel_from: str) -> Source | None:
    """Unpacked files of a known data set in a folder, or the package with ml-100k, to the last bit."""
    itself = [folder] if folder.name in known.folders and folder != raw else []
    for place in (*(folder / name for name in known.folders), *itself):
        if place.is_dir() and find_root(place):
            return Source(partial(read_files, place), f"the folder {place.name} in {where}", place)
    wheel = folder / WHEEL
    if known.name != "ml-100k" or not wheel.is_file() or sha256(wheel) != WHEEL_SHA256:
        return None
    return Source(lambda: read_package(unpacked(wheel, raw, only=PACKAGE_FILES)), wheel_from, wheel)


def find_known(known: KnownDataset) -> Source:
    """Find a known data set: in ``MOVIELENS_DIR``, in ``data/raw``, at GroupLens, and ml-100k at last on PyPI.

    FileNotFoundError if it can be had nowhere, with the file to put and the place to put it.
    """
    raw = Paths(known.name).raw
    return _in_own_folder(known, raw) or _in_raw(known, raw) or _download_known(known, raw)


def _in_own_folder(known: KnownDataset, raw: Path) -> Source | None:
    """Look into the folder that the environment names; its files are its owner's, and are never removed."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = resolve(given) if given else None
    if folder is None:
        if given:
            _log.warning("%s names %s, which does not exist", FOLDER_VARIABLE, given)
        return None
    archive = folder / known.archive
    if archive.is_file():
        words = f"{archive.name} in {FOLDER_VARIABLE}"
        try:
            source = _archive(archive, raw, words)
            if known.md5 and pooch.file_hash(str(archive), alg="md5") != known.md5:
                _log.warning("%s is not the archive that GroupLens publishes (its MD5 differs); it is read", archive)
                source = replace(source, words=f"{words}, not the published archive")
            return source
        except BadArchiveError as error:
            _log.warning("%s; it is left alone, and the data is looked for elsewhere", error)
    return _folder_or_wheel(known, folder, raw, FOLDER_VARIABLE, f"{WHEEL} in {FOLDER_VARIABLE}")


def _in_raw(known: KnownDataset, raw: Path) -> Source | None:
    """Look at what was downloaded earlier; a damaged archive is removed."""
    archive = raw / known.archive
    if archive.is_file():
        try:
            _check_md5(archive, known)
            return _archive(archive, raw, f"GroupLens ({known.url})")
        except BadArchiveError as error:
            _log.warning("%s; it is removed and fetched again", error)
            archive.unlink()
    return _folder_or_wheel(known, raw, raw, f"data/raw/{known.name}", f"PyPI ({REQUIREMENT})")


def _download_known(known: KnownDataset, raw: Path) -> Source:
    """Download from GroupLens, once more if what came is damaged; ml-100k from PyPI if GroupLens is out of reach."""
    archive = raw / known.archive
    for what_next in (" and fetched again", ""):
        try:
            fetch(known.url, archive)
            _check_md5(archive, known, ask=True)
            return _archive(archive, raw, f"GroupLens ({known.url})")
        except UnreachableError as error:
            failure = error
            break
        except BadArchiveError as error:
            archive.unlink()
            _log.warning("%s; it is removed%s", error, what_next)
            failure = error
    place = f"put {known.archive} into {raw}, or into a folder that {FOLDER_VARIABLE} names"
    if known.name != "ml-100k":
        raise FileNotFoundError(f"{known.name} cannot be downloaded: {failure}; {place}") from failure
    try:
        _pip_download(raw)
    except (OSError, BadArchiveError) as second:
        raise FileNotFoundError(f"ml-100k cannot be downloaded: {failure}; {second}; {place}") from second
    _log.warning("ml-100k comes from the copy in %s on PyPI, checksum verified, because %s", REQUIREMENT, failure)
    return _folder_or_wheel(known, raw, raw, "", f"PyPI ({REQUIREMENT})")


def _pip_download(folder: Path) -> None:
    """Have pip download the wheel, which knows mirrors and proxies; check it, and keep it in the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries=1"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", temporary, REQUIREMENT]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PIP_SECONDS)
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"pip could not download {REQUIREMENT} ({last})") from error
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip did not get {REQUIREMENT} in {_PIP_SECONDS} seconds") from error
        wheel = Path(temporary) / WHEEL
        if not wheel.is_file() or sha256(wheel) != WHEEL_SHA256:
            raise BadArchiveError(f"the file from PyPI for {REQUIREMENT} is not the one with SHA-256 {WHEEL_SHA256}")
        with replacing(folder / WHEEL) as target:
            shutil.copyfile(wheel, target)
