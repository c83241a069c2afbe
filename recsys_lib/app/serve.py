"""Start Voilà on 09_demo: ``python -m recsys_lib.app ml-100k``. `make demo`, tests and benchmarks serve with this."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from recsys_lib.paths import REPOSITORY, Paths

SHARE = Path(__file__).parent / "share"
NOTEBOOK = REPOSITORY / "notebooks" / "09_demo.ipynb"


def command(port: int, *, ip: str = "127.0.0.1", pool: int = 2, cull_after: int = 300, most: int = 24) -> list[str]:
    """The command line of Voilà.

    Parameters
    ----------
    port, ip
        Where to listen.
    pool
        Kernels kept ready, so that a page opens at once; each takes about as much memory as a session.
    cull_after
        Seconds after which a kernel whose page was closed is ended.
    most
        Kernels at once; whoever comes then is asked to come again later.
    """
    options = {
        "Voila.ip": ip,
        "Voila.port": port,
        "Voila.port_retries": 0,
        "Voila.open_browser": False,
        "VoilaConfiguration.template": "recsys",
        "VoilaConfiguration.allow_template_override": "NO",
        "VoilaConfiguration.allow_theme_override": "NO",
        "VoilaConfiguration.show_tracebacks": False,
        "VoilaConfiguration.file_allowlist": "[]",
        "VoilaConfiguration.multi_kernel_manager_class": "recsys_lib.app.server.KernelManager",
        "VoilaConfiguration.preheat_kernel": pool > 0,
        "VoilaConfiguration.default_pool_size": pool,
        "VoilaConfiguration.extension_allowlist": "['@jupyter-widgets/jupyterlab-manager', "
        "'@voila-dashboards/widgets-manager8', 'anywidget', 'jupyterlab-plotly']",
        "MappingKernelManager.cull_idle_timeout": cull_after,
        "MappingKernelManager.cull_interval": max(5, min(60, cull_after // 4)),
        "KernelManager.most": most,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-W", "ignore", "-m", "recsys_lib.app.server", str(NOTEBOOK), *given]


def environment(dataset: str) -> dict[str, str]:
    """The variables of Voilà and its kernels: the data set, the template's folder, one thread, little memory."""
    shared = os.pathsep.join(filter(None, [str(SHARE), os.environ.get("JUPYTER_PATH")]))
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    small = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
    return {**os.environ, "RECSYS_DATASET": dataset, "JUPYTER_PATH": shared, "PYTHONPATH": path, **threads, **small}


def free_port(first: int, ip: str = "127.0.0.1") -> int:
    """The first port from ``first`` on that nobody listens on; 0: any."""
    for port in range(first, first + 50) if first else (0,):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((ip, port))
            return tried.getsockname()[1]
    raise OSError(f"no port from {first} to {first + 49} is free")


@dataclass
class Server:
    """A running Voilà.

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
        kernels = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "recsys_lib.app.kernel" in child.cmdline():
                    kernels.append(child)
        return kernels

    def wait_for(self, pattern: str, seconds: float = 90) -> None:
        """Wait until the log has a line.

        Raises
        ------
        TimeoutError
            If it never comes.
        ChildProcessError
            If the server ends first.
        """
        until = time.monotonic() + seconds
        while not re.search(pattern, self.log.read_text()):
            if self.process.poll() is not None:
                raise ChildProcessError(f"Voilà has ended:\n{self.log.read_text()[-2000:]}")
            if time.monotonic() > until:
                raise TimeoutError(f"Voilà never said {pattern!r}:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)


@contextlib.contextmanager
def running(
    dataset: str, log: Path, *, port: int = 0, variables: dict[str, str] | None = None, **options: object
) -> Iterator[Server]:
    """Serve the application until the block ends; then server and kernels are ended.

    Parameters
    ----------
    dataset
        What to show.
    log
        File for what the server says.
    port
        Where to listen, or the next free port; 0 for any.
    variables
        Further environment variables.
    options
        Of :func:`command`.
    """
    port = free_port(port, str(options.get("ip", "127.0.0.1")))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        process = subprocess.Popen(
            command(port, **options),
            env=environment(dataset) | (variables or {}),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    server = Server(f"http://{options.get('ip', '127.0.0.1')}:{port}/", process, log)
    with ending(server):
        server.wait_for("Voilà is running at")
        if options.get("pool", 2):
            server.wait_for("Kernel pool of .* is filled")
        yield server


@contextlib.contextmanager
def ending(server: Server) -> Iterator[None]:
    """End a server and all its kernels when the block ends."""
    try:
        yield
    finally:
        family = psutil.Process(server.process.pid).children(recursive=True) if server.process.poll() is None else []
        server.process.terminate()
        _, left = psutil.wait_procs([psutil.Process(server.process.pid), *family], timeout=15)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        server.process.wait()


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C, and print where."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--port", type=int, default=8866, choices=range(1, 65_486), metavar="PORT")
    parser.add_argument(
        "--ip",
        default="127.0.0.1",
        help="address to listen on (0.0.0.0: all; then everybody who reaches this machine can use it)",
    )
    parser.add_argument("--pool", type=int, default=2, help="kernels kept ready")
    parser.add_argument("--most", type=int, default=24, help="kernels at once")
    parser.add_argument("--cull-after", type=int, default=300, help="seconds after which a closed page's kernel ends")
    given = vars(parser.parse_args(arguments))
    dataset = given.pop("dataset")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), running(dataset, Paths(dataset).logs / "voila.log", **given) as server:
        sys.stdout.write(f"The application is at {server.url} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        if os.environ.get("DISPLAY") or sys.platform == "darwin":
            webbrowser.open(server.url)
        server.process.wait()


if __name__ == "__main__":
    main()
