"""The champion, its challengers, the way back, and readers beside a writer."""

import dataclasses
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from recsys_lib.evaluation.task import compare, evaluate
from recsys_lib.files import read_json, write_json
from recsys_lib.models import ItemKNN, Popularity, load_model
from recsys_lib.models.base import content_hash
from recsys_lib.run import champion, results
from recsys_lib.run.run import MissingArtifactError, Run

KS = (5, 10)
AGAIN = {"resamples": 100, "seed": 3}


@pytest.fixture(scope="module")
def made(task):
    """Two fitted models of made data with their evaluations, and the task."""
    models = {"popularity": Popularity().fit(task.known), "knn": ItemKNN(neighbours=30).fit(task.known)}
    return models, {name: evaluate(model, task, KS, **AGAIN) for name, model in models.items()}, task


def moved(evaluation, by: float, noise: float = 0.0, seed: int = 0):
    """The same evaluation, with ``by`` and noise of mean 0 added to each user's value of the main metric."""
    shaken = np.random.default_rng(seed).normal(scale=noise, size=len(evaluation.per_user))
    values = evaluation.per_user["ndcg@10"] + by + shaken - shaken.mean()
    intervals = evaluation.intervals.copy()
    intervals.loc["ndcg@10", ["mean", "low", "high"]] = values.mean(), values.mean() - 0.01, values.mean() + 0.01
    per_user = evaluation.per_user.assign(**{"ndcg@10": values})
    return dataclasses.replace(evaluation, per_user=per_user, intervals=intervals)


class Lab:
    """Saved models and leaderboards of a data set, as 07_evaluation has them."""

    def __init__(self, made):
        self.run, (self.models, self.results, self.task) = Run("made"), made
        self.data = {"name": "made", "sha256": "a" * 64}

    def save(self, **changed):
        """Save the models of the evaluations given; ``half_life_days`` makes one popularity differ from another."""
        for name, model in (self.models | changed).items():
            model.save(self.run.paths.models / name, data={"fit_seconds": np.random.default_rng().random()})

    def challenge(self, by="ndcg@10", **evaluations):
        content = results.leaderboard(evaluations, compare(evaluations, by=by, **AGAIN), self.data)
        content["protocol"] |= {"bootstrap": AGAIN}
        return champion.challenge(self.run, evaluations, content)

    def promote(self, name):
        """Promote as a person does, from the results on disk."""
        content = results.leaderboard(self.results, compare(self.results, **AGAIN), self.data)
        results.write_results(self.run, self.results, content)
        self.run.__dict__["results"] = type(self.run.results)(self.run.paths.metrics, content)
        return champion.promote(self.run, name)


@pytest.fixture
def lab(lab_home, made, monkeypatch):
    monkeypatch.setattr(Run, "check_identity", lambda *_: None)  # there are no tables here, only models
    lab = Lab(made)
    lab.save()
    return lab


def other_popularity(lab, days):
    return Popularity(half_life_days=days).fit(lab.task.known)


def test_the_best_is_the_first_champion_and_is_the_model(lab):
    with pytest.raises(MissingArtifactError, match=r"champion.json is missing: `make 07 DATASET=made` makes it"):
        _ = lab.run.champion
    best = max(lab.results, key=lambda name: lab.results[name].means["ndcg@10"])
    outcome = lab.challenge(**lab.results)
    first = outcome.champion
    assert outcome.changed
    assert (first.name, first.version) == (best, content_hash(lab.run.paths.models / best)[:8])
    assert "first champion" in outcome.sentence
    assert first.record["task"]["task"] == lab.task.protocol["fingerprint"]
    assert first.record["metrics"]["ndcg@10"]["mean"] == pytest.approx(lab.results[best].means["ndcg@10"])
    users = lab.task.users[:10]
    expected = lab.models[best].recommend(users, 5)
    pd.testing.assert_frame_equal(first.model.recommend(users, 5), expected)
    pd.testing.assert_frame_equal(load_model("champion", "made").recommend(users, 5), expected)


def test_the_champion_needs_nothing_but_its_folder(lab):
    lab.challenge(**lab.results)
    code = "import sys; from recsys_lib.models import load_model; m = load_model('champion', 'made'); "
    code += "print(type(m).__name__, [n for n in ('mlflow', 'recsys_lib.run.run', 'sklearn') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[1:] == ["[]"]


def test_unchanged_content_is_the_same_version_and_writes_nothing(lab):
    first = lab.challenge(**lab.results).champion
    before = (lab.run.paths.outputs / "champion.json").stat().st_mtime_ns
    lab.save()  # fitted again: only the seconds differ
    outcome = lab.challenge(**lab.results)
    assert not outcome.changed
    assert str(outcome.champion) == str(first)
    assert (lab.run.paths.outputs / "champion.json").stat().st_mtime_ns == before


def test_the_folder_may_be_moved_and_its_files_take_no_space(lab, tmp_path, monkeypatch):
    first = lab.challenge(**lab.results).champion
    saved, kept = (next(folder.glob("arrays-*")) for folder in (lab.run.paths.models / first.name, first.folder))
    assert saved.samefile(kept)
    before = kept.read_bytes()
    lab.save(**{first.name: other_popularity(lab, 3)})
    assert kept.read_bytes() == before
    shutil.copytree(lab.run.paths.outputs, tmp_path / "new" / "outputs" / "made")
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "new"))
    assert Run("made").champion.folder.is_relative_to(tmp_path / "new")


@pytest.mark.parametrize(
    ("by", "noise", "wins", "words"),
    [
        (0.003, 0.2, False, "is no evidence"),
        (0.05, 0.05, True, "is the new champion"),
        (-0.05, 0, False, "is 0.0500 behind it"),
    ],
)
def test_only_who_is_clearly_ahead_takes_the_title(lab, by, noise, wins, words):
    base = lab.results["popularity"]
    old = lab.challenge(popularity=base).champion
    lab.save(popularity=other_popularity(lab, 3))
    outcome = lab.challenge(popularity=moved(base, by, noise))
    assert outcome.changed == wins
    assert (outcome.champion.version == old.version) != wins
    assert words in outcome.sentence


def test_holm_counts_all_the_models(lab):
    """Alone it would be ahead; among many rivals as close, it is not."""
    base = lab.results["popularity"]
    old = lab.challenge(popularity=base).champion
    rival, many = moved(base, 0.012, noise=0.05), {f"p{i}": moved(base, 0.01, 0.05, seed=i + 1) for i in range(40)}
    lab.save(popularity=other_popularity(lab, 3), **{name: other_popularity(lab, 4) for name in many})
    alone = compare({"new": rival, "old": base}, **AGAIN).set_index("model").loc["old"]
    assert 0.001 < alone["p_holm"] < 0.05, "the premise"
    outcome = lab.challenge(popularity=rival, **many)
    assert outcome.sentence.startswith(f"{old} stays champion: popularity")
    assert "is no evidence" in outcome.sentence


@pytest.mark.parametrize(
    ("other", "words"), [("data", "on other data"), ("task", "on another split"), ("metric", "on another metric")]
)
def test_what_cannot_be_compared_is_not(lab, other, words):
    base = lab.results["popularity"]
    lab.challenge(popularity=moved(base, 0.3))
    lab.save(popularity=other_popularity(lab, 3))
    if other == "data":
        lab.data = {"name": "made", "sha256": "b" * 64}
    if other == "task":
        base = dataclasses.replace(base, protocol=base.protocol | {"fingerprint": "f" * 16})
    outcome = lab.challenge(by="recall@10" if other == "metric" else "ndcg@10", popularity=base)
    assert outcome.changed, "the old one's higher value says nothing here"
    assert words in outcome.sentence


def test_the_way_back_and_no_way_forward_by_itself(lab):
    base = lab.results["popularity"]
    first = lab.challenge(popularity=base).champion
    with pytest.raises(LookupError, match="nothing to roll back to: made has had no other champion"):
        champion.rollback(lab.run)
    lab.save(popularity=other_popularity(lab, 3))
    better = moved(base, 0.05)
    second = lab.challenge(popularity=better).champion
    assert second.version != first.version
    assert champion.rollback(lab.run).version == first.version == lab.run.champion.version
    assert not lab.challenge(popularity=better).changed, "who was put away does not challenge again"
    assert lab.promote("popularity").version == second.version
    assert champion.rollback(lab.run).version == first.version


def test_champions_of_long_ago_are_cleared_away(lab):
    base = lab.results["popularity"]
    for days in range(2, 10):
        lab.save(popularity=other_popularity(lab, days))
        lab.challenge(popularity=moved(base, 0.05 * days))
    assert len(list((lab.run.paths.outputs / "champions").iterdir())) == champion.KEPT
    back = [champion.rollback(lab.run).version for _ in range(champion.KEPT - 1)]
    assert len(set(back)) == champion.KEPT - 1
    with pytest.raises(LookupError):
        champion.rollback(lab.run)


def test_a_champion_whose_folder_is_gone_is_chosen_anew(lab):
    first = lab.challenge(**lab.results).champion
    shutil.rmtree(first.folder)
    with pytest.raises(MissingArtifactError, match=r"is gone: `make 07 DATASET=made` chooses a new one"):
        _ = lab.run.champion
    assert lab.challenge(**lab.results).champion.name == first.name


def test_readers_beside_a_writer_see_a_whole_champion(lab):
    lab.challenge(**lab.results)
    lab.promote("knn")
    done, seen, problems = threading.Event(), set(), []

    def read():
        while not done.is_set():
            try:
                seen.add(lab.run.champion.model.params().get("neighbours"))
            except Exception as problem:  # whatever it is, the test names it
                problems.append(repr(problem))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        for name in ("knn", "popularity"):
            champion.promote(lab.run, name)
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert seen == {30, None}


def test_content_hash_sees_parameters_and_arrays_and_not_the_time_a_fit_took(lab):
    folder = lab.run.paths.models / "knn"
    before, config = content_hash(folder), read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"data": {"fit_seconds": 7}})
    assert content_hash(folder) == before
    write_json(folder / "config.json", config | {"params": {**config["params"], "neighbours": 31}})
    assert content_hash(folder) != before
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        content_hash(lab.run.paths.outputs)


def test_command_line(lab, capsys):
    assert champion.main(["made"]) == 1
    assert "`make 07 DATASET=made` makes it" in capsys.readouterr().err
    first = lab.challenge(**lab.results).champion
    assert champion.main(["made"]) == 0
    assert f"{first}  ndcg@10" in capsys.readouterr().out
    assert champion.main(["made", "rollback"]) == 1
    assert "nothing to roll back to" in capsys.readouterr().err


def test_the_champion_is_chosen_by_the_return_visit_where_enough_users_come_back(made, lab):
    _, evaluations, _ = made
    visit = "more than an hour later"
    visits = {visit: {"popularity": moved(evaluations["popularity"], 0.3), "knn": evaluations["knn"]}}
    asked, judged = champion.question(evaluations, visits)
    assert (asked, judged) == (f"items liked {visit}", visits[visit])
    few = {visit: {name: dataclasses.replace(each, per_user=each.per_user[:99]) for name, each in evaluations.items()}}
    assert champion.question(evaluations, few) == champion.question(evaluations, {}) == ("the leaderboard", evaluations)
    lab.save()
    content = results.leaderboard(evaluations, compare(evaluations, **AGAIN), lab.data)
    content["protocol"] |= {"bootstrap": AGAIN, "champion_by": asked}
    results.write_results(lab.run, evaluations, content)
    outcome = champion.challenge(lab.run, judged, content)
    assert outcome.champion.name == "popularity"
    assert f"on items liked {visit}" in outcome.sentence
    assert outcome.champion.record["metrics"]["ndcg@10"]["mean"] == judged["popularity"].means["ndcg@10"]
    lab.run.__dict__["results"] = type(lab.run.results)(lab.run.paths.metrics, content)
    promoted = champion.promote(lab.run, "knn")
    assert promoted.record["metrics"]["ndcg@10"]["mean"] == pytest.approx(evaluations["knn"].means["ndcg@10"])
    assert "is the new champion" in champion.challenge(lab.run, judged, content).sentence, "the paired test decides"
