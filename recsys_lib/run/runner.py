"""Execute one notebook with papermill: parameters checked, output whole or absent, log and times kept."""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from papermill.exceptions import PapermillExecutionError

from recsys_lib.files import locked, may_open, read_json, replacing, write_json
from recsys_lib.paths import Paths, in_full
from recsys_lib.run.parameters import chosen_for
from recsys_lib.run.remote import pull, push
from recsys_lib.run.sizing import announcement
from recsys_lib.run.steps import steps_of

FILES = 128  # that may be open at once: a kernel has about 80
CLOCK = 10  # seconds by which the time that a process began may seem to move
PATIENCE = 86_400  # seconds for a kernel to start: the machine may sleep meanwhile, and a kernel that dies is noticed


def claim(paths: Paths) -> None:
    """Note which process runs a data set: the Make that calls this one, or this one.

    BlockingIOError if another one does that is alive.
    """
    this, file = psutil.Process(), paths.outputs / ".run.json"
    mine = next((process for process in this.parents() if process.name() in ("make", "gmake")), this)
    with locked(paths.outputs / ".run.lock"):
        pid, since = read_json(file) if file.is_file() else (mine.pid, began(mine))
        with suppress(psutil.NoSuchProcess):
            if pid != mine.pid and abs(began(psutil.Process(pid)) - since) < CLOCK:
                raise BlockingIOError(f"process {pid} is running {paths.name} already; wait for it, or end it")
        write_json(file, (mine.pid, began(mine)))


def began(process: psutil.Process) -> float:
    """When a process began, in seconds since the machine did: whoever sets the clock changes both alike."""
    return process.create_time() - psutil.boot_time()


def execute(notebook: Path, dataset: str, file: Path | None = None) -> Path:
    """Execute a notebook; what comes out is ``outputs/<dataset>/notebooks/<notebook>.ipynb``, once every cell ran.

    ParameterError before anything runs; PapermillExecutionError if a cell fails: the notebook as far as it got is in
    ``outputs/<dataset>/logs/`` then.
    """
    paths = Paths(dataset)
    # The kernel's working directory is the notebook's folder, so a path is handed on in full.
    given = {**chosen_for(dataset, notebook, file), "dataset": in_full(dataset)}
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
        with locked(paths.logs / f".{notebook.stem}.lock"), replacing(target) as temporary:
            try:
                executed = papermill.execute_notebook(
                    str(notebook),
                    str(temporary),
                    parameters=given,
                    kernel_name="python3",
                    cwd=str(notebook.parent),  # as in JupyterLab
                    progress_bar={"desc": _placed(notebook.stem), "unit": "cell"},
                    log_output=True,
                    request_save_on_cell_execute=False,
                    start_timeout=PATIENCE,
                    # What a kernel says of sockets and of its own end is no news.
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )
            except PapermillExecutionError:
                temporary.replace(failed)
                raise
            code = [cell for cell in executed.cells if cell.cell_type == "code"]
            for cell in code:  # what is kept of a progress bar is how it stood at its start
                cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            nbformat.write(executed, temporary)
            write_json(paths.logs / "times" / f"{notebook.stem}.json", _times(notebook.stem, code, started))
    finally:
        logger.removeHandler(handler)
        handler.close()
    return target


def _placed(name: str) -> str:
    """A notebook's name; of the sequence, with its place.

    >>> _placed("03_popularity"), _placed("cold_start")
    ('4 of 10: 03_popularity', 'cold_start')
    """
    names = [step.name for step in steps_of()]
    return f"{names.index(name) + 1} of {len(names)}: {name}" if name in names else name


def _is_progress(output: dict[str, Any]) -> bool:
    """Whether an output is a bar of tqdm, as a widget or as text.

    >>> _is_progress({"data": {"text/plain": ["models:   0%|          | 0/6 [00:00<?, ?it/s]"]}})
    True
    """
    text = output.get("data", {}).get("text/plain", output.get("text", ""))
    return re.search(r"\d+%\|.*\|\s*\S+/\S+ \[", "".join(text)) is not None


def _times(name: str, code: list[Any], started: float) -> dict[str, Any]:
    """How long the step took, what of it was the start of the kernel and the imports; what the kernel used."""
    times = [cell.metadata.papermill for cell in code]
    imports = next((time_.duration for cell, time_ in zip(code, times, strict=True) if "import " in cell.source), 0)
    begun = datetime.fromisoformat(times[0].start_time).timestamp() - started
    taken = {"seconds": time.time() - started, "start_and_import_seconds": begun + imports}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the kernel, which has ended
    taken["cpu_seconds"] = used.ru_utime + used.ru_stime
    taken["peak_gib"] = used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere
    return {"step": name, **{what: round(value, 2) for what, value in taken.items()}}


def _reason(error: PapermillExecutionError, failed: Path) -> str:
    """Why a cell failed; where the kernel could not even say that, for want of files or memory, its last line."""
    cells = nbformat.read(failed, as_version=4).cells
    cell = next(cell for cell in cells if cell.metadata.get("papermill", {}).get("exception"))
    lines = "".join(output.get("text", "") for output in cell.outputs).strip().splitlines()
    return f"{error.ename}: {error.evalue}" if error.evalue or not lines else lines[-1]


def main() -> int:
    """Execute one notebook of the sequence."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.runner", description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--params", default="", help="a file; by default notebooks/params/<dataset>.yaml")
    given = parser.parse_args()
    logging.raiseExceptions = False  # a log that cannot be written is no news beside what else fails then
    # Kernels compute on one thread: two fight over two cores, and results stay the same bit by bit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        may_open(FILES)
        claim(Paths(given.dataset))
        pull(given.dataset)
        file = Path(given.params) if given.params else None
        first = not file and given.notebook.stem.startswith("03")  # of those that work on what 02 prepared
        if first and (text := announcement(given.dataset)):
            print(text, file=sys.stderr)
        execute(given.notebook.resolve(), given.dataset, file)
        push(given.dataset)
    except (OSError, ValueError, RuntimeError) as error:
        died = " (was memory short?); the same command continues from here" if isinstance(error, RuntimeError) else ""
        print(f"{given.notebook.stem}: {error}{died}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        failed = Paths(given.dataset).logs / f"{given.notebook.stem}.failed.ipynb"
        print(f"{given.notebook.stem} failed: {_reason(error, failed)}", file=sys.stderr)
        print(f"The notebook as far as it got: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{given.notebook.stem} was stopped; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
