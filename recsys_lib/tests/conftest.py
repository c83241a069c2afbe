"""Made data and a home of their own for all tests."""

import os

import pandas as pd
import pytest

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split, temporal_user
from recsys_lib.evaluation.task import Task
from recsys_lib.models import EASE, Popularity
from recsys_lib.models.base import MODULES, Recommender
from recsys_lib.tests.made import made_tables, small_model

os.environ["MLFLOW_TRACKING_URI"] = "none"  # tests track nothing, wherever this machine sends its runs
os.environ["RECSYS_REMOTE"] = ""  # nor do they share anything


@pytest.fixture(scope="session")
def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Interactions, items and users of a small made data set."""
    return made_tables()


@pytest.fixture(scope="session")
def known(tables) -> Interactions:
    """The made interactions as a matrix."""
    return Interactions.from_frame(tables[0])


@pytest.fixture(scope="session")
def content(tables) -> dict[str, pd.DataFrame]:
    """The made tables as ``fit`` takes them."""
    return {"items": tables[1], "users": tables[2]}


@pytest.fixture(scope="session")
def split(tables) -> Split:
    """The made interactions, divided as the lab does it."""
    return temporal_user(tables[0])


@pytest.fixture(scope="session")
def task(split, content) -> Task:
    """The test part of the split as a task."""
    return Task.from_split(split, 4.0, items=content["items"])


@pytest.fixture(scope="session")
def models(task) -> dict[str, Recommender]:
    """Two models that know the history of the task."""
    return {"popularity": Popularity().fit(task.known), "ease": EASE(regularization=20).fit(task.known)}


@pytest.fixture(scope="session")
def fitted(known, content) -> dict[str, Recommender]:
    """A small model of every class, fitted on all of the made interactions."""
    return {name: small_model(name).fit(known, **content) for name in MODULES}


@pytest.fixture(scope="module")
def module_home(tmp_path_factory):
    """An empty home for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def lab_home(tmp_path, monkeypatch):
    """An empty home for data, outputs and reports."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    return tmp_path
