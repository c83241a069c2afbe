"""Pictures of the application for the README: ``python -m recsys_lib.app.pictures ml-100k``.

Serves the application, looks at it with a Chromium, and writes ``reports/<data set>/figures/demo_*.png``, each under
150 KB.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from recsys_lib.app import serve
from recsys_lib.files import replacing
from recsys_lib.paths import Paths

READY = ".rl[data-ready] [data-region=person_card] h3"
SETTLED = (
    "() => {const {asked = '0', answered = '0'} = document.querySelector('.rl').dataset; return asked === answered}"
)
PICTURES: dict[str, dict[str, Any]] = {
    "for_you": {"tab": "you", "scheme": "light", "open": "#rl-page-you details[data-why] summary", "first": 2},
    "compare": {"tab": "compare", "scheme": "dark"},
}
MOST_BYTES = 149_000
SIZE = {"width": 1280, "height": 700}


def take(paths: Paths) -> list[Path]:
    """Take the pictures of a run.

    Raises
    ------
    FileNotFoundError
        If there is no Chromium to look with.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("no Chromium was found to look with: `apt-get install chromium` brings one")
    log = Path(tempfile.mkdtemp(prefix="demo-")) / "voila.log"
    with serve.running(paths.dataset, log, pool=1) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        taken = [
            _take(browser, server.url, paths.reports / "figures" / f"demo_{name}.png", **how)
            for name, how in PICTURES.items()
        ]
        browser.close()
    return taken


def _take(browser: Any, url: str, path: Path, *, tab: str, scheme: str, open: str = "", first: int = 0) -> Path:
    """Open one page, unfold the first few of what ``open`` selects, and keep a picture."""
    context = browser.new_context(color_scheme=scheme, viewport=SIZE)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(READY, state="attached", timeout=60_000)
    page.click(f"#rl-tab-{tab}")
    for number in range(first):
        page.locator(open).nth(number).click()
    page.wait_for_function(SETTLED)
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(300)
    with replacing(path) as temporary:
        page.screenshot(path=temporary, type="png")
        _squeeze(temporary)
    context.close()
    return path


def _squeeze(path: Path) -> None:
    """Compress a picture as far as PNG can; only one that is still too large loses colours."""
    from PIL import Image

    with Image.open(path) as image:
        full = image.convert("RGB")
    full.save(path, format="PNG", optimize=True)
    if path.stat().st_size > MOST_BYTES:
        full.quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Take the pictures of a data set's run and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.app.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    given = parser.parse_args(arguments)
    for path in take(Paths(given.dataset)):
        sys.stdout.write(f"{path} ({path.stat().st_size / 1000:.0f} KB)\n")


if __name__ == "__main__":
    main()
