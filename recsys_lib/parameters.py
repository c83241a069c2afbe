"""Parameters of the notebooks: files in ``notebooks/params`` and the small ones that tests ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

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
    """
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict) or not all(isinstance(part or {}, dict) for part in content.values()):
        raise ValueError(f"{file} must map 'common' or a notebook's name, such as '04_als', to its parameters")
    return {**(content.get(COMMON) or {}), **(content.get(notebook) or {})}


def from_environment(notebook: str) -> dict[str, Any]:
    """Parameters of the file that the environment variable ``RECSYS_PARAMS`` names; none where it is not set.

    This is how the tests run every notebook on small parameters: a notebook takes them up with
    ``globals().update(parameters.from_environment("04_als"))``.

    >>> from_environment("04_als") if VARIABLE not in os.environ else {}
    {}
    """
    file = os.environ.get(VARIABLE)
    return read_parameters(file, notebook) if file else {}
