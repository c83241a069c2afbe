"""Start Voilà on 09_demo: ``python -m recsys_lib.app ml-100k --port 8866``.

All the options that make the application quick, offline and tidy stand here, so that `make demo`, the browser tests
and the benchmark serve the same thing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from recsys_lib.paths import REPOSITORY

DATASET = "RECSYS_DATASET"
SHARE = Path(__file__).parent / "share"
NOTEBOOK = REPOSITORY / "notebooks" / "09_demo.ipynb"


def chosen_dataset(dataset: str) -> str:
    """The data set that the server was asked to show, or the notebook's own.

    >>> chosen_dataset("ml-100k") if DATASET not in os.environ else "ml-100k"
    'ml-100k'
    """
    return os.environ.get(DATASET) or dataset


def command(
    *, port: int = 8866, pool: int = 2, cull_after: int = 300, browser: bool = False, ip: str = "127.0.0.1"
) -> list[str]:
    """The command line of Voilà.

    Parameters
    ----------
    port
        Where to listen; if it is taken, Voilà takes one nearby and says so.
    pool
        Kernels kept ready, so that a page opens at once; each takes about as much memory as a session.
    cull_after
        Seconds after which a kernel whose page was closed is ended.
    browser
        Whether to open a browser.
    ip
        Address to listen on; this machine alone by default.
    """
    options = {
        "Voila.ip": ip,
        "Voila.port_retries": 20,
        "VoilaConfiguration.template": "recsys",
        "VoilaConfiguration.allow_template_override": "NO",
        "VoilaConfiguration.allow_theme_override": "NO",
        "VoilaConfiguration.show_tracebacks": False,
        "VoilaConfiguration.file_allowlist": "[]",
        "VoilaConfiguration.multi_kernel_manager_class": "recsys_lib.app.kernels.KernelManager",
        "VoilaConfiguration.preheat_kernel": pool > 0,
        "VoilaConfiguration.default_pool_size": pool,
        "VoilaConfiguration.extension_allowlist": "['@jupyter-widgets/jupyterlab-manager', "
        "'@voila-dashboards/widgets-manager8', 'anywidget']",
        "MappingKernelManager.cull_idle_timeout": cull_after,
        "MappingKernelManager.cull_interval": max(5, min(60, cull_after // 4)),
        "MappingKernelManager.cull_connected": False,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    return [
        sys.executable,
        "-m",
        "voila",
        str(NOTEBOOK),
        f"--port={port}",
        *([] if browser else ["--no-browser"]),
        *given,
    ]


def environment(dataset: str) -> dict[str, str]:
    """The variables that Voilà and its kernels need: the data set, the template's folder, and small kernels.

    A kernel computes with one thread, and gives memory back at once.
    """
    shared = os.pathsep.join(filter(None, [str(SHARE), os.environ.get("JUPYTER_PATH")]))
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    small = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
    return {**os.environ, DATASET: dataset, "JUPYTER_PATH": shared, **threads, **small}


@dataclass
class Server:
    """A running Voilà, for the browser tests and the benchmark.

    Attributes
    ----------
    url
        Where it answers.
    process
        Its process.
    log
        File with what it says.
    """

    url: str
    process: subprocess.Popen
    log: Path

    def kernels(self) -> list[psutil.Process]:
        """Its kernels that live now."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "recsys_lib.app.kernel" in child.cmdline():
                    found.append(child)
        return found

    def wait_for(self, pattern: str, seconds: float = 90) -> str:
        """Wait until the log has a line, and give what its first group holds.

        Raises
        ------
        TimeoutError
            If it never comes.
        ChildProcessError
            If the server ends first.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := re.search(pattern, self.log.read_text()):
                return found[found.re.groups]
            if self.process.poll() is not None:
                raise ChildProcessError(f"Voilà has ended:\n{self.log.read_text()}")
            time.sleep(0.1)
        raise TimeoutError(f"Voilà never said {pattern!r}:\n{self.log.read_text()}")


@contextlib.contextmanager
def running(dataset: str, log: Path, *, home: Path | None = None, **options: int) -> Iterator[Server]:
    """Serve the application on a free port until the block ends.

    Parameters
    ----------
    dataset
        What to show.
    log
        File for what the server says.
    home
        The home of the run, if it is not this process's own.
    options
        ``pool`` and ``cull_after`` of :func:`command`.
    """
    variables = environment(dataset) | ({"RECSYS_HOME": str(home)} if home else {})
    port = 18_866 + os.getpid() % 2000
    with log.open("w") as said:
        process = subprocess.Popen(command(port=port, **options), env=variables, stdout=said, stderr=said)
    server = Server("", process, log)
    try:
        server.url = server.wait_for(r"Voilà is running at:\s+(http://\S+)")
        if options.get("pool", 1):
            server.wait_for(r"Kernel pool of .* is filled")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def main(arguments: list[str] | None = None) -> None:
    """Take the place of this process with Voilà."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--ip", default="127.0.0.1", help="address to listen on (0.0.0.0: all)")
    parser.add_argument("--pool", type=int, default=2, help="kernels kept ready")
    parser.add_argument("--cull-after", type=int, default=300, help="seconds after which a closed page's kernel ends")
    parser.add_argument("--browser", action="store_true", help="open a browser")
    given = vars(parser.parse_args(arguments))
    dataset = given.pop("dataset")
    line = command(**given)
    os.execvpe(line[0], line, environment(dataset))


if __name__ == "__main__":
    main()
