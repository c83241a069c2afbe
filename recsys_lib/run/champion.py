"""The champion of a data set: the model that serves, and how it may change.

``outputs/<dataset>/champion.json`` points to it: its name and version, the folder that holds it, its metrics, why it
became champion, and the champions before it. It is chosen by the return visit (:func:`question`). The versions of all
evaluated models stand in MLflow's registry, where the champion has the alias ``champion`` (see
:mod:`recsys_lib.run.tracking`); the pointer is all that serving needs, and all there is where runs are not tracked.

``python -m recsys_lib.run.champion ml-100k`` shows it; ``rollback`` or ``promote <model>`` behind it changes it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_lib.data.s3 import StorageError
from recsys_lib.files import link, locked, write_json, write_parquet
from recsys_lib.models.base import content_hash
from recsys_lib.run.remote import push
from recsys_lib.run.run import Champion, MissingArtifactError, OtherDataError, Run

if TYPE_CHECKING:
    from recsys_lib.evaluation.task import Evaluation

KEPT = 5  # champions whose folders stay: the present one and the way back
DIFFERENT = {  # what keeps two evaluations from being compared
    "data": "other data",
    "task": "another split or threshold",
    "ranked_by": "another metric",
    "question": "another question",
}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a challenge: the champion now, whether it is a new one, and why, in one sentence."""

    champion: Champion
    changed: bool
    sentence: str


def question(
    evaluations: Mapping[str, Evaluation], visits: Mapping[str, Mapping[str, Evaluation]]
) -> tuple[str, Mapping[str, Evaluation]]:
    """Choose what the champion is chosen by; return its name and the models' evaluations on it.

    The return visit (items of sittings more than an hour later), for that is what serving is about; the leaderboard's
    own question where fewer than 100 users come back, or nobody knows when. ``visits`` are from
    :func:`recsys_lib.evaluation.return_visits.by_gap`.
    """
    from recsys_lib.evaluation.inference import LEAST_USERS
    from recsys_lib.evaluation.return_visits import GAPS

    visit = next(iter(GAPS))
    enough = visit in visits and min(len(each.per_user) for each in visits[visit].values()) >= LEAST_USERS
    return (f"items liked {visit}", visits[visit]) if enough else ("the leaderboard", evaluations)


def challenge(run: Run, evaluations: Mapping[str, Evaluation], leaderboard: Mapping[str, Any]) -> Outcome:
    """Let the best evaluated model challenge the champion.

    The best by the metric that ranks becomes champion if it is ahead of the incumbent in the paired test of
    :func:`recsys_lib.evaluation.task.compare`, Holm-corrected over all models of the evaluation (which also means: on
    at least 100 users); else the incumbent stays. Without an incumbent the best becomes champion. An incumbent of
    other data, another split or threshold, or another metric cannot be compared: the best takes its place. A version
    that a rollback took the title from does not challenge again; ``promote`` brings it back.

    - ``evaluations``: by the models' names, all of one task: from :func:`question`, whose name is the protocol's
      ``champion_by``.
    - ``leaderboard``: what they gave, as :func:`recsys_lib.run.results.leaderboard` makes it.
    """
    with locked(_lock(run)):
        before = _pointer(run)
        versions = {name: version_of(run, name) for name in evaluations}
        able = [name for name in evaluations if versions[name] not in before.get("put_away", [])]
        if not able:
            return Outcome(run.champion, False, f"{run.champion} stays champion: rollbacks rule out all the others.")
        by = leaderboard["protocol"]["ranked_by"]
        best = min(able, key=lambda name: (-evaluations[name].means[by], name))
        for name, evaluation in evaluations.items():
            write_parquet(_values(run, name), evaluation.per_user)
        record = _record(run, best, leaderboard, evaluations[best].metrics())
        wins, sentence = _judge(run, {name: evaluations[name] for name in able}, record, before)
        if wins:
            _enthrone(run, record, before, sentence)
        return Outcome(run.champion, wins, sentence)


def promote(run: Run, name: str) -> Champion:
    """Make an evaluated model champion, whatever the tests say; KeyError if the leaderboard lacks it."""
    from recsys_lib.evaluation.inference import intervals

    with locked(_lock(run)):
        if name not in run.results.names:
            raise KeyError(f"{name} is not on the leaderboard, which has {', '.join(run.results.names)}")
        metrics = intervals(run.read_values(_values(run, name)).drop(columns="user_id")).to_dict("index")
        _enthrone(run, _record(run, name, run.results.leaderboard, metrics), _pointer(run), "by hand")
    return run.champion


def rollback(run: Run) -> Champion:
    """Give the title back to the champion before; the one that loses it does not challenge again by itself.

    LookupError if there was no other champion before.
    """
    with locked(_lock(run)):
        now = _pointer(run)
        earlier = [one for one in now.get("before", []) if (run.paths.outputs / one["folder"]).is_dir()]
        if not earlier:
            raise LookupError(f"there is nothing to roll back to: {run.name} has had no other champion")
        *earlier, again = earlier
        away = [*now.get("put_away", []), now["version"]]
        record = again | {"why": f"rollback from {now['model']} {now['version']}, by hand", "at": _now()}
        write_json(_file(run), record | {"before": earlier, "put_away": away})
    return run.champion


def version_of(run: Run, name: str) -> str:
    """Version of a fitted model: eight digits of the hash of what was fitted; two equal fits have the same."""
    return content_hash(run.paths.models / name)[:8]


def _file(run: Run) -> Path:
    return run.paths.outputs / "champion.json"


def _values(run: Run, name: str) -> Path:
    """The values of each user that the champion is chosen by, of a model."""
    return run.paths.metrics / "champion_by" / f"{name}.parquet"


def _lock(run: Run) -> Path:
    return run.paths.outputs / ".champion.lock"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _pointer(run: Run) -> dict[str, Any]:
    """Contents of ``champion.json``; nothing where there is none or its folder is gone."""
    record = run.read(_file(run)) if _file(run).is_file() else {}
    return record if record and (run.paths.outputs / record["folder"] / "config.json").is_file() else {}


def _record(run: Run, name: str, leaderboard: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of ``champion.json`` for a fitted and evaluated model."""
    protocol, version = leaderboard["protocol"], version_of(run, name)
    task = {"data": leaderboard["data"]["sha256"], "task": protocol["fingerprint"], "ranked_by": protocol["ranked_by"]}
    task |= {"question": protocol.get("champion_by", "the leaderboard")}
    record = {"model": name, "version": version, "folder": f"champions/{name}-{version}", "task": task}
    return record | {"bootstrap": protocol.get("bootstrap", {}), "metrics": metrics, "at": _now()}


def _enthrone(run: Run, record: dict[str, Any], before: Mapping[str, Any], why: str) -> None:
    """Keep the model's files in a folder of their own, then point to it; champions of long ago are cleared away."""
    folder = run.paths.outputs / record["folder"]
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        link(_values(run, record["model"]), folder / "per_user.parquet")
        source = run.paths.models / record["model"]
        for file in sorted(source.glob("[!.]*"), key=lambda path: path.name == "config.json"):  # config.json last
            link(file, folder / file.name)
    earlier = [one for one in before.get("before", []) if one["folder"] != record["folder"]]
    if before and before["folder"] != record["folder"]:
        earlier.append({key: value for key, value in before.items() if key not in ("before", "put_away")})
    earlier = earlier[1 - KEPT :]
    away = [version for version in before.get("put_away", []) if version != record["version"]]
    write_json(_file(run), record | {"why": why, "before": earlier, "put_away": away})
    kept = {folder, *(run.paths.outputs / one["folder"] for one in earlier)}
    for old in set(folder.parent.iterdir()) - kept:
        shutil.rmtree(old, ignore_errors=True)


def _judge(
    run: Run, evaluations: dict[str, Evaluation], record: Mapping[str, Any], before: Mapping[str, Any]
) -> tuple[bool, str]:
    """Whether the best takes the title, and why in one sentence."""
    from recsys_lib.evaluation.task import compare  # takes seconds to import, and only a challenge needs it

    by, name = record["task"]["ranked_by"], record["model"]
    best = f"{name} {record['version']}"
    value = f"{by} {evaluations[name].means[by]:.4f} on {record['task']['question']}"
    highest = f"({value}, the highest of {len(evaluations)} models)"
    if not before:
        return True, f"{best} is the first champion {highest}."
    incumbent = f"{before['model']} {before['version']}"
    for key, words in DIFFERENT.items():
        if before["task"].get(key) != record["task"][key]:
            return True, f"{best} is champion {highest}: the one before, {incumbent}, was evaluated on {words}."
    if before["version"] == record["version"]:
        return False, f"{incumbent} stays champion {highest}."
    known = next((one for one in evaluations if version_of(run, one) == before["version"]), incumbent)
    rivals = dict(evaluations)
    rivals.setdefault(known, _stored(run, before, evaluations[name]))
    row = compare(rivals, by=by, **record["bootstrap"]).set_index("model").loc[known]
    ahead = evaluations[name].means[by] - rivals[known].means[by]
    if ahead <= 0:
        return False, f"{incumbent} stays champion: {best} ({value}) is {-ahead:.4f} behind it."
    lead = f"{best} ({value}) is {ahead:.4f} ahead of {incumbent}, Holm-corrected p {row['p_holm']:.4f}"
    if row["distinct"]:
        return True, f"{best} is the new champion: {lead}."
    return False, f"{incumbent} stays champion: {lead}, which on {int(row['n_users'])} users is no evidence."


def _stored(run: Run, record: Mapping[str, Any], like: Evaluation) -> Evaluation:
    """An earlier champion's evaluation, from the per-user values beside it; its lists are not kept."""
    from recsys_lib.evaluation.inference import intervals

    per_user = run.read_values(run.paths.outputs / record["folder"] / "per_user.parquet")
    table = intervals(per_user.drop(columns="user_id"))
    return replace(like, per_user=per_user, intervals=table, overall={}, rating=None)


def overview(run: Run) -> str:
    """The champion and those before it as text, the present one first."""
    record = run.champion.record
    lines = []
    for one in (record, *reversed(record.get("before", []))):
        by = one["task"]["ranked_by"]
        value = one["metrics"][by]
        shown = f"{by} {value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
        lines.append(f"{one['at'][:19]}  {one['model']} {one['version']}  {shown}\n    {one['why']}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Show the champion of a data set, or change it."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.champion", description=main.__doc__)
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("action", nargs="?", default="show", choices=["show", "promote", "rollback"])
    parser.add_argument("model", nargs="?", help="of promote")
    given = parser.parse_args(arguments)
    if given.action == "promote" and not given.model:
        parser.error("promote needs the name of a model")
    try:
        run = Run(given.dataset)
        if given.action == "rollback":
            rollback(run)
        elif given.action == "promote":
            promote(run, given.model)
        push(given.dataset)
        print(overview(run))
    except (LookupError, MissingArtifactError, OtherDataError, StorageError) as problem:
        sys.stderr.write(f"{problem.args[0] if isinstance(problem, LookupError) else problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
