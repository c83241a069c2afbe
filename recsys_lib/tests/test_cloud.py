"""The contract of a hosted training job and of a hosted endpoint, kept in a folder that stands for /opt/ml."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from recsys_lib.paths import REPOSITORY
from recsys_lib.scale import train
from recsys_lib.tests.made import made_tables

SITE = Path(np.__file__).parents[1]  # site-packages


def job(root, **hyperparameters):
    """A folder as the platform lays it out: a table in the channel, hyperparameters as texts."""
    interactions, _, _ = made_tables(n_users=150, n_items=90, per_user=40)
    (root / "input/data/train").mkdir(parents=True)
    (root / "input/config").mkdir()
    interactions.to_csv(root / "input/data/train/ratings.csv", index=False)
    (root / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
    return root


def test_a_job_trains_and_an_endpoint_serves_what_it_left(tmp_path):
    small = yaml.safe_load((REPOSITORY / "notebooks/params/test.yaml").read_text())
    given = {f"{part}.{name}": json.dumps(value) for part, values in small.items() for name, value in values.items()}
    root = job(tmp_path / "ml", **given)
    command = [sys.executable, "-m", "recsys_lib.scale.train", root]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (root / "output/failure").exists()
    assert not list((root / "model").rglob("test.parquet")), "an endpoint has no use for what was held out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"SAGEMAKER_BIND_TO_PORT": str(port)}
    command = [sys.executable, "-m", "recsys_lib.api.serve", root]
    with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as endpoint:
        try:
            asked = {"instances": [{"user_id": 1, "k": 3}, {"user_id": "nobody"}]}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)) as client:
                while client.get("/ping").status_code == 503:
                    time.sleep(0.2)
                known, unknown = client.post("/invocations", json=asked, timeout=30).json()["predictions"]
        finally:
            endpoint.terminate()
    assert (len(known["items"]), known["fallback"]) == (3, False)
    assert (len(unknown["items"]), unknown["fallback"]) == (10, True)


def base_of_this_python(folder):
    """What an image has to have, taken from this machine: Python with its standard library, sh, what both link to."""
    python, library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    for source in (python, Path("/bin/sh")):
        (folder / source.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, folder / source.relative_to("/"))
    left_out = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__")
    shutil.copytree(library, folder / library.relative_to("/"), ignore=left_out, dirs_exist_ok=True)
    binaries = [python, "/bin/sh", *library.glob("lib-dynload/*.so"), *SITE.glob("*/*.so"), *SITE.glob("*/*/*.so")]
    linked = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    for name in {name for name in re.findall(r"(/\S+) \(0x", linked) if str(SITE) not in name}:
        (folder / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, folder / name[1:])
    (folder / "bin/python").symlink_to(python)
    (folder / "tmp").mkdir()
    return folder


@pytest.mark.skipif(
    shutil.which("buildah") is None or os.getuid() != 0,
    reason="the image is built by buildah, called by root: it is not installed, or this is another user",
)
def test_the_image_is_built_and_calls_the_job(tmp_path, monkeypatch):
    """On a base of this machine's Python; the job finds no data, and says so where the platform looks."""
    for name, value in {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}.items():
        monkeypatch.setenv(name, value)
    storage = ["--root", tmp_path / "images", "--runroot", tmp_path / "running"]

    def buildah(command, *arguments):
        done = subprocess.run(
            ["buildah", *storage, command, *arguments], capture_output=True, text=True, cwd=REPOSITORY
        )
        return done.returncode, done.stdout.strip()

    _, scratch = buildah("from", "scratch")
    assert buildah("copy", "-q", scratch, base_of_this_python(tmp_path / "base"), "/")[0] == 0
    assert buildah("commit", "-q", scratch, "base")[0] == 0
    how = ["--pull=never", "--build-arg", "BASE=localhost/base", "--build-arg", "INSTALL=no"]
    assert buildah("bud", *how, "-f", "recsys_lib/scale/Containerfile", "-t", "lab", ".")[0] == 0
    _, container = buildah("from", "--pull=never", "localhost/lab")
    entry = json.loads(buildah("inspect", container)[1])["OCIv1"]["config"]["Entrypoint"]
    (tmp_path / "ml/input/data/train").mkdir(parents=True)
    more = ["-v", f"{tmp_path / 'ml'}:/opt/ml", "-v", f"{SITE}:/site:ro"]
    code, _ = buildah("run", *more, "--env", "PYTHONPATH=/lab:/site", container, "--", *entry, "train")
    assert code == 1
    assert "/opt/ml/input/data/train holds nothing" in (tmp_path / "ml/output/failure").read_text()


def test_what_compose_starts_takes_these_arguments():
    services = yaml.safe_load((REPOSITORY / "recsys_lib/scale/compose.yaml").read_text())["services"]
    assert set(services) == {"train", "service", "application", "mlflow"}
    for name in ("service", "application", "mlflow"):
        module, options = services[name]["command"][2], [x for x in services[name]["command"] if x.startswith("--")]
        command = [sys.executable, "-m", module, "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout
        assert all(option in shown for option in options)


@pytest.mark.parametrize(
    "hyperparameters, sentence",
    [
        ({"dataset": "plays.csv"}, "there is no 'plays.csv' in .*; there is ratings.csv"),
        ({"trials": "5"}, "the hyperparameter 'trials' must be 'dataset' or notebook.parameter"),
        ({"04_als.tries": "5"}, "04_als.ipynb has no parameter 'tries'"),
        ({"04_als.trials": "many"}, "trials is 'many', not of type int"),
    ],
)
def test_a_job_that_cannot_begin_says_why_in_the_failure_file(tmp_path, monkeypatch, hyperparameters, sentence):
    for name in ("RECSYS_HOME", "MOVIELENS_DIR", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards
    root = job(tmp_path, **hyperparameters)
    assert train.main(root) == 1
    assert re.search(sentence, (root / "output/failure").read_text())
    assert not (root / "model").exists()
