"""Execute one notebook with papermill: parameters checked, output whole or absent, log and times kept."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError

from recsys_lib.files import replacing, write_json
from recsys_lib.paths import Paths, in_full
from recsys_lib.run.parameters import ParameterError, file_of, parameters_for


def execute(notebook: Path, dataset: str, file: Path | None = None) -> Path:
    """Execute a notebook of the sequence.

    Parameters
    ----------
    notebook
        Its source, in ``notebooks/``.
    dataset
        Name or path of the data set.
    file
        Parameter file, see :mod:`recsys_lib.run.parameters`.

    Returns
    -------
    Path
        ``outputs/<dataset>/notebooks/<notebook>.ipynb``; there only if every cell ran.

    Raises
    ------
    ParameterError
        Before anything runs.
    PapermillExecutionError
        If a cell fails; the notebook as far as it came is in ``outputs/<dataset>/logs/``.
    """
    paths = Paths(dataset)
    # The kernel's working directory is the notebook's folder, so a path is handed on in full.
    given = {**parameters_for(notebook, file), "dataset": in_full(dataset)}
    target = paths.outputs / "notebooks" / notebook.name
    failed = paths.logs / f"{notebook.stem}.failed.ipynb"
    paths.logs.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    handler = logging.FileHandler(paths.logs / f"{notebook.stem}.log", mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    started = time.time()
    try:
        with replacing(target) as temporary:
            try:
                _run(notebook, temporary, given)
                _drop_progress(temporary)
            except PapermillExecutionError:
                temporary.replace(failed)
                raise
            _keep_times(paths, notebook.stem, temporary, started)
    finally:
        logger.removeHandler(handler)
        handler.close()
    return target


def _run(notebook: Path, target: Path, given: dict[str, Any]) -> None:
    """Call papermill; the notebook's folder is its working directory, as in JupyterLab."""
    papermill.execute_notebook(
        str(notebook),
        str(target),
        parameters=given,
        kernel_name="python3",
        cwd=str(notebook.parent),
        progress_bar={"desc": notebook.stem, "unit": "cell"},
        log_output=True,
        request_save_on_cell_execute=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # its warning about loopback sockets says nothing of the run
    )


def _drop_progress(executed: Path) -> None:
    """Take progress bars out of an executed notebook: what is kept of one there is how it stood at the start."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        kept = [output for output in cell.get("outputs", []) if not _is_progress(output)]
        if len(kept) < len(cell.get("outputs", [])):
            cell["outputs"] = kept
    executed.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_progress(output: dict[str, Any]) -> bool:
    """Whether an output is a bar of tqdm, as a widget or as text.

    >>> _is_progress({"data": {"text/plain": ["models:   0%|          | 0/6 [00:00<?, ?it/s]"]}})
    True
    """
    text = output.get("data", {}).get("text/plain", output.get("text", ""))
    return re.search(r"\d+%\|.*\|\s*\S+/\S+ \[", "".join(text)) is not None


def _keep_times(paths: Paths, name: str, executed: Path, started: float) -> None:
    """Write how long the step took, and how much of it was the start of the kernel and the imports."""
    cells = [cell for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    times = [cell["metadata"]["papermill"] for cell in cells]
    first = datetime.fromisoformat(times[0]["start_time"]).timestamp()
    imports = next(
        (time_["duration"] for cell, time_ in zip(cells, times, strict=True) if "import " in "".join(cell["source"])), 0
    )
    total = time.time() - started
    kept = {"step": name, "seconds": round(total, 2), "start_and_import_seconds": round(first - started + imports, 2)}
    write_json(paths.logs / "times" / f"{name}.json", kept)


def main() -> int:
    """Execute one notebook of the sequence."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.runner", description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--params", default="", help="a file; by default notebooks/params/<dataset>.yaml")
    given = parser.parse_args()
    # Kernels compute on one thread: two fight over two cores, and results stay the same bit by bit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        execute(given.notebook.resolve(), given.dataset, Path(given.params) if given.params else file_of(given.dataset))
    except (ParameterError, FileNotFoundError, ValueError) as error:
        print(f"{given.notebook.stem}: {error}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        logs = Paths(given.dataset).logs
        print(f"{given.notebook.stem} failed: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"The notebook as far as it came: {logs / given.notebook.stem}.failed.ipynb", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{given.notebook.stem} was stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
