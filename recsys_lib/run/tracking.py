"""Runs of the notebooks in MLflow, and the registry mirrored there.

A notebook does not talk to MLflow: it writes down what it did (parameters, data, commit, metrics with intervals, which
figures and models) in ``outputs/<dataset>/tracking``, which takes milliseconds, and has a process of its own send that.
So no notebook pays for MLflow's import, nothing is lost while a server is out of reach (what was written down goes with
the next), and ``make run``, which sets ``RECSYS_TRACKING=later``, sends all its runs in one go at its end.

Where to: the database ``outputs/mlflow.db`` with files in ``outputs/mlartifacts``, or what ``MLFLOW_TRACKING_URI``
names. If that is ``none``, or MLflow is not installed, nothing is written down and all else is the same.

``python -m recsys_lib.run.tracking send ml-100k`` sends what waits; ``... ui`` opens MLflow's pages.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from recsys_lib.files import link, locked, read_json, replacing, sha256, write_json, written
from recsys_lib.paths import REPOSITORY, Paths, home
from recsys_lib.run import registry
from recsys_lib.run.environment import commit

if TYPE_CHECKING:
    from mlflow.entities import Run

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


def log_training(paths: Paths, content: Mapping[str, Any], started: float = IMPORTED) -> None:
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
        models.append(_model(paths, model, {"class": facts["class"], **facts["params"]}, rest))
    files = [paths.metrics / "training" / f"{name}.json"]
    split = content["data"]["split"]
    _submit(paths, _record(paths, name, started, content["data"]["sha256"], {"split": split["name"]}, files, models))


def log_evaluation(
    paths: Paths, content: Mapping[str, Any], notebook: str = "07_evaluation", started: float = IMPORTED
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
        models.append(_model(paths, entry["name"], {"class": entry["model"], **entry["params"]}, values))
    given = {"split": protocol["split"]["name"], "task": protocol["fingerprint"], "people": protocol["people_kept"]}
    files = [paths.metrics / "leaderboard.json"]
    _submit(paths, _record(paths, notebook, started, content["data"]["sha256"], given, files, models))


def _model(paths: Paths, name: str, params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is written down of a model."""
    folder = paths.models / name
    content = registry.content_hash(folder) if folder.is_dir() else None
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
    paths: Paths,
    name: str,
    started: float,
    data: str,
    params: Mapping[str, Any],
    files: list[Path],
    models: list[dict[str, Any]],
) -> dict[str, Any]:
    """What is written down of a notebook."""
    figures = [path for path, when in written().items() if path.is_relative_to(paths.figures) and when >= started]
    there = [path for path in [*figures, *files] if path.is_file()]
    return {
        "notebook": name,
        "dataset": paths.name,
        "started": started,
        "ended": time.time(),
        "commit": commit(),
        "data_sha256": data,
        "params": _texts({**params, **notebook_parameters(name)}),
        "files": {path.relative_to(paths.outputs).as_posix(): sha256(path) for path in there},
        "models": models,
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
    """Parameters of the notebook that is being run, with the values they have in it; none outside a notebook.

    Their names are those that the cell tagged ``parameters`` of ``notebooks/<name>.ipynb`` assigns.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    source = REPOSITORY / "notebooks" / f"{name}.ipynb"
    if shell is None or not source.is_file():
        return {}
    cells = [cell for cell in read_json(source)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    tree = ast.parse("".join("".join(cell["source"]) + "\n" for cell in cells))
    names = [
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    return {name: shell.user_ns[name] for name in names if name in shell.user_ns}


def _submit(paths: Paths, record: Mapping[str, Any]) -> None:
    """Keep a record, and have it sent unless somebody does that in the end. A failure is one sentence on stderr."""
    when = f"{record['ended']:.3f}-{os.getpid()}"
    write_json(paths.outputs / "tracking" / f"{when}-{record['notebook']}.json", record)
    if os.environ.get(WHEN) == "later":
        return
    command = [sys.executable, "-m", "recsys_lib.run.tracking", "send", paths.dataset]
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


def send(paths: Paths) -> int:
    """Send the runs that wait to MLflow, and mirror the registry there; runs are sent by one process at a time.

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
    with locked(home() / "outputs" / ".mlflow.lock"):
        waiting, done = sorted((paths.outputs / "tracking").glob("*.json")), paths.outputs / "tracking" / ".mirrored"
        state = f"{uri} {registry.stamp(paths)}"
        if not waiting and (state == _text(done) or registry.stamp(paths) == (0, 0)):
            return 0
        try:
            store = _Store(uri, paths)
            for file in waiting:
                store.log(file.stem, read_json(file))
                file.unlink()
            store.mirror()
            with replacing(done) as temporary:
                temporary.write_text(state)
        except _failures() as problem:
            reason = " ".join(str(problem).split())[:200]
            raise TrackingError(
                f"tracking: {_shown(uri)} did not take the runs ({type(problem).__name__}: {reason}); "
                f"they are kept in {paths.outputs / 'tracking'} and go with the next"
            ) from problem
    return len(waiting)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


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
    """One experiment of an MLflow store, named after the data set."""

    def __init__(self, uri: str, paths: Paths) -> None:
        self.paths, self.local = paths, not uri.startswith(SERVERS)
        _prepare(uri)
        from mlflow import MlflowClient  # takes seconds

        self.client = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
        found = self.client.get_experiment_by_name(paths.name)
        if found is None:
            files = (home() / "outputs" / "mlartifacts" / paths.name).as_uri() if self.local else None
            kind = {"mlflow.experimentKind": "custom_model_development"}  # has the pages show runs, not conversations
            self.experiment = self.client.create_experiment(paths.name, artifact_location=files, tags=kind)
        else:
            self.experiment = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment)

    def log(self, record_id: str, record: Mapping[str, Any]) -> None:
        """Log a notebook's run, and below it one of each model."""
        for old in self._search(f"tags.record = '{record_id}'"):  # of a time when sending broke off
            self.client.delete_run(old.info.run_id)
        tags = {"record": record_id, "notebook": record["notebook"], "dataset": record["dataset"]}
        tags |= {"data_sha256": record["data_sha256"], "commit": record["commit"]}
        tags |= {"mlflow.source.type": "NOTEBOOK", "mlflow.source.name": f"notebooks/{record['notebook']}.ipynb"}
        tags |= {"mlflow.source.git.commit": record["commit"].rstrip("+")}
        parent = self._start(record["notebook"], tags, record["params"], {}, record["started"])
        for name, digest in record["files"].items():
            path = self.paths.outputs / name
            if path.is_file() and sha256(path) == digest:
                self.client.log_artifact(parent.info.run_id, str(path), Path(name).parts[0])
        for model in record["models"]:
            below = {**tags, "mlflow.parentRunId": parent.info.run_id, "model": model["name"]}
            run = self._start(model["name"], below, model["params"], model["metrics"], record["started"])
            self._batch(run, model["curves"])
            if model["content"]:
                self._attach(run, model["content"], self.paths.models / model["name"])
            self._end(run, record["ended"])
        self._batch(parent, [("seconds", record["ended"] - record["started"], 0)])
        self._end(parent, record["ended"])

    def mirror(self) -> None:
        """Bring the registered versions, and who is champion, into MLflow's registry."""
        there = registry.versions(self.paths)
        if not there:
            return
        name, chosen = self.paths.name, f"name = '{self.paths.name}'"
        known = self.client.search_registered_models(chosen)
        model = known[0] if known else self.client.create_registered_model(name)
        have = {
            (one.tags.get("model"), one.tags.get("version"), one.tags.get("content")): one.version
            for one in self.client.search_model_versions(chosen)
        }
        for version in there:
            key = (version.name, version.version, version.card["content"])
            if key not in have:
                have[key] = self._register(version).version
        champion = registry.present(self.paths)
        if champion is None:
            return
        number = have[champion.name, champion.version, champion.card["content"]]
        if str(model.aliases.get("champion")) != str(number):
            self.client.set_registered_model_alias(name, "champion", number)

    def _register(self, version: registry.Version) -> Any:
        """Make a version of MLflow's registry that points to the files of the run which logged the model."""
        content = version.card["content"]
        run = self._holder(content)
        if run is None:  # fitted while runs were not tracked
            tags = {"model": version.name, "dataset": self.paths.name, "data_sha256": version.card["data"]["sha256"]}
            run = self._start(str(version), tags, _texts(version.card["params"]), {}, time.time())
            self._attach(run, content, version.folder)
            self._end(run, time.time())
            run = self.client.get_run(run.info.run_id)
        metric = version.task[2]
        value = version.card["metrics"][metric]
        return self.client.create_model_version(
            self.paths.name,
            run.data.tags["model_uri"],
            run.info.run_id,
            tags={"model": version.name, "version": version.version, "content": content, "task": version.task[1]},
            description=f"{version}: {metric} {value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})",
        )

    def _start(
        self, name: str, tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float], at: float
    ) -> Run:
        from mlflow.entities import Dataset, DatasetInput

        run = self.client.create_run(self.experiment, int(at * 1000), dict(tags), name)
        self._batch(run, [(name, value, 0) for name, value in metrics.items()], params)
        data = Dataset(self.paths.name, tags["data_sha256"][:12], "local", str(self.paths.processed))
        self.client.log_inputs(run.info.run_id, [DatasetInput(data)])
        return run

    def _end(self, run: Run, at: float) -> None:
        self.client.set_terminated(run.info.run_id, "FINISHED", int(at * 1000))

    def _batch(
        self, run: Run, points: Iterable[tuple[str, float, int]] = (), params: Mapping[str, str] | None = None
    ) -> None:
        """Log metrics (name, value, epoch or 0) and parameters, as many at once as MLflow takes."""
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in points]
        for start in range(0, len(metrics), 10 * BATCH):
            self.client.log_batch(run.info.run_id, metrics=metrics[start : start + 10 * BATCH])
        given = [Param(name, value) for name, value in (params or {}).items()]
        for start in range(0, len(given), BATCH):
            self.client.log_batch(run.info.run_id, params=given[start : start + BATCH])

    def _attach(self, run: Run, content: str, folder: Path) -> None:
        """Lay a model's folder with its run, if it still has that content.

        On this disk the files get second names, and what an earlier run holds already is taken from there, so that runs
        of unchanged models take no space; a server gets each content once.
        """
        twin, uri = self._holder(content), f"{run.info.artifact_uri}/model"
        here, intact = _on_disk(uri), folder.is_dir() and registry.content_hash(folder) == content
        if here is not None:
            places = [_on_disk(twin.data.tags["model_uri"])] if twin else []
            places = [place for place in places if place is not None and place.is_dir()] + [folder] * intact
            if places:
                shutil.copytree(places[0], here, copy_function=link)
        elif twin is not None:
            uri = twin.data.tags["model_uri"]
        elif intact:
            self.client.log_artifacts(run.info.run_id, str(folder), "model")
        if twin is not None or intact:
            self.client.set_tag(run.info.run_id, "model_uri", uri)
        self.client.set_tag(run.info.run_id, "model_content", content)

    def _holder(self, content: str) -> Run | None:
        """A run that holds a model of this content."""
        found = self._search(f"tags.model_content = '{content}'")
        held = [run for run in found if run.data.tags.get("model_uri", "").startswith(run.info.artifact_uri)]
        return held[0] if held else None

    def _search(self, condition: str) -> Iterable[Run]:
        return self.client.search_runs([self.experiment], condition, max_results=BATCH)


def _on_disk(uri: str) -> Path | None:
    """The folder that an artifact's address means, if it is on this disk."""
    parts = urlparse(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _prepare(uri: str) -> None:
    """Keep MLflow quiet and its waits short, and make sure that a server answers at all.

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
    elif uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)


# ---- a person's view -----------------------------------------------------------------------------------------


def serve(paths: Paths, port: int) -> int:
    """Send what waits, then show MLflow's pages on this machine alone, until Ctrl-C."""
    uri = address()
    if uri is None:
        sys.stderr.write(f"tracking is off: {ADDRESS} is 'none', or MLflow is not installed (`make setup`)\n")
        return 1
    if uri.startswith(SERVERS):
        print(f"runs are kept at {_shown(uri)}: open that in a browser")
        return 0
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--default-artifact-root", (home() / "outputs" / "mlartifacts").as_uri()]
    command += ["--port", str(port), "--workers", "1"]
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
    paths, failed = Paths(given.dataset), 0
    try:
        send(paths)
    except TrackingError as problem:
        sys.stderr.write(f"{problem}\n")
        failed = 1
    return serve(paths, given.port) if given.action == "ui" else failed


if __name__ == "__main__":
    raise SystemExit(main())
