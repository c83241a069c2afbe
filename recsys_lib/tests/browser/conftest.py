"""A real Voilà or JupyterLab on a free port, in a home of its own, and a real Chromium."""

import shutil
import sys
import time
from dataclasses import dataclass, field

import pytest

from recsys_lib.app.serve import NOTEBOOK
from recsys_lib.benchmarks.demo import PANEL, SETTLED, free_port, running, started
from recsys_lib.paths import REPOSITORY
from recsys_lib.tests.demo_home import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = ".film-lab[data-ready]"


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no Chromium: `apt-get install chromium` brings one"))


def alone(folder) -> dict[str, str]:
    """Variables that keep a server's settings, workspaces and connection files in a folder of its own."""
    folders = {"HOME": "", "IPYTHONDIR": "ipython", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data"}
    folders |= {"JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces", "XDG_CONFIG_HOME": "xdg", "XDG_CACHE_HOME": "cache"}
    for name in folders.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {variable: str(folder / name) for variable, name in folders.items()}


@pytest.fixture(scope="session")
def made_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        make_run("made")
    return home


@pytest.fixture(scope="session")
def server(made_home, tmp_path_factory):
    variables = alone(tmp_path_factory.mktemp("home")) | {"RECSYS_HOME": str(made_home)}
    with running("made", made_home / "voila.log", variables, pool=2, cull_after=10) as server:
        yield server


@pytest.fixture
def jupyterlab(made_home, tmp_path):
    """Address of a copy of the notebook in a JupyterLab that nobody has used before."""
    (tmp_path / "work").mkdir()
    shutil.copy(NOTEBOOK, tmp_path / "work")
    port = free_port()
    options = {"ServerApp.port": port, "ServerApp.port_retries": 0, "IdentityProvider.token": ""}
    options |= {"ServerApp.root_dir": tmp_path / "work", "ServerApp.open_browser": False, "ServerApp.allow_root": True}
    options |= {"LabApp.news_url": "None", "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    variables = alone(tmp_path / "home") | {"RECSYS_HOME": str(made_home), "RECSYS_DATASET": "made"}
    variables["PYTHONPATH"] = str(REPOSITORY)
    url = f"http://127.0.0.1:{port}/"
    with started(command, url, tmp_path / "lab.log", "is running at", variables):
        yield f"{url}lab/tree/{NOTEBOOK.name}?reset"


def run_all(page, url) -> None:
    """Run all cells once the kernel is connected: JupyterLab says "idle" before, and forgets what is asked then."""
    api = url.split("lab/tree")[0] + "api/kernels"
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        kernels = page.request.get(api).json()
        if [each for each in kernels if each["connections"] and each["execution_state"] == "idle"]:
            break
        page.wait_for_timeout(100)
    page.wait_for_selector("#jp-main-statusbar :text('| Idle')")
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


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
    wrong: list = field(default_factory=list)

    def __post_init__(self):
        own = self.url.rstrip("/")
        allowed = (own, own.replace("http", "ws"), "data:", "blob:")
        self.page.on("request", lambda asked: asked.url.startswith(allowed) or self.wrong.append(asked.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.set_default_timeout(60_000)  # a busy machine

    def open(self, query: str = "", ready: str = READY):
        """Open the application; the kernel of a busy machine gets a second chance to connect."""
        from playwright.sync_api import TimeoutError as TooLateError

        self.page.goto(self.url + query)
        try:
            self.page.wait_for_selector(ready, state="attached")
        except TooLateError:
            self.page.reload()
            self.page.wait_for_selector(ready, state="attached")
        return self.settled() if ready == READY else self

    def settled(self):
        """Wait until everything that was asked has been answered."""
        self.page.wait_for_function(SETTLED, timeout=30_000)
        return self

    def tab(self, title: str):
        self.page.click(f".lm-TabBar-tab:has-text('{title}')")
        self.panel().wait_for()
        return self.settled()

    def panel(self):
        """The open tab's content."""
        return self.page.locator(f".film-lab > .widget-tab > {PANEL}")

    def text(self) -> str:
        return self.panel().inner_text()

    def titles(self) -> list:
        return self.panel().locator(".card h3").all_inner_texts()

    def control(self, label: str):
        """The element that a control's label names, on the open tab."""
        return self.panel().get_by_label(label, exact=True)

    def click(self, name: str):
        """Click a button of the open tab, and wait for the answer."""
        self.panel().get_by_role("button", name=name).first.click()
        return self.settled()

    def enter(self, label: str, text: str):
        """Type into a field with the keyboard alone."""
        self.control(label).focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")

    def slide(self, label: str, keys: str, times: int = 1):
        """Move a slider by keys."""
        handle = self.panel().get_by_role("slider", name=label).first
        handle.focus()
        for _ in range(times):
            handle.press(keys)
        return self.settled()


@pytest.fixture
def visitor_of(chromium):
    """Make visitors of a server, each in a browser context of their own; none may ask another machine for anything."""
    made = []

    def make(server, **options) -> Visitor:
        made.append(Visitor(chromium.new_context(**options).new_page(), server.url))
        return made[-1]

    yield make
    for visitor in made:
        visitor.page.context.close()
    assert [visitor.wrong for visitor in made] == [[]] * len(made)


@pytest.fixture
def visitor(server, visitor_of):
    """Somebody who has just come, and has not opened the page yet."""
    return visitor_of(server)
