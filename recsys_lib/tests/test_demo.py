"""The demo without a browser: what is understood, what is shown, what is refused, what fails and is told."""

import asyncio
import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.app import pages, people, require_open, results, serve, side_by_side, tables
from recsys_lib.app.app import PARTS, SORRY, Application, application, first_state
from recsys_lib.app.lab import Lab, NotPossibleError, OtherDataError, plain, readable_title
from recsys_lib.app.state import LONGEST, TABS, State, from_query, with_choice
from recsys_lib.files import read_json, write_json
from recsys_lib.paths import Paths
from recsys_lib.run import artifacts
from recsys_lib.tests.demo_home import HOSTILE, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("lab")))
        make_run()
        yield Lab.open(Paths("made"))


@pytest.fixture
def app(made):
    return Application(made)


class Tags(HTMLParser):
    """Names of the tags and attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def do(app, event, name="", value="", **more):
    sent = []
    app.send = lambda content, buffers=None: sent.append(content)
    app._follow(app, {"event": event, "name": name, "value": value, "number": 7, **more}, None)
    assert sent[-1] == {"done": 7}  # every question gets its answer, whatever happens
    return sent


# ---- choices and links -----------------------------------------------------------------------------------------


def test_a_link_brings_everything_back(made):
    start = first_state(made)
    state = replace(
        start,
        tab="new",
        person="17",
        film="5",
        model="popularity",
        models=("popularity", "ease"),
        k=25,
        unseen=False,
        genre="Sci-Fi",
        since=1950,
        until=1990,
        diversity=30,
        variety="calibration",
        liked=(("9", 4.0), ("3", 2.5)),
        metric="rmse",
    )
    assert from_query(start, made, "?" + state.query(start)) == (state, [])


def test_a_link_without_choices_is_empty(made):
    start = first_state(made)
    assert start.query(start) == ""
    assert from_query(start, made, "") == (start, [])


@given(st.dictionaries(st.sampled_from([*State().values(), "liked", "x"]), st.text(max_size=30), max_size=8))
def test_no_link_can_break_the_state(made, parameters):
    from urllib.parse import urlencode

    start = first_state(made)
    state, told = from_query(start, made, "?" + urlencode(parameters))
    assert made.knows_person(state.person)
    assert made.knows_film(state.film)
    assert state.model in made.models
    assert 5 <= state.k <= LONGEST
    assert all(isinstance(sentence, str) and len(sentence) < 200 for sentence in told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("person", "99999"),
        ("person", "1 OR 1"),
        ("person", "９"),
        ("film", "-1"),
        ("model", "../../etc/passwd"),
        ("models", ["ease", "nobody"]),
        ("k", "many"),
        ("k", None),
        ("genre", "<b>"),
        ("tab", "admin"),
        ("since", "nineteen"),
        ("metric", "luck"),
        ("variety", "spice"),
        ("lab", "x"),
        ("__class__", "x"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(made, name, value):
    with pytest.raises(NotPossibleError, match=r"[.]$"):
        with_choice(first_state(made), made, name, value)


def test_lengths_stay_within_their_limits(made):
    start = first_state(made)
    assert with_choice(start, made, "k", "1000").k == LONGEST
    assert with_choice(start, made, "k", "-3").k == 5


# ---- the tables ------------------------------------------------------------------------------------------------


def test_every_person_can_be_found(made):
    assert all(made.find_people(str(person))[0] == str(person) for person in made.history.user_ids)
    assert made.find_people("zzz") == []


def test_films_are_found_by_words_without_case_and_accents(made):
    assert made.find_films("usual SUSPECTS")[0].title == "The Usual Suspects"
    assert made.find_films("Film 1", 3)[0].title.startswith("Film 1")
    assert made.find_films("no such film") == []
    assert plain("Amélie") == "amelie"
    assert readable_title("Film, Noir") == "Film, Noir"


def test_a_search_that_finds_nothing_says_so(made):
    assert "No title has these words." in pages.film_options(made, "pick", "no such film")
    assert "Nobody has such an id." in pages.person_options(made, "person", "zzz")


def test_candidates_keep_genre_and_years(made):
    items = made.prepared.items.set_index("item_id")
    ids = made.candidates("Drama", 1950, 1970)
    assert len(ids) > 0
    assert all("Drama" in items.loc[item, "genres"] and 1950 <= items.loc[item, "year"] <= 1970 for item in ids)
    assert made.candidates("", 0, 0) is None


def test_the_best_model_of_the_leaderboard_comes_first(made):
    assert next(iter(made.models)) == "item_knn"  # it has the highest NDCG@10 in the made leaderboard
    assert made.ranking("rmse")[0]["name"] == "item_knn"  # and the lowest error


def test_a_model_is_read_once(made, monkeypatch):
    fresh, read = Lab.open(made.paths), []
    monkeypatch.setattr(artifacts, "load_models", lambda paths, names: read.extend(names) or {names[0]: object()})
    assert all(fresh.model(name) is fresh.model(name) for name in fresh.models)
    assert read == list(fresh.models)


# ---- the pages -------------------------------------------------------------------------------------------------


def every_html(made):
    state = replace(first_state(made), liked=(("1", 5.0), ("2", 1.0), ("3", 3.0)), film="1", k=LONGEST, unseen=False)
    html = {name: part.view(made, state) for name, part in PARTS.items()}
    html["page"] = pages.page(made, state)
    html["options"] = pages.film_options(made, "pick", "script") + pages.person_options(made, "person", "1")
    html["why"] = "".join(people.why(made, state, scope, film) for scope in ("person", "new") for film in "1234")
    return html


def test_hostile_titles_are_text_on_every_page(made):
    html = every_html(made)
    for name, text in html.items():
        found = Tags(text)
        assert not found.tags & {"script", "img", "svg", "iframe"}, name
        assert not {attribute for attribute in found.attributes if attribute.startswith("on")}, name
        assert "49 &amp;" not in text
    assert "&lt;script&gt;window.hacked" in html["person_list"] + html["new_picks"]
    assert "<b>writer</b>" not in html["person_card"]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_parameters_are_text_too(app, value):
    do(app, "restore", value="?person=" + value.replace("&", "%26") + "&tab=" + value.replace("&", "%26"))
    assert "is" in app.notice or "no" in app.notice
    assert not Tags(app.notice).tags & {"script", "img", "svg", "b"}
    do(app, "typed", "film", value + "zzz")
    assert not Tags(app.notice).tags & {"script", "img", "svg"}


def test_every_control_has_a_name(made):
    html = pages.page(made, first_state(made))
    controls = re.findall(r"<(?:input|select)[^>]*?\bid=\"([^\"]+)\"", html)
    assert len(controls) > 12
    assert all(f'for="{control}"' in html for control in controls)
    unnamed = re.findall(r"<(?:input|select)(?![^>]*\bid=)[^>]*>", html)
    assert all('type="checkbox"' in control for control in unnamed)  # these stand inside their labels


def test_the_reasons_add_up(made):
    text = people.why(made, replace(first_state(made), model="ease"), "person", "40")
    shares = [abs(int(share)) for share in re.findall(r"<span>[−-]?(\d+) %", text)]
    assert shares
    assert sum(shares) == pytest.approx(100, abs=3)


def test_what_was_watched_next_is_marked(made):
    after = made.prepared.split.test
    person = str(after["user_id"].iloc[0])
    state = replace(first_state(made), person=person, k=LONGEST)
    text = side_by_side.compare_lists(made, state)
    names = set(made.watched_next(person)["item_id"])
    tables = [made.model(name).recommend([int(person)], LONGEST) for name in state.models]
    hits = sum(item in names for table in tables for item in table["item_id"])
    assert hits > 0
    assert text.count("rl-is-hit") == hits + len([i for i in names if any((t["item_id"] == i).any() for t in tables)])


def test_lists_that_share_films_say_so(made):
    state = replace(first_state(made), models=("ease", "popularity"), k=5)
    tables = [set(made.model(name).recommend([made.person_id(state.person)], 5)["item_id"]) for name in state.models]
    assert (
        side_by_side.compare_lists(made, state).count(">in 2 lists<") == 2 * len(tables[0] & tables[1]) + 1
    )  # the legend


def test_no_winner_is_claimed_where_intervals_overlap(made):
    board = {"models": [_model("a", 0.20, 0.15, 0.25), _model("b", 0.19, 0.14, 0.24), _model("c", 0.05, 0.04, 0.06)]}
    text = results.results_board(replace_board(made, board), State())
    assert "may be equally good" in text
    board["models"].pop(1)
    assert "do not even touch" in results.results_board(replace_board(made, board), State())


def test_models_are_described_for_people(made):
    state = replace(first_state(made), model="item_knn", models=("item_knn", "popularity"))
    item_knn, popularity = made.about("item_knn"), made.about("popularity")
    assert item_knn in people.person_list(made, state)
    for html in (side_by_side.compare_lists(made, state), results.results_board(made, state)):
        assert item_knn in html
        assert popularity in html
    assert made.about("unheard of") == ""


def test_every_class_of_models_is_described():
    from recsys_lib.app.lab import KINDS
    from recsys_lib.models.base import MODULES

    assert set(KINDS) == set(MODULES)


def test_a_missing_leaderboard_names_its_command(made):
    assert "<code>make 07 DATASET=made</code>" in results.results_board(replace_board(made, None), State())


def _model(name, mean, low, high):
    return {"name": name, "metrics": {"ndcg@10": {"mean": mean, "low": low, "high": high, "n_users": 120}}}


def replace_board(made, board):
    return Lab(made.paths, made.prepared, board)


# ---- the application -------------------------------------------------------------------------------------------


def test_only_the_open_page_is_made(app):
    assert app.person_list
    assert app.similar_lists == ""
    do(app, "set", "tab", "similar")
    assert app.similar_lists


def test_every_page_and_every_button(app):
    for tab in TABS:
        do(app, "set", "tab", tab)
        assert app.state.tab == tab
    before = app.state.person
    do(app, "next")
    do(app, "previous")
    assert app.state.person == before
    do(app, "random")
    assert app.state.person != before
    do(app, "set", "tab", "you")
    for name, value in [("model", "popularity"), ("k", 5), ("unseen", False), ("genre", "Drama"), ("since", "1980")]:
        old = app.person_list
        do(app, "set", name, value)
        assert app.person_list != old, name
    assert app.notice == ""


def test_a_newcomers_list_follows_every_pick(app):
    do(app, "set", "tab", "new")
    seen = [app.new_list]
    for step in [
        ("choose", "pick", "20"),
        ("add", "", "30"),
        ("rate", "", "20"),
        ("remove", "", "30"),
        ("clear", "", ""),
    ]:
        do(app, *step, rating="1")
        seen.append(app.new_list)
    assert seen[0] == seen[-1]  # back to what most people know
    assert all(a != b for a, b in zip(seen, seen[1:], strict=False))


@pytest.mark.parametrize("model", ["popularity", "ease", "item_knn"])
def test_a_newcomer_can_ask_every_model(app, model):
    do(app, "set", "tab", "new")
    do(app, "add", value="20")
    do(app, "set", "model", model)
    assert "10 films for you" in app.new_list
    assert 'data-film="20"' not in app.new_list


def test_variety_changes_both_lists_and_the_link(app):
    do(app, "set", "model", "ease")
    before = app.person_list
    do(app, "set", "diversity", "80")
    assert app.person_list != before
    assert app.link == "model=ease&diversity=80"
    do(app, "set", "tab", "new")
    do(app, "add", value="20")
    varied = app.new_list
    do(app, "set", "diversity", 0)
    assert app.new_list != varied


def test_both_kinds_of_variety_can_be_chosen(app, made, monkeypatch):
    do(app, "set", "model", "ease")
    do(app, "set", "diversity", "90")
    by_audience = app.person_list
    do(app, "set", "variety", "calibration")
    assert app.person_list != by_audience
    assert app.link == "model=ease&diversity=90&variety=calibration"
    table = made.model("ease").recommend([made.person_id(app.state.person)], 10, diversity=0.9, diversify="calibration")
    shown = re.findall(r'rl-card" data-film="(\d+)"', app.person_list)
    assert shown == table["item_id"].astype(str).tolist()
    monkeypatch.setattr(made.model("ease"), "genres", None)
    do(app, "set", "diversity", "80")
    assert "EASE has learnt no genres" in app.person_list


@pytest.mark.parametrize(("low", "choices"), [(1.0, 5), (0.5, 10)])
def test_a_newcomer_rates_on_the_scale_of_the_data(made, monkeypatch, low, choices):
    monkeypatch.setattr(Lab, "scale", (low, 5.0))
    text = people.new_picks(made, replace(first_state(made), liked=(("20", 4.0),)))
    assert text.count('type="radio"') + text.count("<option") == choices
    assert "selected>★ 4<" in text or re.search(r'value="4.0"[^>]*checked', text)


def test_a_failure_is_logged_and_told_and_nothing_else_breaks(app, monkeypatch, caplog):
    monkeypatch.setattr(Lab, "model", lambda self, name: 1 / 0)
    with caplog.at_level(logging.ERROR):
        do(app, "set", "k", 20)
    assert "ZeroDivisionError" in caplog.text
    assert SORRY in app.person_list
    assert "Zero" not in app.person_list
    monkeypatch.undo()
    do(app, "set", "k", 21)
    assert "21 films for person" in app.person_list


@pytest.mark.parametrize(
    "content", [{}, {"event": "eval", "value": "1"}, {"event": "search"}, {"event": "why"}, [], "x"]
)
def test_messages_that_no_page_sends_do_no_harm(app, content, caplog):
    before = app.state
    app._follow(app, content, None)
    assert app.state == before
    assert app.notice


def test_models_are_read_before_they_are_asked_for(made, monkeypatch):
    monkeypatch.setattr("recsys_lib.app.app.QUIET", 0.01)
    fresh = Lab.open(made.paths)

    async def wait():
        opened = Application(fresh)
        known = list(fresh._loaded)
        do(opened, "set", "k", 20)
        until = asyncio.get_running_loop().time() + 5
        while len(fresh._loaded) < len(fresh.models) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        return known

    assert asyncio.run(wait()) == ["item_knn"]
    assert list(fresh._loaded) == list(fresh.models)


def test_a_model_that_fails_ahead_of_time_stops_nothing(made, monkeypatch, caplog):
    monkeypatch.setattr("recsys_lib.app.app.QUIET", 0.0)
    monkeypatch.setattr("recsys_lib.app.app.BREATH", 0.0)
    tried, names = [], list(made.models)
    monkeypatch.setattr("recsys_lib.app.app.use", lambda lab, name, person: tried.append(name) or 1 / 0)

    async def wait():
        Application(made)
        until = asyncio.get_running_loop().time() + 5
        while len(tried) < len(names) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)

    asyncio.run(wait())
    assert tried == names
    assert caplog.text.count("ahead of time") == len(names)


def test_sessions_share_nothing(made):
    one, two = Application(Lab.open(made.paths)), Application(Lab.open(made.paths))
    do(one, "choose", "person", "3")
    do(one, "add", value="20")
    assert two.state == first_state(made)
    assert one.link != two.link == ""


def test_no_artefacts_name_the_command(lab_home):
    opened = application(Paths("ml-latest-small"))
    assert "make 02 DATASET=ml-latest-small" in opened.page
    assert 'role="alert"' in opened.page
    with pytest.raises(RuntimeError, match="make 02"):
        require_open(opened)


def test_broken_artefacts_are_told_without_a_traceback(lab_home):
    paths = make_run("some")
    (paths.processed / "items.parquet").write_bytes(b"broken")
    opened = application(paths)
    assert "The lab could not be opened" in opened.page
    assert "make run DATASET=some" in opened.page
    assert "Traceback" in (paths.logs / "demo.log").read_text()
    assert "Traceback" not in opened.page


def test_no_models_name_the_command(lab_home):
    paths = make_run("some")
    for config in paths.models.glob("*/config.json"):
        config.unlink()
    assert "<pre>make " in application(paths).page


def test_models_of_other_data_are_refused(lab_home):
    paths = make_run("some")
    config = paths.models / "ease" / "config.json"
    content = read_json(config)
    content["data"]["sha256"] = "f" * 64
    write_json(config, content)
    with pytest.raises(OtherDataError, match="ease was made from other data"):
        Lab.open(paths)
    opened = application(paths)
    assert "make 05 DATASET=some" in opened.page
    assert "do not belong together" in opened.page


@pytest.mark.parametrize(
    ("part", "change"), [("data", {"sha256": "f" * 64}), ("protocol", {"split": {"name": "random"}})]
)
def test_a_leaderboard_of_other_data_is_refused(lab_home, part, change):
    paths = make_run("some")
    file = paths.metrics / "leaderboard.json"
    content = read_json(file)
    content[part] |= change
    write_json(file, content)
    opened = application(paths)
    assert "The leaderboard was made from other data" in opened.page
    assert "make 07 DATASET=some" in opened.page


def test_a_model_that_cannot_be_read_names_its_command_and_leaves_the_others(lab_home):
    paths = make_run("some")
    next((paths.models / "ease").glob("arrays-*")).write_bytes(b"not an archive")
    opened = application(paths)
    do(opened, "set", "model", "ease")
    assert "EASE could not be read; <code>make 05 DATASET=some</code> makes it again." in opened.person_list
    do(opened, "set", "tab", "compare")
    assert opened.compare_lists.count("<li") > 10
    assert "EASE could not be read" in opened.compare_lists
    assert (paths.logs / "demo.log").read_text().count("could not be read") == 1  # and not at every question


def test_data_without_genres_ratings_and_time_is_shown_as_well(lab_home):
    from recsys_lib import splits
    from recsys_lib.data.interactions import Interactions
    from recsys_lib.models import EASE
    from recsys_lib.tests.made import made_tables

    interactions, items, users = made_tables()
    plays = interactions[["user_id", "item_id"]].assign(rating=1.0)
    items = items.assign(genres=[[] for _ in range(len(items))], year=None).astype({"year": "Int16"})
    paths, split = Paths("plays"), splits.random(plays, seed=1)
    data = {"name": "plays", "sha256": "0", "rating_scale": None, "source": "made"}
    artifacts.write_prepared(paths, split, items, users[["user_id"]], data=data, relevant_from=0)
    prepared = artifacts.read_prepared(paths)
    artifacts.save_model(paths, "ease", EASE().fit(Interactions.from_frame(split.history)), prepared)
    opened = application(paths)
    for tab in TABS:
        do(opened, "set", "tab", tab)
    do(opened, "set", "tab", "new")
    do(opened, "add", value="20")
    shown = "".join(getattr(opened, part) for part in PARTS)
    assert SORRY not in shown
    assert "★" not in shown
    assert "year not known" in shown
    assert "No leaderboard yet" in shown


def test_the_kernel_stays_light(made):
    heavy = (
        "torch",
        "ssl",
        "numpy.f2py",
        "numpy.testing",
        "matplotlib",
        "seaborn",
        "plotly",
        "sklearn",
        "mlflow",
        "scipy.optimize",
        "scipy.stats",
    )
    code = (
        "import sys; from recsys_lib.app.kernel import leave_out; leave_out();"
        "from recsys_lib.paths import Paths; from recsys_lib.app import application;"
        "a = application(Paths('made')); assert a.lab; [a.lab.model(name) for name in a.lab.models];"
        f"print([m for m in {heavy} if sys.modules.get(m)], 'Item kNN' in a.person_list)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


# ---- tables for kernels without Arrow --------------------------------------------------------------------------


@pytest.fixture
def without_arrow(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture
def written_here(monkeypatch):
    """The tables are written by this process, which is quicker than starting another."""

    def run(command, **_):
        tables.write_tables(Paths(command[-1]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(tables.subprocess, "run", run)


def assert_same_tables(one, other):
    assert one.manifest == other.manifest
    pairs = [(getattr(one.split, part), getattr(other.split, part)) for part in artifacts.PARTS]
    for mine, theirs in [*pairs, (one.users, other.users)]:
        pd.testing.assert_frame_equal(mine, theirs)
    pd.testing.assert_frame_equal(one.items.drop(columns="genres"), other.items.drop(columns="genres"))
    assert list(map(list, one.items["genres"])) == list(map(list, other.items["genres"]))


def test_kernels_without_arrow_read_the_same_tables(lab_home, without_arrow):
    paths = make_run("some")
    assert_same_tables(artifacts.read_prepared(paths, test=True), tables.read_tables(paths))


def test_tables_that_have_changed_are_read_anew(lab_home, without_arrow, written_here):
    paths = make_run("some")
    before = tables.read_tables(paths)
    file = paths.outputs / "demo" / "tables.safetensors"
    written = file.stat().st_mtime_ns
    tables.read_tables(paths)
    assert file.stat().st_mtime_ns == written
    make_run("some", hostile=False)
    after = tables.read_tables(paths)
    assert before.items["title"].tolist() != after.items["title"].tolist()
    assert_same_tables(artifacts.read_prepared(paths, test=True), after)


def test_ids_that_are_text_and_odd_columns_survive(lab_home, without_arrow, written_here):
    paths = make_run("some")
    prepared = artifacts.read_prepared(paths, test=True)
    as_text = {part: getattr(prepared.split, part).astype({"user_id": "str"}) for part in artifacts.PARTS}
    users = prepared.users.astype({"user_id": "str"}).assign(
        age=pd.array([None, *range(len(prepared.users) - 1)], dtype="Int16"), joined=pd.Timestamp("2020-01-02")
    )
    split, data = replace(prepared.split, **as_text), prepared.manifest["data"]
    artifacts.write_prepared(paths, split, prepared.items, users, data=data, relevant_from=4.0)
    back = tables.read_tables(paths)
    pd.testing.assert_frame_equal(back.split.test, as_text["test"])
    pd.testing.assert_frame_equal(back.users.drop(columns="joined"), users.drop(columns="joined"))
    assert back.users["joined"].iloc[0].startswith("2020-01-02")


def test_tables_that_cannot_be_read_are_told_in_a_kernel_too(lab_home, without_arrow):
    paths = make_run("some")
    (paths.processed / "items.parquet").write_bytes(b"broken")
    opened = application(paths)
    assert "The lab could not be opened" in opened.page
    assert "make run DATASET=some" in opened.page
    (paths.processed / "items.parquet").unlink()
    assert "make 02 DATASET=some" in application(paths).page


# ---- the server ------------------------------------------------------------------------------------------------


def test_the_command_line_is_complete():
    line = serve.command(port=9000, pool=3, cull_after=60)
    assert "--VoilaConfiguration.template=recsys" in line
    assert "--VoilaConfiguration.default_pool_size=3" in line
    assert "--MappingKernelManager.cull_idle_timeout=60" in line
    assert "--no-browser" in line
    template = serve.SHARE / "voila" / "templates" / "recsys"
    assert json.loads((template / "conf.json").read_text()) == {"base_template": "lab"}
    assert "http" not in (template / "index.html.j2").read_text()


def test_the_page_needs_no_other_machine():
    for name in ("app.js", "app.css"):
        assert "http" not in (serve.SHARE.parent / "static" / name).read_text()


def test_a_kernel_given_to_a_page_is_not_ended_before_the_page_connects(monkeypatch):
    from types import SimpleNamespace

    from recsys_lib.app import kernels

    ended, clock = [], [100.0]

    async def end(self, kernel_id):
        ended.append(kernel_id)

    monkeypatch.setattr(kernels.AsyncMappingKernelManager, "cull_kernel_if_idle", end)
    monkeypatch.setattr(kernels.time, "monotonic", lambda: clock[0])
    manager = kernels.KernelManager(cull_idle_timeout=60)
    kernel = SimpleNamespace(last_activity=datetime.now(UTC) - timedelta(seconds=3600))
    manager._kernels, manager._kernel_connections = {"a": kernel}, {"a": 0}

    def look(seconds):
        clock[0] += seconds
        asyncio.run(manager.cull_kernel_if_idle("a"))
        return len(ended)

    assert [look(0), look(10)] == [0, 0]
    manager._kernel_connections["a"] = 1
    assert look(60) == 0
    manager._kernel_connections["a"] = 0
    assert [look(10), look(10), look(10)] == [0, 0, 1]
    kernel.last_activity = datetime.now(UTC)
    assert [look(0), look(60)] == [1, 1]


# ---- the static site -------------------------------------------------------------------------------------------


def test_the_site_is_whole_and_needs_nothing_else(lab_home):
    from recsys_lib.app import site

    paths = make_run("some")
    figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"title": {"text": "</script><script>x"}}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "## How long is the tail?"]},
        {"cell_type": "code", "source": "", "outputs": [{"data": {site.PLOTLY: figure}}]},
    ]
    write_json(paths.outputs / "notebooks" / "01_exploration.ipynb", {"cells": cells})
    write_json(paths.reports / "index.html", "a report")
    index = site.build(paths, people=4, films=3)
    names = {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*") if path.is_file()}
    assert {"people/4.html", "films/3.html", "report.html", "figures/01_exploration-1.html"} <= names
    for path in index.parent.rglob("*.html"):
        text = path.read_text()
        links = re.findall(r'(?:href|src)="([^"#]+)"', text)
        assert all(link.startswith("data:") or (path.parent / link).is_file() for link in links), path
        if path.parent.name != "figures":
            assert not Tags(text).tags & {"img", "svg", "select"}
    person = (index.parent / "people" / "1.html").read_text()
    assert "rl-reasons" in person  # the reasons are there beforehand
    assert "Looking it up" not in person
    assert "How long is the tail?" in (index.parent / "figures.html").read_text()


def test_the_sample_spans_all_activity(made):
    from recsys_lib.app.site import sample_of_people

    sample = sample_of_people(made, 5)
    lengths = [made.n_ratings[made.person_code(person)] for person in sample]
    assert len(set(sample)) == 5
    assert min(lengths) == made.n_ratings.min()
    assert max(lengths) == made.n_ratings.max()


def test_a_site_without_a_run_names_the_command(lab_home, capsys):
    from recsys_lib.app import site

    with pytest.raises(SystemExit, match="make 02"):
        site.main(["ml-100k"])


# ---- the benchmark ---------------------------------------------------------------------------------------------


def test_the_benchmark_names_its_figures():
    from recsys_lib.benchmarks import demo

    found = {
        "dataset": "made",
        "cores": 2,
        "pool": 2,
        "first_widget_s": [1.0, 3.0, 2.0],
        "changes_ms": {"another person": [10.0, 90.0, 20.0]},
        "first_uses_ms": {"compare": [30.0, 60.0, 40.0]},
        "load": 0.1,
        "memory_mb": {"rss": 200.0, "pss": 150.0, "uss": 120.0},
        "at_once_mb": {"rss": 160.0, "pss": 100.0, "uss": 80.0},
        "torch": False,
        "sessions": 2,
        "at_once_s": [1.0, 9.0],
        "kernels_left": 0,
    }
    text = demo.report(found)
    assert re.search(r"first widget +2\.00 s +median of 3, longest 3\.00", text)
    assert re.search(r"another person +20 ms", text)
    assert re.search(r"memory of a session +200 MB +resident; 150 with", text)
    assert re.search(r"first use of a model: Compare models +40 ms +median of 3, longest 60", text)
    assert "until the last of 2 is up" in text
