"""How quick and how small the demo is: ``python -m recsys_lib.benchmarks.demo ml-100k``.

Serves the application as `make demo` does and looks at it with a Chromium: the time to the first widget, the time of
every kind of change and of the first use of every model, the memory of a session, ten sessions at once, and the
kernels left after pages were closed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from recsys_lib.app import serve
from recsys_lib.app.state import TABS
from recsys_lib.files import write_json

READY = ".rl[data-ready] [data-region=person_card] h3"
CHANGE = """async (change) => {
  const root = document.querySelector(".rl");
  const began = performance.now();
  eval(change);
  while (root.dataset.asked === undefined || root.dataset.asked !== root.dataset.answered) {
    await new Promise(requestAnimationFrame);
  }
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
SET = "const e = document.querySelector('{}'); {}; e.dispatchEvent(new Event('change', {{bubbles: true}}))"
TOUR = {"you": 1, "new": 1, "similar": 1, "compare": 4}  # how many models are asked at a time on each page
CHOOSE = """const [tab, ...names] = change;
  const page = document.querySelector("#rl-page-" + tab);
  const boxes = [...page.querySelectorAll("[data-name=models]")];
  const control = boxes[0] ?? page.querySelector("[data-name=model]");
  for (const box of boxes) box.checked = names.includes(box.value);
  if (!boxes.length) control.value = names[0];
  control.dispatchEvent(new Event("change", {bubbles: true}))"""
CHANGES = {
    "another person": "document.querySelector('[data-action=next]').click()",
    "another model": SET.format("#rl-model-you", "e.selectedIndex = (e.selectedIndex + 1) % e.options.length"),
    "a list of 50": SET.format("[data-name=k]", "e.value = e.value === '50' ? '49' : '50'"),
    "more or less variety": SET.format("#rl-diversity-you", "e.value = e.value === '0' ? '50' : '0'"),
    "why a film": "[...document.querySelectorAll('#rl-page-you details[data-why]:not([open])')][0].open = true;"
    "await new Promise((done) => setTimeout(done, 5))",
    "page: New here?": "document.querySelector('#rl-tab-new').click()",
    "a film named": "document.querySelector('[data-action=add]').click()",
    "page: Similar films": "document.querySelector('#rl-tab-similar').click()",
    "page: Compare models": "document.querySelector('#rl-tab-compare').click()",
    "page: The data and the results": "document.querySelector('#rl-tab-results').click()",
    "back to For you": "document.querySelector('#rl-tab-you').click()",
}


def _opened(browser: Any, server: serve.Server) -> Any:
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector(READY, state="attached", timeout=60_000)
    return page


def first_widgets(browser: Any, server: serve.Server, loads: int) -> list[float]:
    """Seconds from asking for the page to the first widget, each load in a browser without a cache."""
    seconds = []
    for _ in range(loads):
        server.wait_for(r"is filled")
        time.sleep(4)  # the pool fills again, the machine comes to rest
        context = browser.new_context()
        page = context.new_page()
        began = time.perf_counter()
        page.goto(server.url, wait_until="commit")
        page.wait_for_selector(READY, state="attached", timeout=60_000)
        seconds.append(time.perf_counter() - began)
        context.close()
    return seconds


def changes(browser: Any, server: serve.Server, rounds: int = 5) -> dict[str, list[float]]:
    """Milliseconds from a click to what it changes, for every kind of change."""
    page = _opened(browser, server)
    taken: dict[str, list[float]] = {name: [] for name in CHANGES}
    for _ in range(rounds):
        for name, change in CHANGES.items():
            taken[name].append(page.evaluate(CHANGE.replace("eval(change)", change), ""))
            page.wait_for_timeout(100)
    page.close()
    return taken


def _each_model(page: Any, tab: str) -> Iterator[float]:
    """Ask every model once on one page, and give the milliseconds of each change."""
    names = page.eval_on_selector_all("#rl-model-you option", "options => options.map((option) => option.value)")
    page.click(f"#rl-tab-{tab}")
    for start in range(0, len(names), TOUR[tab]):
        yield page.evaluate(CHANGE.replace("eval(change)", CHOOSE), [tab, *names[start : start + TOUR[tab]]])


def first_uses(browser: Any, server: serve.Server) -> dict[str, list[float]]:
    """Milliseconds of the first use of every model, each page in a session of its own."""
    taken = {}
    for tab in TOUR:
        page = _opened(browser, server)
        page.wait_for_timeout(3000)  # another kernel takes the place of this one; the machine comes to rest
        taken[tab] = list(_each_model(page, tab))
        page.close()
    return taken


def memory(server: serve.Server) -> dict[str, float]:
    """MB of the largest kernel: resident, its share of what is shared (pss), and its own alone (uss)."""
    kernels = [kernel.memory_full_info() for kernel in server.kernels()]
    return {name: max(getattr(kernel, name) for kernel in kernels) / 2**20 for name in ("rss", "pss", "uss")}


def memory_with_every_model(browser: Any, server: serve.Server) -> dict[str, float]:
    """The most that a session takes which asks every model on every page."""
    page = _opened(browser, server)
    most = memory(server)
    for tab in TOUR:
        for _ in _each_model(page, tab):
            most = {name: max(value, most[name]) for name, value in memory(server).items()}
    page.close()
    return most


def imports_torch(server: serve.Server) -> bool:
    """Whether a kernel has mapped a library of torch."""
    maps = [mapped.path for kernel in server.kernels() for mapped in kernel.memory_maps()]
    return any("libtorch" in path for path in maps)


def at_once(browser: Any, server: serve.Server, sessions: int) -> tuple[list[float], dict[str, float]]:
    """Seconds until each of several sessions that are opened together shows its widget, and what each takes then."""
    from playwright.sync_api import Error as PlaywrightError

    contexts = [browser.new_context() for _ in range(sessions)]
    waiting, seconds = [context.new_page() for context in contexts], []
    began = time.perf_counter()
    for page in waiting:
        page.evaluate("url => { setTimeout(() => location.assign(url)) }", server.url)
    while waiting and time.perf_counter() - began < 120:
        for page in waiting:
            with contextlib.suppress(PlaywrightError):  # the page may be on its way
                if page.query_selector(READY):
                    seconds.append(time.perf_counter() - began)
                    waiting.remove(page)
                    break
        time.sleep(0.05)
    taken = memory(server)
    for context in contexts:
        context.close()
    return seconds, taken


def left_after(server: serve.Server, seconds: float, pool: int) -> int:
    """How many kernels live beside the pool once the time to cull them is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(server.kernels()) > pool:
        time.sleep(0.5)
    return max(0, len(server.kernels()) - pool)


def measure(dataset: str, *, loads: int = 5, sessions: int = 10, pool: int = 2, cull_after: int = 60) -> dict[str, Any]:
    """Serve the application and measure everything above."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("the benchmark looks at the page with a Chromium, and none was found")
    log = Path(tempfile.mkdtemp(prefix="demo-")) / "voila.log"
    with (
        serve.running(dataset, log, pool=pool, cull_after=cull_after) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found: dict[str, Any] = {"dataset": dataset, "cores": psutil.cpu_count(), "pool": pool}
        found["sessions"] = sessions
        found["load"] = psutil.getloadavg()[0]
        found["first_widget_s"] = first_widgets(browser, server, loads)
        found["changes_ms"] = changes(browser, server)
        found["first_uses_ms"] = first_uses(browser, server)
        found["memory_mb"] = memory_with_every_model(browser, server)
        found["torch"] = imports_torch(server)
        found["at_once_s"], found["at_once_mb"] = at_once(browser, server, sessions)
        found["kernels_left"] = left_after(server, 2 * cull_after + 20, pool)
        browser.close()
    return found


def report(found: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    first, once = found["first_widget_s"], found["at_once_s"]
    lines = [
        f"The demo on {found['dataset']}, {found['cores']} cores with a load of {found['load']:.1f} at the beginning, "
        f"{found['pool']} kernels kept ready",
        f"  first widget          {statistics.median(first):6.2f} s   median of {len(first)}, longest {max(first):.2f}",
    ]
    firsts = {f"first use of a model: {TABS[tab]}": taken for tab, taken in found["first_uses_ms"].items()}
    for name, taken in {**found["changes_ms"], **firsts}.items():
        lines.append(
            f"  {name:<38} {statistics.median(taken):6.0f} ms  median of {len(taken)}, longest {max(taken):.0f}"
        )
    together = f"until the last of {len(once)} is up, the first after {min(once):.1f}"
    lines += [
        f"  memory of a session   {_megabytes(found['memory_mb'])}, with every model asked",
        f"  torch in the kernel   {'YES' if found['torch'] else 'no':>6}",
        f"  {found['sessions']} sessions at once   {max(once):6.1f} s   {together}",
        f"  memory of each        {_megabytes(found['at_once_mb'])}",
        f"  kernels left          {found['kernels_left']:6d}     after the pages were closed",
    ]
    return "\n".join(lines)


def _megabytes(taken: dict[str, float]) -> str:
    shared = f"{taken['pss']:.0f} with its part of what kernels share, its own alone {taken['uss']:.0f}"
    return f"{taken['rss']:6.0f} MB  resident; {shared}"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and keep the figures where a file is named."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.demo", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(arguments)
    found = measure(given.dataset, loads=given.loads, sessions=given.sessions)
    print(report(found))
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
