"""Serve 09_demo with Voilà: ``python -m recsys_lib.app ml-100k``. `make demo`, tests and benchmarks serve with this."""

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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int
from voila.app import Voila

from recsys_lib.paths import REPOSITORY, Paths

SHARE = Path(__file__).parent / "share"
NOTEBOOK = REPOSITORY / "notebooks" / "09_demo.ipynb"
GRACE = 20.0  # seconds from the page that is sent to the connection of its kernel
OPTIONS = {
    "Voila.port_retries": 0,
    "Voila.open_browser": False,
    "VoilaConfiguration.template": "recsys",
    "VoilaConfiguration.allow_template_override": "NO",
    "VoilaConfiguration.allow_theme_override": "NO",
    "VoilaConfiguration.show_tracebacks": False,
    "VoilaConfiguration.file_allowlist": "[]",
    "VoilaConfiguration.multi_kernel_manager_class": "recsys_lib.app.serve.KernelManager",
    "VoilaConfiguration.extension_allowlist": "['@jupyter-widgets/jupyterlab-manager', "
    "'@voila-dashboards/widgets-manager8', 'anywidget', 'jupyterlab-plotly']",
}

SMALL = {  # kernels: memory given back at once, one thread, bytecode kept
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}


# ---- Voilà's own process -----------------------------------------------------------------------------------------


class KernelManager(AsyncMappingKernelManager):
    """Ends idle kernels, not those that have just been given to a page, and starts no more than it may.

    A kernel kept ready has been idle for as long as nobody came. Between its page being sent and that page's
    connection it would look like one that was left alone, and be ended: the page would never come up.
    """

    most = Int(24, config=True, help="Kernels at once.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._idle_since: dict[str, float] = {}

    async def start_kernel(self, **kwargs: Any) -> str:
        """Start a kernel unless there are too many: then the page says so."""
        if len(self) >= self.most:
            raise HTTPError(503, reason="All places are taken. Please load the page again in some minutes.")
        return await super().start_kernel(**kwargs)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that is idle and was so ``GRACE`` seconds ago; Voilà does not ask for those kept ready."""
        kernel, now = self._kernels[kernel_id], time.monotonic()
        idle = datetime.now(UTC) - kernel.last_activity > timedelta(seconds=self.cull_idle_timeout)
        if not idle or self._kernel_connections.get(kernel_id, 0):
            self._idle_since.pop(kernel_id, None)
        elif now - self._idle_since.setdefault(kernel_id, now) >= GRACE:
            del self._idle_since[kernel_id]
            await super().cull_kernel_if_idle(kernel_id)


class LabVoila(Voila):
    """Voilà for one application: no log-in, and no other host.

    A page elsewhere that lets its name lead here (DNS rebinding) is answered 404: it has neither an address of this
    machine nor its name in its Host header.
    """

    def init_handlers(self) -> list:
        """Handlers of the application's addresses."""
        handlers = [handler for handler in super().init_handlers() if "log" not in str(handler[0])]
        own = rf"^([\d.]+|\[[\da-f:]+\]|localhost|{re.escape(socket.gethostname().lower())})$"
        self.app.add_handlers(own, handlers)
        return []  # none for the other names


# ---- what starts it ----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A running server: where it answers, its process, the file with what it says."""

    url: str
    process: subprocess.Popen
    log: Path

    def kernels(self) -> list[psutil.Process]:
        """Its kernels that live now."""
        kernels = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                kernels += [child] if "recsys_lib.app.kernel" in child.cmdline() else []
        return kernels

    def wait_for(self, pattern: str) -> None:
        """Wait until the log has a line; TimeoutError if it never comes, ChildProcessError if the server ends first."""
        until = time.monotonic() + 90
        while not re.search(pattern, self.log.read_text()):
            if self.process.poll() is not None or time.monotonic() > until:
                error = TimeoutError if self.process.poll() is None else ChildProcessError
                raise error(f"the server never said {pattern!r}:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)


@contextlib.contextmanager
def started(command: list[str], url: str, log: Path, variables: dict[str, str]) -> Iterator[Server]:
    """Start a server whose words go to a file; when the block ends, it and all its kernels are ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield Server(url, process, log)
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for each in psutil.wait_procs(family, timeout=5)[1]:
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.kill()
        process.wait()


def free_port(first: int = 0, ip: str = "127.0.0.1") -> int:
    """The first port from ``first`` on that nobody listens on; 0: any."""
    for port in range(first, first + 50) if first else (0,):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((ip, port))
            return tried.getsockname()[1]
    raise OSError(f"no port from {first} to {first + 49} is free")


@contextlib.contextmanager
def running(
    dataset: str,
    log: Path,
    *,
    ip: str = "127.0.0.1",
    port: int = 0,
    pool: int = 2,
    cull_after: int = 300,
    most: int = 24,
    variables: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Serve the application until the block ends; then server and kernels are ended.

    ``log`` takes what the server says. It listens on ``port`` or the next free one (0: any), keeps ``pool`` kernels
    ready, so that a page opens at once, ends a kernel ``cull_after`` seconds after its page was closed, and asks those
    who come when ``most`` kernels live to come again later. ``variables`` are added to the environment.
    """
    port = free_port(port, ip)
    options = OPTIONS | {"Voila.ip": ip, "Voila.port": port, "KernelManager.most": most}
    options |= {"VoilaConfiguration.preheat_kernel": pool > 0, "VoilaConfiguration.default_pool_size": pool}
    options |= {"MappingKernelManager.cull_idle_timeout": cull_after}
    options |= {"MappingKernelManager.cull_interval": max(5, min(60, cull_after // 4))}
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-W", "ignore", "-m", "recsys_lib.app.serve", str(NOTEBOOK), *given]
    environment = {"RECSYS_DATASET": dataset, **SMALL}
    for name, folder in (("JUPYTER_PATH", SHARE), ("PYTHONPATH", REPOSITORY)):
        environment[name] = os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))
    with started(command, f"http://{ip}:{port}/", log, environment | (variables or {})) as server:
        server.wait_for("Voilà is running at")
        if pool:
            server.wait_for("Kernel pool of .* is filled")
        yield server


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C, and print where."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app", description=__doc__.splitlines()[0])
    anybody = "address to listen on (0.0.0.0: all; then everybody who reaches this machine can use it)"
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--port", type=int, default=8866, choices=range(1, 65_486), metavar="PORT")
    parser.add_argument("--ip", default="127.0.0.1", help=anybody)
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
    LabVoila.launch_instance()
