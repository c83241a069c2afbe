"""The service, asked over HTTP: every address, what it refuses, what it says of itself."""

import json
import math
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys_lib.benchmarks.api import running
from recsys_lib.tests.api_home import only_pairs, with_champion

PROBLEM = "application/problem+json"


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
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def pairs(run):
    with running("pairs", run.paths.outputs / "pairs.log") as started, httpx.Client(base_url=started.url) as client:
        yield client


def quoted(text):
    return quote(text, safe="")


def lists(answer):
    return [(entry["movie_id"], entry["rank"]) for entry in answer.json()["items"]]


def is_problem(answer, status, kind=""):
    """Check the form of a problem and give its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    content = answer.json()
    assert content["status"] == status
    assert content["request_id"] == answer.headers["x-request-id"]
    assert content["title"] and content["detail"]
    assert content["type"] == (f"urn:recsys-lab:problem:{kind}" if kind else "about:blank")
    return content


# ---- what it answers -----------------------------------------------------------------------------------------


def test_health_names_the_champion(ask):
    answer = ask.get("/health").json()
    assert answer["status"] == "ok"
    assert answer["dataset"] == "made"
    assert answer["model"] == {"name": "ease", "version": "1"}


@pytest.mark.parametrize("name", [None, "popularity", "item_knn"])
def test_lists_are_those_of_the_package(ask, run, name):
    model = run.models[name] if name else run.champion.model
    users = model.train.user_ids[:5].tolist()
    expected = model.recommend(users, 7).groupby("user_id")
    for user in users:
        answer = ask.get(f"/recommend/{user}", params={"k": 7} | ({"model": name} if name else {}))
        table = expected.get_group(user)
        assert lists(answer) == list(zip(table["item_id"], table["rank"], strict=True))
        assert [entry["score"] for entry in answer.json()["items"]] == pytest.approx(table["score"].tolist())
        assert answer.json()["user_id"] == user
        assert answer.json()["fallback"] is False


def test_lists_asked_for_together_are_those_computed_alone(server, run):
    model = run.champion.model
    drama = run.tables.items.loc[run.tables.items["genres"].map(lambda genres: "Drama" in genres), "item_id"]
    options = {"": {}, "&genre=Drama": {"candidates": drama}, "&exclude_seen=false": {"exclude_seen": False}}
    asked = [(user, k, more) for user in (*range(1, 40), "nobody") for k in (3, 11) for more in options]
    with ThreadPoolExecutor(20) as pool, httpx.Client(base_url=server.url) as client:
        answers = list(pool.map(lambda each: client.get("/recommend/{}?k={}{}".format(*each)), asked * 2))
    for (user, k, more), answer in zip(asked * 2, answers, strict=True):
        table = model.recommend([user], k, **options[more])
        assert lists(answer) == list(zip(table["item_id"], table["rank"], strict=True))
        scores = [entry["score"] for entry in answer.json()["items"]]
        np.testing.assert_allclose(scores, table["score"], rtol=1e-5)


def test_options_of_a_list(ask):
    seen = {entry["movie_id"] for entry in ask.get("/users/3", params={"limit": 100}).json()["history"]}
    assert not seen & {movie for movie, _ in lists(ask.get("/recommend/3?k=100"))}
    assert seen & {movie for movie, _ in lists(ask.get("/recommend/3?k=100&exclude_seen=false"))}
    comedies = ask.get("/recommend/3?k=5&genre=Comedy").json()["items"]
    assert comedies
    assert all("Comedy" in entry["genres"] for entry in comedies)


def test_new_users_get_the_packages_list(ask, run):
    model = run.champion.model
    liked = {2: 5.0, 9: 3.0}
    body = {"liked": [{"movie_id": movie, "rating": rating} for movie, rating in liked.items()], "k": 6}
    answer = ask.post("/recommend", json=body)
    table = model.recommend_new(liked, 6)
    assert lists(answer) == list(zip(table["item_id"], table["rank"], strict=True))
    assert answer.json()["user_id"] is None
    # Without ratings, and ids given as texts: as if each was rated best.
    answer = ask.post("/recommend", json={"liked": [{"movie_id": "2"}, {"movie_id": 9.0}], "genre": "Drama"})
    best = model.train.best_rating
    drama = model.recommend_new({2: best, 9: best}, 80)["item_id"].tolist()
    assert [movie for movie, _ in lists(answer)] == sorted((m for m, _ in lists(answer)), key=drama.index)
    assert ask.post("/recommend", json={"liked": []}).json()["fallback"] is True


def test_unknown_users_get_popular_films(ask, run):
    answer = ask.get("/recommend/nobody?k=5")
    assert answer.json()["fallback"] is True
    assert answer.json()["user_id"] == "nobody"
    assert lists(answer)[0][0] == run.known.item_ids[run.known.item_counts.argmax()]
    is_problem(ask.get("/recommend/nobody?unknown=raise"), 404, "unknown-user")


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


def test_users(ask):
    answer = ask.get("/users?limit=2&offset=1").json()
    assert [user["user_id"] for user in answer["items"]] == [2, 3]
    assert answer["total"] == 120
    assert {"age", "gender", "occupation"} <= set(answer["items"][0]["facts"])
    history = ask.get("/users/2?limit=3").json()["history"]
    assert len(history) == 3
    times = [entry["timestamp"] for entry in history]
    assert times == sorted(times, reverse=True)
    assert ask.get("/users?offset=100000").json()["items"] == []


def test_films(ask):
    listed = ask.get("/movies?query=FILM 7").json()
    assert listed["total"] == sum("7" in str(number) for number in range(5, 81) if number != 5)
    assert ask.get("/movies?query=usual the").json()["items"][0]["title"] == "The Usual Suspects"
    everything = ask.get("/movies?limit=100").json()
    assert everything["total"] == len(everything["items"])
    assert ask.get("/movies?query=usual&offset=1").json()["items"] == []
    film = ask.get("/movies/5").json()
    assert film["title"] == "The Usual Suspects"
    assert film["n_ratings"] > 0
    assert 1 <= film["mean_rating"] <= 5


def test_models(ask):
    listed = ask.get("/models").json()["items"]
    assert [model["name"] for model in listed] == ["ease", "blend", "item_knn", "popularity"]
    assert [model["champion"] for model in listed] == [True, False, False, False]
    answer = ask.get("/recommend/1?model=item_knn").json()["model"]
    assert answer == {"name": "item_knn", "version": listed[2]["version"]}
    assert listed[0]["metrics"]["ndcg@10"] == pytest.approx(0.2)
    assert listed[0]["params"]["regularization"]


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
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        path = f"/static-offline-docs/{asset}"
        assert path in page
        assert len(ask.get(path).content) > 1000
    described = ask.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/health", "/users", "/users/{user_id}", "/recommend/{user_id}", "/recommend", "/similar/{movie_id}",
        "/movies/{movie_id}", "/movies", "/explain/{user_id}/{movie_id}", "/models", "/metrics",
    }  # fmt: skip
    assert "HTTPValidationError" not in json.dumps(described)


def test_torch_is_not_imported(ask, server):
    for model in ask.get("/models").json()["items"]:
        assert ask.get("/recommend/1", params={"model": model["name"]}).status_code == 200
    loaded = [mapped.path for mapped in psutil.Process(server.process.pid).memory_maps()]
    assert any("numpy" in path for path in loaded)
    assert not [path for path in loaded if "torch" in path]


# ---- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", ["0", "101", "-1", "ten", "1.5", "9" * 5000, "", "NaN"])
def test_length_of_a_list_is_from_1_to_100(ask, k):
    for path in ("/recommend/1", "/similar/1", "/explain/1/2"):
        is_problem(ask.get(path, params={"k": k}), 422, "invalid-request")


@pytest.mark.parametrize("film", ["0", "81", "film", "-3", str(2**63), str(-(2**63) - 1), "9" * 190, "1e1", "2.0"])
def test_unknown_films(ask, film):
    for path in (f"/movies/{film}", f"/similar/{film}", f"/explain/1/{film}"):
        is_problem(ask.get(path), 404, "unknown-movie")
    is_problem(ask.post("/recommend", json={"liked": [{"movie_id": film}]}), 404, "unknown-movie")


@pytest.mark.parametrize("user", ["0", "nobody", str(2**63), "9" * 200, "%ff", "..%2F..%2Fetc%2Fpasswd", "%20", "😀"])
def test_unknown_users(ask, user):
    is_problem(ask.get(f"/users/{user}"), 404, "unknown-user")
    is_problem(ask.get(f"/explain/{user}/1"), 404, "unknown-user")
    assert ask.get(f"/recommend/{user}").json()["fallback"] is True


@pytest.mark.parametrize("path", ["/users/%00", "/users/1%00", "/similar/%00", "/recommend/" + "x" * 201])
def test_what_is_not_an_id(ask, path):
    is_problem(ask.get(path), 422, "invalid-request")


def test_other_unknown_names(ask):
    content = is_problem(ask.get("/recommend/1?model=../../secret"), 404, "unknown-model")
    assert "ease" in content["detail"]
    is_problem(ask.get("/recommend/1?genre=Opera"), 404, "unknown-genre")
    content = is_problem(ask.get("/recommend/1?n=5"), 422, "invalid-request")
    assert content["errors"][0]["where"] == "query.n"


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


@pytest.mark.parametrize("body", BAD_BODIES)
def test_bad_new_users(ask, body):
    answer = ask.post("/recommend", content=body, headers={"content-type": "application/json"})
    is_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"[" * 20_000, b'{"liked": [{"movie_id": ' + b"9" * 5000 + b"}]}"])
def test_bodies_that_cannot_be_read(ask, body):
    answer = ask.post("/recommend", content=body, headers={"content-type": "application/json"})
    is_problem(answer, answer.status_code, "invalid-request" if answer.status_code == 422 else "")
    assert answer.status_code in (400, 422)


def test_addresses_and_methods(ask):
    for path in ("/", "/nothing", "/users/", "/recommend/", "/explain/1", "/static-offline-docs/../app.py"):
        is_problem(ask.get(path), 404)
    for method, path, allowed in (
        ("DELETE", "/users", "GET"),
        ("PUT", "/recommend", "POST"),
        ("POST", "/health", "GET"),
    ):
        answer = ask.request(method, path)
        is_problem(answer, 405)
        assert allowed in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/health", "/users", "/movies/5", "/docs", "/users/0"])
def test_head_gives_the_head_of_get(ask, path):
    head, get = ask.head(path), ask.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


def test_too_large_bodies_with_and_without_a_length(ask):
    body = b'{"liked": [' + b" " * 50_000 + b"]}"
    json_type = {"content-type": "application/json"}
    is_problem(ask.post("/recommend", content=body, headers=json_type), 413)
    chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))
    is_problem(ask.post("/recommend", content=chunks, headers=json_type), 413)


def test_request_ids(ask, server):
    assert ask.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("", "a b", "x" * 65, "<script>", '"},{"'):
        given = ask.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 32
    assert ask.get("/health").headers["x-request-id"] != ask.get("/health").headers["x-request-id"]
    line = next(line for line in server.lines() if line.get("request_id") == "mine-1")
    assert (line["method"], line["path"], line["status"], line["level"]) == ("GET", "/health", 200, "info")


def test_every_line_of_the_log_is_json(ask, server):
    ask.get("/movies", params={"query": 'a"\n{}'})
    ask.get("/users/%0a%22evil")
    for line in server.log.read_text().splitlines():
        assert json.loads(line)["time"].endswith("+00:00")


# ---- data of one's own ---------------------------------------------------------------------------------------


def test_ids_may_be_any_text(pairs):
    listed = pairs.get("/users?limit=5").json()
    for user in listed["items"]:
        answer = pairs.get(f"/recommend/{quoted(user['user_id'])}")
        assert answer.json()["user_id"] == user["user_id"]
        assert answer.json()["fallback"] is False
        film = answer.json()["items"][0]["movie_id"]
        assert pairs.get(f"/movies/{quoted(film)}").json()["movie_id"] == film
        assert pairs.get(f"/similar/{quoted(film)}").json()["movie"]["movie_id"] == film
        reasons = pairs.get(f"/explain/{quoted(user['user_id'])}/{quoted(film)}").json()
        assert math.isfinite(reasons["score"])
        history = pairs.get(f"/users/{quoted(user['user_id'])}").json()
        assert history["mean_rating"] is None
        assert history["history"][0]["rating"] is None
        assert history["history"][0]["timestamp"] is None
    for path in ("/users/1", "/recommend/1"):  # of texts as of numbers
        assert pairs.get(path).json()["user_id"] == "1"
    assert pairs.get("/recommend/1").json()["fallback"] is False
    assert pairs.post("/recommend", json={"liked": [{"movie_id": 1}]}).json()["fallback"] is False
    is_problem(pairs.get(f"/users/{quoted(user['user_id'] + chr(0))}"), 422, "invalid-request")
    assert pairs.post("/recommend", json={"liked": [{"movie_id": film}]}).json()["fallback"] is False
    is_problem(pairs.post("/recommend", json={"liked": [{"movie_id": film, "rating": -1}]}), 422, "invalid-request")
    is_problem(pairs.get("/recommend/x?genre=Drama"), 404, "unknown-genre")
    assert pairs.get("/movies?query=film 3/").json()["total"] == 3


def test_a_raw_request_that_is_no_http_gets_an_answer(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000)
        assert b"400" in connection.recv(1000).split(b"\r\n")[0]
