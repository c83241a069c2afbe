"""A real Voilà on a loopback port, and a real Chromium."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from recsys_lib.demo import serve
from recsys_lib.tests.demo_home import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = ".rl[data-ready] [data-region=person_card] h3"


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no Chromium: `apt-get install chromium` brings one"))


@dataclass
class Server:
    """A running Voilà."""

    url: str
    process: subprocess.Popen
    log: Path

    def kernels(self) -> int:
        """How many kernels it has now."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        found = 0
        for child in children:
            with contextlib.suppress(psutil.Error):
                found += "ipykernel" in " ".join(child.cmdline())
        return found

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Wait until the log has a line, and give what its first group holds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1] if found.groups() else found[0]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"{pattern!r} never came:\n{self.log.read_text()}")


@contextlib.contextmanager
def running(home: Path, dataset: str, *, pool: int, cull_after: int = 300):
    log = home / f"voila-{dataset}.log"
    environment = {**serve.environment(dataset), "RECSYS_HOME": str(home)}
    environment.pop("RECSYS_PARAMS", None)
    line = serve.command(port=18_866 + os.getpid() % 2000, pool=pool, cull_after=cull_after)
    with log.open("w") as handle:
        process = subprocess.Popen(line, env=environment, stdout=handle, stderr=handle, cwd=home)
    server = Server("", process, log)
    try:
        server.url = server.wait_for(r"Voilà is running at:\s+(http://\S+)")
        if pool:
            server.wait_for(r"Kernel pool of .* is filled")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def made_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        make_run("made")
    return home


@pytest.fixture(scope="session")
def server(made_home):
    with running(made_home, "made", pool=2, cull_after=10) as server:
        yield server


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visitor:
    """One session: its page, and what it should never have done."""

    page: object
    url: str
    outside: list = field(default_factory=list)
    errors: list = field(default_factory=list)

    def open(self, query: str = "", ready: str = READY):
        """Open the application; the kernel of a busy machine gets a second chance to connect."""
        from playwright.sync_api import TimeoutError as TooLateError

        self.page.goto(self.url + query)
        try:
            self.page.wait_for_selector(ready, state="attached", timeout=25_000)
        except TooLateError:
            self.page.reload()
            self.page.wait_for_selector(ready, state="attached", timeout=25_000)
        self.settled()
        return self

    def settled(self):
        """Wait until everything that was asked has been answered."""
        answered = "({asked = '0', answered = '0'}) => asked === answered"
        self.page.wait_for_function(f"() => ({answered})(document.querySelector('.rl').dataset)")
        return self

    def tab(self, key: str):
        self.page.click(f"#rl-tab-{key}")
        return self.settled()

    def text(self, region: str) -> str:
        return self.page.inner_text(f"[data-region={region}]")

    def titles(self, region: str) -> list:
        return self.page.locator(f"[data-region={region}] .rl-title").all_inner_texts()


@pytest.fixture
def visitor_of(chromium):
    """Make visitors of a server; at the end none of them has asked another machine for anything."""
    visitors, contexts = [], []

    def make(server, **options) -> Visitor:
        context = chromium.new_context(**options)
        contexts.append(context)
        visitor = Visitor(context.new_page(), server.url)
        own = server.url.rstrip("/")
        visitor.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((own, own.replace("http", "ws"), "data:", "blob:"))
                else visitor.outside.append(request.url)
            ),
        )
        visitor.page.on("pageerror", lambda error: visitor.errors.append(str(error)))
        visitor.page.set_default_timeout(15_000)
        visitors.append(visitor)
        return visitor

    yield make
    for context in contexts:
        context.close()
    assert [visitor.outside for visitor in visitors if visitor.outside] == []
    assert [visitor.errors for visitor in visitors if visitor.errors] == []


@pytest.fixture
def visitor(server, visitor_of):
    return visitor_of(server)
