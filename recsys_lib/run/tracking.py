"""Runs of the notebooks in MLflow, and the registry of models there.

A notebook does not talk to MLflow: it puts its report, parameters and times into ``outputs/<dataset>/tracking``, which
takes milliseconds, and has a process of its own send that, with the models and figures it names. So no notebook pays
for MLflow's import, nothing is lost while a server is out of reach (what waits goes with the next), and ``make run``,
which sets ``RECSYS_TRACKING=later``, sends all its runs in one go at its end.

Where to: the database ``outputs/mlflow.db`` with files in ``outputs/mlartifacts``, or what ``MLFLOW_TRACKING_URI``
names. If that is ``none``, or MLflow is not installed, nothing is kept and all else is the same. The database names
files below ``mlflow-artifacts:``, which MLflow's server resolves, so that the folder may be moved or copied; where runs
are shared (:mod:`recsys_lib.run.remote`) their files go to ``mlartifacts`` at that address instead.

A model lies there as it was saved, with an ``MLmodel`` beside it: ``mlflow.pyfunc.load_model`` and ``mlflow models
serve`` read it by :func:`_load_pyfunc`, which unpickles nothing.

``python -m recsys_lib.run.tracking send ml-100k`` sends what waits; ``... ui`` opens MLflow's pages.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pandas as pd

from recsys_lib.data.s3 import StorageError, storage
from recsys_lib.files import link, locked, read_json, replacing, write_json, written
from recsys_lib.models.base import Recommender, content_hash, load_model
from recsys_lib.paths import home, is_remote
from recsys_lib.run import remote
from recsys_lib.run.environment import commit
from recsys_lib.run.run import Run

if TYPE_CHECKING:
    from mlflow.entities import Run as Tracked

ADDRESS = "MLFLOW_TRACKING_URI"  # where runs go; "none": nowhere
WHEN = "RECSYS_TRACKING"  # "later": somebody sends what waits in the end
SERVERS = ("http://", "https://", "databricks")  # addresses whose files are not on this disk
PATIENCE = 300.0  # seconds that a notebook waits for its run to be sent
BATCH = 1000  # metrics that MLflow takes at once
QUIET = {  # settings of MLflow, unless the environment has others
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
IMPORTED = time.time()  # in a notebook, about when it began


class TrackingError(RuntimeError):
    """Runs could not be sent; they are kept. One sentence says why."""


def address() -> str | None:
    """Where runs go; None if they are not tracked, because of ``none`` or for want of MLflow."""
    given = os.environ.get(ADDRESS, "").strip()
    if given.lower() == "none" or importlib.util.find_spec("mlflow") is None:
        return None
    return given or f"sqlite:///{home() / 'outputs' / 'mlflow.db'}"


def log(run: Run, notebook: str, report: Path, started: float = IMPORTED) -> None:
    """Track a notebook that fitted or evaluated models, with the figures that this process made since it started.

    ``report`` is what it wrote, ``metrics/training/<notebook>.json`` or ``metrics/leaderboard.json``; ``started`` is in
    UNIX seconds. A failure to send is one sentence on stderr; the run is kept, and sent with the next.
    """
    if address() is None:
        return
    files = [file for file, when in written().items() if file.is_relative_to(run.paths.figures) and when >= started]
    facts = {"notebook": notebook, "started": started, "ended": time.time(), "commit": commit()}
    facts["files"] = [file.relative_to(run.paths.outputs).as_posix() for file in (*files, report)]
    facts |= {"params": notebook_parameters(run, notebook), "report": read_json(report)}
    name = f"{facts['ended']:.3f}-{os.getpid()}-{notebook}.json"
    write_json(run.paths.outputs / "tracking" / name, facts)
    if os.environ.get(WHEN) == "later":
        return
    command = [sys.executable, "-m", "recsys_lib.run.tracking", "send", run.dataset]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        failed = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    except subprocess.TimeoutExpired:
        failed = f"tracking: MLflow took longer than {PATIENCE:.0f} s; the run is kept and sent with the next"
    if failed:
        print(failed, file=sys.stderr)


def notebook_parameters(run: Run, notebook: str) -> dict[str, Any]:
    """Parameters of the notebook that is being run, with the values they have in it; none outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return vars(run.parameters(notebook, shell.user_ns)) if shell else {}


def flat_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by the names that MLflow allows: a mean under its own, its interval's ends beside it.

    >>> flat_metrics({"ndcg@10": {"mean": 0.2, "low": 0.1, "high": 0.3, "n_users": 9}, "trials": 3, "p": None})
    {'ndcg_at_10': 0.2, 'ndcg_at_10_low': 0.1, 'ndcg_at_10_high': 0.3, 'trials': 3.0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "mean" in value:
            flat |= {name: value["mean"], f"{name}_low": value.get("low"), f"{name}_high": value.get("high")}
        else:
            flat[name] = value
    numbers = {name: value for name, value in flat.items() if isinstance(value, int | float)}
    return {name.replace("@", "_at_"): float(value) for name, value in numbers.items() if math.isfinite(value)}


def curves(log: list[Mapping[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """Points of a net's log, epoch by epoch: name, value, epoch; where several nets are averaged, each by its number.

    >>> list(curves([{"model": 1, "epoch": 2, "loss": 0.5, "seconds": 0.1, "valid": None}]))
    [('epoch_loss_1', 0.5, 2)]
    """
    for row in log:
        number = f"_{row['model']}" if row.get("model") else ""
        values = {name: value for name, value in row.items() if name not in ("model", "epoch", "seconds")}
        yield from ((f"epoch_{name}{number}", value, row["epoch"]) for name, value in flat_metrics(values).items())


def send(run: Run) -> int:
    """Send the runs that wait to MLflow, and give the champion its alias there; return how many there were.

    One process sends at a time. TrackingError if they could not be sent (the tracking server is out of reach, the
    database locked, ...); they are kept.
    """
    uri = address()
    if uri is None:
        return 0
    folder, pointer = run.paths.outputs / "tracking", run.paths.outputs / "champion.json"
    with locked(home() / "outputs" / ".mlflow.lock"):
        waiting = sorted(folder.glob("[!.]*.json"))
        champion = read_json(pointer) if pointer.is_file() else None
        state, sent = f"{_shown(uri)} {champion and champion['version']}", folder / ".sent"
        if not waiting and (champion is None or (sent.is_file() and sent.read_text() == state)):
            return 0
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException  # takes seconds
        from sqlalchemy.exc import SQLAlchemyError

        try:
            store = _Store(uri, run)
            with storage(store.files) if is_remote(store.files) else nullcontext():
                for file in waiting:
                    store.log(file.stem, read_json(file))
                    file.unlink()
                if champion:
                    store.crown(champion)
            if champion:
                folder.mkdir(parents=True, exist_ok=True)
                sent.write_text(state)
        except (OSError, ImportError, MlflowException, SQLAlchemyError) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise TrackingError(
                f"tracking: {_shown(uri)} did not take the runs ({type(problem).__name__}: {reason}); "
                f"they are kept in {folder} and sent with the next"
            ) from problem
    return len(waiting)


def _shown(uri: str) -> str:
    """An address without the password it may hold."""
    password = urlparse(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


class _Store:
    """One experiment of an MLflow store, and the registered model of the same name: that of the data set."""

    def __init__(self, uri: str, run: Run) -> None:
        from mlflow import MlflowClient

        self.run, self.local = run, not uri.startswith(SERVERS)
        _check(uri)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
        known = self.client.get_experiment_by_name(run.name)
        if known is None:
            shared = remote.address()
            files = f"{shared}/mlartifacts/{run.name}" if shared else f"mlflow-artifacts:/{run.name}"
            files = files if self.local else None  # a server has a place of its own
            kind = {"mlflow.experimentKind": "custom_model_development"}  # has the pages show runs, not conversations
            self.experiment = self.client.create_experiment(run.name, artifact_location=files, tags=kind)
        else:
            self.experiment = known.experiment_id
            if known.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)
        self.files = self.client.get_experiment(self.experiment).artifact_location
        self.local = self.local and not is_remote(self.files)

    def log(self, record: str, facts: Mapping[str, Any]) -> None:
        """Log a notebook's run and, below it, one of each model; models that it evaluated are registered."""
        for old in self.client.search_runs([self.experiment], f"tags.record = '{record}'"):  # sending broke off
            self.client.delete_run(old.info.run_id)
        notebook, report, started = facts["notebook"], facts["report"], facts["started"]
        tags = {"record": record, "notebook": notebook, "dataset": self.run.name, "commit": facts["commit"]}
        tags |= {"mlflow.source.type": "NOTEBOOK", "mlflow.source.name": f"notebooks/{notebook}.ipynb"}
        tags |= {"mlflow.source.git.commit": facts["commit"].rstrip("+"), "data_sha256": report["data"]["sha256"]}
        protocol = report.get("protocol")  # of a leaderboard
        params = {"split": (protocol or report["data"])["split"]["name"]} | facts["params"]
        if protocol:
            params |= {"task": protocol["fingerprint"], "users": protocol["users_kept"]}
        parent = self._start(notebook, tags, params, [("seconds", facts["ended"] - started, 0)], started)
        for name in facts["files"]:
            file = self.run.paths.outputs / name
            if file.is_file() and file.stat().st_mtime <= facts["ended"]:  # else it was made anew since
                self._lay(parent, file, Path(name).parts[0])
        models = report["models"]
        for entry in models if protocol else [{"name": name, **model} for name, model in models.items()]:
            name, folder = entry["name"], self.run.paths.models / entry["name"]
            values = entry | entry.get("metrics", {}) | {"p_holm": entry.get("against_best", {}).get("p_holm")}
            points = [(metric, value, 0) for metric, value in flat_metrics(values).items()]
            config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
            same = config and config["data"].get("fit_seconds") == entry.get("fit_seconds")  # else fitted anew since
            points += curves(config["learnt"].get("log", [])) if same else []
            below = tags | {"mlflow.parentRunId": parent.info.run_id, "model": name}
            params = {"class": entry.get("class") or entry["model"], **entry["params"]}
            tracked = self._start(name, below, params, points, started)
            if same:
                self._lay_model(tracked, folder)
                if protocol:
                    self._register(tracked, name, content_hash(folder))
            self._end(tracked, facts["ended"])
        self._end(parent, facts["ended"])

    def crown(self, pointer: Mapping[str, Any]) -> None:
        """Give the alias ``champion`` to the version that ``champion.json`` points to."""
        folder, name = self.run.paths.outputs / pointer["folder"], pointer["model"]
        version = self._version(content_hash(folder))
        if version is None:  # evaluated while runs were not tracked
            tags = {"model": name, "dataset": self.run.name, "data_sha256": pointer["task"]["data"]}
            points = [(metric, value, 0) for metric, value in flat_metrics(pointer["metrics"]).items()]
            tracked = self._start(name, tags, {}, points, time.time())
            self._lay_model(tracked, folder)
            self._end(tracked, time.time())
            version = self._register(tracked, name, content_hash(folder))
        self.client.set_registered_model_alias(self.run.name, "champion", version)

    def _version(self, content: str) -> str | None:
        """Number of the registered version of this content."""
        known = self.client.search_model_versions(f"name = '{self.run.name}'")
        return next((str(one.version) for one in known if one.tags.get("content") == content), None)

    def _register(self, tracked: Tracked, name: str, content: str) -> str:
        """Register the model that lies with a run, unless a version of this content is there; its number."""
        if not self.client.search_registered_models(f"name = '{self.run.name}'"):
            self.client.create_registered_model(self.run.name)
        source, about = f"{tracked.info.artifact_uri}/model", f"{name} {content[:8]}"
        given = {"tags": {"model": name, "content": content}, "description": about}
        known, run_id = self._version(content), tracked.info.run_id
        return known or str(self.client.create_model_version(self.run.name, source, run_id, **given).version)

    def _start(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        points: list[tuple[str, float, int]],
        at: float,
    ) -> Tracked:
        """Begin a run with its parameters (MLflow keeps 6,000 characters of each) and metrics (name, value, epoch)."""
        from mlflow.entities import Metric, Param

        tracked = self.client.create_run(self.experiment, int(at * 1000), dict(tags), name)
        given = [Param(name, str(value)[:6000]) for name, value in params.items()]
        self.client.log_batch(tracked.info.run_id, params=given)
        metrics = [Metric(name, value, int(at * 1000), step) for name, value, step in points]
        for first in range(0, len(metrics), BATCH):
            self.client.log_batch(tracked.info.run_id, metrics=metrics[first : first + BATCH])
        return tracked

    def _end(self, tracked: Tracked, at: float) -> None:
        self.client.set_terminated(tracked.info.run_id, "FINISHED", int(at * 1000))

    def _lay_model(self, tracked: Tracked, folder: Path) -> None:
        """Put a saved model among a run's artifacts, in MLflow's flavour of any Python function."""
        from mlflow.models import Model
        from mlflow.pyfunc import add_to_model

        self._lay(tracked, folder, "model")
        flavour = Model(artifact_path="model", run_id=tracked.info.run_id)
        add_to_model(flavour, loader_module="recsys_lib.run.tracking")
        with tempfile.TemporaryDirectory() as temporary:
            flavour.save(f"{temporary}/MLmodel")
            self._lay(tracked, Path(temporary, "MLmodel"), "model")

    def _lay(self, tracked: Tracked, source: Path, below: str) -> None:
        """Put a file or a folder among a run's artifacts: on this disk as second names, which take no space."""
        if not self.local:
            upload = self.client.log_artifacts if source.is_dir() else self.client.log_artifact
            upload(tracked.info.run_id, str(source), below)
            return
        target = home() / "outputs" / "mlartifacts" / urlparse(tracked.info.artifact_uri).path.lstrip("/") / below
        target.mkdir(parents=True, exist_ok=True)
        for file in source.glob("[!.]*") if source.is_dir() else [source]:
            link(file, target / file.name)


def _check(uri: str) -> None:
    """Make sure that a server answers at all (OSError if not), or that a database is whole.

    A new database is made beside its name and renamed, so that a stop half way leaves none.
    """
    parts = urlparse(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    elif uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        from mlflow.store.db.utils import _initialize_tables
        from sqlalchemy import create_engine

        with replacing(uri.removeprefix("sqlite:///")) as temporary:
            engine = create_engine(f"sqlite:///{temporary}")
            _initialize_tables(engine)
            engine.dispose()


class _Recommending:
    """A saved model as MLflow calls it, to list items for users."""

    def __init__(self, model: Recommender) -> None:
        self.model = model

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        """List items for each ``user_id``, as many as ``k`` says beside it (10): user_id, item_id, score, rank, ..."""
        wanted = data["k"] if "k" in data else pd.Series(10, data.index)
        lists = [self.model.recommend(users.tolist(), int(k)) for k, users in data["user_id"].groupby(wanted)]
        return pd.concat(lists, ignore_index=True)


def _load_pyfunc(folder: str) -> _Recommending:
    """Read a model where MLflow keeps it; the name is MLflow's, see ``mlflow.pyfunc``."""
    return _Recommending(load_model(folder))


def serve(port: int, host: str) -> int:
    """Show MLflow's pages until Ctrl-C: on this machine alone, unless another address is to be listened on."""
    uri = address()
    if uri is None:
        sys.stderr.write(f"tracking is off: {ADDRESS} is 'none', or MLflow is not installed (`make setup`)\n")
        return 1
    if uri.startswith(SERVERS):
        print(f"runs are kept at {_shown(uri)}: open that in a browser")
        return 0
    _check(uri)
    files = (home() / "outputs" / "mlartifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host]
    command += ["--serve-artifacts", "--artifacts-destination", files, "--port", str(port), "--workers", "1"]
    jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # they would be seven processes more, of no use here
    pages = f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning"
    print(f"{pages} shows the runs and the registry; Ctrl-C ends it", flush=True)
    return os.execve(sys.executable, command, QUIET | jobs | os.environ)


def main(arguments: list[str] | None = None) -> int:
    """Send the runs that wait to MLflow, or show MLflow's pages."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.tracking", description=main.__doc__)
    parser.add_argument("action", choices=["send", "ui"])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--port", type=int, default=5000, help="of the pages (5000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on, for the pages (0.0.0.0: all)")
    given = parser.parse_args(arguments)
    try:
        send(Run(given.dataset))
    except (TrackingError, StorageError) as problem:
        sys.stderr.write(f"{problem}\n")
        if given.action == "send":
            return 1
    return serve(given.port, given.host) if given.action == "ui" else 0


if __name__ == "__main__":
    raise SystemExit(main())
