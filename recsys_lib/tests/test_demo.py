"""The application without a browser: what can be chosen, what is shown, what is refused, what fails and is said."""

import asyncio
import base64
import io
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import urlencode

import explored
import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError

from recsys_lib import splits
from recsys_lib.app import prepared, serve, site, views, widgets
from recsys_lib.app.lab import Lab, NotPossibleError, search
from recsys_lib.app.state import App
from recsys_lib.app.widgets import open_app
from recsys_lib.data.catalogue import MODELS
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.inference import permutation_p
from recsys_lib.evaluation.task import evaluate
from recsys_lib.files import read_json, write_json
from recsys_lib.models import EASE
from recsys_lib.paths import REPOSITORY
from recsys_lib.run.run import OtherDataError, Run
from recsys_lib.tests.demo_home import HOSTILE, make_run
from recsys_lib.tests.made import made_tables

PAGES = [views.user_list, views.new_user_list, views.profile, views.history, views.picks, views.groups]
PAGES += [views.similar_lists, views.compare_lists, views.model_chips, views.data, views.board]
CHARTS = [views.trade_offs, views.film_map]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("lab")))
        yield Lab(make_run())


@pytest.fixture
def app(lab):
    return App(lab)


class Tags(HTMLParser):
    """Names of the tags and attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


# ---- choices and links -----------------------------------------------------------------------------------------


def test_a_link_brings_everything_back(lab, app):
    choices = {"tab": "New user", "user": 17, "similar_to": 5, "film": 9, "model": "popularity", "k": 25}
    choices |= {"models": ("popularity", "ease"), "hide_rated": False, "genre": "Sci-Fi", "years": (1950, 1990)}
    choices |= {"diversity": 30, "diversify": "calibration", "liked": {9: 4.0, 3: 2.0}, "who": "new user"}
    choices |= {"metric": "rmse", "against": "ndcg@10", "column": "mean", "order": "rating"}
    assert {*choices, "notice"} == {*app.trait_names()}
    for name, value in choices.items():
        setattr(app, name, value)
    other = App(lab)
    other.follow("?" + app.link)
    assert {name: getattr(other, name) for name in choices} == choices
    assert other.notice == ""
    other.follow("")
    assert other.link == App(lab).link == ""


@given(st.dictionaries(st.sampled_from([*App.class_trait_names(), "x"]), st.text(max_size=30), max_size=8))
def test_no_link_can_break_the_choices(lab, parameters):
    app = App(lab)
    app.follow("?" + urlencode(parameters))
    assert app.user in lab.known.user_ids
    assert app.similar_to is None or app.similar_to in lab.known.item_ids
    assert app.model in lab.models
    assert 5 <= app.k <= 50
    assert len(app.notice) < 1500


def test_what_is_not_possible_is_refused_with_a_sentence(app):
    impossible = [("user", 99999), ("user", "1 OR 1"), ("film", "-1"), ("model", "../../etc/passwd"), ("genre", "<b>")]
    impossible += [("models", ("ease", "nobody")), ("metric", "luck"), ("liked", {"99999": 5})]
    for name, value in impossible:
        before = getattr(app, name)
        with pytest.raises(TraitError, match=r"There is no|Nobody here"):
            setattr(app, name, value)
        assert getattr(app, name) == before
    app.user, app.years = " 7 ", (1990, 1950)  # ids may be text, and crossed years are a range
    assert (app.user, app.years) == (7, (1950, 1990))


def test_films_and_users_are_found_by_words_and_in_spite_of_spelling_mistakes(lab):
    for text in ("usual suspects", "SUSPECTS usual", "usaul suspcts"):
        assert search(text, lab.film_labels)[0].startswith("The Usual Suspects"), text
    assert search("qqqqqq", lab.film_labels) == []
    assert search("User 11", lab.user_labels)[0].startswith("User 11 ")
    age = lab.facts[7]["age"]
    assert any(label.startswith("User 7 ") for label in search(f"age {age} writer", lab.user_labels, 200))


def test_groups_and_suggestions_follow_what_was_picked(lab):
    groups = lab.groups([])
    assert len(groups) == 3
    assert len({item for group in groups for item in group}) == 12
    picked = groups[1]
    assert not {item for group in lab.groups(picked) for item in group} & set(picked)
    assert not set(lab.suggestions(picked)) & set(picked)
    assert lab.suggestions(picked) != lab.suggestions(groups[2])


# ---- what is shown ---------------------------------------------------------------------------------------------


def test_hostile_titles_and_facts_are_text_everywhere(lab, app):
    app.liked, app.hide_rated, app.film = dict.fromkeys(lab.known.item_ids[:6].tolist(), 4.0), False, 1
    app.model = "popularity"
    html = "".join(str(page(app)) for page in PAGES)
    assert not Tags(html).tags & {"script", "img", "svg"}
    assert not {name for name in Tags(html).attributes if name.startswith("on")}
    assert "&lt;script&gt;" in html
    assert HOSTILE[3].startswith("{{ 7 * 7 }}") and "{{ 7 * 7 }}" in html  # {{ 7 * 7 }} is no template
    assert HOSTILE[0] in lab.film_labels or any(HOSTILE[0] in text for text in lab.film_labels)


def test_rated_films_are_marked_where_they_are_listed(lab, app):
    app.hide_rated, app.model = False, "popularity"
    rated = set(lab.history_of(app.user)["item_id"])
    listed = lab.model("popularity").recommend([app.user], app.k, exclude_seen=False)["item_id"]
    assert views.user_list(app).count(">rated <") == len(rated & set(listed)) > 0


def test_scores_say_their_unit(lab, app, monkeypatch):
    app.model = "blend"
    assert "z-score" in views.user_list(app)
    app.model = "ease"
    assert "score (no unit)" in views.user_list(app)
    monkeypatch.setattr(EASE, "predicts_ratings", True)
    assert re.search(r"predicted <span[^>]+ stars", views.user_list(app))


def test_every_model_is_described(lab):
    shown = re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "reports/ml-100k/report.md").read_text("utf-8"), re.M)
    assert {*shown} <= {*MODELS} and len({*MODELS.values()}) == len(MODELS)
    assert lab.about("item_knn") == "Films rated by the same users as those of the history."


def test_what_answers_beside_a_model_is_named(lab, app):
    app.model = "blend"
    assert "Served by popularity, until one film is known" in views.new_user_list(app)
    app.liked = {20: 5.0}
    few = lab.model("blend").few
    assert f"Given 1 of {few} films: Blend with popularity and the genres" in views.new_user_list(app)
    app.liked = dict.fromkeys(range(1, few + 1), 5.0)
    assert "Served by" not in views.new_user_list(app)
    assert f"of {few} films" not in views.new_user_list(app)


def test_reasons_are_sorted_add_up_and_have_no_nothing(lab, app):
    app.model = "ease"
    item = lab.model("ease").recommend([app.user], 1)["item_id"].iloc[0]
    _, reasons = views.why(app, item, app.user, lab.history_of(app.user).set_index("item_id")["rating"].to_dict())
    shares = [int(re.sub(r"\D", "", reason["share"])) for reason in reasons]
    films = [share for share, reason in zip(shares, reasons, strict=True) if reason["rating"] is not None]
    assert films == sorted(films, reverse=True)
    assert min(shares) > 0
    assert 90 <= sum(shares) <= 101
    assert views.why(App(lab), item, {}, {})[0]


def test_what_was_rated_next_is_marked_and_a_new_user_has_no_next(lab, app):
    app.user = lab.test.user_ids[np.diff(lab.test.matrix.indptr).argmax()].item()
    app.k, app.models = 50, ("ease", "item_knn")
    listed = lab.model("ease").recommend([app.user], 50)["item_id"]
    hits = len(set(listed) & set(lab.rated_next(app.user)))
    assert f"{hits} rated next" in views.compare_lists(app)
    app.who, app.liked, app.models = "new user", {20: 5.0}, ("ease", "blend")
    html = views.compare_lists(app)
    assert "Ratings given: 1." in html
    assert "rated next" not in html


def test_a_difference_is_judged_by_the_paired_test(lab, app):
    assert "paired permutation test, p = " in views.board(app)
    differences = [lab.run.results.per_user(name)["ndcg@10"] for name in ("blend", "item_knn")]
    p = permutation_p((differences[0] - differences[1]).to_numpy()[:, None])[0]
    assert lab.explored["p"]["ndcg@10"] == pytest.approx(p)
    worse = [lab.run.results.per_user(name)["rmse"] for name in ("blend", "item_knn")]  # lower is better
    assert lab.explored["p"]["rmse"] == pytest.approx(permutation_p((worse[0] - worse[1]).to_numpy()[:, None])[0])


def test_genres_are_shown_by_liking_and_not_by_counts(lab, app):
    bars = views.genres(app)["data"][0]
    history = lab.history_of(app.user)
    has = lab.has_genre[lab.known.item_codes(history["item_id"])]
    mean = history["rating"].mean()
    mine = history["rating"].to_numpy()[has[:, lab.genres.index(bars["y"][-1].split(" (")[0])] > 0]
    assert bars["x"][-1] == pytest.approx((mine.sum() + 5 * mean) / (len(mine) + 5) - mean)
    assert bars["hovertext"][-1] == f"{len(mine)} films, mean {mine.mean():.2f} ★"


def test_the_leaderboard_draws_the_intervals(lab, app):
    points = views.leaderboard(app)["data"][0]
    for row, mean, up, down in zip(
        lab.ranking("ndcg@10")[::-1],
        points["x"],
        points["error_x"]["array"],
        points["error_x"]["arrayminus"],
        strict=True,
    ):
        assert (mean, mean + up, mean - down) == pytest.approx((row["mean"], row["high"], row["low"]))


def test_every_metric_that_models_have_can_be_set_against_another(lab, app):
    app.against = "rmse"
    names = [trace["name"] for trace in views.trade_offs(app)["data"]]
    assert [name.split(" (")[0] for name in names] == [
        "all users",
        "short histories",
        "middling histories",
        "long histories",
    ]
    everybody = views.trade_offs(app)["data"][0]
    best = everybody["hovertext"].index("Blend")
    assert (everybody["x"][best], everybody["y"][best]) == (
        lab.ranking("rmse")[0]["mean"],
        lab.ranking("ndcg@10")[0]["mean"],
    )


def test_an_exported_list_can_be_read_again(app):
    content = re.search(r'href="data:text/csv;base64,([^"]+)"', views.user_list(app))[1].replace("&#43;", "+")
    assert len(pd.read_csv(io.BytesIO(base64.b64decode(content)))) == app.k


@pytest.mark.parametrize(
    "text",
    [
        "Date,Name,Year,Rating\n2020-01-01,The Usual Suspects,{year},3.5\n,Nowhere,1999,4\n",
        "Const,Your Rating,Title,Year\ntt1,7,The Usual Suspects,{year}\ntt2,8,Nowhere,1999\n",
    ],
)
def test_ratings_of_letterboxd_and_imdb_are_matched(lab, text):
    table = views.read_ratings(lab, text.format(year=lab.film[5].year).encode())
    assert table["item_id"].tolist() == [5, None]
    assert table["rating"][0] == 3.5
    assert table["given"][1] == "Nowhere (1999)"


def test_a_file_that_is_no_export_is_answered_with_a_sentence(app):
    file, shown = widgets.upload(app).children
    about = {"name": "a.csv", "type": "text/csv", "last_modified": datetime.now(UTC)}
    for content, said in ((b"a,b\n1,2\n", "The file has no columns"), (b"", "The file is no CSV table")):
        file.value = ({**about, "size": len(content), "content": memoryview(content)},)
        assert said in shown.value


def test_a_poster_comes_from_the_visitors_own_folder_alone(lab, tmp_path, monkeypatch):
    assert views.image(lab.film[5]) == ""
    monkeypatch.setenv("POSTERS_DIR", str(tmp_path))
    (tmp_path / "5.png").write_bytes(b"picture")
    assert views.image(lab.film[5]).startswith("data:image/png;base64,")


# ---- widgets ---------------------------------------------------------------------------------------------------


def test_controls_fields_and_traits_are_one(lab, app):
    slider, model = widgets.control(app, "k"), widgets.control(app, "model")
    app.k, app.model = 7, "ease"
    assert (slider.value, model.value) == (7, "ease")
    slider.value, model.value = 30, "popularity"
    assert (app.k, app.model) == (30, "popularity")
    field = widgets.picker(app, "user", "User").children[0]
    field.value = next(text for text in lab.user_labels if text.startswith("User 9 "))
    assert app.user == 9
    app.user = 11
    assert field.value.startswith("User 11 ")
    others = widgets.picker(app, "user", "User").children
    others[0].value = "writer"
    assert "Or did you mean" in others[1].value
    app.user = 12
    assert others[1].value == ""


def test_a_view_of_ones_own_follows_the_traits_it_names(app):
    made = []
    view = widgets.View(app, lambda app: made.append(app.user) or f"<p>{app.user}</p>", "user")
    app.user, app.k = 3, 12
    assert view.children[0].value == "<p>3</p>"
    assert made[1:] == [3]


def test_a_view_shows_figures_and_what_is_wrong_with_them(app):
    def chart(app):
        if app.k == 7:
            raise NotPossibleError("Seven is too few.")
        return go.Figure(go.Bar(y=[app.k])) if app.k == 8 else {"data": [{"y": [app.k]}], "layout": {}}

    view = widgets.View(app, chart, "k")
    for app.k in (8, 9):
        shown = view.children[1]
        figure = shown.outputs[0]["data"]["application/vnd.plotly.v1+json"]
        assert figure["data"][0]["y"] == [app.k]
    app.k = 7
    assert "Seven is too few." in view.children[0].value
    assert shown.outputs == ()


def test_only_the_open_tab_is_made_and_an_executed_notebook_shows_it(app):
    made = []
    views_of = {name: widgets.View(app, lambda app, name=name: made.append(name) or "", "k") for name in ("a", "b")}
    page = widgets.Page(app, {"For you": views_of["a"], "Other": widgets.w.VBox([views_of["b"]])})
    made.clear()
    app.k = 20
    assert made == ["a"]
    page.tabs.selected_index = 1
    assert (made, app.tab) == (["a", "b"], "Other")
    page = widgets.Page(app, {"Other": widgets.View(app, views.user_list, "user")})
    bundle = page._repr_mimebundle_()  # what an executed notebook shows without a kernel
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "films for user" in bundle["text/html"]


def test_the_default_for_similar_films_is_the_best_by_what_was_liked_later(lab, app):
    shares = lab.explored["similar"]
    assert set(shares) == set(lab.models) - {"popularity"}  # which learns no similarity
    assert app.models[1] == next(name for name in shares if name != app.models[0])
    app.models = ("popularity", "ease")
    assert views.similar_lists(app).count("Served by common audiences") == 1


def test_a_failure_is_logged_and_said_and_nothing_else_breaks(app, caplog):
    def broken(app):
        raise RuntimeError("out of paper")

    assert "Something went wrong" in widgets.View(app, broken, "k").children[0].value
    assert "out of paper" in caplog.text


def test_messages_that_no_page_sends_do_no_harm(app):
    page, sent = widgets.Page(app, {"For you": widgets.w.HTML()}), []
    page.browser.send = lambda content, buffers=None: sent.append(content)
    for content in ({}, {"do": "fly away"}, {"do": 7}, {"do": "like 99999"}, {"do": "rate x"}, {"link": 3}):
        page.browser._handle_custom_msg(content, [])
    assert sent == [{"done": ""}] * 6


def test_buttons_inside_lists_do_what_they_say(app):
    for verb, value in (("like", "20"), ("rate", "21:1"), ("rate", "20:3")):
        app.do(verb, value)
    assert app.liked == {20: 3.0, 21: 1.0}
    app.do("remove", "21")
    app.do("like", "30\n31")
    assert list(app.liked) == [20, 30, 31]
    app.do("similar_to", "30")
    assert (app.tab, app.similar_to) == ("Similar films", 30)
    app.do("open", "30")
    assert app.film == 30
    app.do("open", "30")
    assert app.film is None
    before = app.user
    app.do("step", "any")
    assert app.user != before
    app.do("step", "1")
    app.do("step", "-1")
    assert app.notice == ""


# ---- opening ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch, lab_home):
    """HTML that opening has displayed, in a home of its own."""
    html = []
    monkeypatch.setattr("recsys_lib.app.widgets.display", lambda page: html.append(page.data))
    return html


def test_what_is_missing_names_its_command(shown):
    for start in (open_app, lambda name: site.main([name])):
        with pytest.raises(SystemExit, match="make 02"):
            start("ml-100k")
    assert "make 02" in shown[0]
    run = make_run("some")
    for config in run.paths.models.glob("*/config.json"):
        config.unlink()
    with pytest.raises(SystemExit, match="make run DATASET=some"):
        open_app("some")


def test_a_model_of_other_data_is_refused_and_one_that_cannot_be_read_leaves_the_others(shown):
    run = make_run("some")
    next((run.paths.models / "ease").glob("*.safetensors")).write_bytes(b"broken")
    app = open_app("some")
    app.models = ("ease", "item_knn")
    assert "EASE could not be read; <code>make 05 DATASET=some</code>" in views.compare_lists(app)
    assert views.compare_lists(app).count("<li") > 5
    config = run.paths.models / "ease" / "config.json"
    content = read_json(config)
    write_json(config, content | {"data": {**content["data"], "sha256": "1" * 64}})
    with pytest.raises(SystemExit, match="other data"):
        open_app("some")
    assert "made from other data" in shown[0]


def test_data_without_genres_ratings_and_time_is_shown_as_well(lab_home):
    interactions, items, users = made_tables()
    plays = interactions[["user_id", "item_id"]].assign(rating=1.0)
    items = items.assign(genres=[[] for _ in range(len(items))], year=None).astype({"year": "Int16"})
    run, split = Run("plays"), splits.random(plays, seed=1)
    data = {"name": "plays", "sha256": "0", "rating_scale": None, "source": "made"}
    run.write_tables(split, items, users[["user_id"]], data=data, relevant_from=0)
    run.save_model("ease", EASE().fit(run.known))
    app = App(Lab(Run("plays")))
    app.liked, app.models = {20: 1.0}, ("ease",)
    html = "".join(str(page(app)) for page in PAGES) + "".join(go.Figure(chart(app)).to_json() for chart in CHARTS)
    assert "★" not in html
    assert "year not known" not in html, "no item has one"
    tables = run.tables_with_test("test")
    per_user = {"ease": evaluate(run.models["ease"], tables.split, (10,), relevant_from=0).per_user}
    found = explored.facts(per_user, tables, explored.liked_later(run.models, tables))
    assert len(found["segments"]) == 3 and 0 < found["similar"]["ease"] < 1 and found["p"] == {}, "one model alone"
    assert "No leaderboard yet" in html


def test_products_without_titles_are_items_and_no_films(lab_home, monkeypatch):
    interactions, items, users = made_tables()
    run, split = Run("plays"), splits.random(interactions[["user_id", "item_id"]].assign(rating=1.0), seed=1)
    data = {"name": "plays", "sha256": "0", "rating_scale": None, "source": "made"}
    run.write_tables(split, items[["item_id"]], users[["user_id"]], data=data, relevant_from=0)
    run.save_model("ease", EASE().fit(run.known))
    monkeypatch.setenv("RECSYS_DATASET", "plays")
    parts: dict = {}
    for cell in nbformat.read(serve.NOTEBOOK, 4).cells:
        exec(cell.source if cell.cell_type == "code" else "", parts)
    for title in parts["page"].tabs.titles:
        parts["app"].tab = title
    html = parts["page"]._repr_mimebundle_()["text/html"].split("</style>")[1]
    assert re.search(r">Item \d+<", html)
    assert re.findall(r">[^<]*\bfilms?\b[^<]*<", html) == []
    assert widgets.control(parts["app"], "k").description == "Items"


@pytest.mark.parametrize("form, called", [("{}", "item"), ("film {}", "film")])
def test_a_word_is_changed_in_texts_and_not_in_ids(lab_home, form, called):
    """Where titles are the ids, as of sequences; and where an id holds the word."""
    interactions, items, users = made_tables()
    ids = items["item_id"].map(form.format)
    pairs = interactions[["user_id"]].assign(item_id=interactions["item_id"].map(form.format), rating=1.0)
    data = {"name": "plays", "sha256": "0", "rating_scale": None, "source": "made"}
    table = pd.DataFrame({"item_id": ids, "title": ids})
    Run("plays").write_tables(splits.random(pairs, seed=1), table, users[["user_id"]], data=data, relevant_from=0)
    Run("plays").save_model("ease", EASE().fit(Run("plays").known))
    lab = Lab(Run("plays"))
    text = '<a data-do="open film 3" title="a film">Films, and a film.</a>'
    assert lab.words(text) == text.replace(">Films, and a film.<", f">{called.title()}s, and a {called}.<")


def test_what_is_prepared_is_made_anew_where_it_is_old_or_damaged(lab_home, monkeypatch):
    run = make_run("some")
    before = prepared.read_prepared(run)
    file = run.paths.outputs / "demo" / "ratings.safetensors"
    written = file.stat().st_mtime_ns
    prepared.read_prepared(run)
    assert file.stat().st_mtime_ns == written
    theirs = run.tables_with_test("test")
    for part, frame in ((before["history"], theirs.history), (before["test"], theirs.split.test)):
        pd.testing.assert_frame_equal(part.to_frame(), Interactions.from_frame(frame).to_frame())
    titles = run.tables.items["title"].tolist()
    assert titles == theirs.items["title"].tolist()
    write_json(file.with_name("about.json"), {"sources": []})  # as earlier versions wrote it
    assert [*prepared.read_prepared(run)] == [*before]
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(prepared.read_prepared(run)["test"].timestamps, before["test"].timestamps)
    make_run("some", hostile=False)
    prepared.read_prepared(run)
    assert run.tables.items["title"].tolist() != titles
    table = run.paths.processed / "train.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    file.unlink()
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as in a session's kernel
    with pytest.raises(OtherDataError, match="train.parquet cannot be read .*: `rm -r .*; make 02 DATASET=some` makes"):
        prepared.read_prepared(run)


def test_the_champion_is_the_model_shown_first(lab_home):
    run = make_run()
    assert next(iter(Lab(run).models)) == "blend", "the best of the leaderboard"
    write_json(run.paths.outputs / "champion.json", {"model": "item_knn"})
    assert next(iter(Lab(run).models)) == "item_knn"


def test_the_kernel_stays_light(lab):
    heavy = ["torch", "ssl", "pyarrow", "numpy.f2py", "matplotlib", "sklearn", "mlflow", "plotly"]
    heavy += ["scipy.linalg", "scipy.optimize", "scipy.stats"]
    code = (
        "import sys; from recsys_lib.app.kernel import slim; slim();"
        "from recsys_lib.app import views, widgets; a = widgets.open_app('made');"
        "[a.lab.model(name) for name in a.lab.models];"
        f"print([m for m in {heavy} if sys.modules.get(m)], 'films for user' in views.user_list(a))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[] True", done.stderr


# ---- serving and the static site -------------------------------------------------------------------------------


def test_the_page_needs_no_other_machine_and_a_view_of_the_readers_own_ten_lines():
    for name in ("browser.js", "app.css", "views.html"):
        assert "http" not in (serve.SHARE.parent / name).read_text()
    assert len((serve.SHARE.parent / "browser.js").read_text().splitlines()) <= 60
    cells = nbformat.read(serve.NOTEBOOK, 4).cells
    own = next(cell.source for cell in cells if "page.add(" in cell.source)
    assert len([line for line in own.splitlines() if line.strip()]) <= 10


def test_a_kernel_given_to_a_page_is_not_ended_before_the_page_connects(monkeypatch):
    ended = []

    async def end(self, kernel_id):
        if datetime.now(UTC) - self._kernels[kernel_id].last_activity > timedelta(seconds=60):
            ended.append(kernel_id)

    monkeypatch.setattr(serve.AsyncMappingKernelManager, "cull_kernel_if_idle", end)
    manager = serve.KernelManager(cull_idle_timeout=60)
    kernel = SimpleNamespace(last_activity=datetime.now(UTC) - timedelta(seconds=3600))
    manager._kernels = {"a": kernel}
    asyncio.run(manager.cull_kernel_if_idle("a"))
    assert ended == []
    kernel.last_activity -= timedelta(seconds=61)
    asyncio.run(manager.cull_kernel_if_idle("a"))
    assert ended == ["a"]


def test_the_site_is_whole_and_needs_nothing_else(lab_home):
    run = make_run("some")
    write_json(run.paths.reports / "index.html", "a report")
    index = site.build(run, users=4, films=3)
    names = {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*") if path.is_file()}
    assert {"users/4.html", "films/3.html", "report.html"} <= names
    for path in index.parent.rglob("*.html"):
        text = path.read_text()
        links = re.findall(r'(?:href|src)="([^"#]+)"', text)
        assert all(link.startswith("data:") or (path.parent / link).is_file() for link in links), path
        assert not Tags(text).tags & {"img", "svg", "select"}
    assert "Why this film?" in (index.parent / "users" / "1.html").read_text()
    lab = Lab(run)
    sample = lab.lengths[lab.known.user_codes(site.sample_of_users(lab, 5))]  # spans all activity
    assert (len(sample), sample[0], sample[-1]) == (5, lab.lengths.min(), lab.lengths.max())
    assert sample.tolist() == sorted(sample), "from the least to the most active, as the page says"


def test_what_the_machine_does_not_give_is_said_before_anything_is_served(lab_home, monkeypatch):
    (lab_home / "outputs").write_text("")
    with pytest.raises(SystemExit, match=f"Not a directory: '{lab_home}/outputs/made"):
        serve.main(["made"])
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    with pytest.raises(SystemExit, match="64 open files at once are too few, 128 are needed"):
        serve.main(["made"])
