"""Parameters of the notebooks: files in ``notebooks/params``, and the small ones that tests ask for."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml

from recsys_lib.paths import Paths
from recsys_lib.run.steps import STEPS

COMMON = "common"
VARIABLE = "RECSYS_PARAMS"


def read_parameters(file: Path | str, notebook: str) -> dict[str, Any]:
    """Parameters that a file gives one notebook: those of its section, over those of ``common``.

    Parameters
    ----------
    file
        YAML: ``{common: {name: value}, 04_als: {name: value}}``.
    notebook
        Stem of the notebook, such as ``"04_als"``.

    Raises
    ------
    ValueError
        If the file is no mapping of sections to mappings.
    FileNotFoundError
        If there is no such file.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no parameter file {file}")
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict) or not all(isinstance(part or {}, dict) for part in content.values()):
        raise ValueError(f"{file} must map 'common' or a notebook's name, such as '04_als', to its parameters")
    return {**(content.get(COMMON) or {}), **(content.get(notebook) or {})}


def section_names(file: Path | str) -> list[str]:
    """Names of the sections of a parameter file, ``common`` left out."""
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    return [name for name in content if name != COMMON]


def from_environment(notebook: str) -> dict[str, Any]:
    """Parameters of the file that the environment variable ``RECSYS_PARAMS`` names; none where it is not set.

    This is how the tests run every notebook on small parameters: a notebook takes them up with
    ``globals().update(parameters.from_environment("04_als"))``.

    >>> from_environment("04_als") if VARIABLE not in os.environ else {}
    {}
    """
    file = os.environ.get(VARIABLE)
    return read_parameters(file, notebook) if file else {}


def write_stamps(dataset: str, file: Path | None) -> None:
    """Keep each step's parameters in a file of its own, touched only when they change.

    Make compares their times, so that a changed section re-runs its own notebook and what comes after it.
    """
    folder = Paths(dataset).outputs / "params"
    folder.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        given = {"dataset": dataset, **(read_parameters(file, step.name) if file else {})}
        text = json.dumps(given, indent=2, sort_keys=True, default=str) + "\n"
        stamp = folder / f"{step.name}.json"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != text:
            stamp.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the stamps that Make compares."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.parameters", description=main.__doc__)
    parser.add_argument("dataset")
    parser.add_argument("file", nargs="?", type=Path)
    given = parser.parse_args()
    write_stamps(given.dataset, given.file)


if __name__ == "__main__":
    main()
