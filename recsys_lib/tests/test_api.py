"""The service, asked over HTTP: every address, what it refuses, what it says of itself."""

import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys_lib.benchmarks.api import running
from recsys_lib.tests.api_home import connect, is_problem, only_pairs, with_champion

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with all there may be, in a home that also holds ``pairs``, with as little as there may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("home")))
        only_pairs()
        yield with_champion()


@pytest.fixture(scope="module")
def server(run):
    with running("made", run.paths.outputs / "log") as started:
        yield started


@pytest.fixture(scope="module")
def ask(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def lists(answer):
    return [(entry["movie_id"], entry["rank"]) for entry in answer.json()["items"]]


def pairs_of(table):
    return list(zip(table["item_id"], table["rank"], strict=True))


# ---- what it answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "popularity", "item_knn"])
def test_lists_are_those_of_the_package(ask, run, name):
    model = run.models[name] if name else run.champion.model
    users = model.train.user_ids[:5].tolist()
    expected = model.recommend(users, 7).groupby("user_id")
    for user in users:
        answer = ask.get(f"/recommend/{user}", params={"k": 7} | ({"model": name} if name else {}))
        table = expected.get_group(user)
        assert lists(answer) == pairs_of(table)
        assert [entry["score"] for entry in answer.json()["items"]] == pytest.approx(table["score"].tolist())
        assert (answer.json()["user_id"], answer.json()["fallback"]) == (user, False)


def test_lists_asked_for_together_are_those_computed_alone(ask, run):
    model = run.champion.model
    drama = run.tables.items.loc[run.tables.items["genres"].map(lambda genres: "Drama" in genres), "item_id"]
    options = {"": {}, "&genre=Drama": {"candidates": drama}, "&exclude_seen=false": {"exclude_seen": False}}
    asked = [(user, k, more) for user in (*range(1, 40), "nobody", "else") for k in (3, 11) for more in options] * 2
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda each: ask.get("/recommend/{}?k={}{}".format(*each)), asked))
    for (user, k, more), answer in zip(asked, answers, strict=True):
        table = model.recommend([user], k, **options[more])
        assert lists(answer) == pairs_of(table)
        scores = [entry["score"] for entry in answer.json()["items"]]
        np.testing.assert_allclose(scores, table["score"], rtol=1e-5)


def test_options_of_a_list(ask):
    seen = {entry["movie_id"] for entry in ask.get("/users/3", params={"limit": 100}).json()["history"]}
    assert not seen & {movie for movie, _ in lists(ask.get("/recommend/3?k=100"))}
    assert seen & {movie for movie, _ in lists(ask.get("/recommend/3?k=100&exclude_seen=false"))}
    comedies = ask.get("/recommend/3?k=5&genre=Comedy").json()["items"]
    assert comedies and all("Comedy" in entry["genres"] for entry in comedies)


def test_new_users_get_the_packages_list(ask, run):
    model = run.champion.model
    liked = {2: 5.0, 9: 3.0}
    body = {"liked": [{"movie_id": movie, "rating": rating} for movie, rating in liked.items()], "k": 6}
    answer = ask.post("/recommend", json=body)
    assert lists(answer) == pairs_of(model.recommend_new(liked, 6))
    assert answer.json()["user_id"] is None
    # Without ratings, and ids given as texts: as if each was rated best.
    answer = ask.post("/recommend", json={"liked": [{"movie_id": "2"}, {"movie_id": 9.0}], "genre": "Drama"})
    best = model.train.best_rating
    drama = model.recommend_new({2: best, 9: best}, 80)["item_id"].tolist()
    assert [movie for movie, _ in lists(answer)] == sorted((m for m, _ in lists(answer)), key=drama.index)
    assert ask.post("/recommend", json={"liked": []}).json()["fallback"] is True


def test_unknown_users_get_popular_films(ask, run):
    answer = ask.get("/recommend/nobody?k=5")
    assert (answer.json()["user_id"], answer.json()["fallback"]) == ("nobody", True)
    assert lists(answer)[0][0] == run.known.item_ids[run.known.item_counts.argmax()]


def test_a_hosted_endpoint_is_asked_for_several_lists_at_once(ask, run):
    """JSON and CSV, an unknown user as everywhere, a new one by what they liked."""
    model = run.champion.model
    known, new = {"user_id": 5, "k": 4}, {"liked": [{"movie_id": 2, "rating": 5.0}], "k": 3}
    answer = ask.post("/invocations", json={"instances": [known, new, {"user_id": "nobody"}]})
    first, second, third = answer.json()["predictions"]
    assert [film["movie_id"] for film in first["items"]] == model.recommend([5], 4)["item_id"].tolist()
    assert [film["movie_id"] for film in second["items"]] == model.recommend_new({2: 5.0}, 3)["item_id"].tolist()
    assert (third["user_id"], third["fallback"], len(third["items"])) == ("nobody", True, 10)
    answer = ask.post("/invocations", content="5,4\nnobody\n", headers={"content-type": "text/csv"})
    table = pd.read_csv(io.StringIO(answer.text))
    assert table["user_id"].tolist() == ["5"] * 4 + ["nobody"] * 10
    assert table["item_id"][:4].tolist() == model.recommend([5], 4)["item_id"].tolist()
    assert table["fallback"].tolist() == [False] * 4 + [True] * 10
    assert ask.get("/ping").json()["status"] == "ok"


@pytest.mark.parametrize(
    "body, kind, status",
    [
        (b"{", "application/json", 422),
        (b'{"instances": []}', "application/json", 422),
        (b'{"instances": [{"user": 1}]}', "application/json", 422),
        (b"1,many", "text/csv", 422),
        (b"\xff", "text/csv", 400),
    ],
)
def test_what_a_hosted_endpoint_refuses(ask, body, kind, status):
    answer = ask.post("/invocations", content=body, headers={"content-type": kind})
    is_problem(answer, status, "" if status == 400 else "invalid-request")


def test_similar_and_explain_are_those_of_the_package(ask, run):
    model = run.champion.model
    answer = ask.get("/similar/4?k=3")
    assert [movie for movie, _ in lists(answer)] == model.similar_items([4], 3)["similar_item_id"].tolist()
    answer = ask.get("/explain/5/7?k=3").json()
    score = model.score(model.train.rows(model.train.user_codes([5])), [5])[0, model.train.item_codes([7])[0]]
    assert answer["score"] == pytest.approx(float(score), rel=1e-4)
    assert sum(reason["contribution"] for reason in answer["reasons"]) == pytest.approx(answer["score"])
    assert answer["movie"]["movie_id"] == 7
    assert answer["reasons"][0]["movie"]["title"]


def test_users(ask, run):
    answer = ask.get("/users?limit=2&offset=1").json()
    assert [user["user_id"] for user in answer["items"]] == [2, 3]
    assert answer["total"] == 120
    assert {"age", "gender", "occupation"} <= set(answer["items"][0]["facts"])
    assert ask.get("/users?offset=100000").json()["items"] == []
    answer, table = ask.get("/users/2?limit=3").json(), run.tables.history.query("user_id == 2")
    assert answer["mean_rating"] == pytest.approx(table["rating"].mean())
    latest = table.set_index("item_id")["timestamp"].nlargest(3)
    assert [entry["timestamp"] for entry in answer["history"]] == latest.tolist()
    assert answer["n_ratings"] == len(table)


def test_films(ask, run):
    assert ask.get("/movies?query=FILM 7").json()["total"] == sum("7" in str(number) for number in range(6, 81))
    assert ask.get("/movies?query=usual the").json()["items"][0]["title"] == "The Usual Suspects"
    assert ask.get("/movies?query=usual&offset=1").json()["items"] == []
    everything = ask.get("/movies?limit=100").json()
    assert everything["total"] == len(everything["items"])
    film, ratings = ask.get("/movies/5").json(), run.tables.history.query("item_id == 5")["rating"]
    assert film["title"] == "The Usual Suspects"
    assert (film["n_ratings"], film["mean_rating"]) == (len(ratings), pytest.approx(ratings.mean()))


def test_models_and_health(ask, server):
    answer = ask.get("/health").json()
    assert (answer["status"], answer["dataset"]) == ("ok", "made")
    assert answer["model"] == {"name": "ease", "version": "1"}
    listed = ask.get("/models").json()["items"]
    assert [model["name"] for model in listed] == ["ease", "blend", "item_knn", "popularity"]
    assert [model["champion"] for model in listed] == [True, False, False, False]
    assert listed[0]["metrics"]["ndcg@10"] == pytest.approx(0.2)
    assert listed[0]["params"]["regularization"]
    for model in listed:
        answer = ask.get("/recommend/1", params={"model": model["name"]}).json()["model"]
        assert answer == {"name": model["name"], "version": model["version"]}
    loaded = [mapped.path for mapped in psutil.Process(server.process.pid).memory_maps()]
    assert any("numpy" in path for path in loaded)
    assert not [path for path in loaded if "torch" in path]


def test_metrics_can_be_read_by_prometheus(ask):
    for _ in range(3):
        ask.get("/recommend/nobody")
    ask.request("BREW", "/coffee")
    text = ask.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(text.text)}
    labels = ("method", "handler", "status")
    samples = families["recsys_http_requests"].samples
    counted = {tuple(map(sample.labels.get, labels)): sample.value for sample in samples if "_total" in sample.name}
    assert counted["GET", "/recommend/{user_id}", "200"] >= 3
    assert counted["OTHER", "none", "404"] == 1
    assert families["recsys_fallbacks"].samples[0].value >= 3
    assert families["recsys_model"].samples[0].labels == {"name": "ease", "version": "1"}
    assert families["recsys_http_request_duration_highr_seconds"].samples


def test_documentation_needs_no_network(ask):
    page = ask.get("/docs").text
    assert "http://" not in page and "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        path = f"/static-offline-docs/{asset}"
        assert path in page
        assert len(ask.get(path).content) > 1000
    described = ask.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/health", "/users", "/users/{user_id}", "/recommend/{user_id}", "/recommend", "/similar/{movie_id}",
        "/movies/{movie_id}", "/movies", "/explain/{user_id}/{movie_id}", "/models", "/metrics",
        "/ping", "/invocations",
    }  # fmt: skip
    assert "Problem" in described["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(described)


# ---- what it refuses -----------------------------------------------------------------------------------------

NUMBERS = ["0", "101", "-1", "ten", "1.5", "9" * 5000, "", "NaN"]
FILMS = ["0", "81", "film", "-3", str(2**63), str(-(2**63) - 1), "9" * 190, "1e1", "2.0"]
USERS = ["0", "nobody", str(2**63), "9" * 200, "%ff", "..%2F..%2Fetc%2Fpasswd", "%20", "😀"]
REFUSED = [
    *[(422, "invalid-request", f"{path}?k={k}") for k in NUMBERS for path in ("/recommend/1", "/similar/1")],
    *[(422, "invalid-request", f"/explain/1/2?k={k}") for k in NUMBERS],
    *[(404, "unknown-movie", path + film) for film in FILMS for path in ("/movies/", "/similar/", "/explain/1/")],
    *[(404, "unknown-user", path.format(user)) for user in USERS for path in ("/users/{}", "/explain/{}/1")],
    *[(422, "invalid-request", path) for path in ("/users/%00", "/users/1%00", "/similar/%00", "/users/" + "x" * 201)],
    (404, "unknown-user", "/recommend/nobody?unknown=raise"),
    (404, "unknown-model", "/recommend/1?model=../../secret"),
    (404, "unknown-genre", "/recommend/1?genre=Opera"),
    (422, "invalid-request", "/recommend/1?n=5"),
    *[(404, "", path) for path in ("/", "/nothing", "/users/", "/recommend/", "/explain/1")],
    (404, "", "/static-offline-docs/../app.py"),
]


def test_what_is_refused(ask):
    for status, kind, path in REFUSED:
        is_problem(ask.get(path), status, kind)
    for user in USERS:
        assert ask.get(f"/recommend/{user}").json()["fallback"] is True
    assert "ease" in ask.get("/recommend/1?model=x").json()["detail"]
    assert ask.get("/recommend/1?n=5").json()["errors"][0]["where"] == "query.n"
    for method, path, allowed in (
        ("DELETE", "/users", "GET"),
        ("PUT", "/recommend", "POST"),
        ("POST", "/health", "GET"),
    ):
        answer = ask.request(method, path)
        is_problem(answer, 405)
        assert allowed in answer.headers["allow"]


BAD_BODIES = [
    '{"liked": [{"movie_id": 1, "rating": NaN}]}',
    '{"liked": [{"movie_id": 1, "rating": Infinity}]}',
    '{"liked": [{"movie_id": 1, "rating": 1e999}]}',
    '{"liked": [{"movie_id": 1, "rating": 6}]}',
    '{"liked": [{"movie_id": 1, "rating": "5"}]}',
    '{"liked": [{"movie_id": 1}, {"movie_id": "1"}]}',
    '{"liked": [{"movie_id": ""}]}',
    '{"liked": [{"movie_id": "1\\u0000"}]}',
    '{"liked": [{"movie_id": "\\ud800"}]}',
    '{"liked": [{"movie_id": true}]}',
    '{"liked": [{"movie_id": null}]}',
    '{"liked": [{"movie_id": [1]}]}',
    '{"liked": {"1": 5}}',
    '{"liked": [], "k": 101}',
    '{"liked": [], "file": "/etc/passwd"}',
    '{"liked": ',
    "[]",
    "",
]
UNREADABLE = [b"\xff\xfe\x00", b"[" * 20_000, b'{"liked": [{"movie_id": ' + b"9" * 5000 + b"}]}"]


def test_bad_bodies(ask):
    for body in BAD_BODIES:
        is_problem(ask.post("/recommend", content=body, headers=JSON), 422, "invalid-request")
    for film in FILMS:
        is_problem(ask.post("/recommend", json={"liked": [{"movie_id": film}]}), 404, "unknown-movie")
    for body in UNREADABLE:
        answer = ask.post("/recommend", content=body, headers=JSON)
        assert answer.status_code in (400, 422)
        is_problem(answer, answer.status_code, "invalid-request" if answer.status_code == 422 else "")
    large = b'{"liked": [' + b" " * 50_000 + b"]}"
    is_problem(ask.post("/recommend", content=large, headers=JSON), 413)
    chunks = (large[start : start + 1000] for start in range(0, len(large), 1000))
    is_problem(ask.post("/recommend", content=chunks, headers=JSON), 413)


def test_head_gives_the_head_of_get(ask):
    for path in ("/health", "/users", "/movies/5", "/docs", "/users/0"):
        head, get = ask.head(path), ask.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_a_raw_request_that_is_no_http_gets_an_answer(server):
    with connect(server) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000)
        assert b"400" in connection.recv(1000).split(b"\r\n")[0]


def test_the_log_is_json_lines_with_request_ids(ask, server):
    assert ask.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("", "a b", "x" * 65, "<script>", '"},{"'):
        given = ask.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 32
    ask.get("/movies", params={"query": 'a"\n{}'})
    ask.get("/users/%0a%22evil")
    assert all(line["time"].endswith("+00:00") for line in server.lines())
    line = next(line for line in server.lines() if line.get("request_id") == "mine-1")
    assert (line["method"], line["path"], line["status"], line["level"]) == ("GET", "/health", 200, "info")


# ---- data of one's own ---------------------------------------------------------------------------------------


def test_ids_may_be_any_text(run):
    with running("pairs", run.paths.outputs / "log-pairs") as server, httpx.Client(base_url=server.url) as pairs:
        for user in (each["user_id"] for each in pairs.get("/users?limit=5").json()["items"]):
            quoted = quote(user, safe="")
            answer = pairs.get(f"/recommend/{quoted}").json()
            assert (answer["user_id"], answer["fallback"]) == (user, False)
            film = answer["items"][0]["movie_id"]
            assert pairs.get(f"/movies/{quote(film, safe='')}").json()["movie_id"] == film
            assert pairs.get(f"/similar/{quote(film, safe='')}").json()["movie"]["movie_id"] == film
            assert math.isfinite(pairs.get(f"/explain/{quoted}/{quote(film, safe='')}").json()["score"])
            history = pairs.get(f"/users/{quoted}").json()
            assert history["mean_rating"] is history["history"][0]["rating"] is None
            assert history["history"][0]["timestamp"] is None
        for path in ("/users/1", "/recommend/1"):  # of texts as of numbers
            assert pairs.get(path).json()["user_id"] == "1"
        assert pairs.get("/recommend/1").json()["fallback"] is False
        for liked in ({"movie_id": 1}, {"movie_id": film}):
            assert pairs.post("/recommend", json={"liked": [liked]}).json()["fallback"] is False
        is_problem(pairs.get(f"/users/{quoted}%00"), 422, "invalid-request")
        bad = {"liked": [{"movie_id": film, "rating": -1}]}
        is_problem(pairs.post("/recommend", json=bad), 422, "invalid-request")
        is_problem(pairs.get("/recommend/x?genre=Drama"), 404, "unknown-genre")
        assert pairs.get("/movies?query=film 3/").json()["total"] == 3
