"""The service as it lives: keys, limits, a new champion under load, a stop under load, made-up requests."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn

from recsys_lib.api import server as server_module
from recsys_lib.api import service
from recsys_lib.api.app import create_app
from recsys_lib.api.server import Connection, Server, listen
from recsys_lib.benchmarks.api import measure, running
from recsys_lib.files import read_json, write_json
from recsys_lib.models import EASE
from recsys_lib.run.run import Run
from recsys_lib.tests.api_home import connect, crown, is_problem, with_champion

CASES = int(os.environ.get("RECSYS_API_CASES", "5"))  # random requests for each address, beside the systematic ones
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n"
BODY = b'{"liked": [{"movie_id": 1}], "k": 3}'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with a run, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(folder))
        with_champion()
    return folder


@pytest.fixture
def home(made, lab_home):
    shutil.copytree(made, lab_home, dirs_exist_ok=True)
    return lab_home


class InProcess:
    """The application without a server, its champion loaded."""

    def __init__(self, **settings):
        self.app = create_app("made", **settings)
        self.service = self.app.state.service
        self.service.refresh()

    def get(self, path, headers=None):
        async def asked():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.get(path, headers=headers)

        return anyio.run(asked)


def read_all(connection, seconds=20) -> bytes:
    """What comes until the other side closes, or resets, the connection."""
    connection.settimeout(seconds)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            received += part
    return received


def wait_for(done, what, seconds=30):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.02)


# ---- who may ask ---------------------------------------------------------------------------------------------


def test_a_key_is_asked_for_where_there_is_one(home):
    ask = InProcess(key="sësame")
    right = "sësame".encode()
    for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": b"\xff\xfe"}, {"authorization": "Bearer x"}):
        answer = ask.get("/recommend/1", headers=headers)
        is_problem(answer, 401)
        assert answer.headers["www-authenticate"]
    for headers in ({"x-api-key": right}, {"authorization": b"Bearer " + right}, {"authorization": b"bearer " + right}):
        assert ask.get("/recommend/1", headers=headers).status_code == 200
    for path in ("/users", "/models", "/metrics", "/movies/1"):
        is_problem(ask.get(path), 401)
    for path in ("/health", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert ask.get(path).status_code == 200
    described = ask.get("/openapi.json").json()["paths"]
    assert {name for each in described["/users"]["get"]["security"] for name in each} == {"APIKeyHeader", "HTTPBearer"}
    assert "security" not in described["/health"]["get"]


def test_other_names_are_refused(home):
    ask = InProcess(hosts=("localhost", "127.0.0.1", "::1"))
    for name in ("localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1"):
        assert ask.get("/health", headers={"host": name}).status_code == 200
    for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
        for path in ("/users", "/health", "/metrics"):
            is_problem(ask.get(path, headers={"host": name}), 421)


def test_a_fault_says_no_more_than_it_must(home):
    ask = InProcess()
    ask.service.ready = lambda: 1 / 0
    content = is_problem(ask.get("/models"), 500)
    assert "division" not in str(content)
    assert content["request_id"] in content["detail"]


def test_it_warns_when_others_can_reach_it(lab_home):
    with running("made", lab_home / "log", "--host", "0.0.0.0", ready=False) as server:
        log = server.log.read_text()
    assert "other machines can reach this service" in log
    assert "RECSYS_API_KEY" in log


@pytest.mark.parametrize("address", ["taken", "127.0.0.1:99999", "nonsense.invalid:8000"])
def test_an_address_that_cannot_be_had_is_one_sentence(address, lab_home):
    """A second service on a port, too."""
    with contextlib.ExitStack() as stack:
        if address == "taken":
            server = stack.enter_context(running("made", lab_home / "log", ready=False))
            assert "WARNING" not in server.log.read_text()
            address = server.url.removeprefix("http://")
        host, port = address.split(":")
        command = [sys.executable, "-m", "recsys_lib.api", "--host", host, "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"cannot listen on {host}:{port}") and last.endswith("choose another --port")
    assert "Traceback" not in ended.stderr


# ---- slow, silent and many clients ---------------------------------------------------------------------------


def test_slow_clients_are_closed(home, monkeypatch):
    """Silent connections, heads and bodies that trickle, kept-alive ones; who asks meanwhile is answered."""
    monkeypatch.setattr(server_module, "PATIENCE", 2)
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app("made"), http=Connection, log_config=None, timeout_graceful_shutdown=1)
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        starts = {"silent": b"", "head": GET[:20], "body": POST + BODY[:10], "kept": GET, "second": GET}
        began, answers = time.monotonic(), {}
        connections = {name: socket.create_connection(listening.getsockname()) for name in starts}
        for name, start in starts.items():
            connections[name].sendall(start)
        for byte in GET[:8]:
            time.sleep(0.2)
            connections["head"].sendall(b"a")
            connections["body"].sendall(b" ")
            connections["second"].sendall(bytes([byte]))  # of a second request
        assert httpx.get("http://{}:{}/docs".format(*listening.getsockname())).status_code == 200
        for name, connection in connections.items():
            with connection:
                answers[name] = read_all(connection, 10)
        assert 1.9 < time.monotonic() - began < 15
        assert answers["silent"] == answers["head"] == answers["body"] == b""
        assert answers["kept"].count(b"HTTP/1.1") == answers["second"].count(b"HTTP/1.1") == 1
    finally:
        server.should_exit = True
        thread.join()


def test_more_connections_than_files_may_be_open(home):
    with running("made", home / "log", shell="ulimit -n 256") as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connect(server)) for _ in range(300)]
        time.sleep(1)
        refused = 0
        for connection in kept:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                refused += connection.recv(100).startswith(b"HTTP/1.1 503")
        assert 100 < refused < 256
        stack.close()
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/recommend/1").status_code == 200
        assert len(server.log.read_text()) < 20_000


def test_too_few_files_are_one_sentence(lab_home):
    said = "\n127 open files at once are too few, 128 are needed: `ulimit -n 128` allows them\n"
    few = running("made", lab_home / "log", shell="ulimit -n 127")
    with pytest.raises(ChildProcessError, match=f"{re.escape(said)}$"), few:
        pass


def test_small_answers_are_sent_at_once():
    """Without TCP_NODELAY each answer on a kept-alive connection waits 40 ms for the client's acknowledgement."""

    async def accepted():
        arrived = asyncio.get_running_loop().create_future()
        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(lambda _, writer: arrived.set_result(writer), sock=listening):
            _, client = await asyncio.open_connection(*listening.getsockname())
            writer = await arrived
            without_delay = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.close()
            writer.close()
        return without_delay

    assert asyncio.run(accepted())


# ---- how it lives --------------------------------------------------------------------------------------------


def test_not_healthy_until_there_is_something_to_serve(made, lab_home):
    with running("made", lab_home / "log", ready=False) as server:
        wait_for(lambda: "make" in httpx.get(f"{server.url}/health").json()["detail"], "it says what is missing")
        detail = is_problem(httpx.get(f"{server.url}/health"), 503, "no-model")["detail"]
        assert "`make 02 DATASET=made` makes it" in detail or "`make 07 DATASET=made` makes it" in detail
        is_problem(httpx.get(f"{server.url}/recommend/1"), 503, "no-model")
        assert httpx.get(f"{server.url}/docs").status_code == 200
        shutil.copytree(made, lab_home, dirs_exist_ok=True)
        server.wait_until_ready()
        assert httpx.get(f"{server.url}/recommend/1").status_code == 200


class Load:
    """Threads that ask without end, each by one kept-alive connection."""

    def __init__(self, url: str, threads: int) -> None:
        self.ended, self.answers, self.lost = threading.Event(), [[] for _ in range(threads)], []
        self.threads = [threading.Thread(target=self._ask, args=(url, mine)) for mine in self.answers]

    def _ask(self, url: str, mine: list) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self.ended.is_set():
                try:
                    mine.append(client.get(f"/recommend/{1 + len(mine) % 120}"))
                except httpx.ConnectError:  # never reached the service
                    return
                except httpx.HTTPError as error:
                    self.lost.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Until each thread has asked and been answered once more: one answer may have been under way."""
        before = [len(mine) for mine in self.answers]
        wait_for(
            lambda: all(len(mine) > count + 1 for mine, count in zip(self.answers, before, strict=True)),
            "nobody is answered any more",
        )


def test_a_new_champion_is_taken_up_under_load(home):
    """No request fails, and each is answered by one champion or the other, never by a mixture."""
    run = Run("made")
    expected = {("ease", "1"): run.champion.model}
    with running("made", home / "log") as server, Load(server.url, 2) as load:
        run.save_model("ease", EASE(regularization=5000.0).fit(run.known))
        for model, version in (("ease", "2"), ("popularity", "1")):
            crown(run, model, version)
            expected[model, version] = run.champion.model
            new = {"name": model, "version": version}
            wait_for(lambda new=new: httpx.get(f"{server.url}/health").json().get("model") == new, f"{new} answers")
        load.wait_for_more()
    assert not load.lost
    answers = [answer for mine in load.answers for answer in mine]
    assert {answer.status_code for answer in answers} == {200}
    lists = {name: model.recommend(model.train.user_ids).groupby("user_id") for name, model in expected.items()}
    seen = set()
    for content in (answer.json() for answer in answers):
        name = content["model"]["name"], content["model"]["version"]
        listed = lists[name].get_group(content["user_id"])
        assert [entry["movie_id"] for entry in content["items"]] == listed["item_id"].tolist()
        seen.add(name)
    assert seen == set(expected)


def test_what_cannot_be_read_leaves_the_old_champion(home, monkeypatch):
    monkeypatch.setattr(service, "RETRY", 1000)
    ask, run = InProcess(), Run("made")
    record, manifest = run.paths.outputs / "champion.json", run.paths.processed / "manifest.json"
    folder = run.champion.folder
    config, arrays = folder / "config.json", next(folder.glob("arrays-*"))
    flipped = bytearray(arrays.read_bytes())
    flipped[-5] ^= 1
    other = read_json(manifest)
    other["data"]["sha256"] = "f" * 64
    other = write_json(home / "other.json", other).read_bytes()
    nowhere = write_json(home / "nowhere.json", read_json(record) | {"folder": "registry/ease/9"}).read_bytes()
    for path, content, sentence in (
        (record, b'{"model": "ease", "ver', "cannot be read"),
        (record, nowhere, "is gone"),
        (config, None, "is gone"),
        (arrays, None, "cannot be read"),
        (manifest, other, "other data"),
        (arrays, bytes(flipped), "damaged"),
    ):
        whole = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert not ask.service.refresh()
        assert not ask.service.refresh()  # and it is not tried again at once
        assert sentence in is_problem(ask.get("/health"), 503, "no-model")["detail"]
        assert ask.get("/recommend/1").json()["model"] == {"name": "ease", "version": "1"}
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        assert ask.service.refresh()
        assert ask.get("/health").status_code == 200
    assert 'recsys_loads_total{outcome="failed"} 6.0' in ask.get("/metrics").text


def test_a_model_that_cannot_be_read_says_so(home):
    """And it is served once it is whole again."""
    ask, folder = InProcess(), Run("made").paths.models / "item_knn"
    (arrays,) = folder.glob("arrays-*")
    whole = arrays.read_bytes()
    for damage in (lambda: arrays.write_bytes(b"nothing"), arrays.unlink):
        damage()
        is_problem(ask.get("/recommend/1?model=item_knn"), 503, "model-not-available")
        assert ask.get("/recommend/1").status_code == 200
    arrays.write_bytes(whole)
    assert ask.get("/recommend/1?model=item_knn").status_code == 200


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered_before_it_stops(home, asked):
    with running("made", home / "log") as server, connect(server) as connection:
        connection.sendall(POST + BODY[:10])
        time.sleep(0.3)
        server.process.send_signal(asked)
        time.sleep(0.3)
        assert server.process.poll() is None
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        connection.sendall(BODY[10:])
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"rank":3' in answer
        assert server.process.wait(20) == (0 if asked == signal.SIGINT else -signal.SIGTERM)
        assert any(line["message"] == "Application shutdown complete." for line in server.lines())
        assert "Traceback" not in server.log.read_text()


def test_a_stop_under_load_loses_nothing(home):
    """Whoever was let in is answered, also by a connection kept alive; who comes later is refused."""
    with running("made", home / "log") as server, Load(server.url, 8) as load:
        load.wait_for_more()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == -signal.SIGTERM
    assert not load.lost
    assert {answer.status_code for mine in load.answers for answer in mine} == {200}
    assert "Traceback" not in server.log.read_text()


def test_the_benchmark_loses_nothing(home):
    before = sorted(Run("made").paths.outputs.rglob("*"))
    table, versions = measure("made", 30, 2)
    assert table["requests"].tolist() == [60, 60]
    assert table["failed"].tolist() == [0, 0]
    assert sum(versions.values()) == 60 and set(versions) <= {"1", "again"}
    assert os.environ["RECSYS_HOME"] == str(home)
    assert sorted(Run("made").paths.outputs.rglob("*")) == before


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
    with running("made", home / "log") as server:
        command = [shutil.which("schemathesis", path=Path(sys.executable).parent), "--config-file"]
        command += [str(home / "schemathesis.toml"), "run", f"{server.url}/openapi.json", "--checks", "all"]
        command += ["--max-examples", str(CASES), "--seed", "1", "--continue-on-failure", "--warnings", "off"]
        command += ["--generation-database", "none", "--output-truncate", "true"]
        command += ["--phases", "examples,coverage,fuzzing" + (",stateful" if CASES >= 100 else "")]
        ended = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=3000, check=False)
        requests = [line for line in server.lines() if "status" in line]
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert len(requests) > 200
    assert not [line for line in requests if line["status"] >= 500 and line["path"] != "/health"]
