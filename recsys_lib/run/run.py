"""One data set's run on disk: its tables, models, results and champion.

``Run("ml-100k")`` is the one door to what the notebooks leave behind. It knows which ``make`` command makes what is
missing, and refuses what was made from other data than the tables beside it.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from shlex import quote
from types import SimpleNamespace
from typing import Any

import pandas as pd

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.files import read_json, read_parquet, replacing, sha256, write_json
from recsys_lib.models.base import Recommender, load_model
from recsys_lib.paths import Paths, shown
from recsys_lib.run import remote
from recsys_lib.run.environment import commit
from recsys_lib.run.parameters import tuned
from recsys_lib.run.steps import step_that_writes

PARTS = ("train", "valid", "test")


class MissingArtifactError(FileNotFoundError):
    """A file that an earlier step makes is not there."""


class OtherDataError(ValueError):
    """An artefact was made from other data, or another split, than the tables beside it; or it is damaged."""


@dataclass(frozen=True)
class Tables:
    """The tables that 02_preprocessing wrote.

    - ``split``, Split: its test part is empty unless the tables come from :meth:`Run.tables_with_test`.
    - ``items``, ``users``: as in :class:`recsys_lib.data.Dataset`.
    - ``manifest``: "data" (name, sha256, rating_scale, source), "split" (name, params), "relevant_from", "files" (rows,
      sha256).
    """

    split: Split
    items: pd.DataFrame
    users: pd.DataFrame
    manifest: dict[str, Any] = field(repr=False)

    @cached_property
    def history(self) -> pd.DataFrame:
        """Train and validation together: what the models that are kept are fitted on."""
        return self.split.history

    @property
    def relevant_from(self) -> float:
        """Lowest rating that counts as relevant; 0 for implicit feedback, where every interaction does."""
        return float(self.manifest["relevant_from"])

    @property
    def rating_scale(self) -> tuple[float, float] | None:
        """Lowest and highest rating, or None for implicit feedback."""
        scale = self.manifest["data"]["rating_scale"]
        return None if scale is None else (float(scale[0]), float(scale[1]))

    @property
    def identity(self) -> dict[str, Any]:
        """The data and the split, which two results must share to be comparable."""
        data = self.manifest["data"]
        return {"name": data["name"], "sha256": data["sha256"], "split": self.manifest["split"]}


@dataclass(frozen=True)
class Results:
    """Results of 07_evaluation in ``outputs/<dataset>/metrics``, with the contents of ``leaderboard.json`` there.

    These are "protocol", "data" and "models", best first.
    """

    run: Run
    leaderboard: dict[str, Any] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the models, in the order of the leaderboard."""
        return [model["name"] for model in self.leaderboard["models"]]

    def per_user(self, name: str) -> pd.DataFrame:
        """One row a user, a column a metric."""
        return self.run.read_values(self.run.paths.metrics / "per_user" / f"{name}.parquet")

    def lists(self, name: str) -> pd.DataFrame:
        """Lists of a model for the users of the test part, see :mod:`recsys_lib.run.results`."""
        return self.run.read_values(self.run.paths.metrics / "lists" / f"{name}.parquet")


class Models(Mapping[str, Recommender]):
    """Fitted models of a run by name; each is read when it is first asked for, and kept."""

    def __init__(self, run: Run) -> None:
        self._run, self._loaded = run, {}

    @cached_property
    def _names(self) -> list[str]:
        return sorted(config.parent.name for config in self._run.paths.models.glob("[!.]*/config.json"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Recommender:
        """Read a model; MissingArtifactError if it was never fitted, OtherDataError if on other data or damaged."""
        if name not in self._loaded:
            config, folder = self._run.model_config(name), self._run.paths.models / name
            with self._run.reading(folder):
                self._run.check_identity(f"the model {name}", config["data"], folder)
                self._loaded[name] = load_model(folder)
        return self._loaded[name]

    def __repr__(self) -> str:
        return f"Models({', '.join(self)})"


@dataclass(frozen=True)
class Champion:
    """The model that serves: the version that the registry calls ``champion``.

    Its folder stays as it is when the model of that name is fitted again. The record is what ``champion.json`` says:
    metrics with intervals, why it became champion, when.
    """

    name: str
    version: str
    folder: Path
    record: dict[str, Any] = field(repr=False)
    run: Run = field(repr=False)

    @cached_property
    def model(self) -> Recommender:
        """The fitted model; OtherDataError if it is damaged."""
        with self.run.reading(self.folder):
            return load_model(self.folder)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Run:
    """One run on disk, of a known data set's name or the path of a table or an archive; ``paths`` are its folders.

    Where runs are shared (:mod:`recsys_lib.run.remote`), what others have pushed is pulled, once a minute at most.

    >>> Run("ml-latest-small").command("05")
    'make 05 DATASET=ml-latest-small'
    """

    def __init__(self, dataset: str | Path = "ml-100k") -> None:
        self.dataset = str(dataset)
        self.paths = Paths(self.dataset)
        remote.pull(self.dataset, every=60)

    @property
    def name(self) -> str:
        """Name of the run's folders."""
        return self.paths.name

    def __repr__(self) -> str:
        return f"Run({self.dataset!r})"

    def parameters(self, notebook: str, given: Mapping[str, Any]) -> SimpleNamespace:
        """Parameters of a notebook: the data set's tuned values, where the notebook's own cell was left alone.

        So a notebook that is opened and run by hand does what ``make`` does. ``given`` are the notebook's variables,
        ``globals()``; what is no parameter of it is passed over.
        """
        return tuned(self.dataset, notebook, given)

    # ---- what is missing --------------------------------------------------------------------------------------

    def command(self, step: str = "run") -> str:
        """The make command of a step ("05"), or of the whole run, with the parameter file that the run was given."""
        given = self.paths.given_params
        file = given.read_text(encoding="utf-8") if given.is_file() else ""
        data = "" if self.dataset == "ml-100k" else f" DATASET={quote(self.dataset)}"
        return f"make {step}{data}" + (f" PARAMS={quote(file)}" if file else "")

    def command_for(self, path: Path) -> str:
        """The make command that makes a file of this run."""
        step = step_that_writes(path)
        return self.command(step.number if step else "run")

    def need(self, path: Path) -> Path:
        """Return the path if it exists; else MissingArtifactError, one sentence with the command that makes it."""
        if not path.exists():
            raise MissingArtifactError(f"{shown(path)} is missing: `{self.command_for(path)}` makes it")
        return path

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Turn what damaged or older files raise into an OtherDataError: one sentence with the command that helps."""
        try:
            yield
        except (MissingArtifactError, OtherDataError):
            raise
        except (ValueError, FileNotFoundError, KeyError, TypeError) as error:
            older = isinstance(error, KeyError | TypeError)  # it lacks what is looked for in it
            reason = "another version of the lab wrote it" if older else error
            again = f"rm -r {quote(shown(path))}; {self.command_for(path)}"
            raise OtherDataError(f"{shown(path)} cannot be read ({reason}): `{again}` makes it again") from error

    def read(self, path: Path) -> dict[str, Any]:
        """Contents of a JSON file of this run; MissingArtifactError if it is not there, OtherDataError if damaged."""
        with self.reading(path):
            return read_json(self.need(path))

    def read_values(self, path: Path) -> pd.DataFrame:
        """A table of results; MissingArtifactError if it is not there, OtherDataError if damaged."""
        with self.reading(path):
            return read_parquet(self.need(path))

    def check_identity(self, what: str, made_from: Mapping[str, Any], path: Path) -> None:
        """Refuse what was made from other data, or another split, than the tables, with an OtherDataError."""
        if any(made_from.get(key) != value for key, value in self.tables.identity.items()):
            raise OtherDataError(
                f"{what} ({shown(path)}) was made from other data, or another split, than the tables in "
                f"{shown(self.paths.processed)}: `{self.command_for(path)}` makes it again"
            )

    # ---- tables -----------------------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> Tables:
        """The tables without the test part; MissingArtifactError if 02_preprocessing has not run."""
        return self._read_tables(PARTS[:2])

    def tables_with_test(self, reader: str) -> Tables:
        """The tables with the test part; the reading is noted in ``outputs/<dataset>/test_log.jsonl``.

        The note: when, which notebook or program (``reader``), by whom, at which commit, on which data and split, with
        which threshold and which fitted models.
        """
        tables = self._read_tables(PARTS)
        entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "reader": reader, "commit": commit()}
        entry |= {"by": getpass.getuser(), "data": tables.identity["sha256"], "split": tables.identity["split"]}
        entry |= {"relevant_from": tables.relevant_from, "models": list(self.models)}
        self.paths.outputs.mkdir(parents=True, exist_ok=True)
        with (self.paths.outputs / "test_log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        return tables

    def _read_tables(self, parts: tuple[str, ...]) -> Tables:
        manifest = self.read(self.paths.processed / "manifest.json")
        try:
            read = {name: self._read_table(name, manifest["files"]) for name in (*parts, "items", "users")}
        except OtherDataError:
            if self.read(self.paths.processed / "manifest.json") == manifest:
                raise
            return self._read_tables(parts)  # they were written anew meanwhile
        read.setdefault("test", read["train"].iloc[:0])
        split = Split(*(read[part] for part in PARTS), **manifest["split"])
        return Tables(split, read["items"], read["users"], manifest)

    def _read_table(self, name: str, files: Mapping[str, Any]) -> pd.DataFrame:
        path = self.need(self.paths.processed / f"{name}.parquet")
        with self.reading(path):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != files[path.name]["sha256"]:
                raise ValueError("it is not what 02 wrote")
            return pd.read_parquet(BytesIO(content))

    def write_tables(
        self,
        split: Split,
        items: pd.DataFrame,
        users: pd.DataFrame,
        *,
        data: dict[str, Any],
        relevant_from: float,
        **more: Any,
    ) -> dict[str, Any]:
        """Write the tables of a split and, last, the manifest that makes them valid; return the manifest.

        ``data`` has the "name", "sha256", "rating_scale" and "source" of the data set; ``more`` goes into the manifest.
        """
        tables = {"train": split.train, "valid": split.valid, "test": split.test, "items": items, "users": users}
        files: dict[str, Any] = {}
        with ExitStack() as together:  # all are written before the first takes its place
            for name, table in tables.items():
                temporary = together.enter_context(replacing(self.paths.processed / f"{name}.parquet"))
                table.to_parquet(temporary, index=False)
                files[f"{name}.parquet"] = {"rows": len(table), "sha256": sha256(temporary)}
        manifest = {"data": data, "split": {"name": split.name, "params": split.params}}
        manifest |= {"relevant_from": relevant_from, **more, "files": files}
        write_json(self.paths.processed / "manifest.json", manifest)
        vars(self).pop("tables", None)
        return manifest

    @cached_property
    def known(self) -> Interactions:
        """The history as a matrix: what fitted models know."""
        return Interactions.from_frame(self.tables.history)

    # ---- models, results, champion ----------------------------------------------------------------------------

    @cached_property
    def models(self) -> Models:
        """The fitted models by name."""
        return Models(self)

    def model_config(self, name: str) -> dict[str, Any]:
        """Contents of a fitted model's ``config.json``: its class, params, data, facts."""
        return self.read(self.paths.models / name / "config.json")

    def save_model(self, name: str, model: Recommender, **facts: Any) -> Path:
        """Save a fitted model with the identity of its data and facts for the leaderboard: ``fit_seconds``, ..."""
        vars(self).pop("models", None)
        return model.save(self.paths.models / name, data={**self.tables.identity, **facts})

    @cached_property
    def results(self) -> Results:
        """Results of 07_evaluation; MissingArtifactError if it has not run, OtherDataError if on other data."""
        path = self.paths.metrics / "leaderboard.json"
        leaderboard = self.read(path)
        with self.reading(path):
            made_from = {**leaderboard["data"], "split": leaderboard["protocol"]["split"]}
            self.check_identity("the leaderboard", made_from, path)
        return Results(self, leaderboard)

    @property
    def champion(self) -> Champion:
        """The model that serves; MissingArtifactError if there is none yet, or its folder is gone."""
        path = self.paths.outputs / "champion.json"
        record = self.read(path)
        with self.reading(path):
            folder = self.paths.outputs / record["folder"]
        if not (folder / "config.json").is_file():
            raise MissingArtifactError(
                f"{shown(folder)}, the champion's folder, is gone: `{self.command('07')}` chooses a new one"
            )
        return Champion(record["model"], str(record["version"]), folder, record, self)
