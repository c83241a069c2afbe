"""The application as a person meets it: served by Voilà, in a Chromium, offline."""

import time

from recsys_lib.app import serve, site
from recsys_lib.paths import Paths

CHOOSE = (
    "e => {e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}))}"
)


def slide(visitor, selector, value, *, settled=True):
    visitor.page.eval_on_selector(selector, f"e => {{ e.value = '{value}'; ({CHOOSE})(e) }}")
    if settled:
        visitor.settled()


def hacked(visitor):
    return visitor.page.evaluate("window.hacked")


def test_every_page_shows_content(visitor):
    visitor.open()
    assert visitor.page.title() == "Film lab"
    assert "Person" in visitor.text("person_card")
    assert len(visitor.titles("person_list")) == 10
    visitor.tab("new")
    assert "the films that most people know" in visitor.text("new_list")
    visitor.tab("similar")
    assert visitor.page.locator("[data-region=similar_lists] section").count() == 3
    visitor.tab("compare")
    assert "watched next" in visitor.text("compare_lists")
    visitor.tab("results")
    assert "120 people" in visitor.text("results_data")
    assert "leads with" in visitor.text("results_board")
    assert "error" not in visitor.page.inner_text("body").lower()
    assert "models can be asked" not in visitor.page.inner_text("body")
    assert "cell" not in visitor.page.inner_text("body").lower()  # nothing of the notebook shows


def test_every_control_of_for_you_changes_the_list(visitor):
    visitor.open()
    page = visitor.page
    shown = [visitor.text("person_list")]

    def changed():
        visitor.settled()
        assert visitor.text("person_list") != shown[-1]
        shown.append(visitor.text("person_list"))

    page.click("[data-action=next]")
    changed()
    page.select_option("#rl-model-you", "popularity")
    changed()
    slide(visitor, "#rl-k-you", 7)
    changed()
    assert len(visitor.titles("person_list")) == 7
    slide(visitor, "#rl-diversity-you", 90)
    changed()
    page.select_option("#rl-variety-you", label="one’s own mix of genres")
    changed()
    page.uncheck("[data-name=unseen]")
    changed()
    page.select_option("#rl-genre", "Drama")
    changed()
    page.fill("#rl-since", "1960")
    page.press("#rl-since", "Tab")
    changed()
    page.fill("#rl-until", "1980")
    page.press("#rl-until", "Tab")
    changed()
    years = page.locator("[data-region=person_list] .rl-meta").all_inner_texts()
    assert all(1960 <= int(year) <= 1980 for year in years)


CHANGE = """e => {
  if (e.type === "checkbox" || e.tagName === "BUTTON") { e.click(); return; }
  if (e.tagName === "SELECT") e.selectedIndex = (e.selectedIndex + 1) % e.options.length;
  else if (e.type === "number") e.value = { "rl-since": 1960, "rl-until": 1980 }[e.id];
  else e.value = Number(e.value) + (Number(e.value) < 35 ? 15 : -15);
  e.dispatchEvent(new Event("input", {bubbles: true}));
  e.dispatchEvent(new Event("change", {bubbles: true}));
}"""


def test_a_change_of_every_control_shows(visitor):
    visitor.open("?diversity=60&liked=20:5")
    for tab, least in {"you": 11, "new": 4, "similar": 4, "compare": 4, "results": 1}.items():
        visitor.tab(tab)
        parts = visitor.page.locator(f"#rl-page-{tab} [data-region]:not([role=listbox])")
        controls = visitor.page.locator(f"#rl-page-{tab} :is([data-name], .rl-row [data-action])")
        assert controls.count() >= least, tab
        for number in range(controls.count()):
            before, control = parts.all_inner_texts(), controls.nth(number)
            control.evaluate(CHANGE)
            visitor.settled()
            assert parts.all_inner_texts() != before, control.evaluate("e => e.outerHTML")
            if control.get_attribute("data-name") == "models":
                control.evaluate(CHANGE)  # back, or none would be left for the next control
                visitor.settled()


def test_a_person_is_found_with_the_keyboard_alone(guest):
    page = guest.tab("you").page
    page.focus("#rl-person")
    page.keyboard.type("11")
    page.wait_for_selector("#rl-person-options [role=option]:has-text('Person 111')")
    guest.settled()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    chosen = page.get_attribute("#rl-person", "aria-activedescendant")
    wanted = page.get_attribute(f"#{chosen}", "data-value")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"[data-region=person_card] h3:has-text('Person {wanted}')")
    page.fill("#rl-person", "99999")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-region=notice]:has-text('Nobody here has the id')")
    page.focus("#rl-tab-you")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "rl-tab-new"
    page.wait_for_selector("[data-region=new_list] h3")


def test_why_a_film_is_there(guest):
    guest.tab("you")
    first = guest.page.locator("#rl-page-you details[data-why]").first
    first.locator("summary").click()
    first.locator(".rl-reasons li").first.wait_for()
    assert "%" in first.inner_text()


def test_the_history_can_be_sorted(guest):
    guest.tab("you")
    guest.page.click("details[data-key=history] summary")
    ratings = guest.page.locator("[data-region=person_history] td:nth-child(3)")
    guest.page.click("[data-region=person_history] th:nth-child(3) button")
    up = [float(text) for text in ratings.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")]
    guest.page.click("[data-region=person_history] th:nth-child(3) button")
    down = [float(text) for text in ratings.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert up[0] < down[0]


def test_a_newcomers_list_changes_at_once_and_the_link_brings_it_back(server, visitor_of):
    visitor = visitor_of(server, permissions=["clipboard-read", "clipboard-write"]).open("?tab=new")
    page = visitor.page
    before = visitor.titles("new_list")
    page.focus("#rl-pick")
    page.keyboard.type("Film 2")
    page.wait_for_selector("#rl-pick-options [role=option]")
    visitor.settled()
    page.locator("#rl-pick-options [role=option]").first.click()
    page.wait_for_selector("[data-region=new_picks] .rl-picks li")
    page.locator("[data-action=add]").first.click()
    visitor.settled()
    after = visitor.titles("new_list")
    assert after != before
    page.locator(".rl-picks li").first.locator("label").first.click()  # one star
    visitor.settled()
    assert visitor.titles("new_list") != after
    page.select_option("#rl-model-new", "ease")
    visitor.settled()
    page.click("[data-local=copy]")
    page.wait_for_selector("[data-local=copy]:has-text('Copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    query = link.removeprefix(server.url)
    assert "liked" in query
    assert "model=ease" in query
    friend = visitor_of(server).open(query)
    assert friend.titles("new_list") == visitor.titles("new_list")
    assert friend.text("new_picks") == visitor.text("new_picks")
    assert friend.page.input_value("#rl-model-new") == "ease"
    assert friend.page.locator("#rl-tab-new[aria-selected=true]").count() == 1
    page.locator("[data-action=clear]").click()
    visitor.settled()
    assert visitor.titles("new_list") == before


def test_lists_side_by_side_follow_their_controls(visitor):
    visitor.open("?tab=similar")
    page = visitor.page
    columns = page.locator("[data-region=similar_lists] section")
    page.locator("#rl-page-similar .rl-chip").first.click()
    visitor.settled()
    assert columns.count() == 2
    page.fill("#rl-film", "usual suspects")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rl-film h3:has-text('The Usual Suspects')")
    slide(visitor, "#rl-k-similar", 5)
    assert columns.first.locator("li").count() == 5
    visitor.tab("compare")
    compared = page.locator("[data-region=compare_lists] section")
    assert compared.count() == 2  # the models chosen for the page before
    before = compared.first.inner_text()
    page.fill("#rl-someone", "7")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-region=compare_lists]:has-text('person 7')")
    assert compared.first.inner_text() != before


def test_the_leaderboard_can_be_sorted_and_measured_otherwise(guest):
    guest.tab("results")
    page = guest.page
    names = page.locator(".rl-board tbody th > span")
    assert names.first.inner_text() == "Item kNN"
    page.click(".rl-board thead th:first-child button")
    assert names.first.inner_text() == "EASE"
    page.select_option("#rl-metric", "rmse")
    guest.settled()
    assert "lower is better" in guest.text("results_board")


def test_hostile_titles_and_parameters_do_nothing(visitor):
    visitor.open(
        "?tab=%3Cscript%3Ewindow.hacked%3D4%3C/script%3E&person=%3Cimg%20src%3Dx%20onerror%3D%22window.hacked%3D5%22%3E"
    )
    visitor.page.wait_for_selector("[data-region=notice]:has-text('<img')")
    visitor.page.uncheck("[data-name=unseen]")
    visitor.page.select_option("#rl-model-you", "popularity")
    visitor.settled()
    assert any("<script>" in title for title in visitor.titles("person_list"))
    for tab in ("new", "similar", "compare", "results"):
        visitor.tab(tab)
    assert hacked(visitor) is None


ENDED = "[data-region=notice]:has-text('The session has ended')"


def test_a_kernel_that_dies_is_told_and_the_page_opens_again_where_it_was(server, visitor_of):
    visitor = visitor_of(server)
    opened = []
    visitor.page.on("websocket", lambda socket: opened.append(socket.url))
    page = visitor.open("?tab=new&model=ease").page
    page.locator("[data-action=add]").first.click()
    visitor.settled()
    liked, listed = visitor.text("new_picks"), visitor.titles("new_list")
    (kernel,) = kernels_of(server, opened)
    kernel.kill()
    page.wait_for_timeout(1000)
    slide(visitor, "#rl-k-new", 7, settled=False)
    page.wait_for_selector(ENDED, timeout=20_000)
    assert "Traceback" not in page.inner_text("body")
    page.click("[data-local=reload]")
    page.wait_for_selector(".rl[data-ready] [data-region=new_picks] li")
    visitor.settled()
    assert (visitor.text("new_picks"), visitor.titles("new_list")) == (liked, listed)


def test_a_kernel_that_does_not_answer_is_told_until_it_does(server, visitor_of):
    visitor = visitor_of(server)
    opened = []
    visitor.page.on("websocket", lambda socket: opened.append(socket.url))
    page = visitor.open().page
    (kernel,) = kernels_of(server, opened)
    kernel.suspend()
    try:
        slide(visitor, "#rl-k-you", 7, settled=False)
        page.wait_for_selector(ENDED, timeout=25_000)
    finally:
        kernel.resume()
    visitor.settled()
    assert len(visitor.titles("person_list")) == 7
    assert page.locator(ENDED).count() == 0


def kernels_of(server, sockets):
    """The kernels that these connections lead to."""
    names = {url.split("/kernels/")[1].split("/")[0] for url in sockets if "/kernels/" in url}
    return [kernel for kernel in server.kernels() if any(name in " ".join(kernel.cmdline()) for name in names)]


def test_two_people_at_once_do_not_disturb_each_other(server, visitor_of):
    one, two = visitor_of(server).open(), visitor_of(server).open()
    before = two.text("person_list")
    one.page.click("[data-action=next]")
    one.page.select_option("#rl-model-you", "popularity")
    one.settled()
    assert two.text("person_list") == before
    two.page.click("[data-action=previous]")
    two.settled()
    assert one.text("person_card") != two.text("person_card")
    assert one.page.input_value("#rl-model-you") == "popularity" != two.page.input_value("#rl-model-you")


def test_the_theme_follows_the_system_and_the_switch_is_remembered(server, visitor_of):
    visitor = visitor_of(server, color_scheme="dark").open()
    assert visitor.page.get_attribute(".rl", "data-theme") == "dark"
    visitor.page.click("[data-local=theme]")
    assert visitor.page.get_attribute(".rl", "data-theme") == "light"
    visitor.open()
    assert visitor.page.get_attribute(".rl", "data-theme") == "light"


def test_text_can_be_read_and_nothing_sticks_out(server, visitor_of):
    visitor = visitor_of(server, color_scheme="light", viewport={"width": 360, "height": 740}).open()
    visitor.page.click("details[data-key=history] summary")
    for tab in ("you", "new", "similar", "compare", "results"):
        visitor.tab(tab)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360, tab
        assert visitor.page.evaluate("document.documentElement.scrollHeight") < 9000, tab
        for _ in ("light", "dark"):
            assert visitor.page.evaluate(CONTRAST) == [], tab
            visitor.page.click("[data-local=theme]")


# Ratio of luminances (WCAG 2.2, 1.4.3) of every piece of text that shows, against the ground behind it.
CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const faint = [];
  for (const element of document.querySelectorAll(".rl *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.offsetParent || element.closest(".rl-sr, .rl-poster, option, [aria-hidden=true]")) continue;
    let ground = element;
    while (ground && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const back = light(ground ? parse(getComputedStyle(ground).backgroundColor) : [255, 255, 255]);
    const front = light(parse(getComputedStyle(element).color));
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    if (ratio < 4.5) faint.push([element.className, element.textContent.trim().slice(0, 30), ratio.toFixed(2)]);
  }
  return faint;
}"""


def test_in_jupyterlab_it_is_the_same_and_keys_are_no_commands_to_the_notebook(jupyterlab, chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(jupyterlab)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    page.wait_for_selector(".rl[data-ready] [data-region=person_list] .rl-card", state="attached")
    assert page.evaluate("(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('.rl'))")
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for control in ("#rl-model-you", "#rl-k-you", "#rl-tab-you", "[data-action=next]"):
        page.focus(control)
        page.keyboard.press("b")  # a new cell, in the notebook's own language
    page.click("#rl-tab-results")
    page.wait_for_selector("[data-region=results_board]:has-text('leads with')")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    context.close()


def test_missing_artefacts_are_explained(tmp_path, visitor_of):
    with serve.running("ml-latest-small", tmp_path / "voila.log", home=tmp_path, pool=0) as empty:
        visitor = visitor_of(empty).open(ready=".rl-stop")
    assert "make 02 DATASET=ml-latest-small" in visitor.page.inner_text(".rl-stop")


def test_kernels_of_closed_pages_end(server, chromium):
    if "Using pre-heated kernel" not in server.log.read_text():  # this test alone
        context = chromium.new_context()
        context.new_page().goto(server.url)
        context.close()
    server.wait_for("(Culling 'idle' kernel)")
    until = time.monotonic() + 60
    while len(server.kernels()) > 3 and time.monotonic() < until:
        time.sleep(0.5)
    assert len(server.kernels()) <= 3  # two kept ready, and one whose page is still open


def test_the_static_site_opens_from_the_disk(made_home, chromium, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(made_home))
    index = site.build(Paths("made"), people=2, films=2)
    context = chromium.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(index.as_uri())
    page.click(".rl-board thead th:first-child button")
    assert page.locator(".rl-board tbody th > span").first.inner_text() == "EASE"
    page.click("text=For people")
    page.click(".rl-index a >> nth=0")
    page.locator("details.rl-why summary").first.click()
    assert page.locator("details.rl-why[open]").first.inner_text().count("%") > 1
    assert page.evaluate("window.hacked") is None
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
