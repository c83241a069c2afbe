"""Speed and memory of the application: ``python -m recsys_lib.benchmarks.demo ml-100k``.

A real Voilà and a real Chromium: seconds until the first widget, milliseconds of each change, memory of a session that
asks every model, ten sessions at once, kernels left after their pages were closed. ``--pictures`` takes the README's
pictures instead: ``reports/<data set>/figures/demo_*.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from recsys_lib.files import replacing
from recsys_lib.paths import Paths

POOL, CULL_AFTER = 2, 20  # kernels kept ready; seconds
READY = ".film-lab[data-ready] .card"
SETTLED = """() => {
  const {asked = "0", answered = "0"} = document.querySelector(".film-lab").dataset;
  return asked === answered;
}"""
PANEL = ".widget-tab-contents > .jupyter-widgets:not(.lm-mod-hidden)"
TABS = ("New user", "Similar films", "Compare models", "Data and results", "For you")
PICTURES = {"for_you": ("For you", "light"), "compare": ("Compare models", "dark"), "results": (TABS[3], "light")}


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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


@contextlib.contextmanager
def started(command: list[str], url: str, log: Path, said: str, variables: dict[str, str]) -> Iterator[Server]:
    """Start a server and wait until it has said something; when the block ends, it and all its children are ended.

    ChildProcessError if it ends first, or has not said it after 90 seconds; with the end of what it said.
    """
    with log.open("w") as file:
        environment = os.environ | variables
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while said not in log.read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise ChildProcessError(f"the server never said {said!r}:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
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


def running(dataset: str, log: Path, variables: dict[str, str] | None = None, **options: Any) -> Any:
    """Serve the application on a free port as :func:`started`; ``options`` as of ``python -m recsys_lib.app``."""
    options["port"] = port = free_port()
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "recsys_lib.app", dataset, *given]
    return started(command, f"http://127.0.0.1:{port}/", log, "The application is at", variables or {})


def opened(browser: Any, server: Server, **options: Any) -> Any:
    """A page that shows its first widget."""
    page = browser.new_context(**options).new_page()
    page.goto(server.url)
    page.wait_for_selector(READY, timeout=60_000)
    page.wait_for_function(SETTLED)
    return page


def changes(page: Any) -> dict[str, list[float]]:
    """Milliseconds from each kind of change to the answer that shows it, every model asked on the way."""
    taken: dict[str, list[float]] = {}

    def timed(name: str, change: Callable[[], Any]) -> None:
        began = time.perf_counter()
        change()
        page.wait_for_function(SETTLED, polling=10)
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - began))

    panel = page.locator(PANEL)
    models = panel.get_by_label("Model", exact=True)
    names = models.locator("option").all_inner_texts()
    for name in [*names, names[0]]:
        timed("another model", lambda name=name: models.select_option(name))
    for _ in range(8):
        timed("another user", panel.get_by_role("button", name="Next →").click)
    for _ in range(6):
        timed("why a film", panel.locator(".card h3 button").first.click)
    for tab in TABS * 2:
        timed(f"tab {tab}", page.locator(f".lm-TabBar-tab:has-text('{tab}')").click)
    return taken


def at_once(browser: Any, server: Server, sessions: int) -> list[float]:
    """Seconds until each of several sessions that are opened together shows its widget."""
    pages = [browser.new_context().new_page() for _ in range(sessions)]
    began = time.perf_counter()
    for page in pages:
        page.evaluate("url => { setTimeout(() => location.assign(url)) }", server.url)
    seconds = []
    for page in pages:
        page.wait_for_selector(READY, timeout=180_000)
        seconds.append(time.perf_counter() - began)
    for page in pages:
        page.context.close()
    return seconds


def measure(browser: Any, server: Server, *, loads: int, sessions: int) -> None:
    """Measure everything above and print it."""
    say, first = sys.stdout.write, []
    for _ in range(loads):
        began = time.perf_counter()
        opened(browser, server).context.close()
        first.append(time.perf_counter() - began)
        time.sleep(4 * POOL)  # until kernels are ready again
    say(f"  first widget         {statistics.median(first):6.2f} s   median of {loads}, longest {max(first):.2f}\n")
    page = opened(browser, server)
    for name, taken in changes(page).items():
        of = f"median of {len(taken)}, longest {max(taken):.0f}"
        say(f"  {name:<20} {statistics.median(taken):6.0f} ms  {of}\n")
    used = max((kernel.memory_full_info() for kernel in server.kernels()), key=lambda info: info.rss)
    say(f"  memory of a session  {used.rss / 2**20:6.0f} MB  resident, {used.uss / 2**20:.0f} its own alone\n")
    torch = any("libtorch" in each.path for kernel in server.kernels() for each in kernel.memory_maps())
    say(f"  torch in the kernel  {'YES' if torch else 'no':>6}\n")
    page.context.close()
    say(f"  {sessions} sessions at once {max(at_once(browser, server, sessions)):6.1f} s   until the last is up\n")
    until = time.monotonic() + 3 * CULL_AFTER + 60
    while time.monotonic() < until and len(server.kernels()) > POOL:
        time.sleep(0.5)
    say(f"  kernels left         {max(0, len(server.kernels()) - POOL):6d}     after the pages were closed\n")


def take_pictures(browser: Any, server: Server, paths: Paths) -> None:
    """Take the README's pictures of the application."""
    for name, (tab, theme) in PICTURES.items():
        page = opened(browser, server, color_scheme=theme, viewport={"width": 1280, "height": 760})
        page.click(f".lm-TabBar-tab:has-text('{tab}')")
        if tab == "For you":
            page.click(".card h3 button")  # the reasons
        page.wait_for_timeout(1500)
        with replacing(paths.reports / "figures" / f"demo_{name}.png") as temporary:
            page.screenshot(path=temporary, type="png")
        page.context.close()
        sys.stdout.write(f"{paths.reports / 'figures' / f'demo_{name}.png'}\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure, or take pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.demo", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--pictures", action="store_true", help="take the README's pictures instead")
    given = parser.parse_args(arguments)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("The benchmark looks at the page with a Chromium, and none is installed.")
    load = f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}"
    sys.stdout.write(f"The application on {given.dataset}, {load}\n")
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        log = Path(folder) / "voila.log"
        with running(given.dataset, log, pool=POOL, cull_after=CULL_AFTER) as server:
            if given.pictures:
                take_pictures(browser, server, Paths(given.dataset))
            else:
                measure(browser, server, loads=given.loads, sessions=given.sessions)


if __name__ == "__main__":
    main()
