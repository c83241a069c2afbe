"""Runs of the notebooks in MLflow, and the registry of models there.

A notebook does not talk to MLflow: it writes down what it did (parameters, data, commit, metrics with intervals, which
figures and models) in ``outputs/<dataset>/tracking``, which takes milliseconds, and has a process of its own send that.
So no notebook pays for MLflow's import, nothing is lost while a server is out of reach (what was written down goes with
the next), and ``make run``, which sets ``RECSYS_TRACKING=later``, sends all its runs in one go at its end.

Where to: the database ``outputs/mlflow.db`` with files in ``outputs/mlartifacts``, or what ``MLFLOW_TRACKING_URI``
names. If that is ``none``, or MLflow is not installed, nothing is written down and all else is the same. The database
names files below ``mlflow-artifacts:``, which MLflow's server resolves, so that the folder may be moved or copied.

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
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from recsys_lib.files import link, locked, read_json, replacing, sha256, write_json, written
from recsys_lib.models.base import content_hash
from recsys_lib.paths import REPOSITORY, home
from recsys_lib.run.environment import commit
from recsys_lib.run.parameters import defaults
from recsys_lib.run.run import Run

if TYPE_CHECKING:
    from mlflow.entities import Run as Tracked

ADDRESS = "MLFLOW_TRACKING_URI"  # where runs go; "none": nowhere
WHEN = "RECSYS_TRACKING"  # "later": runs are written down, and somebody sends them in the end
SERVERS = ("http://", "https://", "databricks")  # addresses whose files are not on this disk
PATIENCE = 300.0  # seconds that a notebook waits for its run to be sent
BATCH = 100  # parameters that MLflow takes at once; of metrics ten times as many
QUIET = {  # what MLflow is told unless somebody has told it otherwise
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


# ---- writing down --------------------------------------------------------------------------------------------


def log_training(run: Run, content: Mapping[str, Any], started: float = IMPORTED) -> None:
    """Track a training notebook: what :meth:`recsys_lib.run.training.Training.report` wrote, its figures and models.

    Parameters
    ----------
    content
        Contents of ``metrics/training/<notebook>.json``.
    started
        When it began, UNIX seconds: figures older than that are not its own.
    """
    if address() is None:
        return
    name, models = content["notebook"], []
    for model, facts in content["models"].items():
        rest = {key: value for key, value in facts.items() if key not in ("class", "params")}
        models.append(_model(run, model, {"class": facts["class"], **facts["params"]}, rest))
    files = [run.paths.metrics / "training" / f"{name}.json"]
    split = content["data"]["split"]
    _submit(run, _record(run, name, started, content["data"]["sha256"], {"split": split["name"]}, files, models))


def log_evaluation(
    run: Run, content: Mapping[str, Any], notebook: str = "07_evaluation", started: float = IMPORTED
) -> None:
    """Track an evaluation: each model's metrics with their intervals, the figures, the leaderboard.

    Parameters
    ----------
    content
        The leaderboard, as :func:`recsys_lib.run.results.leaderboard` makes it.
    """
    if address() is None:
        return
    models, protocol = [], content["protocol"]
    for entry in content["models"]:
        facts = {key: value for key, value in entry.items() if key not in ("name", "model", "params", "metrics")}
        values = {**entry["metrics"], **facts, "p_holm": entry["against_best"].get("p_holm")}
        models.append(_model(run, entry["name"], {"class": entry["model"], **entry["params"]}, values))
    given = {"split": protocol["split"]["name"], "task": protocol["fingerprint"], "users": protocol["users_kept"]}
    files = [run.paths.metrics / "leaderboard.json"]
    _submit(run, _record(run, notebook, started, content["data"]["sha256"], given, files, models, evaluated=True))


def _model(run: Run, name: str, params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is written down of a model."""
    folder = run.paths.models / name
    content = content_hash(folder) if folder.is_dir() else None
    given = {"name": name, "params": _texts(params), "metrics": flat_metrics(values), "content": content}
    return given | {"curves": _curves(folder / "config.json")}


def _curves(file: Path) -> list[tuple[str, float, int]]:
    """What a net's log says epoch by epoch: name, value, epoch; where several nets are averaged, each by its number."""
    rows = read_json(file).get("learnt", {}).get("log", []) if file.is_file() else []
    points = []
    for row in rows:
        number = f"_{row['model']}" if row.get("model") else ""
        values = {name: value for name, value in row.items() if name not in ("model", "epoch", "seconds")}
        points += [(f"epoch_{name}{number}", value, row["epoch"]) for name, value in flat_metrics(values).items()]
    return points


def _record(
    run: Run,
    name: str,
    started: float,
    data: str,
    params: Mapping[str, Any],
    files: list[Path],
    models: list[dict[str, Any]],
    evaluated: bool = False,
) -> dict[str, Any]:
    """What is written down of a notebook."""
    figures = [path for path, when in written().items() if path.is_relative_to(run.paths.figures) and when >= started]
    there = [path for path in [*figures, *files] if path.is_file()]
    return {
        "notebook": name,
        "dataset": run.name,
        "started": started,
        "ended": time.time(),
        "commit": commit(),
        "data_sha256": data,
        "params": _texts({**params, **notebook_parameters(name)}),
        "files": {path.relative_to(run.paths.outputs).as_posix(): sha256(path) for path in there},
        "models": models,
        "evaluated": evaluated,
    }


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


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them: texts of at most 6,000 characters."""
    return {name: str(value)[:6000] for name, value in params.items()}


def notebook_parameters(name: str) -> dict[str, Any]:
    """Parameters of the notebook that is being run, with the values they have in it; none outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    source = REPOSITORY / "notebooks" / f"{name}.ipynb"
    if shell is None or not source.is_file():
        return {}
    return {name: shell.user_ns[name] for name in defaults(source) if name in shell.user_ns}


def _submit(run: Run, record: Mapping[str, Any]) -> None:
    """Keep a record, and have it sent unless somebody does that in the end. A failure is one sentence on stderr."""
    when = f"{record['ended']:.3f}-{os.getpid()}"
    write_json(run.paths.outputs / "tracking" / f"{when}-{record['notebook']}.json", record)
    if os.environ.get(WHEN) == "later":
        return
    command = [sys.executable, "-m", "recsys_lib.run.tracking", "send", run.dataset]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        said = [
            f"tracking: {_shown(address())} took longer than {PATIENCE:.0f} s; the run is kept and goes with the next"
        ]
    for line in said:
        sys.stderr.write(f"{line}\n")


# ---- sending -------------------------------------------------------------------------------------------------


def send(run: Run) -> int:
    """Send the runs that wait to MLflow, and give the champion its alias there; one process sends at a time.

    Returns
    -------
    int
        How many notebooks' runs were sent.

    Raises
    ------
    TrackingError
        If they could not be sent: the tracking server is out of reach, the database locked, ... They are kept.
    """
    uri = address()
    if uri is None:
        return 0
    folder = run.paths.outputs / "tracking"
    with locked(home() / "outputs" / ".mlflow.lock"):
        waiting = sorted(folder.glob("[!.]*.json"))
        pointer = run.paths.outputs / "champion.json"
        version = read_json(pointer)["version"] if pointer.is_file() else ""
        state, sent = f"{_shown(uri)} {version}", folder / ".sent"
        if not waiting and (not version or (sent.is_file() and sent.read_text() == state)):
            return 0
        try:
            store = _Store(uri, run)
            for file in waiting:
                store.log(file.stem, read_json(file))
                file.unlink()
            if version:
                store.crown(read_json(pointer))
                folder.mkdir(parents=True, exist_ok=True)
                sent.write_text(state)
        except _failures() as problem:
            reason = " ".join(str(problem).split())[:200]
            raise TrackingError(
                f"tracking: {_shown(uri)} did not take the runs ({type(problem).__name__}: {reason}); "
                f"they are kept in {folder} and go with the next"
            ) from problem
    return len(waiting)


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow and what it stands on raise when a store does not answer, or says no."""
    failures: tuple[type[Exception], ...] = (OSError, ImportError)
    if "mlflow" in sys.modules:
        from mlflow.exceptions import MlflowException

        failures += (MlflowException,)
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.exc import SQLAlchemyError

        failures += (SQLAlchemyError,)
    return failures


def _shown(uri: str | None) -> str:
    """An address without the password it may hold."""
    parts = urlparse(uri or "")
    return (uri or "").replace(f":{parts.password}@", ":***@") if parts.password else uri or ""


class _Store:
    """One experiment of an MLflow store, and the registered model of the same name: that of the data set."""

    def __init__(self, uri: str, run: Run) -> None:
        self.run, self.local = run, not uri.startswith(SERVERS)
        _prepare(uri)
        from mlflow import MlflowClient  # takes seconds

        self.client = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
        known = self.client.get_experiment_by_name(run.name)
        if known is None:
            files = f"mlflow-artifacts:/{run.name}" if self.local else None
            kind = {"mlflow.experimentKind": "custom_model_development"}  # has the pages show runs, not conversations
            self.experiment = self.client.create_experiment(run.name, artifact_location=files, tags=kind)
        else:
            self.experiment = known.experiment_id
            if known.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)

    def log(self, record_id: str, record: Mapping[str, Any]) -> None:
        """Log a notebook's run and, below it, one of each model; models that it evaluated are registered."""
        for old in self._search(f"tags.record = '{record_id}'"):  # of a time when sending broke off
            self.client.delete_run(old.info.run_id)
        tags = {"record": record_id, "notebook": record["notebook"], "dataset": record["dataset"]}
        tags |= {"data_sha256": record["data_sha256"], "commit": record["commit"]}
        tags |= {"mlflow.source.type": "NOTEBOOK", "mlflow.source.name": f"notebooks/{record['notebook']}.ipynb"}
        tags |= {"mlflow.source.git.commit": record["commit"].rstrip("+")}
        parent = self._start(record["notebook"], tags, record["params"], {}, record["started"])
        for name, digest in record["files"].items():
            path = self.run.paths.outputs / name
            if path.is_file() and sha256(path) == digest:
                self._lay(parent, path, Path(name).parts[0])
        for model in record["models"]:
            below = {**tags, "mlflow.parentRunId": parent.info.run_id, "model": model["name"]}
            tracked = self._start(model["name"], below, model["params"], model["metrics"], record["started"])
            self._batch(tracked, model["curves"])
            folder = self.run.paths.models / model["name"]
            if model["content"] and folder.is_dir() and content_hash(folder) == model["content"]:
                self._lay(tracked, folder, "model")
                if record["evaluated"]:
                    self._register(tracked, model["name"], model["content"])
            self._end(tracked, record["ended"])
        self._batch(parent, [("seconds", record["ended"] - record["started"], 0)])
        self._end(parent, record["ended"])

    def crown(self, pointer: Mapping[str, Any]) -> None:
        """Give the alias ``champion`` to the version that ``champion.json`` points to."""
        folder = self.run.paths.outputs / pointer["folder"]
        content = content_hash(folder)
        version = self._version(content)
        if version is None:  # evaluated while runs were not tracked
            tags = {"model": pointer["model"], "dataset": self.run.name, "data_sha256": pointer["task"]["data"]}
            tracked = self._start(pointer["model"], tags, {}, flat_metrics(pointer["metrics"]), time.time())
            self._lay(tracked, folder, "model")
            self._end(tracked, time.time())
            version = self._register(tracked, pointer["model"], content)
        self.client.set_registered_model_alias(self.run.name, "champion", version)

    def _version(self, content: str) -> str | None:
        """Number of the registered version of this content."""
        known = self.client.search_model_versions(f"name = '{self.run.name}'")
        return next((str(one.version) for one in known if one.tags.get("content") == content), None)

    def _register(self, tracked: Tracked, name: str, content: str) -> str:
        """Register the model that lies with a run, unless a version of this content is there; its number."""
        if not self.client.search_registered_models(f"name = '{self.run.name}'"):
            self.client.create_registered_model(self.run.name)
        known = self._version(content)
        if known is not None:
            return known
        source, tags = f"{tracked.info.artifact_uri}/model", {"model": name, "content": content}
        made = self.client.create_model_version(
            self.run.name, source, tracked.info.run_id, tags=tags, description=f"{name} {content[:8]}"
        )
        return str(made.version)

    def _start(
        self, name: str, tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float], at: float
    ) -> Tracked:
        from mlflow.entities import Dataset, DatasetInput

        tracked = self.client.create_run(self.experiment, int(at * 1000), dict(tags), name)
        self._batch(tracked, [(name, value, 0) for name, value in metrics.items()], params)
        data = Dataset(self.run.name, tags["data_sha256"][:12], "local", f"data/processed/{self.run.name}")
        self.client.log_inputs(tracked.info.run_id, [DatasetInput(data)])
        return tracked

    def _end(self, tracked: Tracked, at: float) -> None:
        self.client.set_terminated(tracked.info.run_id, "FINISHED", int(at * 1000))

    def _batch(
        self, tracked: Tracked, points: Iterable[tuple[str, float, int]] = (), params: Mapping[str, str] | None = None
    ) -> None:
        """Log metrics (name, value, epoch or 0) and parameters, as many at once as MLflow takes."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in points]
        for start in range(0, len(metrics), 10 * BATCH):
            self.client.log_batch(tracked.info.run_id, metrics=metrics[start : start + 10 * BATCH])
        given = [Param(name, value) for name, value in (params or {}).items()]
        for start in range(0, len(given), BATCH):
            self.client.log_batch(tracked.info.run_id, params=given[start : start + BATCH])

    def _lay(self, tracked: Tracked, source: Path, below: str) -> None:
        """Put a file or a folder among a run's artifacts: on this disk as second names, which take no space."""
        if not self.local:
            log = self.client.log_artifacts if source.is_dir() else self.client.log_artifact
            log(tracked.info.run_id, str(source), below)
            return
        target = home() / "outputs" / "mlartifacts" / urlparse(tracked.info.artifact_uri).path.lstrip("/") / below
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir() if source.is_dir() else [source]:
            (target / file.name).unlink(missing_ok=True)
            link(file, target / file.name)

    def _search(self, condition: str) -> Iterable[Tracked]:
        return self.client.search_runs([self.experiment], condition, max_results=BATCH)


def _prepare(uri: str) -> None:
    """Keep MLflow quiet and its waits short; make sure that a server answers at all, or that a database is whole.

    A new database is made beside its name and renamed, so that a stop half way leaves none.

    Raises
    ------
    OSError
        If nobody listens at the address.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
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


# ---- a person's view -----------------------------------------------------------------------------------------


def serve(port: int) -> int:
    """Show MLflow's pages on this machine alone, until Ctrl-C."""
    uri = address()
    if uri is None:
        sys.stderr.write(f"tracking is off: {ADDRESS} is 'none', or MLflow is not installed (`make setup`)\n")
        return 1
    if uri.startswith(SERVERS):
        print(f"runs are kept at {_shown(uri)}: open that in a browser")
        return 0
    files = (home() / "outputs" / "mlartifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
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
    given = parser.parse_args(arguments)
    failed = 0
    try:
        send(Run(given.dataset))
    except TrackingError as problem:
        sys.stderr.write(f"{problem}\n")
        failed = 1
    return serve(given.port) if given.action == "ui" else failed


if __name__ == "__main__":
    raise SystemExit(main())
