"""The service as it lives: keys and limits, a new champion under load, a stop with work under way, made-up requests."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import anyio
import httpx
import pandas as pd
import pytest

from recsys_lib.api import serving
from recsys_lib.api.app import Settings, create_app
from recsys_lib.api.guard import CLIENTS, Limits, TokenBuckets
from recsys_lib.api.serve import running
from recsys_lib.benchmarks import api as api_benchmark
from recsys_lib.files import read_json, write_parquet
from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths
from recsys_lib.run import registry
from recsys_lib.run.reading import best_model
from recsys_lib.tests.api_home import fit_again, with_registry
from recsys_lib.tests.test_api import is_problem

CASES = int(os.environ.get("RECSYS_API_CASES", "5"))  # random requests for each address, beside the systematic ones


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with a run, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(folder))
        with_registry()
    return folder


@pytest.fixture
def home(made, lab_home):
    shutil.copytree(made, lab_home, dirs_exist_ok=True)
    return lab_home


class InProcess:
    """The application without a server, its models loaded."""

    def __init__(self, **settings):
        self.app = create_app(Settings("made", **settings))
        self.service = self.app.state.service
        self.service.refresh()

    def get(self, path, headers=None):
        async def asked():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.get(path, headers=headers)

        return anyio.run(asked)


def port_of(server) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


# ---- who may ask ---------------------------------------------------------------------------------------------


def test_a_key_is_asked_for_where_there_is_one(home):
    ask = InProcess(key="sësame")
    right = "sësame".encode()
    for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": b"\xff\xfe"}, {"authorization": "Bearer x"}):
        answer = ask.get("/recommend/1", headers=headers)
        is_problem(answer, 401)
        assert answer.headers["www-authenticate"]
    for headers in ({"x-api-key": right}, {"authorization": b"Bearer " + right}):
        assert ask.get("/recommend/1", headers=headers).status_code == 200
    for path in ("/users", "/models", "/metrics", "/movies/1", "/nothing", "/health/", "/docsx"):
        is_problem(ask.get(path), 401)
    for path in ("/health", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert ask.get(path).status_code == 200
    assert ask.get("/openapi.json").json()["security"] == [{"key": []}]


def test_no_other_name_is_answered_to(home):
    ask = InProcess(hosts=("localhost", "127.0.0.1"))
    assert ask.get("/health", headers={"host": "localhost:8000"}).status_code == 200
    for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
        is_problem(ask.get("/users", headers={"host": name}), 421)


def test_too_many_requests(home):
    ask = InProcess(limits=Limits(rate=0.01, burst=3))
    assert [ask.get("/health").status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = ask.get("/health")
    is_problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 1


def test_as_many_clients_are_remembered_as_there_is_room_for():
    buckets = TokenBuckets(1, 1)
    for number in range(CLIENTS + 50):
        buckets.wait(str(number), 0.0)
    assert len(buckets._buckets) == CLIENTS
    assert TokenBuckets(0, 1).wait("anybody", 0.0) == 0


def test_errors_tell_no_more_than_they_must(home, caplog):
    ask = InProcess()
    ask.service.ready = lambda: 1 / 0
    content = is_problem(ask.get("/models"), 500)
    assert "division" not in str(content)
    assert content["request_id"] in content["detail"]
    assert "ZeroDivisionError" in caplog.text


def test_it_says_when_others_can_reach_it(home):
    with running("made", home / "log", "--host", "0.0.0.0", home=home, ready=False) as server:
        said = server.log.read_text()
    assert "other machines can reach this service" in said
    assert "RECSYS_API_KEY" in said
    with running("made", home / "log", home=home, ready=False) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert "WARNING" not in server.log.read_text()


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "recsys_lib.api", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in ended.stderr
    assert "Traceback" not in ended.stderr


# ---- how it lives --------------------------------------------------------------------------------------------


def test_not_healthy_until_there_is_something_to_serve(made, tmp_path):
    with running("made", tmp_path / "log", "--poll", "0.1", home=tmp_path, ready=False) as server:
        until = time.monotonic() + 60
        detail = ""
        while "make" not in detail and time.monotonic() < until:
            detail = is_problem(httpx.get(f"{server.url}/health"), 503, "no-model")["detail"]
            time.sleep(0.05)
        assert re.search(r"`make 02 DATASET=made` makes it", detail)
        is_problem(httpx.get(f"{server.url}/recommend/1"), 503, "no-model")
        assert httpx.get(f"{server.url}/docs").status_code == 200
        shutil.copytree(made, tmp_path, dirs_exist_ok=True)
        server.wait_until_ready()
        assert httpx.get(f"{server.url}/recommend/1").status_code == 200


def asked_without_end(url: str, ended: threading.Event, answers: list) -> None:
    with httpx.Client(base_url=url) as client:
        while not ended.is_set():
            answers.append(client.get(f"/recommend/{1 + len(answers) % 120}"))


def test_a_new_champion_is_taken_up_under_load(home):
    """No request fails, and each is answered by one champion or the other, never by a mixture."""
    paths = Paths("made")
    with running("made", home / "log", "--poll", "0.1", "--rate", "0", home=home) as server:
        ended, answers = threading.Event(), [[], []]
        threads = [threading.Thread(target=asked_without_end, args=(server.url, ended, mine)) for mine in answers]
        for thread in threads:
            thread.start()
        expected = {"v1": registry.champion(paths).load()}
        fit_again(paths, "ease", 5000.0)
        for version in ("v2", "v1", "v2"):
            registry.promote(paths, "ease", version)
            wait_for_version(server.url, version)
        expected["v2"] = registry.champion(paths).load()
        registry.promote(paths, "popularity")
        wait_for_version(server.url, "v1", "popularity")
        expected["popularity"] = registry.champion(paths).load()
        wait_for_more(answers)
        ended.set()
        for thread in threads:
            thread.join()
    found = [answer for mine in answers for answer in mine]
    assert {answer.status_code for answer in found} == {200}
    lists = {name: model.recommend(model.train.user_ids).groupby("user_id") for name, model in expected.items()}
    seen = set()
    for content in (answer.json() for answer in found):
        name = content["model"]["version"] if content["model"]["name"] == "ease" else "popularity"
        listed = lists[name].get_group(content["user_id"])
        assert [entry["movie_id"] for entry in content["items"]] == listed["item_id"].tolist()
        seen.add(name)
    assert seen == {"v1", "v2", "popularity"}


def wait_for_more(answers: list[list]) -> None:
    """Until each thread has asked and been answered once more: one answer may have been under way."""
    before, until = [len(mine) for mine in answers], time.monotonic() + 30
    while any(len(mine) < count + 2 for mine, count in zip(answers, before, strict=True)):
        assert time.monotonic() < until, "nobody is answered any more"
        time.sleep(0.02)


def wait_for_version(url: str, version: str, name: str = "ease") -> None:
    until = time.monotonic() + 30
    while httpx.get(f"{url}/health").json()["model"] != {"name": name, "version": version}:
        assert time.monotonic() < until, f"{name} {version} was not taken up"
        time.sleep(0.02)


def test_what_cannot_be_read_leaves_the_old_champion(home):
    ask = InProcess()
    service = ask.service
    registered = Paths("made").registry / "registry.json"
    registered.write_text('{"champion": {"model": "ease", "ver')
    assert not service.refresh()
    assert not service.refresh()  # and it is not tried again at once
    assert ask.get("/health").json()["model"]["name"] == "ease"
    assert ask.get("/recommend/1").status_code == 200
    assert 'recsys_loads_total{outcome="failed"} 1.0' in ask.get("/metrics").text
    registry_of_another_run = Paths("made").processed / "manifest.json"
    registered.unlink()
    registry_of_another_run.write_text(registry_of_another_run.read_text().replace("0" * 64, "f" * 64))
    assert not service.refresh()
    assert "other data" in service.failure
    assert ask.get("/recommend/1").status_code == 200
    registry_of_another_run.write_text(registry_of_another_run.read_text().replace("f" * 64, "0" * 64))
    assert service.refresh()
    assert service.failure == ""


def test_what_takes_long_is_computed_in_another_thread(home, monkeypatch):
    threads = set()
    original = Recommender.recommend_codes
    monkeypatch.setattr(
        Recommender,
        "recommend_codes",
        lambda *a, **k: threads.add(threading.current_thread().name) or original(*a, **k),
    )
    ask = InProcess()
    expected = ask.get("/recommend/1").json()
    assert threads == {"MainThread"}
    monkeypatch.setattr(serving, "QUICK", 0)
    ask = InProcess()
    threads.clear()
    assert ask.get("/recommend/1").json() == expected
    assert threads == {"MainThread"}  # scored beforehand
    monkeypatch.setattr(serving, "SCORED", 0)
    ask = InProcess()
    threads.clear()
    assert ask.get("/recommend/1").json() == expected
    assert "MainThread" not in threads and len(threads) == 1


def test_few_models_are_kept_in_memory(home, monkeypatch):
    monkeypatch.setattr(serving, "KEPT", 1)
    ask = InProcess()
    snapshot = ask.service.ready()
    for name in ("item_knn", "popularity", "item_knn"):
        assert ask.get(f"/recommend/1?model={name}").json()["model"]["name"] == name
        assert list(snapshot._loaded) == [name]
    first = snapshot.served("item_knn")
    assert snapshot.served("item_knn") is first
    assert snapshot.served("ease") is snapshot.champion


def test_a_model_that_cannot_be_read_says_so(home):
    ask = InProcess()
    (Paths("made").models / "item_knn" / "arrays.npz").write_bytes(b"nothing")
    is_problem(ask.get("/recommend/1?model=item_knn"), 503, "model-not-available")
    assert ask.get("/recommend/1").status_code == 200


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered_before_it_stops(home, asked):
    body = b'{"liked": [{"movie_id": 1}], "k": 3}'
    head = (
        b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    with running("made", home / "log", home=home) as server, socket.create_connection(port_of(server)) as connection:
        connection.settimeout(20)
        connection.sendall(head % len(body) + body[:10])
        time.sleep(0.3)
        server.process.send_signal(asked)
        time.sleep(0.3)
        assert server.process.poll() is None
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        connection.sendall(body[10:])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"rank":3' in answer
        assert server.process.wait(20) == (0 if asked == signal.SIGINT else -signal.SIGTERM)
        assert any(line["message"] == "Application shutdown complete." for line in server.lines())
        assert "Traceback" not in server.log.read_text()


def test_the_benchmark_loses_nothing(home):
    paths = Paths("made")
    best = best_model(read_json(paths.metrics / "leaderboard.json"))
    write_parquet(paths.metrics / "per_user" / f"{best}.parquet", pd.DataFrame({"user_id": [1], "ndcg@10": [0.1]}))
    before = sorted(paths.registry.rglob("*"))
    found = api_benchmark.measure("made", 30, 2)
    assert found["service"]["requests"] == found["bare"]["requests"] == 60
    assert found["service"]["failed"] == found["bare"]["failed"] == 0
    assert set(found["service"]["versions"]) <= {"v1", "v2"}
    assert "failed 0 of 60" in api_benchmark.report(found)
    assert os.environ["RECSYS_HOME"] == str(home)
    assert sorted(paths.registry.rglob("*")) == before


# ---- made-up requests ----------------------------------------------------------------------------------------

# 413: what the schema forbids may be too large besides. 422: a rating has to be on the scale of the data.
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 429]
[[operations]]
include-name = "POST /recommend"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 413, 422]
"""


def test_made_up_requests_find_no_fault(home):
    """Schemathesis asks what the OpenAPI allows, and what it forbids; RECSYS_API_CASES=1000 asks more of it."""
    (home / "schemathesis.toml").write_text(SETTINGS)
    with running("made", home / "log", "--rate", "0", home=home) as server:
        command = [shutil.which("schemathesis", path=Path(sys.executable).parent), "--config-file"]
        command += [str(home / "schemathesis.toml"), "run", f"{server.url}/openapi.json", "--checks", "all"]
        command += ["--max-examples", str(CASES), "--seed", "1", "--continue-on-failure", "--warnings", "off"]
        command += ["--generation-database", "none", "--output-truncate", "true"]
        command += ["--phases", "examples,coverage,fuzzing" + (",stateful" if CASES >= 100 else "")]
        ended = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=3000, check=False)
        said = [line for line in server.lines() if line["message"] == "request"]
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert len(said) > 200
    assert not [line for line in said if line["status"] >= 500 and line["route"] != "/health"]
    print(re.findall(r"\d+ generated.*", ended.stdout), len(said), "requests", Counter(line["status"] for line in said))
