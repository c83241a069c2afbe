"""A real Voilà on a loopback port, and a real Chromium."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from recsys_lib.app import serve
from recsys_lib.tests.demo_home import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = ".rl[data-ready] [data-region=person_card] h3"


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no Chromium: `apt-get install chromium` brings one"))


@pytest.fixture(scope="session")
def made_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        make_run("made")
    return home


@pytest.fixture(scope="session")
def server(made_home):
    with serve.running("made", made_home / "voila.log", home=made_home, pool=2, cull_after=10) as server:
        yield server


@pytest.fixture
def jupyterlab(made_home, tmp_path):
    """Address of the notebook in a JupyterLab, a copy of it."""
    shutil.copy(serve.NOTEBOOK, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"ServerApp.port": port, "IdentityProvider.token": "", "ServerApp.root_dir": tmp_path}
    options |= {"ServerApp.open_browser": False, "ServerApp.allow_root": True}
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    environment = os.environ | {"RECSYS_HOME": str(made_home), serve.DATASET: "made"}
    with (tmp_path / "lab.log").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        serve.Server("", process, tmp_path / "lab.log").wait_for("(is running at)")
        yield f"http://127.0.0.1:{port}/lab/tree/{serve.NOTEBOOK.name}"
    finally:
        process.terminate()
        process.wait(20)


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
            self.page.wait_for_selector(ready, state="attached", timeout=60_000)
        except TooLateError:
            self.page.reload()
            self.page.wait_for_selector(ready, state="attached", timeout=60_000)
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


def _welcome(chromium, server, **options) -> tuple:
    """A visitor in a browser context of their own, watched for requests to other machines and for errors."""
    context = chromium.new_context(**options)
    visitor = Visitor(context.new_page(), server.url)
    own = server.url.rstrip("/")
    allowed = (own, own.replace("http", "ws"), "data:", "blob:")
    page = visitor.page
    page.on("request", lambda request: request.url.startswith(allowed) or visitor.outside.append(request.url))
    page.on("pageerror", lambda error: visitor.errors.append(str(error)))
    page.set_default_timeout(15_000)
    return context, visitor


@pytest.fixture
def visitor_of(chromium):
    """Make visitors of a server; none of them may ask another machine for anything."""
    made = []

    def make(server, **options) -> Visitor:
        made.append(_welcome(chromium, server, **options))
        return made[-1][1]

    yield make
    for context, _ in made:
        context.close()
    assert [visitor.outside + visitor.errors for _, visitor in made] == [[]] * len(made)


@pytest.fixture
def visitor(server, visitor_of):
    """Somebody who has just come, and has not opened the page yet."""
    return visitor_of(server)


@pytest.fixture(scope="module")
def guest(server, chromium):
    """Somebody who stays for several tests: these begin by choosing what they need."""
    context, visitor = _welcome(chromium, server)
    yield visitor.open("?model=ease")
    context.close()
    assert visitor.outside + visitor.errors == []
