"""Run the sequence as a training job, by the contract of SageMaker's containers: ``python -m recsys_lib.scale.train``.

The platform gives ``input/data/train`` (or ``SM_CHANNEL_TRAIN``) and ``input/config/hyperparameters.json`` below
``/opt/ml``. Executed notebooks and the report go to ``output/data``, what serves to ``model``; why a job failed stands
in ``output/failure``. :mod:`recsys_lib.api.serve` serves what is in ``model``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recsys_lib.data.known import KNOWN
from recsys_lib.files import read_json, write_json
from recsys_lib.run.parameters import NOTEBOOKS, read_file
from recsys_lib.run.run import Run
from recsys_lib.run.runner import execute

STEPS = "00", "02", "03", "04", "05", "06", "07"
SERVED = "manifest.json", "train.parquet", "valid.parquet", "items.parquet", "users.parquet"  # of the tables


def dataset_of(channel: Path, wanted: str | None) -> str:
    """The table of a channel, by its path, or the name of a known data set, of which the channel holds the archive.

    ``wanted``: the hyperparameter "dataset"; none: the one entry of the channel. ValueError if it is not there.
    """
    entries = sorted(entry.name for entry in channel.glob("[!.]*"))
    if wanted in KNOWN:
        return wanted
    if wanted is None and len(entries) != 1:
        raise ValueError(f"{channel} holds {', '.join(entries) or 'nothing'}: name one as the hyperparameter 'dataset'")
    if wanted is not None and wanted not in entries:
        raise ValueError(f"there is no {wanted!r} in {channel}; there is {', '.join(entries) or 'nothing'}")
    return str(channel / (wanted or entries[0]))


def parameters_of(given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Sections of a parameter file from hyperparameters, whose values are text: ``{"04_als.trials": "5"}``.

    >>> parameters_of({"04_als.trials": "5", "common.relevant_from": "3.5"})
    {'04_als': {'trials': 5}, 'common': {'relevant_from': 3.5}}
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, text in given.items():
        section, dot, name = key.partition(".")
        if not dot:
            raise ValueError(
                f"the hyperparameter {key!r} must be 'dataset' or notebook.parameter, such as 04_als.trials"
            )
        sections.setdefault(section, {})[name] = yaml.safe_load(text)
    return sections


def train(root: Path) -> None:
    """Execute the notebooks 00 and 02 to 07; put what serves into ``model``."""
    config, channel = root / "input/config/hyperparameters.json", root / "input/data/train"
    given = read_json(config) if config.is_file() else {}
    channel = Path(os.environ.get("SM_CHANNEL_TRAIN") or channel)
    os.environ.setdefault("MOVIELENS_DIR", str(channel))
    os.environ["RECSYS_HOME"] = str(root / "output/data")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    dataset = dataset_of(channel, given.pop("dataset", None))
    parameters = root / "output/data/parameters.yaml"
    parameters.parent.mkdir(parents=True, exist_ok=True)
    parameters.write_text(yaml.safe_dump(parameters_of(given)), encoding="utf-8")
    read_file(parameters)
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        if notebook.name[:2] in STEPS:
            execute(notebook, dataset, parameters if given else None)
    run, model, home = Run(dataset), root / "model", root / "output/data"
    served = [*(run.paths.processed / name for name in SERVED), run.paths.metrics / "leaderboard.json"]
    for file in [*served, run.paths.outputs / "champion.json", *run.champion.folder.iterdir()]:
        (model / file.relative_to(home)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, model / file.relative_to(home))
    write_json(model / "dataset.json", dataset)


def main(root: Path | str = "/opt/ml") -> int:
    """Train; whatever fails is one sentence in ``output/failure``."""
    root = Path(root)
    try:
        train(root)
    except Exception as error:  # the platform shows the file, and nothing else
        reason = f"{type(error).__name__}: {error}"
        failure = root / "output/failure"
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason, encoding="utf-8")
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
