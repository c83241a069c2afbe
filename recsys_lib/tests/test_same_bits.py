"""The same seed gives the same lists, bit by bit, in processes with one thread or with two."""

import json
import os
import subprocess
import sys

import pytest

from recsys_lib.models.base import MODULES

CODE = """
import hashlib, json, os
from threadpoolctl import threadpool_info
import torch
from recsys_lib.data.interactions import Interactions
from recsys_lib.tests.made import made_tables, small_model
from recsys_lib.models import base

base.THREADS, base.USERS_PER_BLOCK = int(os.environ["OMP_NUM_THREADS"]), 150  # lists are made in several blocks
interactions, items, users = made_tables(n_users=400, n_items=300, per_user=40)
known = Interactions.from_frame(interactions)

def stamp(name, **changed):
    model = small_model(name, **changed).fit(known, items=items, users=users)
    lists = model.recommend(known.user_ids)
    scores = model.score(known.rows(range(known.n_users)), known.user_ids)
    parts = [lists[column].to_numpy().tobytes() for column in lists] + [scores.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()

stamps = {name: stamp(name) for name in base.MODULES} | {"ALS of another seed": stamp("ALS", seed=1)}
threads = max([torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())])
print(json.dumps({"threads": threads, "stamps": stamps}))
"""


@pytest.fixture(scope="module")
def runs():
    """Stamps of processes with one and with two threads."""
    limits, started = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), []
    for threads in (1, 2):
        given = os.environ | dict.fromkeys(limits, str(threads))
        started.append(subprocess.Popen([sys.executable, "-c", CODE], env=given, stdout=subprocess.PIPE, text=True))
    answers = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in started]
    assert [run["threads"] for run in answers] == [1, min(2, os.cpu_count())]
    return [run["stamps"] for run in answers]


@pytest.mark.parametrize("name", list(MODULES))
def test_same_seed_same_lists_whatever_the_threads(runs, name):
    assert runs[0][name] == runs[1][name] != runs[0]["ALS of another seed"]  # stamps could tell
