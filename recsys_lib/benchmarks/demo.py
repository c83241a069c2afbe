"""Speed and memory of the application: ``python -m recsys_lib.benchmarks.demo ml-100k``.

A real Voilà and a real Chromium: seconds until the first widget, milliseconds of each change, memory of a session that
asks every model, ten sessions at once, kernels left after their pages were closed. ``--pictures`` takes the README's
pictures instead: ``reports/<data set>/figures/demo_*.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from recsys_lib.app import serve
from recsys_lib.files import replacing
from recsys_lib.paths import Paths

READY = ".film-lab[data-ready] .card"
SETTLED = (
    "() => { const {asked = '0', answered = '0'} = document.querySelector('.film-lab').dataset;"
    " return asked === answered; }"
)
PANEL = ".widget-tab-contents > .jupyter-widgets:not(.lm-mod-hidden)"
TABS = ("New user", "Similar films", "Compare models", "Data and results", "For you")
PICTURES = {
    "for_you": ("For you", "light"),
    "compare": ("Compare models", "dark"),
    "results": ("Data and results", "light"),
}


def opened(browser: Any, server: serve.Server, **options: Any) -> Any:
    """A page that shows its first widget."""
    page = browser.new_context(**options).new_page()
    page.goto(server.url)
    page.wait_for_selector(READY, timeout=60_000)
    page.wait_for_function(SETTLED)
    return page


def timed(page: Any, change: Callable[[], Any]) -> float:
    """Milliseconds from a change to the answer that shows it."""
    began = time.perf_counter()
    change()
    page.wait_for_function(SETTLED, polling=10)
    return 1000 * (time.perf_counter() - began)


def first_widgets(browser: Any, server: serve.Server, n: int, pool: int) -> list[float]:
    """Seconds until the first widget of n sessions, one after the other."""
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        page = opened(browser, server)
        seconds.append(time.perf_counter() - began)
        page.context.close()
        time.sleep(4 * pool)  # until kernels are ready again
    return seconds


def changes(page: Any) -> dict[str, list[float]]:
    """Milliseconds of each kind of change, every model asked on the way."""
    panel = page.locator(PANEL)
    taken: dict[str, list[float]] = {}
    models = panel.get_by_label("Model", exact=True)
    names = models.locator("option").all_inner_texts()
    taken["another model"] = [timed(page, lambda name=name: models.select_option(name)) for name in [*names, names[0]]]
    step = panel.get_by_role("button", name="Next →")
    taken["another user"] = [timed(page, step.click) for _ in range(8)]
    card = panel.locator(".card h3 button").first
    taken["why a film"] = [timed(page, card.click) for _ in range(6)]
    for _ in range(2):
        for tab in TABS:
            name = f"tab {tab}"
            taken.setdefault(name, []).append(timed(page, page.locator(f".lm-TabBar-tab:has-text('{tab}')").click))
    return taken


def memory(server: serve.Server) -> dict[str, float]:
    """MB of the largest kernel: resident, and its own alone."""
    kernels = [kernel.memory_full_info() for kernel in server.kernels()]
    return {name: max(getattr(kernel, name) for kernel in kernels) / 2**20 for name in ("rss", "uss")}


def at_once(browser: Any, server: serve.Server, sessions: int) -> list[float]:
    """Seconds until each of several sessions that are opened together shows its widget."""
    from playwright.sync_api import Error

    waiting, seconds = [browser.new_context().new_page() for _ in range(sessions)], []
    pages, began = list(waiting), time.perf_counter()
    for page in pages:
        page.evaluate("url => { setTimeout(() => location.assign(url)) }", server.url)
    while waiting and time.perf_counter() - began < 180:
        for page in list(waiting):
            with contextlib.suppress(Error):  # the page may be on its way
                if page.query_selector(READY):
                    seconds.append(time.perf_counter() - began)
                    waiting.remove(page)
        time.sleep(0.05)
    for page in pages:
        page.context.close()
    return seconds


def measure(browser: Any, dataset: str, *, loads: int, sessions: int, pool: int = 2, cull_after: int = 20) -> None:
    """Serve the application, measure everything above and print it."""
    log = Path(tempfile.mkdtemp(prefix="demo-")) / "voila.log"
    say = sys.stdout.write
    say(f"The application on {dataset}, {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f} at first\n")
    with serve.running(dataset, log, pool=pool, cull_after=cull_after) as server:
        first = first_widgets(browser, server, loads, pool)
        say(
            f"  first widget         {statistics.median(first):6.2f} s   median of {len(first)}, "
            f"longest {max(first):.2f}\n"
        )
        page = opened(browser, server)
        for name, taken in changes(page).items():
            text = f"median of {len(taken)}, longest {max(taken):.0f}"
            say(f"  {name:<20} {statistics.median(taken):6.0f} ms  {text}\n")
        used = memory(server)
        say(f"  memory of a session  {used['rss']:6.0f} MB  resident, {used['uss']:.0f} its own alone\n")
        maps = [mapped.path for kernel in server.kernels() for mapped in kernel.memory_maps()]
        say(f"  torch in the kernel  {'YES' if any('libtorch' in path for path in maps) else 'no':>6}\n")
        page.context.close()
        once = at_once(browser, server, sessions)
        say(
            f"  {sessions} sessions at once {max(once):6.1f} s   until the last of {len(once)} is up, "
            f"first {min(once):.1f}\n"
        )
        until = time.monotonic() + 3 * cull_after + 60
        while time.monotonic() < until and len(server.kernels()) > pool:
            time.sleep(0.5)
        say(f"  kernels left         {max(0, len(server.kernels()) - pool):6d}     after the pages were closed\n")


def take_pictures(browser: Any, paths: Paths) -> None:
    """Take the README's pictures of the application."""
    log = Path(tempfile.mkdtemp(prefix="demo-")) / "voila.log"
    with serve.running(paths.dataset, log, pool=1) as server:
        for name, (tab, theme) in PICTURES.items():
            page = opened(browser, server, color_scheme=theme, viewport={"width": 1280, "height": 760})
            page.click(f".lm-TabBar-tab:has-text('{tab}')")
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
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.pictures:
            take_pictures(browser, Paths(given.dataset))
        else:
            measure(browser, given.dataset, loads=given.loads, sessions=given.sessions)


if __name__ == "__main__":
    main()
