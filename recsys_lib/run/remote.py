"""Runs shared in S3: what one machine makes is pushed to ``RECSYS_REMOTE=s3://bucket/prefix``, others pull it.

Work goes on in the local folders, so nothing in it waits for S3 or breaks with it. Below the address there are

- ``objects/<sha256>``: contents of files, each once, never changed;
- ``runs/<name>/manifest-000001.json``, ...: the files of a run and their hashes, oldest first. It is written last, and
  only if nobody has written this number (If-None-Match), so that a push that breaks off leaves the state before it,
  and one of two pushes at the same moment fails.

What changed there since the last pull or push is taken over, what changed here is kept and goes into the next push; a
file that changed on both sides stops a pull before it changes anything.

``python -m recsys_lib.run.remote pull ml-100k`` (or ``push``) does by hand what steps do by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_lib.data.s3 import StorageError, storage
from recsys_lib.files import link, locked, read_json, replacing, sha256, swept, write_json
from recsys_lib.paths import Paths, home, is_remote

if TYPE_CHECKING:
    from s3fs import S3FileSystem

ADDRESS = "RECSYS_REMOTE"
OWN = ("tracking", "demo", "site")  # folders of outputs that each machine makes for itself
NOT_SHARED = (".log", ".failed.ipynb", ".db")  # nor these
_pulled: dict[tuple[str, Path], float] = {}  # when this process did, by the address and the run's folder


def address() -> str | None:
    """Where runs are shared, None if nowhere; StorageError if that is no s3:// address."""
    given = os.environ.get(ADDRESS, "").rstrip("/")
    if given and not is_remote(given):
        raise StorageError(f"{ADDRESS} must be like s3://bucket/folder, not {given!r}")
    return given or None


def pull(dataset: str, every: float = 0.0) -> int:
    """Take over what others have pushed of a run; how many files. Nothing if the last pull was ``every`` seconds ago.

    StorageError if S3 does not answer, or a file changed on both sides: nothing is changed here then.
    """
    remote, paths = address(), Paths(dataset)
    last = (str(remote), paths.outputs)
    if remote is None or (last in _pulled and time.monotonic() - _pulled[last] < every):
        return 0
    with locked(paths.outputs / ".remote.lock"), storage(remote) as files:
        taken = _Shared(remote, paths, files).pull()
    _pulled[last] = time.monotonic()
    return taken


def push(dataset: str) -> int:
    """Share what changed here of a run, after a pull; how many files differ from those before.

    StorageError if S3 does not take all, or somebody else pushes at the same moment: everything is kept here, and goes
    with the next push.
    """
    remote, paths = address(), Paths(dataset)
    if remote is None:
        return 0
    try:
        with locked(paths.outputs / ".remote.lock"), storage(remote) as files:
            shared = _Shared(remote, paths, files)
            shared.pull()
            return shared.push()
    except StorageError as error:
        raise StorageError(f"{error}; what was made here is kept, and the next command pushes it") from error


class _Shared:
    """A run here and in S3.

    ``number``, ``files``: of the manifest that was pulled or pushed last: hashes by the path below the home.
    ``seen``: hash, size (bytes) and time (ns) of each file here, so that what did not change is not read again.
    """

    def __init__(self, remote: str, paths: Paths, files: S3FileSystem) -> None:
        self.remote, self.paths, self.s3 = remote, paths, files
        self.folder, self.objects = f"{remote}/runs/{paths.name}", f"{remote}/objects"
        self.note = paths.outputs / ".remote.json"
        known = read_json(self.note) if self.note.is_file() else {}
        known = known if known.get("remote") == remote else {"number": 0, "files": {}, "seen": {}}
        self.number, self.files, self.seen = known["number"], known["files"], known["seen"]

    def pull(self) -> int:
        """Take over the latest manifest, if it is newer than the one known; how many files changed."""
        there = "\n".join(self.s3.find(f"{self.folder}/"))
        number = max(map(int, re.findall(r"/manifest-(\d+)\.json$", there, re.M)), default=0)
        if number <= self.number:
            return 0
        theirs = json.loads(self.s3.cat_file(self._manifest(number)))["files"]
        with tempfile.TemporaryDirectory(dir=self.paths.outputs, prefix=swept()) as held:
            mine = self._hashes(Path(held))
        changed = [name for name, digest in theirs.items() if digest not in (mine.get(name), self.files.get(name))]
        touched = [name for name in changed if name in mine and mine[name] != self.files.get(name)]
        logs = {name for name in touched if name.endswith(".jsonl")}  # only appended to: lines of both stay
        checkout = {name for name in touched if name.startswith("reports/") and name not in self.files}  # committed
        if both := [name for name in touched if name not in logs | checkout]:
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            raise StorageError(
                f"{both[0]}{more} changed both here and at {self.folder}: move yours away and run the command again"
            )
        self._fetch({name: theirs[name] for name in changed}, logs)
        for name in self.files.keys() - theirs.keys():
            if mine.get(name) == self.files[name]:
                (home() / name).unlink()
        self._know(number, theirs)
        return len(changed)

    def push(self) -> int:
        """Upload contents that are new, then a manifest of all files here; how many files changed."""
        with tempfile.TemporaryDirectory(dir=self.paths.outputs, prefix=swept()) as held:
            mine = self._hashes(Path(held))
            new = [path for path in Path(held).iterdir() if path.name not in self.files.values()]
            if new:
                self.s3.put([str(path) for path in new], [f"{self.objects}/{path.name}" for path in new])
        if mine == self.files:
            return 0
        changed = len({name for name, _ in mine.items() ^ self.files.items()})
        about = {"by": f"process {os.getpid()} of {platform.node()}", "at": datetime.now(UTC).isoformat()}
        content, target = json.dumps(about | {"files": mine}, indent=0).encode(), self._manifest(self.number + 1)
        try:
            self.s3.pipe_file(target, content, mode="create")
        except OSError:
            if not self.s3.exists(target):
                raise
            if (other := self.s3.cat_file(target)) != content:  # else it was taken, and the answer got lost
                raise StorageError(
                    f"{json.loads(other)['by']} has pushed {self.paths.name} to {self.remote} at the same moment"
                ) from None
        self._know(self.number + 1, mine)
        return changed

    def _manifest(self, number: int) -> str:
        return f"{self.folder}/manifest-{number:06}.json"

    def _know(self, number: int, files: dict[str, str]) -> None:
        self.number, self.files = number, files
        write_json(self.note, {"remote": self.remote, "number": number, "files": files, "seen": self.seen})

    def _here(self) -> Iterator[Path]:
        """The files that are shared: not hidden ones, nor those that each machine makes for itself."""
        own = {self.paths.outputs / name for name in OWN}
        for folder in (self.paths.processed, self.paths.outputs, self.paths.reports):
            for path in folder.rglob("*"):
                hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
                left = hidden or own & set(path.parents) or path.name.endswith(NOT_SHARED)
                if path.is_file() and not left:
                    yield path

    def _hashes(self, held: Path) -> dict[str, str]:
        """Hashes of the files here, the oldest first. Contents that are not shared yet are held in a folder.

        There they have a second name, so that what is uploaded is what the hash says, whatever is written meanwhile.
        """
        shared, next_one, hashes = set(self.files.values()), held / "next", []
        for path in self._here():
            name = path.relative_to(home()).as_posix()
            with suppress(FileNotFoundError):  # what is removed meanwhile is not shared
                stat = path.stat()
                digest, *known = self.seen.get(name, [None])
                if known != [stat.st_size, stat.st_mtime_ns] or digest not in shared:
                    next_one.unlink(missing_ok=True)
                    (shutil.copyfile if path.suffix == ".jsonl" else link)(path, next_one)  # a log is appended to
                    digest = sha256(next_one)
                    next_one.replace(held / digest)
                    self.seen[name] = [digest, stat.st_size, stat.st_mtime_ns]
                hashes.append((stat.st_mtime_ns, name, digest))
        next_one.unlink(missing_ok=True)
        return {name: digest for _, name, digest in sorted(hashes)}

    def _fetch(self, wanted: dict[str, str], logs: set[str]) -> None:
        """Download files; all are here before the first takes its place, in the order they were made in.

        Make compares times: they are those of the pull, in this order.
        """
        allowed = [folder.resolve() for folder in (self.paths.processed, self.paths.outputs, self.paths.reports)]
        now, places = time.time_ns(), {}
        with ExitStack() as together:  # it leaves what was entered last first
            for name in reversed(wanted):
                target = (home() / name).resolve()
                if not any(target.is_relative_to(folder) for folder in allowed):
                    raise StorageError(f"{self.folder} names {name!r}, which is not a file of this run")
                places[name] = together.enter_context(replacing(target))
            if places:
                self.s3.get([f"{self.objects}/{wanted[name]}" for name in places], [str(p) for p in places.values()])
            for age, (name, place) in enumerate(places.items()):
                if sha256(place) != wanted[name]:
                    raise StorageError(f"{self.objects}/{wanted[name]} is damaged: its hash is wrong")
                if name in logs:
                    lines = place.read_text("utf-8").splitlines(keepends=True)
                    own = (home() / name).read_text("utf-8").splitlines(keepends=True)
                    place.write_text("".join([*lines, *(line for line in own if line not in lines)]), "utf-8")
                os.utime(place, ns=(now - 1000 * age,) * 2)


def main(arguments: list[str] | None = None) -> int:
    """Pull or push a run by hand."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.remote", description=main.__doc__)
    parser.add_argument("action", choices=["pull", "push"])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    given = parser.parse_args(arguments)
    try:
        changed = (pull if given.action == "pull" else push)(given.dataset)
    except OSError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{given.action}: {changed} files changed" if address() else f"{ADDRESS} is not set: nothing is shared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
