"""Downloads that go on where they stopped, and archives that are what was published."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed
from tqdm.auto import tqdm

from recsys_lib.data.archives import BadArchiveError

TRIES = 2
CONNECT_SECONDS, READ_SECONDS = 5, 30
WAIT_SECONDS = 0.5
_BLOCK = 1 << 16
_TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_log = logging.getLogger(__name__)


class UnreachableError(OSError):
    """A file that could not be downloaded."""


def _get(url: str, **options: object) -> requests.Response:
    """One request; an https address that leads to plain http is refused."""
    response = requests.get(url, timeout=(CONNECT_SECONDS, READ_SECONDS), **options)
    if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
        response.close()
        raise UnreachableError(f"{url} leads to {response.url}, which is not https")
    return response


def _fetch_rest(url: str, part: Path) -> None:
    """Append what is missing to ``part``; begin again where the server cannot go on."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with _get(url, stream=True, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # longer than the file, or whole: not to be told apart, so it is fetched anew
            raise requests.ConnectionError(f"{url} has no byte {have}")
        response.raise_for_status()
        going_on = response.status_code == requests.codes.partial_content
        start = have if going_on else 0
        total = int(response.headers["Content-Length"]) + start if "Content-Length" in response.headers else None
        bar = tqdm(desc=Path(urlsplit(url).path).name, total=total, initial=start, unit="B", unit_scale=True)
        with bar, part.open("ab" if going_on else "wb") as writer:
            for block in response.iter_content(_BLOCK):
                writer.write(block)
                bar.update(len(block))


def fetch(url: str, path: Path) -> Path:
    """Download to ``path``, with progress; what a stopped download left in ``<path>.part`` is gone on with.

    Raises
    ------
    UnreachableError
        If the server cannot be reached within ``TRIES`` tries, or has no such file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    tries = Retrying(
        stop=stop_after_attempt(TRIES), wait=wait_fixed(WAIT_SECONDS), retry=retry_if_exception_type(_TRANSIENT)
    )  # fmt: skip
    try:
        tries(_fetch_rest, url, part)
    except RetryError as error:
        raise UnreachableError(f"{url} is out of reach ({_reason(error.last_attempt.exception())})") from error
    except requests.RequestException as error:
        raise UnreachableError(f"{url} cannot be had ({_reason(error)})") from error
    part.replace(path)
    return path


_WORDS = (
    (requests.exceptions.SSLError, "its certificate is not trusted"),
    (requests.exceptions.ProxyError, "the proxy does not let it through"),
    (requests.Timeout, "no answer in time"),
    (requests.exceptions.ChunkedEncodingError, "it broke off; the next try goes on from there"),
    (requests.ConnectionError, "no connection"),
)


def _reason(error: BaseException | None) -> str:
    """Why a download failed, in a few words."""
    words = next((text for kind, text in _WORDS if isinstance(error, kind)), None)
    return words or str(error).split(" for url")[0]


def _md5_file(path: Path) -> Path:
    return path.with_name(path.name + ".md5")


def fetch_md5(url: str, path: Path) -> str | None:
    """MD5 that is published in the ``.md5`` file beside an archive, kept beside ``path``; None if none is."""
    kept = _md5_file(path)
    kept.unlink(missing_ok=True)
    try:
        response = _get(url + ".md5")
        response.raise_for_status()
    except (requests.RequestException, UnreachableError) as error:
        _log.info("%s.md5 cannot be had (%s)", url, _reason(error))
        return None
    kept.write_text(response.text, encoding="utf-8")
    return kept_md5(path)


def kept_md5(path: Path) -> str | None:
    """MD5 that was published when the archive was downloaded; None if none was."""
    kept = _md5_file(path)
    found = re.search(r"\b[0-9a-fA-F]{32}\b", kept.read_text(encoding="utf-8")) if kept.is_file() else None
    return found.group().lower() if found else None


def md5_of(path: Path) -> str:
    """Hexadecimal MD5 of a file: a check against damage, as GroupLens publishes it, not against forgery."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, expected: str | None) -> None:
    """Refuse a file that is not the published one.

    Raises
    ------
    BadArchiveError
        With both checksums.
    """
    if expected is not None and (found := md5_of(path)) != expected:
        raise BadArchiveError(f"{path} is cut or corrupt: its MD5 is {found}, and {expected} is published")
