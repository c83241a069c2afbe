"""The application as a visitor meets it: served by Voilà, in a Chromium, offline."""

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from recsys_lib.app import site
from recsys_lib.benchmarks.demo import running
from recsys_lib.run.run import Run
from recsys_lib.tests.browser.conftest import alone, run_all
from recsys_lib.tests.made import made_tables

TABS = ("For you", "New user", "Similar films", "Compare models", "Data and results")


def test_every_tab_shows_content(visitor):
    visitor.open()
    assert visitor.page.title() == "Film lab"
    assert len(visitor.titles()) == 10
    assert "mean rating" in visitor.text()
    visitor.tab("New user")
    assert "Served by popularity, until one film is known" in visitor.text()
    visitor.tab("Similar films")
    assert visitor.panel().locator(".columns > section").count() == 3
    visitor.page.wait_for_selector(".js-plotly-plot:has-text('Map of films')")
    visitor.tab("Compare models")
    assert "rated next" in visitor.text()
    visitor.tab("Data and results")
    assert "120\nusers" in visitor.text() or "120" in visitor.text()
    assert "paired permutation test" in visitor.text()
    visitor.page.wait_for_selector(".js-plotly-plot:has-text('mean and 95% interval')")
    assert visitor.panel().locator(".js-plotly-plot .errorbar").count() == 4
    visitor.tab("Decades")
    assert "Decades of user" in visitor.text()
    for tab, heading in (("For you", "10 films for user"), ("Compare models", "3 models for user")):
        assert heading in visitor.tab(tab).page.text_content("[data-part=said]")  # also where it stood there before
    body = visitor.page.inner_text("body").lower()
    assert "error" not in body
    assert "models can be asked" not in body  # nothing of the notebook shows


def test_every_control_of_for_you_changes_the_list(visitor):
    visitor.open()
    shown = [visitor.text()]

    def changed():
        visitor.settled()
        visitor.page.wait_for_timeout(100)
        assert visitor.text() != shown[-1]
        shown.append(visitor.text())

    for button in ("Next →", "← Previous", "Anybody"):
        visitor.click(button)
        changed()
    visitor.control("Model").select_option("Popularity")
    changed()
    visitor.slide("Films", "ArrowRight", 2)
    changed()
    assert len(visitor.titles()) == 12
    visitor.panel().get_by_text("Filters and diversity").click()
    for change in (
        lambda: visitor.slide("Diversity %", "ArrowRight", 15),
        lambda: visitor.click("Own mix of genres"),
        lambda: visitor.control("Leave out rated films").uncheck(),
        lambda: visitor.control("Genre").select_option("Drama"),
        lambda: visitor.slide("Years", "ArrowRight", 20),
        lambda: visitor.control("Column").select_option("Genres"),
        lambda: visitor.control("Order").select_option("By title"),
    ):
        change()
        changed()
    assert visitor.panel().locator(".badge:has-text('rated')").count() > 0
    titles = visitor.panel().locator("tbody th").all_inner_texts()
    assert titles == sorted(titles)


def test_a_film_opens_with_its_reasons_and_leads_to_similar_ones(visitor):
    visitor.open("?model=ease")
    visitor.panel().locator(".card h3 button").first.click()
    details = visitor.panel().locator(".card .details")
    details.wait_for()
    assert "%" in details.inner_text()
    assert "ratings" in details.inner_text()
    assert visitor.page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"  # focus stays
    details.get_by_role("button", name="more", exact=True).click()
    visitor.settled()
    assert "Films similar to" in visitor.text()


def test_a_user_is_found_with_the_keyboard_and_back_leads_back(visitor):
    page = visitor.open().page
    first = visitor.text()
    field = visitor.control("User")
    visitor.enter("User", "user 17")
    page.wait_for_selector(".panel h2:has-text('User 17')")
    visitor.settled()
    assert field.input_value().startswith("User 17 ·")
    assert "user=17" in page.url
    visitor.enter("User", "99999")
    page.wait_for_selector(".notice:has-text('Nothing here is called “99999”')")
    page.go_back()
    page.wait_for_function("text => !document.body.innerText.includes(text)", arg="10 films for user 17")
    visitor.settled()
    assert visitor.text() == first
    page.locator(".lm-TabBar-tab").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("h2:has-text('films for you')")


def test_a_film_is_found_in_spite_of_spelling(visitor):
    visitor.open("?tab=Similar+films").enter("Film", "usaul suspcts")
    visitor.page.wait_for_selector("h2:has-text('Films similar to The Usual Suspects')")


def test_a_new_users_list_follows_every_pick_and_the_link_brings_it_back(server, visitor_of):
    visitor = visitor_of(server, permissions=["clipboard-read", "clipboard-write"]).open("?tab=New+user&model=ease")
    page, lists = visitor.page, []

    def changed():
        visitor.settled()
        assert visitor.titles() not in lists
        lists.append(visitor.titles())

    changed()
    for pick in (
        ".group >> nth=1",
        ".group >> nth=0",
        ".chip >> nth=0",
        ".card [data-do^=like] >> nth=0",
    ):
        visitor.panel().locator(pick).click()
        changed()
    first = visitor.panel().locator(".picks li").first
    first.get_by_role("button", name="1 stars").click()
    visitor.settled()
    assert first.locator("[aria-pressed=true]").get_attribute("aria-label") == "1 stars"
    lists[-1] = visitor.titles()
    visitor.enter("Find a film", "Film 20")
    changed()
    page.click("[data-part=copy]")
    page.wait_for_selector("[data-part=copy]:has-text('Copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    friend = visitor_of(server).open(link.removeprefix(server.url))
    friend.panel().locator(".picks li").first.wait_for()
    friend.settled()
    assert friend.titles() == lists[-1]
    visitor.click("Start again")
    assert visitor.titles() == lists[0]


def test_ratings_are_imported_after_they_are_shown(visitor, tmp_path):
    visitor.open("?tab=New+user")
    file, (_, items, _) = tmp_path / "ratings.csv", made_tables()
    years = {item: items.loc[items["item_id"] == item, "year"].item() for item in (30, 31)}
    file.write_text(f"Name,Year,Rating\nFilm 30,{years[30]},4\nFilm 31,{years[31]},2.5\nNowhere,1999,5\n")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.panel().get_by_role("button", name="Import ratings").click()
    chooser.value.set_files(str(file))
    visitor.page.wait_for_selector("text=do not: Nowhere (1999)")
    assert visitor.panel().locator(".picks li").count() == 0
    visitor.click("Use these ratings")
    assert visitor.panel().locator(".picks li").count() == 2


def test_lists_side_by_side_follow_their_controls(visitor):
    visitor.open("?tab=Similar+films")
    columns = visitor.panel().locator(".columns > section")
    visitor.panel().locator(".chip[aria-pressed=true]").first.click()
    visitor.settled()
    assert columns.count() == 2
    visitor.slide("Films", "Home")
    assert columns.first.locator("li").count() == 5
    visitor.tab("Compare models")
    before = columns.first.inner_text()
    visitor.click("Next →")
    assert columns.first.inner_text() != before
    visitor.click("new user")
    visitor.page.wait_for_selector("text=models for the new user of the tab before")


def test_the_results_follow_their_metrics(visitor):
    visitor.open("?tab=Data+and+results")
    assert visitor.panel().locator("tbody th").first.inner_text().startswith("Blend")
    visitor.control("Metric").select_option("RMSE")
    visitor.settled()
    assert "lower is better" in visitor.text()
    visitor.page.wait_for_selector(".js-plotly-plot .ytitle:has-text('RMSE')")
    visitor.control("Against").select_option("NDCG@10")
    visitor.page.wait_for_selector(".js-plotly-plot .xtitle:has-text('NDCG@10')")


def test_hostile_titles_and_parameters_do_nothing(visitor):
    hostile = "%3Cimg%20src%3Dx%20onerror%3D%22window.hacked%3D5%22%3E"
    visitor.open(f"?tab=%3Cscript%3Ewindow.hacked%3D4%3C/script%3E&user={hostile}&hide_rated=0&model=popularity")
    visitor.page.wait_for_selector(".notice:has-text('<img')")
    for tab in TABS:
        visitor.tab(tab)
    visitor.tab("For you")
    visitor.panel().locator(".card h3 button").first.click()
    visitor.settled()
    assert any("<script>" in title for title in visitor.titles())
    assert visitor.page.evaluate("window.hacked") is None


def kernel_of(server, visitor, query=""):
    """Open the page, and give the kernel that it is connected to."""
    opened = []
    visitor.page.on("websocket", lambda socket: opened.append(socket.url))
    visitor.open(query)
    name = [url.split("/kernels/")[1].split("/")[0] for url in opened if "/kernels/" in url][-1]
    return next(each for each in server.kernels() if name in " ".join(each.cmdline()))


def test_a_kernel_that_dies_is_said_and_the_page_opens_again_where_it_was(server, visitor_of):
    visitor = visitor_of(server)
    kernel = kernel_of(server, visitor, "?tab=New+user&model=ease&liked=20:4")
    visitor.panel().locator(".picks li").first.wait_for()
    listed = visitor.settled().titles()
    kernel.kill()
    visitor.panel().locator(".chip").first.click()
    visitor.page.wait_for_selector("[data-part=gone]:visible", timeout=30_000)
    assert "Traceback" not in visitor.page.inner_text("body")
    visitor.page.click("[data-part=reload]")
    visitor.page.wait_for_selector(".picks li", timeout=60_000)
    visitor.settled()
    assert visitor.titles() == listed


def test_a_kernel_that_does_not_answer_is_said_until_it_does(server, visitor_of):
    visitor = visitor_of(server)
    kernel = kernel_of(server, visitor)
    kernel.suspend()
    try:
        visitor.panel().locator(".card h3 button").first.click()
        visitor.page.wait_for_selector("[data-part=gone]:visible", timeout=30_000)
    finally:
        kernel.resume()
    visitor.settled()
    visitor.panel().locator(".details").wait_for()
    assert not visitor.page.is_visible("[data-part=gone]")


def test_two_visitors_at_once_do_not_disturb_each_other(server, visitor_of):
    one, two = visitor_of(server).open(), visitor_of(server).open()
    before = two.text()
    one.click("Next →").control("Model").select_option("Popularity")
    one.settled()
    assert two.settled().text() == before
    assert one.text() != before


def test_the_theme_follows_the_system_and_the_switch_is_remembered(server, visitor_of):
    visitor = visitor_of(server, color_scheme="dark").open()
    theme = visitor.page.locator(".film-lab")
    assert theme.get_attribute("data-theme") == "dark"
    visitor.page.click("[data-part=theme]")
    assert theme.get_attribute("data-theme") == "light"
    visitor.open()
    assert theme.get_attribute("data-theme") == "light"


@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_nothing_sticks_out_and_axe_finds_nothing(server, visitor_of, width):
    axe_package = pytest.importorskip("axe_playwright_python")
    axe = (Path(axe_package.__file__).parent / "axe.min.js").read_text("utf-8")
    visitor = visitor_of(server, color_scheme="light", viewport={"width": width, "height": 800}).open()
    visitor.page.evaluate(axe)
    for tab in TABS:
        visitor.tab(tab)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width, tab
        for _ in ("light", "dark"):
            results = visitor.page.evaluate("axe.run(document)")
            found = [(each["id"], each["nodes"][0]["html"][:200]) for each in results["violations"]]
            assert found == [], tab
            visitor.page.click("[data-part=theme]")


def test_a_phone_shows_the_list_early(server, visitor_of):
    visitor = visitor_of(server, viewport={"width": 360, "height": 740}).open()
    assert visitor.panel().locator(".card").first.bounding_box()["y"] < 740
    for tab in visitor.page.locator(".film-lab > .widget-tab > .lm-TabBar .lm-TabBar-tab").all():
        box = tab.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360
    visitor.tab("New user")  # the ratings stand below the list
    assert visitor.panel().locator(".card").first.bounding_box()["y"] < 1000


def test_in_jupyterlab_it_is_the_same_and_keys_are_no_commands_to_the_notebook(jupyterlab, chromium):
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(jupyterlab)
    run_all(page, jupyterlab)
    page.wait_for_selector(".film-lab[data-ready] .card", state="attached")
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.get_by_role("button", name="Next →").first.focus()
    page.keyboard.press("b")  # a new cell, in the notebook's own language
    page.locator(".film-lab .lm-TabBar-tab:has-text('Data and results')").click()
    page.wait_for_selector(".film-lab :text('paired permutation test')")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    context.close()


def test_missing_artefacts_are_explained_and_an_open_door_is_said(tmp_path, visitor_of):
    variables = alone(tmp_path / "home") | {"RECSYS_HOME": str(tmp_path)}
    with running("ml-latest-small", tmp_path / "voila.log", variables, pool=0, ip="0.0.0.0") as empty:
        assert "whoever reaches this machine can use it" in empty.log.read_text()
        visitor = visitor_of(empty).open(ready=".stop")
        assert "make 02 DATASET=ml-latest-small" in visitor.page.inner_text(".stop")
        assert "error" not in visitor.page.inner_text("body")


def test_kernels_of_closed_pages_end_and_too_many_are_refused(made_home, tmp_path, visitor_of):
    variables = alone(tmp_path / "home") | {"RECSYS_HOME": str(made_home)}
    with running("made", tmp_path / "voila.log", variables, pool=2, cull_after=20, most=3) as server:
        visitors = [visitor_of(server).open() for _ in range(3)]
        late = visitor_of(server)
        late.page.goto(server.url)
        late.page.wait_for_selector("text=All places are taken")
        assert len(server.kernels()) == 3
        for visitor in visitors:
            visitor.page.close()
        until = time.monotonic() + 120
        while server.kernels() and time.monotonic() < until:
            time.sleep(0.5)
        assert server.kernels() == []
        late.open()


def test_a_visitor_gets_the_page_and_nothing_else_of_the_server(server):
    def answer(path, host="127.0.0.1", method="GET"):
        request = urllib.request.Request(server.url + path, headers={"Host": host}, method=method)
        try:
            with urllib.request.urlopen(request) as opened:
                return opened.status
        except urllib.error.HTTPError as error:
            return error.code

    assert [answer("static/voila.js", host, "HEAD") for host in ("127.0.0.1", "localhost")] == [405, 405]  # it is GET's
    assert [answer(path, "evil.example") for path in ("static/voila.js", "")] == [404, 404]  # a name that leads here
    secret = ("logout", "login", "api/kernels", "api/contents", "files/README.md", "voila/files/09_demo.ipynb")
    assert {answer(path) for path in secret} == {403}
    assert {answer(path, method="POST") for path in ("api/kernels", "api/sessions", "logout")} == {403}


def test_the_static_site_opens_from_the_disk(made_home, chromium, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(made_home))
    index = site.build(Run("made"), users=2, films=2)
    context = chromium.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(index.as_uri())
    assert page.locator("tbody th").first.inner_text().startswith("Blend")
    page.click("text=For users")
    page.click("main li a >> nth=0")
    page.locator("summary:has-text('Why this film?')").first.click()
    assert "%" in page.locator("details[open] .details").first.inner_text()
    assert page.evaluate("window.hacked") is None
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
