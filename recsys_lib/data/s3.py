"""Files at s3:// addresses, by s3fs; whatever goes wrong there is one sentence.

Credentials, region and endpoint are taken as every program for AWS takes them: ``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY``, or ``AWS_PROFILE``; ``AWS_ENDPOINT_URL``; ``FSSPEC_S3_ANON=true`` for public buckets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from recsys_lib.files import json_hash, locked, swept
from recsys_lib.paths import Paths

if TYPE_CHECKING:
    from s3fs import S3FileSystem


class StorageError(OSError):
    """An s3:// address could not be used; one sentence says why."""


@contextmanager
def storage(address: str) -> Iterator[S3FileSystem]:
    """Give s3fs's file system for work on an address; what S3 refuses in the block is raised as a StorageError."""
    try:
        import s3fs
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise StorageError(f"{address} needs s3fs, which is not installed: `make s3-setup` installs it") from error
    try:
        yield s3fs.S3FileSystem(use_listings_cache=False)
    except StorageError:
        raise
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        raise StorageError(_sentence(address, error)) from error


def _sentence(address: str, error: Exception) -> str:
    reason, kind = " ".join(str(error).split()), type(error).__name__
    if "Credentials" in kind:
        return f"no credentials for {address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "bucket does not exist" in reason:
        return f"there is no bucket {address.split('/')[2]!r}, which {address} names"
    if isinstance(error, PermissionError):
        return f"{address} is not open to these credentials ({reason})"
    if kind.startswith(("EndpointConnection", "ConnectTimeout", "ConnectionClosed")):
        return f"{address} is out of reach ({reason})"
    return f"{address} could not be used ({kind}: {reason})"


def listed(address: str) -> dict[str, str]:
    """ETags of the objects at an address, by the name that follows it: "" for the object that has this very name.

    StorageError if there is none, or one has a name that leads out of the folder.
    """
    top = address.removeprefix("s3://").rstrip("/")
    with storage(address) as files:
        objects = files.find(address, detail=True) if top else {}
    etags = {key.removeprefix(top).lstrip("/"): about["ETag"] for key, about in sorted(objects.items())}
    if not etags:
        raise StorageError(f"there is nothing at {address}")
    if outside := [name for name in etags if ".." in PurePosixPath(name).parts]:
        raise StorageError(f"{address} holds {outside[0]!r}, a name that leads out of it")
    return etags


def local_copy(address: str) -> Path:
    """Download an object, or all objects of a folder, once for each content: the path of the copy in ``data/raw``.

    StorageError if there is nothing, or it changed while it was read.
    """
    etags, raw = listed(address), Paths(address).raw
    folder, name = raw / json_hash(etags)[:12], PurePosixPath(address).name
    with locked(raw / ".lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=raw, prefix=swept()) as temporary, storage(address) as files:
                targets = [Path(temporary, "whole", name, part) for part in etags]
                for target in targets:
                    target.parent.mkdir(parents=True, exist_ok=True)
                sources = ["/".join(filter(None, [address.rstrip("/"), part])) for part in etags]
                files.get(sources, [str(target) for target in targets])
                if listed(address) != etags:
                    raise StorageError(f"{address} was changed while it was read: the same command reads it anew")
                Path(temporary, "whole").rename(folder)
    return folder / name
