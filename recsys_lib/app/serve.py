"""Serve 09_demo with Voilà: ``python -m recsys_lib.app ml-100k``. `make demo`, tests and benchmarks serve with this."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import sys
import warnings
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from traitlets import Int, List, Unicode
from voila.app import Voila

from recsys_lib.files import may_open
from recsys_lib.paths import REPOSITORY, Paths

SHARE = Path(__file__).parent / "share"
NOTEBOOK = REPOSITORY / "notebooks" / "09_demo.ipynb"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MANAGERS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
CONFIGURED = {"template": "recsys", "allow_template_override": "NO", "allow_theme_override": "NO"}
CONFIGURED |= {"multi_kernel_manager_class": "recsys_lib.app.serve.KernelManager", "show_tracebacks": False}
CONFIGURED |= {"file_allowlist": "[]", "extension_allowlist": repr([*MANAGERS, "anywidget", "jupyterlab-plotly"])}


class KernelManager(AsyncMappingKernelManager):
    """Ends idle kernels, not those that have just been given to a page, and starts no more than it may."""

    most = Int(24, config=True, help="Kernels at once.")
    starting = 0

    async def start_kernel(self, **kwargs: Any) -> str:
        """Start a kernel unless there are too many: then the page says so."""
        if len(self) + self.starting >= self.most:
            raise HTTPError(503, reason="All places are taken. Please load the page again in some minutes.")
        self.starting += 1
        try:
            return await super().start_kernel(**kwargs)
        finally:
            self.starting -= 1

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that is idle, counted from when it was given to a page: one kept ready has waited for longer."""
        kernel = self._kernels[kernel_id]
        if not hasattr(kernel, "given"):
            kernel.given = kernel.last_activity = datetime.now(UTC)
        await super().cull_kernel_if_idle(kernel_id)


class LabVoila(Voila):
    """Voilà for one application: one line in the terminal, no log-in, and only the hosts that it is called by.

    A page elsewhere that lets its name lead here (DNS rebinding) has another name in its Host header, and gets 404.
    """

    hosts = List(Unicode(), config=True, help="Names by which browsers may call.")
    terminal, said = sys.stdout, False

    def init_handlers(self) -> list:
        """Handlers of the application's addresses."""
        handlers = [handler for handler in super().init_handlers() if "log" not in str(handler[0])]
        names = "|".join(map(re.escape, ["localhost", socket.gethostname().lower(), *self.hosts]))
        self.app.add_handlers(rf"^([\d.]+|\[[\da-f:]+\]|{names})$", handlers)
        return []  # none for the other names

    def launch_browser(self) -> None:
        """Say where the application is, and open it where there is a screen, once the first kernels are ready."""
        IOLoop.current().add_callback(self._ready)

    async def _ready(self) -> None:
        pools = getattr(self.kernel_manager, "_pools", {}).values()
        started = await asyncio.gather(*(task for pool in pools for task in pool), return_exceptions=True)
        executed = [kernel["task"] for kernel in started if isinstance(kernel, dict)]
        await asyncio.gather(*executed, return_exceptions=True)
        host = "127.0.0.1" if self.ip in ("0.0.0.0", "::", "*", "") else self.ip
        url, LabVoila.said = f"http://{host}:{self.port}/", True
        others = "" if self.ip in LOOPBACK else "; whoever reaches this machine can use it, there is no password"
        print(f"The application is at {url} (Ctrl-C ends it){others}", file=self.terminal, flush=True)
        if os.environ.get("DISPLAY") or sys.platform == "darwin":
            webbrowser.open(url)


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C; what the server says goes to ``outputs/<data set>/logs/voila.log``."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app", description=__doc__.splitlines()[0])
    anybody = "address to listen on (0.0.0.0: all; then everybody who reaches this machine can use it)"
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--port", type=int, default=8866, choices=range(1, 65_486), metavar="PORT")
    parser.add_argument("--ip", default="127.0.0.1", help=anybody)
    parser.add_argument("--allow-host", action="append", default=[], help="further name by which browsers may call")
    parser.add_argument("--pool", type=int, default=2, help="kernels kept ready, so that a page opens at once")
    parser.add_argument("--most", type=int, default=24, help="kernels at once; then a page asks to come again later")
    parser.add_argument("--cull-after", type=int, default=300, help="seconds after which a closed page's kernel ends")
    given = parser.parse_args(arguments)
    log = Paths(given.dataset).logs / "voila.log"
    try:
        may_open(128)  # the server and each kernel
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        sys.exit(str(error))
    configured = CONFIGURED | {"preheat_kernel": given.pool > 0, "default_pool_size": given.pool}
    options = {f"VoilaConfiguration.{name}": value for name, value in configured.items()}
    options |= {"Voila.open_browser": True, "Voila.ip": given.ip, "Voila.port": given.port}
    options |= {"KernelManager.most": given.most, "LabVoila.hosts": repr(given.allow_host)}
    options |= {"MappingKernelManager.cull_idle_timeout": given.cull_after}
    options |= {"MappingKernelManager.cull_interval": max(5, min(60, given.cull_after // 4))}
    os.environ["RECSYS_DATASET"] = given.dataset
    for name, folder in (("JUPYTER_PATH", SHARE), ("PYTHONPATH", REPOSITORY)):
        os.environ[name] = os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with os.fdopen(os.dup(1), "w") as LabVoila.terminal, log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)  # for the kernels, too
        try:
            LabVoila.launch_instance([str(NOTEBOOK), *(f"--{name}={value}" for name, value in options.items())])
        finally:
            if not LabVoila.said:
                print(f"The application did not start; {log} says why.", file=LabVoila.terminal)
