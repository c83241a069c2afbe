"""Tables, runs, notebooks and MLflow's files in S3: against moto's server, spoken to over HTTP like any other."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import httpx
import nbformat
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry

from recsys_lib import load_dataset
from recsys_lib.api.service import Service
from recsys_lib.data.s3 import StorageError, storage
from recsys_lib.files import read_json, write_json
from recsys_lib.models import load_model
from recsys_lib.paths import REPOSITORY, Paths, home, run_name
from recsys_lib.run import parameters, remote, tracking
from recsys_lib.run.run import Run
from recsys_lib.tests.api_home import with_champion
from recsys_lib.tests.made import made_tables, prepare

WHY = "what S3 needs is not installed: `make s3-setup EXTRAS=s3,s3-test` installs it"
boto3 = pytest.importorskip("boto3", reason=WHY)
s3fs = pytest.importorskip("s3fs", reason=WHY)
moto = pytest.importorskip("moto.server", reason=WHY)
KEYS = {"AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up", "AWS_DEFAULT_REGION": "us-east-1"}


class Gate:
    """moto's application behind what a test makes of it: it counts requests, and may hold or refuse them."""

    def __init__(self):
        self.behind = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.seen, self.hold = [], lambda method, path: None

    def __call__(self, environ, start_response):
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append(request)
        if self.hold(*request):
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self.behind(environ, start_response)


@pytest.fixture(scope="module")
def gate():
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *_):
            pass

    application = Gate()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        yield application
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()


@pytest.fixture
def bucket(gate, request, monkeypatch):
    """A bucket of this test's own; its client."""
    gate.seen.clear()
    gate.hold = lambda method, path: None
    client = boto3.client("s3")
    client.name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    client.create_bucket(Bucket=client.name)
    monkeypatch.setenv(remote.ADDRESS, f"s3://{client.name}/lab")
    remote._pulled.clear()
    yield client
    client.close()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Change to the home of one machine or another."""

    def change(name):
        monkeypatch.setenv("RECSYS_HOME", str(tmp_path / name))
        remote._pulled.clear()
        return tmp_path / name

    return change


def files_below(folder):
    """Contents by path of what is shared of a run."""
    names = [path for path in folder.rglob("*") if path.is_file() and "/." not in path.as_posix()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def in_time(folder):
    """Names of those files, the oldest first."""
    return sorted(files_below(folder), key=lambda name: ((folder / name).stat().st_mtime_ns, name))


def manifests(client):
    found = client.list_objects_v2(Bucket=client.name, Prefix="lab/runs/")
    return sorted(entry["Key"].rpartition("/")[2] for entry in found.get("Contents", []))


# ---- tables ----------------------------------------------------------------------------------------------------


def test_a_table_is_downloaded_once_for_each_content(bucket, gate, lab_home):
    table = made_tables()[0]
    name, text = "tables/My plays.csv", table.to_csv(index=False).encode()
    address = f"s3://{bucket.name}/{name}"
    bucket.put_object(Bucket=bucket.name, Key=name, Body=text)
    assert run_name(address).startswith("My-plays-")
    first = load_dataset(address)
    pd.testing.assert_frame_equal(first.interactions, table)
    assert first.path.is_relative_to(lab_home / "data" / "raw" / run_name(address))
    gate.seen.clear()
    assert load_dataset(address).sha256 == first.sha256
    assert "GET" not in {method for method, path in gate.seen if path.endswith(".csv")}
    bucket.put_object(Bucket=bucket.name, Key=name, Body=text[: text.rindex(b"\n", 0, -1) + 1])
    assert len(load_dataset(address).interactions) == len(table) - 1
    assert first.path.is_file(), "what was read is never changed"


@pytest.mark.parametrize("name", ["Ä [x]*? #1%20+&.csv", "$(touch hacked) 'a'.csv"])
def test_a_name_is_taken_as_it_is(bucket, lab_home, name):
    text = made_tables()[0].to_csv(index=False).encode()
    bucket.put_object(Bucket=bucket.name, Key=name, Body=text)
    assert load_dataset(f"s3://{bucket.name}/{name}").path.read_bytes() == text


def test_a_folder_of_parts_and_a_table_of_items_beside_it(bucket, lab_home):
    table, items, _ = made_tables()
    bucket.put_object(Bucket=bucket.name, Key="plays/", Body=b"")  # how consoles mark a folder
    for number, part in enumerate((table[:1000], table[1000:])):
        key = f"plays/part-{number}.parquet"
        bucket.put_object(Bucket=bucket.name, Key=key, Body=part.to_parquet(index=False))
    bucket.put_object(Bucket=bucket.name, Key="films.csv", Body=items[["item_id", "title"]].to_csv(index=False))
    address = f"s3://{bucket.name}/plays"
    data = load_dataset(address, items=f"s3://{bucket.name}/films.csv")
    assert data.name == "plays"
    assert len(data.interactions) == len(table)
    assert data.items["title"].tolist() == items["title"].tolist()
    assert run_name(address) == run_name(f"{address}/")


# ---- runs ------------------------------------------------------------------------------------------------------


def test_another_machine_takes_over_a_run_and_what_changes_in_it(bucket, machine):
    one = machine("one")
    run = with_champion()
    expected = run.champion.model.recommend([1, 2], 5)
    assert remote.push("made") > 20
    assert remote.push("made") == 0, "nothing has changed"
    other = machine("other")
    with pytest.raises(FileNotFoundError, match="no champion yet"):
        load_model("champion", "made")
    taken = Run("made")
    assert taken.results.leaderboard == run.results.leaderboard
    pd.testing.assert_frame_equal(load_model("champion", "made").recommend([1, 2], 5), expected)
    assert files_below(other) == files_below(one)
    assert in_time(other) == in_time(one), "Make compares times"
    contents = set(files_below(one).values())
    shutil.rmtree(taken.paths.models / "item_knn")
    write_json(taken.paths.metrics / "more.json", [1])
    assert remote.push("made") > 1
    machine("one")
    assert "item_knn" not in Run("made").models
    assert files_below(one) == files_below(other)
    assert manifests(bucket) == ["manifest-000001.json", "manifest-000002.json"]
    contents |= set(files_below(one).values())
    assert bucket.list_objects_v2(Bucket=bucket.name, Prefix="lab/objects/")["KeyCount"] == len(contents)


def test_a_push_that_fails_half_way_leaves_the_state_before_it(bucket, gate, machine):
    machine("one")
    run = with_champion()
    remote.push("made")
    before = run.results.leaderboard
    for number in range(12):
        write_json(run.paths.metrics / f"new-{number}.json", [number])
    write_json(run.paths.metrics / "leaderboard.json", before | {"more": 1})
    left = iter(range(5))
    gate.hold = lambda method, path: method == "PUT" and next(left, None) is None
    with pytest.raises(StorageError, match=f"s3://{bucket.name}/lab could not be used"):
        remote.push("made")
    gate.hold = lambda method, path: None
    assert manifests(bucket) == ["manifest-000001.json"]
    other = machine("other")
    assert Run("made").results.leaderboard == before
    one = machine("one")
    assert remote.push("made") == 13
    machine("other")
    assert Run("made").results.leaderboard["more"] == 1
    assert files_below(one) == files_below(other)


def test_a_pull_that_fails_half_way_changes_nothing(bucket, gate, machine):
    one = machine("one")
    with_champion()
    remote.push("made")
    other = machine("other")
    left = iter(range(9))
    gate.hold = lambda method, path: method == "GET" and "/objects/" in path and next(left, None) is None
    with pytest.raises(StorageError, match="could not be used"):
        Run("made")
    assert files_below(other) == {}
    gate.hold = lambda method, path: None
    Run("made")
    assert files_below(other) == files_below(one)


def test_of_two_that_push_at_once_one_is_told_and_goes_on(bucket, gate, machine):
    folders = [machine(name) for name in ("one", "other")]
    for number, name in enumerate(("one", "other")):
        machine(name)
        write_json(Paths("made").metrics / f"{name}.json", number)
    both = threading.Barrier(2)
    gate.hold = lambda method, path: method == "PUT" and "manifest" in path and both.wait(60) < 0
    push = [sys.executable, "-m", "recsys_lib.run.remote", "push", "made"]

    def start(folder):
        given = os.environ | {"RECSYS_HOME": str(folder), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(push, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    started = [start(folder) for folder in folders]
    said = [process.communicate(timeout=120) for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes) == [0, 1], said
    loser = codes.index(1)
    winner = rf"process {started[1 - loser].pid} of \S+"
    sentence = rf"{winner} has pushed made to s3://\S+ at the same moment; what was made here is kept, .*\n"
    assert re.fullmatch(sentence, said[loser][1])
    gate.hold = lambda method, path: None
    assert start(folders[loser]).wait(60) == 0
    machine("third")
    Run("made")
    assert [read_json(Paths("made").metrics / f"{name}.json") for name in ("one", "other")] == [0, 1]


def test_a_file_that_changed_on_both_sides_is_not_written_over(bucket, machine):
    for name in ("one", "other"):
        machine(name)
        Run("made")
        log = Paths("made").outputs / "test_log.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as lines:
            lines.write(f'"read by {name}"\n')
        if name == "one":
            write_json(Paths("made").metrics / "leaderboard.json", "shared")
            remote.push("made")
    remote.pull("made")
    assert log.read_text() == '"read by one"\n"read by other"\n', "every reading stays written down"
    machine("one")
    write_json(Paths("made").metrics / "leaderboard.json", "of one")
    remote.push("made")
    machine("other")
    mine = write_json(Paths("made").metrics / "leaderboard.json", "of other")
    sentence = "outputs/made/metrics/leaderboard.json changed both here and at s3://.*: move yours away and run"
    with pytest.raises(StorageError, match=sentence):
        remote.push("made")
    assert read_json(mine) == "of other"
    mine.rename(home() / "aside.json")
    remote.push("made")
    assert read_json(mine) == "of one"


def test_a_manifest_names_no_file_elsewhere(bucket, machine):
    machine("one")
    content = json.dumps({"by": "somebody", "files": {"outputs/made/../../../caught": "0" * 64}})
    bucket.put_object(Bucket=bucket.name, Key="lab/runs/made/manifest-000001.json", Body=content)
    with pytest.raises(StorageError, match="names 'outputs/made/../../../caught', which is not a file of this run"):
        Run("made")


def test_a_step_is_shared_once_it_ran(bucket, machine, tmp_path):
    machine("one")
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("dataset: str = 'x'")])
    content.cells[0].metadata["tags"] = ["parameters"]
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, tmp_path / "90_made.ipynb")
    step = [sys.executable, "-m", "recsys_lib.run.runner", str(tmp_path / "90_made.ipynb"), "--dataset", "made"]
    given = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(step, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    machine("other")
    Run("made")
    assert (Paths("made").outputs / "notebooks" / "90_made.ipynb").is_file()


def test_a_service_goes_on_answering_while_s3_is_silent(bucket, gate, machine, monkeypatch):
    machine("one")
    with_champion()
    remote.push("made")
    machine("other")
    service = Service("made", CollectorRegistry())
    assert service.refresh()
    snapshot = service.ready()
    remote._pulled.clear()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    s3fs.S3FileSystem.clear_instance_cache()
    assert not service.refresh()
    assert service.ready() is snapshot and not service.failure
    late = Service("made", CollectorRegistry())
    assert not late.refresh()
    assert late.failure.startswith("no credentials for s3://")
    s3fs.S3FileSystem.clear_instance_cache()


# ---- bad input -------------------------------------------------------------------------------------------------

ABSENT = "there is no bucket 'nobody-has-it', which s3://nobody-has-it/lab names"


@pytest.mark.parametrize(
    ("dataset", "given", "said"),
    [
        ("s3://nobody-has-it/lab", {}, ABSENT),
        ("ml-100k", {remote.ADDRESS: "s3://nobody-has-it/lab"}, ABSENT),
        ("s3://here/lab", {"AWS_ACCESS_KEY_ID": ""}, "no credentials for s3://here/lab: set AWS_ACCESS_KEY_ID and"),
        ("ml-100k", {"AWS_ACCESS_KEY_ID": "", remote.ADDRESS: "s3://here/lab"}, "no credentials for s3://here/lab"),
        ("s3://here/lab", {}, "there is nothing at s3://here/lab"),
        ("s3://", {}, "there is nothing at s3://"),
        ("ml-100k", {remote.ADDRESS: "/tmp"}, "RECSYS_REMOTE must be like s3://bucket/folder, not '/tmp'"),
        ("ml-100k", {"RECSYS_HOME": "s3://here/lab"}, "RECSYS_HOME=s3://here/lab is not a folder of this machine"),
        ("s3://here/lab", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://here/lab is out of reach"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_work_begins(gate, lab_home, monkeypatch, capsys, dataset, given, said):
    boto3.client("s3").create_bucket(Bucket="here")
    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in given.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["parameters", dataset])
    assert parameters.main() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(said)
    assert not list(lab_home.rglob("params"))
    s3fs.S3FileSystem.clear_instance_cache()


def test_without_the_extra_the_command_is_named_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with (
        pytest.raises(StorageError, match="s3://here/lab needs s3fs, .*: `make s3-setup` installs it"),
        storage("s3://here/lab"),
    ):
        pass


# ---- papermill and MLflow --------------------------------------------------------------------------------------


def test_papermill_goes_from_s3_to_s3(bucket, tables, machine, monkeypatch):
    monkeypatch.delenv(remote.ADDRESS)
    machine("one")
    prepare(tables)
    notebook = REPOSITORY / "notebooks" / "03_popularity.ipynb"
    bucket.upload_file(str(notebook), bucket.name, "in/03_popularity.ipynb")
    places = [f"s3://{bucket.name}/{folder}/03_popularity.ipynb" for folder in ("in", "out")]
    options = ["--cwd", "notebooks", "-k", "python3", "-p", "dataset", "made", "--no-progress-bar"]
    command, given = [sys.executable, "-m", "papermill", *places, *options], os.environ | {"PYTHONPATH": REPOSITORY}
    done = subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    written = bucket.get_object(Bucket=bucket.name, Key="out/03_popularity.ipynb")["Body"].read().decode()
    executed = nbformat.reads(written, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert "popularity" in Run("made").models


@pytest.mark.skipif(tracking.importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")
def test_mlflow_keeps_its_files_in_s3_and_serves_the_champion_from_there(bucket, machine, monkeypatch):
    monkeypatch.delenv(tracking.ADDRESS)
    machine("one")
    run = with_champion()
    record = run.champion.record | {"task": {"data": "0" * 64}, "metrics": {}}
    write_json(run.paths.outputs / "champion.json", record)
    tracking.send(run)
    import mlflow
    from mlflow.pyfunc import scoring_server

    mlflow.set_tracking_uri(tracking.address())
    try:
        version = mlflow.MlflowClient().get_model_version_by_alias("made", "champion")
        assert version.source.startswith(f"s3://{bucket.name}/lab/mlartifacts/made/")
        model = mlflow.pyfunc.load_model("models:/made@champion")
    finally:
        mlflow.set_tracking_uri(None)
    listed = model.predict(pd.DataFrame({"user_id": [1, 2], "k": [3, 4]}))
    expected = run.champion.model.recommend([1], 3)
    pd.testing.assert_frame_equal(listed[listed["user_id"] == 1], expected)
    assert len(listed) == 7

    async def ask():
        behind = httpx.ASGITransport(scoring_server.init(model))
        async with httpx.AsyncClient(transport=behind, base_url="http://served") as client:
            return await client.post("/invocations", json={"dataframe_records": [{"user_id": 1}]})

    answer = asyncio.run(ask()).raise_for_status().json()
    assert [row["item_id"] for row in answer["predictions"]] == run.champion.model.recommend([1])["item_id"].tolist()
