"""Versions, the champion and its challengers, the way back, and readers beside a writer."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from recsys_lib import splits
from recsys_lib.evaluation.task import Task, compare, evaluate
from recsys_lib.files import read_json, write_json
from recsys_lib.models import ItemKNN, Popularity, load_model
from recsys_lib.paths import Paths
from recsys_lib.run import registry, results

KS = (5, 10)
AGAIN = {"resamples": 100, "seed": 3}


@pytest.fixture(scope="module")
def made(tables):
    """Two fitted models of made data with their evaluations, and the task."""
    split = splits.temporal_user(tables[0])
    task = Task.from_split(split, items=tables[1])
    models = {"popularity": Popularity().fit(task.known), "knn": ItemKNN(neighbours=30).fit(task.known)}
    found = {name: evaluate(model, task, KS, **AGAIN) for name, model in models.items()}
    return models, found, task


def moved(evaluation, by: float, noise: float = 0.0, seed: int = 0):
    """The same evaluation, to each person's value of the main metric ``by`` and noise of mean 0 added."""
    shaken = np.random.default_rng(seed).normal(scale=noise, size=len(evaluation.per_user))
    values = evaluation.per_user["ndcg@10"] + by + shaken - shaken.mean()
    intervals = evaluation.intervals.copy()
    intervals.loc["ndcg@10", ["mean", "low", "high"]] = values.mean(), values.mean() - 0.01, values.mean() + 0.01
    return dataclasses.replace(
        evaluation,
        per_user=evaluation.per_user.assign(**{"ndcg@10": values}),
        means=evaluation.means | {"ndcg@10": float(values.mean())},
        intervals=intervals,
    )


class Lab:
    """Saved models and leaderboards of a data set, as 07_evaluation has them."""

    def __init__(self, made):
        self.paths, (self.models, self.found, self.task) = Paths("made"), made
        self.data = {"name": "made", "sha256": "a" * 64}

    def save(self, **changed):
        """Save the models of the evaluations given; ``half_life_days`` tells one content of popularity from another."""
        for name, model in (self.models | changed).items():
            model.save(self.paths.models / name, data={"fit_seconds": np.random.default_rng().random()})

    def content(self, found):
        content = results.leaderboard(found, compare(found, **AGAIN), self.data)
        content["protocol"] |= {"bootstrap": AGAIN}
        return content

    def enter(self, **found):
        return registry.register_evaluated(self.paths, found, self.content(found))


@pytest.fixture
def lab(lab_home, made):
    lab = Lab(made)
    lab.save()
    return lab


def other_popularity(lab, days):
    return Popularity(half_life_days=days).fit(lab.task.known)


def test_the_best_is_the_first_champion(lab):
    with pytest.raises(FileNotFoundError, match=r"made has no champion yet: `make 07 DATASET=made`"):
        registry.champion(lab.paths)
    assert registry.stamp(lab.paths) == (0, 0)
    best = max(lab.found, key=lambda name: lab.found[name].means["ndcg@10"])
    outcome = lab.enter(**lab.found)
    assert outcome.changed
    assert (outcome.champion.name, outcome.champion.version) == (best, "v1")
    assert registry.champion(lab.paths) == outcome.champion
    assert "first champion" in outcome.sentence
    card = outcome.champion.card
    assert card["data"]["sha256"] == "a" * 64
    assert card["protocol"]["fingerprint"] == lab.task.protocol["fingerprint"]
    assert set(card["metrics"]["ndcg@10"]) == {"mean", "low", "high", "n_users"}
    assert card["metrics"]["ndcg@10"]["mean"] == pytest.approx(lab.found[best].means["ndcg@10"])
    assert card["class"] == type(lab.models[best]).__name__
    assert card["commit"]
    assert len(card["content"]) == 64


def test_a_version_is_the_model(lab):
    champion = lab.enter(**lab.found).champion
    people = lab.task.users[:10]
    expected = lab.models[champion.name].recommend(people, 5)
    pd.testing.assert_frame_equal(champion.load().recommend(people, 5), expected)
    pd.testing.assert_frame_equal(load_model("champion", "made").recommend(people, 5), expected)
    pd.testing.assert_frame_equal(load_model(champion.folder).recommend(people, 5), expected)
    assert registry.content_hash(champion.folder) == champion.card["content"]


def test_the_champion_needs_nothing_but_its_folder(lab, lab_home):
    lab.enter(**lab.found)
    code = "import sys; from recsys_lib.models import load_model; m = load_model('champion', 'made'); "
    code += "print(type(m).__name__, [n for n in ('mlflow', 'recsys_lib.run.registry', 'sklearn') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[1:] == ["[]"]


def test_unchanged_content_is_the_same_version(lab):
    first = lab.enter(**lab.found).champion
    stamp = registry.stamp(lab.paths)
    lab.save()  # fitted again: only the seconds differ
    outcome = lab.enter(**lab.found)
    assert not outcome.changed
    assert outcome.champion == first
    assert registry.stamp(lab.paths) == stamp, "nothing was written, so nobody has to read"
    assert [str(one) for one in registry.versions(lab.paths)] == ["knn v1", "popularity v1"]


def test_files_are_shared_until_the_model_is_saved_anew(lab):
    version = lab.enter(**lab.found).champion
    saved = next((lab.paths.models / version.name).glob("arrays-*"))
    kept = next(version.folder.glob("arrays-*"))
    assert saved.samefile(kept)
    before = kept.read_bytes()
    lab.save(**{version.name: other_popularity(lab, 3)})
    assert next(version.folder.glob("arrays-*")).read_bytes() == before


def test_ahead_by_chance_is_not_ahead(lab):
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    lab.save(popularity=other_popularity(lab, 3))
    outcome = lab.enter(popularity=moved(base, 0.003, noise=0.2))
    assert outcome.champion.version == "v1"
    assert not outcome.changed
    assert "does not tell them apart" in outcome.sentence
    assert [one.version for one in registry.versions(lab.paths, "popularity")] == ["v1", "v2"]


def test_clearly_ahead_becomes_champion(lab):
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    lab.save(popularity=other_popularity(lab, 3))
    outcome = lab.enter(popularity=moved(base, 0.05, noise=0.05))
    assert outcome.changed
    assert outcome.champion.version == "v2"
    assert "popularity v2 is the new champion" in outcome.sentence
    assert "ahead of popularity v1, Holm-corrected p 0.0" in outcome.sentence
    assert registry.history(lab.paths)[-1]["from"] == {"model": "popularity", "version": "v1"}


def test_behind_stays_behind(lab):
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    lab.save(popularity=other_popularity(lab, 3))
    outcome = lab.enter(popularity=moved(base, -0.05))
    assert not outcome.changed
    assert "is 0.0500 behind it" in outcome.sentence


def test_holm_counts_all_the_models(lab):
    """Alone it would be ahead; among many rivals as close, it is not."""
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    rival, many = moved(base, 0.012, noise=0.05), {f"p{i}": moved(base, 0.01, 0.05, seed=i + 1) for i in range(40)}
    lab.save(popularity=other_popularity(lab, 3), **dict.fromkeys(many, lab.models["popularity"]))
    alone = compare({"new": rival, "old": base}, **AGAIN).set_index("model").loc["old"]
    assert 0.001 < alone["p_holm"] < 0.05, "the premise"
    outcome = lab.enter(popularity=rival, **many)
    assert "popularity v1 stays champion: popularity v2" in outcome.sentence
    assert "does not tell them apart" in outcome.sentence


@pytest.mark.parametrize("other", ["data", "task", "metric"])
def test_what_cannot_be_compared_is_not(lab, other, monkeypatch):
    base = lab.found["popularity"]
    old = lab.enter(popularity=moved(base, 0.3)).champion
    if other == "data":
        lab.data = {"name": "made", "sha256": "b" * 64}
    if other == "task":
        base = dataclasses.replace(base, protocol=base.protocol | {"fingerprint": "f" * 16})
    if other == "metric":
        board = compare({"popularity": base}, by="recall@10", **AGAIN)
        content = results.leaderboard({"popularity": base}, board, lab.data)
        outcome = registry.register_evaluated(lab.paths, {"popularity": base}, content)
    else:
        outcome = lab.enter(popularity=base)
    assert outcome.changed, "the old one's higher value says nothing here"
    assert outcome.champion.version == "v2"
    assert "cannot be compared" in outcome.sentence
    said = {"data": "other data (aaaaaaaaaaaa, not bbbbbbbbbbbb)", "task": "another split", "metric": "another metric"}
    assert said[other] in outcome.sentence
    assert registry.history(lab.paths)[-1]["from"] == old.key


def test_the_way_back_and_no_way_forward_by_itself(lab):
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    with pytest.raises(LookupError, match="nothing to roll back to: made has had no other champion"):
        registry.rollback(lab.paths)
    lab.save(popularity=other_popularity(lab, 3))
    better = moved(base, 0.05)
    assert lab.enter(popularity=better).champion.version == "v2"
    assert registry.rollback(lab.paths).version == "v1"
    assert registry.champion(lab.paths).version == "v1"
    assert not lab.enter(popularity=better).changed, "who was put away does not challenge again"
    assert registry.promote(lab.paths, "popularity").version == "v2"
    assert registry.rollback(lab.paths).version == "v1"
    assert [entry["action"] for entry in registry.history(lab.paths)] == [
        "challenge",
        "challenge",
        "rollback",
        "promote",
        "rollback",
    ]


def test_two_steps_back(lab):
    lab.enter(**lab.found)
    for name in ("knn", "popularity", "knn"):
        registry.promote(lab.paths, name)
    first = registry.history(lab.paths)[0]["model"]
    line = [entry["model"] for entry in registry._standing(registry.history(lab.paths))]
    assert line == [first, *[name for name in ("popularity", "knn") if len(line) == 3 or name != first]]
    back = []
    for _ in line[:-1]:
        back.append(registry.rollback(lab.paths).name)
    assert back == line[-2::-1]
    with pytest.raises(LookupError):
        registry.rollback(lab.paths)


def test_old_versions_go_champions_stay(lab):
    base = lab.found["popularity"]
    lab.enter(popularity=base)
    for days in (2, 3, 4, 5, 6):
        lab.save(popularity=other_popularity(lab, days))
        lab.enter(popularity=moved(base, -0.01 * days))
    assert [one.version for one in registry.versions(lab.paths, "popularity")] == ["v1", "v4", "v5", "v6"]
    assert registry.champion(lab.paths).version == "v1"
    assert not list((lab.paths.registry / "popularity").glob(".*"))


def test_what_is_not_there(lab):
    with pytest.raises(KeyError, match="ease is not in the leaderboard; it has popularity"):
        registry.register(lab.paths, "ease", lab.found["knn"], lab.content({"popularity": lab.found["popularity"]}))
    lab.enter(**lab.found)
    with pytest.raises(KeyError, match="ease has no version in the registry of made, which holds knn, popularity"):
        registry.promote(lab.paths, "ease")
    with pytest.raises(KeyError, match="knn has no v7 in the registry of made; it has v1"):
        registry.promote(lab.paths, "knn", "v7")
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        registry.content_hash(lab.paths.outputs)


def test_a_champion_whose_folder_is_gone_is_chosen_anew(lab):
    champion = lab.enter(**lab.found).champion
    shutil.rmtree(champion.folder)
    with pytest.raises(FileNotFoundError, match=r"is gone: `make 07 DATASET=made` chooses a champion anew"):
        registry.champion(lab.paths)
    assert lab.enter(**lab.found).champion.name == champion.name


def test_readers_beside_a_writer_see_a_whole_champion(lab):
    lab.enter(**lab.found)
    done, seen, problems = threading.Event(), set(), []

    def read():
        while not done.is_set():
            try:
                seen.add(str(registry.champion(lab.paths)))
            except Exception as problem:  # whatever it is, the test names it
                problems.append(repr(problem))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    stamps = {registry.stamp(lab.paths)}
    for _ in range(40):
        for name in ("knn", "popularity"):
            registry.promote(lab.paths, name)
            stamps.add(registry.stamp(lab.paths))
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert seen == {"knn v1", "popularity v1"}
    assert len(stamps) == 81


def test_two_writers_lose_nothing(lab, lab_home):
    lab.enter(**lab.found)
    code = "from recsys_lib.run import registry; from recsys_lib.paths import Paths\n"
    code += "for i in range(20): registry.promote(Paths('made'), ('knn', 'popularity')[i % 2])"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(registry.history(lab.paths)) == 41


def test_content_hash_sees_every_file(lab):
    folder = lab.paths.models / "knn"
    before = registry.content_hash(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"params": {**config["params"], "neighbours": 31}})
    assert registry.content_hash(folder) != before
    write_json(folder / "config.json", config)
    assert registry.content_hash(folder) == before
    (folder / "more.bin").write_bytes(b"1")
    assert registry.content_hash(folder) != before


def test_command_line(lab, capsys):
    assert registry.main(["made"]) == 0
    assert "nothing is registered for made" in capsys.readouterr().out
    assert registry.main(["made", "champion"]) == 1
    assert "has no champion yet" in capsys.readouterr().err
    first = lab.enter(**lab.found).champion
    other = next(name for name in lab.found if name != first.name)
    assert registry.main(["made", "promote", other]) == 0
    assert f"{other} v1 is champion of made" in capsys.readouterr().out
    assert registry.main(["made", "rollback"]) == 0
    assert f"{first} is champion of made" in capsys.readouterr().out
    assert registry.main(["made", "rollback"]) == 1
    assert "nothing to roll back to" in capsys.readouterr().err
    assert registry.main(["made", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown if line.startswith("champion")] == [["champion", first.name, "v1"]]
    assert sum("put away" in line for line in shown) == 1
    assert json.loads((lab.paths.registry / "registry.json").read_text())["champion"] == first.key
