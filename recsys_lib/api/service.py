"""Keep a snapshot of the run to answer from, and replace it as a whole when the run's files change."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from recsys_lib.api.problems import ProblemError
from recsys_lib.api.snapshot import Snapshot
from recsys_lib.data.s3 import StorageError
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run

POLL = 0.5  # seconds between two looks at the run's files
RETRY = 10.0  # seconds after which files that could not be loaded are tried again as they are

log = logging.getLogger(__name__)


class Service:
    """Keeps a snapshot, and loads a new one in the background when the files of the run change.

    A request keeps the snapshot with which it begins. What cannot be read is logged and tried again; until then the
    old snapshot answers, and :attr:`failure` says in one sentence what is wrong.

    - ``dataset``: name or path.
    - ``registry``: where its metrics go.
    """

    def __init__(self, dataset: str, registry: CollectorRegistry) -> None:
        self.dataset = dataset
        self.snapshot: Snapshot | None = None
        self.failure = "The service is loading its model."
        self._loads = Counter("recsys_loads", "Attempts to load a run.", ["outcome"], registry=registry)
        self._model = Gauge("recsys_model", "1 for the champion.", ["name", "version"], registry=registry)
        self.fallbacks = Counter("recsys_fallbacks", "Lists of popular films in the model's place.", registry=registry)
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._tried = 0.0
        self._silence = ""  # why S3 could not be asked

    async def watch(self) -> None:
        """Load the run, and load it again whenever it changes, without end."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(POLL)

    def ready(self) -> Snapshot:
        """The snapshot that answers now."""
        if self.snapshot is None:
            raise self.not_healthy()
        return self.snapshot

    def not_healthy(self) -> ProblemError:
        """The error that says what is wrong."""
        return ProblemError(503, "no-model", self.failure, {"Retry-After": "2"})

    def refresh(self) -> bool:
        """Load the run if its files have changed since the last look; return whether it was loaded."""
        try:
            run = Run(self.dataset)
        except StorageError as error:
            if self._silence != str(error):
                self._silence = str(error)
                log.warning("what others have pushed cannot be pulled: %s", error)
            if self.snapshot is None:
                self.failure = str(error)
            return False
        self._silence = ""
        seen = _state(run)
        again = self.failure and time.monotonic() - self._tried > RETRY
        if seen == self._seen and not again:
            return False
        self._seen, self._tried = seen, time.monotonic()
        try:
            snapshot = Snapshot(run)
        except Exception as error:  # whatever a file holds, the old snapshot goes on answering
            expected = isinstance(error, MissingArtifactError | OtherDataError)
            before, self.failure = self.failure, str(error) if expected else f"The run cannot be read: {error}"
            if self.failure != before:
                log.warning("the run could not be loaded: %s", error, exc_info=not expected)
            self._loads.labels("failed").inc()
            return False
        self.snapshot, self.failure = snapshot, ""
        champion = snapshot.champion
        log.info("%s %s answers, on %s", champion.name, champion.version, snapshot.run.name)
        self._loads.labels("loaded").inc()
        self._model.clear()
        self._model.labels(champion.name, champion.version).set(1)
        return True


def _state(run: Run) -> dict[Path, tuple[int, int, int]]:
    """The files that make a snapshot, with what changes whenever one of them is written or goes."""
    paths, state = run.paths, {}
    files = [paths.outputs / "champion.json", paths.processed / "manifest.json", paths.metrics / "leaderboard.json"]
    with suppress(OSError, ValueError, KeyError):  # there is no champion
        files += run.champion.folder.iterdir()
    for file in files:
        with suppress(OSError):
            stat = file.stat()
            state[file] = stat.st_mtime_ns, stat.st_ino, stat.st_size
    return state
