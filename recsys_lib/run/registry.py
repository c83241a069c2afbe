"""The model registry of a data set: versions of evaluated models, one of them the champion.

On disk, below ``outputs/<dataset>/registry``::

    registry.json                   who is champion, and how it came to be: a log, oldest first
    <model>/<version>/              a model's folder as it was saved, loadable as it stands, and beside its files:
    <model>/<version>/card.json     name, version, data, protocol, metrics with intervals, params, commit, ...
    <model>/<version>/per_user.parquet   the values a person from which it can be compared with later models

Folders and files appear whole or not at all, so whoever reads while this writes sees the old state or the new one.
``python -m recsys_lib.run.registry ml-100k`` lists the versions; ``rollback`` behind it gives the title back to the
champion before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from recsys_lib.files import link, locked, read_json, replacing_folder, sha256, write_json, write_parquet
from recsys_lib.models.base import Recommender, champion_folder, load_model
from recsys_lib.paths import Paths
from recsys_lib.run.environment import commit

if TYPE_CHECKING:
    from recsys_lib.evaluation.task import Evaluation

FORMAT = 1
OURS = ("card.json", "per_user.parquet")  # what the registry lays beside a model's own files
TIMES = ("fit_seconds", "seconds")  # of two fits alike in all else, these differ
KEPT = 3  # versions of a model that stay though they never were champion
KEPT_CHAMPIONS = 5  # champions of the past that stay: the way back


@dataclass(frozen=True)
class Version:
    """One registered version of a model.

    Attributes
    ----------
    name
        The model's name in the leaderboard.
    version
        ``"v1"``, ``"v2"``, ...: counted for each name.
    folder
        Where it is; ``load_model(folder)`` reads it.
    card : dict
        name, version, class, params, data (name, sha256, sizes), protocol, metrics (mean, low, high, n_users each),
        facts (fit_seconds, ...), created (UTC), commit, content (sha256 of what was fitted).
    """

    name: str
    version: str
    folder: Path
    card: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def key(self) -> dict[str, str]:
        """Name and version, as the log names them."""
        return {"model": self.name, "version": self.version}

    @property
    def task(self) -> tuple[str, str, str]:
        """What two versions must share to be compared: the data, the task (split, threshold), the metric that ranks."""
        protocol = self.card["protocol"]
        return self.card["data"]["sha256"], protocol["fingerprint"], protocol["ranked_by"]

    def load(self) -> Recommender:
        """The model itself."""
        return load_model(self.folder)


@dataclass(frozen=True)
class Outcome:
    """What became of a challenge: the champion now, whether it is a new one, and why, in one sentence."""

    champion: Version
    changed: bool
    sentence: str


def content_hash(folder: Path | str) -> str:
    """SHA-256 over a saved model's files, without the seconds its fit took: two equal fits have the same.

    Raises
    ------
    FileNotFoundError
        If the folder holds no saved model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: config.json is missing")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in OURS):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        if path.suffix == ".json":
            digest.update(json.dumps(_timeless(read_json(path)), sort_keys=True).encode())
        else:
            digest.update(sha256(path).encode())
    return digest.hexdigest()


def _timeless(value: Any) -> Any:
    """JSON without the seconds that things took."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


# ---- reading -------------------------------------------------------------------------------------------------


def stamp(paths: Paths) -> tuple[int, int]:
    """Something that changes whenever ``registry.json`` does, at the cost of one ``stat``; (0, 0) without one.

    A program that serves the champion asks this now and then, and :func:`champion` only when it has changed.
    """
    try:
        found = (paths.registry / "registry.json").stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def champion(paths: Paths) -> Version:
    """The version that serves.

    Raises
    ------
    FileNotFoundError
        If there is none yet, or its folder is gone; the sentence says what makes one.
    """
    return _version(champion_folder(paths))


def present(paths: Paths) -> Version | None:
    """As :func:`champion`; None where there is none or its folder is gone."""
    try:
        return champion(paths)
    except FileNotFoundError:
        return None


def versions(paths: Paths, name: str | None = None) -> list[Version]:
    """All versions, or those of one model: by name, the oldest first."""
    folders = [card.parent for card in paths.registry.glob(f"{name or '*'}/v*/card.json")]
    return [_version(folder) for folder in sorted(folders, key=lambda folder: (folder.parent.name, _number(folder)))]


def find(paths: Paths, name: str, version: str | None = None) -> Version:
    """One version of a model, the newest unless it is named.

    Raises
    ------
    KeyError
        If there is no such model or version; says which there are.
    """
    found = versions(paths, name) if name in {folder.name for folder in paths.registry.glob("*/")} else []
    chosen = [one for one in found if version in (None, one.version)]
    if chosen:
        return chosen[-1]
    has = ", ".join(one.version for one in found) or "no version"
    others = ", ".join(sorted({one.name for one in versions(paths)})) or "nothing"
    raise KeyError(
        f"{name} has {has} in the registry of {paths.name}, which holds {others}"
        if version is None or not found
        else f"{name} has no {version} in the registry of {paths.name}; it has {has}"
    )


def history(paths: Paths) -> list[dict[str, Any]]:
    """How the champions came to be, oldest first: at, action, model, version, from (who was it before), why."""
    file = paths.registry / "registry.json"
    return read_json(file)["history"] if file.is_file() else []


def _version(folder: Path) -> Version:
    card = read_json(folder / "card.json")
    return Version(card["name"], card["version"], folder, card)


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("v"))


# ---- registering ---------------------------------------------------------------------------------------------


def register(paths: Paths, name: str, evaluation: Evaluation, content: Mapping[str, Any]) -> Version:
    """Register what stands in ``outputs/<dataset>/models/<name>``, with what its evaluation said.

    Parameters
    ----------
    evaluation
        Of this model.
    content
        The leaderboard in which it stands, as :func:`recsys_lib.run.results.leaderboard` makes it.

    Returns
    -------
    Version
        A new one; or the one that is there already, if the same content was registered under the same protocol.

    Raises
    ------
    KeyError
        If the leaderboard lacks the model.
    FileNotFoundError
        If there is no such folder.
    """
    entries = {model["name"]: model for model in content["models"]}
    if name not in entries:
        raise KeyError(f"{name} is not in the leaderboard; it has {', '.join(entries)}")
    entry, data = entries[name], dict(content["data"])
    digest = content_hash(paths.models / name)
    card = {
        "name": name,
        "version": "",
        "class": entry.get("model") or read_json(paths.models / name / "config.json")["model"],
        "params": entry.get("params", {}),
        "data": data,
        "protocol": dict(content["protocol"]),
        "metrics": entry["metrics"],
        "facts": {key: value for key, value in entry.items() if key not in _OF_THE_BOARD},
        "created": _now(),
        "commit": commit(),
        "content": digest,
        "format": FORMAT,
    }
    with locked(paths.registry / ".lock"):
        there = versions(paths, name)
        wanted = Version(name, "", paths.registry, card)
        same = [one for one in there if one.card["content"] == digest and one.task == wanted.task]
        if same:
            return same[-1]
        card["version"] = f"v{_number(there[-1].folder) + 1 if there else 1}"
        folder = paths.registry / name / card["version"]
        with replacing_folder(folder) as temporary:
            shutil.copytree(paths.models / name, temporary, copy_function=link, dirs_exist_ok=True)
            write_parquet(temporary / "per_user.parquet", evaluation.per_user)
            write_json(temporary / "card.json", card)
    return _version(folder)


_OF_THE_BOARD = ("name", "model", "params", "metrics", "against_best", "distinct_from_best")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def register_evaluated(paths: Paths, evaluations: Mapping[str, Evaluation], content: Mapping[str, Any]) -> Outcome:
    """Register all models of an evaluation and let the best challenge the champion; old versions are cleared away.

    Parameters
    ----------
    evaluations
        By the models' names.
    content
        The leaderboard they gave, as :func:`recsys_lib.run.results.leaderboard` makes it.
    """
    entered = {name: register(paths, name, evaluations[name], content) for name in evaluations}
    outcome = challenge(paths, evaluations, entered)
    prune(paths)
    return outcome


def prune(paths: Paths, keep: int = KEPT) -> list[str]:
    """Remove versions that are neither among a model's newest nor the champion nor one of the last champions.

    Returns
    -------
    list of str
        The names of those removed.
    """
    with locked(paths.registry / ".lock"):
        safe = {(entry["model"], entry["version"]) for entry in _standing(history(paths))[-KEPT_CHAMPIONS:]}
        there = versions(paths)
        newest = {(one.name, one.version) for name in {one.name for one in there} for one in _last(there, name, keep)}
        old = [one for one in there if (one.name, one.version) not in safe | newest]
        for one in old:
            away = one.folder.with_name(f".{one.version}.old")
            one.folder.rename(away)
            shutil.rmtree(away)
    return [str(one) for one in old]


def _last(there: list[Version], name: str, keep: int) -> list[Version]:
    return [one for one in there if one.name == name][-keep:]


# ---- the title -----------------------------------------------------------------------------------------------


def challenge(paths: Paths, evaluations: Mapping[str, Evaluation], entered: Mapping[str, Version]) -> Outcome:
    """Let the best evaluated model challenge the champion.

    The rule: the best by the metric that ranks becomes champion if it is ahead of the incumbent in the paired test of
    :func:`recsys_lib.evaluation.task.compare`, Holm-corrected over all models of the evaluation (which also means: of at
    least 100 people); else the incumbent stays. Without an incumbent the best becomes champion. An incumbent of other
    data, another split or threshold, or another metric cannot be compared: it stays in the history, and the best takes
    its place. A version that a rollback put away does not challenge again; ``promote`` brings it back.

    Parameters
    ----------
    evaluations
        By the models' names, all of one task.
    entered
        The versions under which these models are registered.
    """
    with locked(paths.registry / ".lock"):
        log = history(paths)
        away = {(entry["model"], entry["version"]) for entry in _put_away(log)}
        able = {name: one for name, one in entered.items() if (name, one.version) not in away}
        incumbent = present(paths)
        if not able:
            return Outcome(
                champion(paths), False, f"{incumbent} stays champion: the others were all put away by rollbacks."
            )
        best, verdict = _judge(evaluations, able, incumbent)
        if best is None:
            return Outcome(incumbent, False, verdict)
        _enthrone(paths, log, best, "challenge", verdict)
    return Outcome(best, True, verdict)


def _judge(
    evaluations: Mapping[str, Evaluation], able: Mapping[str, Version], incumbent: Version | None
) -> tuple[Version | None, str]:
    """Who is to be the new champion (None: the incumbent stays), and why in one sentence."""
    from recsys_lib.evaluation.task import compare  # takes seconds to import, and only a challenge needs it

    by = next(iter(able.values())).card["protocol"]["ranked_by"]
    name = min(able, key=lambda name: (-evaluations[name].means[by], name))
    best = able[name]
    value = f"{by} {evaluations[name].means[by]:.4f}"
    if incumbent is None:
        return best, f"{best} is the first champion ({value}, the highest of {len(able)} models)."
    if incumbent.task != best.task:
        return best, (
            f"{best} is champion ({value}, the highest of {len(able)} models): {incumbent}, champion until now, "
            f"was evaluated on {_what_differs(incumbent, best)} and cannot be compared."
        )
    if incumbent.key == best.key:
        return None, f"{incumbent} stays champion ({value}, the highest of {len(able)} models)."
    rivals = {name: evaluations[name] for name in able}
    known = next((name for name, one in able.items() if one.key == incumbent.key), str(incumbent))
    rivals.setdefault(known, _stored(incumbent, evaluations[name]))
    board = compare(rivals, by=by, **_bootstrap(best)).set_index("model")
    row, ahead = board.loc[known], evaluations[name].means[by] - rivals[known].means[by]
    if ahead <= 0:
        return None, f"{incumbent} stays champion: {best} ({value}) is {-ahead:.4f} behind it."
    said = f"{best} ({value}) is {ahead:.4f} ahead of {incumbent}, Holm-corrected p {row['p_holm']:.4f}"
    if not row["distinct"]:
        return None, f"{incumbent} stays champion: {said}, over {int(row['n_users'])} people, does not tell them apart."
    return best, f"{best} is the new champion: {said}."


def _bootstrap(version: Version) -> dict[str, int]:
    """How often and from which seed the evaluation resampled."""
    said = version.card["protocol"].get("bootstrap", {})
    return {key: said[key] for key in ("resamples", "seed") if key in said}


def _stored(version: Version, like: Evaluation) -> Evaluation:
    """A registered version's evaluation, from the values a person that lie beside it; its lists are not kept."""
    from recsys_lib.evaluation.task import Evaluation

    per_user = pd.read_parquet(version.folder / "per_user.parquet")
    metrics = {name: row for name, row in version.card["metrics"].items() if name in per_user}
    table = pd.DataFrame(metrics).T.reindex(columns=["mean", "low", "high", "n_users"])
    means = {name: float(row["mean"]) for name, row in metrics.items()}
    return Evaluation(per_user, means, table, like.lists.iloc[:0], {}, None, like.protocol)


def _what_differs(one: Version, other: Version) -> str:
    data, task, _ = (a != b for a, b in zip(one.task, other.task, strict=True))
    if data:
        return f"other data ({one.card['data']['sha256'][:12]}, not {other.card['data']['sha256'][:12]})"
    return "another split or threshold" if task else f"another metric ({one.task[2]}, not {other.task[2]})"


def promote(paths: Paths, name: str, version: str | None = None, *, why: str = "by hand") -> Version:
    """Make a version champion, whatever the tests say; the newest of its name unless it is named.

    Raises
    ------
    KeyError
        If it is not registered.
    """
    with locked(paths.registry / ".lock"):
        chosen = find(paths, name, version)
        _enthrone(paths, history(paths), chosen, "promote", why)
    return chosen


def rollback(paths: Paths, *, why: str = "by hand") -> Version:
    """Give the title back to the champion before; the one that loses it does not challenge again by itself.

    Doing it twice goes back two champions.

    Raises
    ------
    LookupError
        If there was no other champion before whose version is still there.
    """
    with locked(paths.registry / ".lock"):
        log = history(paths)
        before = [entry for entry in _standing(log)[:-1] if (_folder(paths, entry) / "card.json").is_file()]
        if not before:
            raise LookupError(f"there is nothing to roll back to: {paths.name} has had no other champion")
        chosen = _version(_folder(paths, before[-1]))
        _enthrone(paths, log, chosen, "rollback", why)
    return chosen


def _folder(paths: Paths, entry: Mapping[str, str]) -> Path:
    return paths.registry / entry["model"] / entry["version"]


def _standing(log: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The champions that a rollback can go back to, then the present one: what the log amounts to."""
    stack: list[dict[str, str]] = []
    for entry in log:
        key = {"model": entry["model"], "version": entry["version"]}
        if entry["action"] == "rollback" and key in stack:
            del stack[len(stack) - stack[::-1].index(key) :]
        elif not stack or stack[-1] != key:
            stack.append(key)
    return stack


def _put_away(log: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Versions that lost the title to a rollback and were not made champion since."""
    away: list[dict[str, str]] = []
    for entry in log:
        key = {"model": entry["model"], "version": entry["version"]}
        away = [other for other in away if other != key]
        if entry["action"] == "rollback" and entry["from"]:
            away.append(entry["from"])
    return away


def _enthrone(paths: Paths, log: list[dict[str, Any]], chosen: Version, action: str, why: str) -> None:
    """Write the champion and the log, in one file that is replaced whole."""
    before = {key: log[-1][key] for key in ("model", "version")} if log else None
    entry = {"at": _now(), "action": action, **chosen.key, "from": before, "why": why}
    content = {"format": FORMAT, "champion": chosen.key, "history": [*log, entry]}
    write_json(paths.registry / "registry.json", content)


# ---- a person's view -----------------------------------------------------------------------------------------


def overview(paths: Paths) -> str:
    """The versions as text, best metric first, the champion marked; then how the champions came to be."""
    log, there = history(paths), versions(paths)
    if not there:
        return f"nothing is registered for {paths.name}: `make 07` evaluates the models and registers them"
    now = {key: log[-1][key] for key in ("model", "version")} if log else None
    away = _put_away(log)
    lines = []
    for one in sorted(there, key=lambda one: -_value(one)["mean"]):
        mark = "champion" if one.key == now else "put away" if one.key in away else ""
        value, (data, task, metric) = _value(one), one.task
        shown = f"{metric} {value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
        made = f"data {data[:8]}, task {task[:8]}, {one.card['created'][:19]}"
        lines.append(f"{mark:<9} {one!s:<30} {shown:<36} {made}")
    for entry in log:
        who = f"{entry['model']} {entry['version']}"
        lines.append(f"{entry['at'][:19]}  {entry['action']} {who}: {entry['why']}")
    return "\n".join(lines)


def _value(version: Version) -> dict[str, Any]:
    return version.card["metrics"][version.task[2]]


def main(arguments: list[str] | None = None) -> int:
    """List the registered models of a data set, or change who is champion."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.registry", description=main.__doc__)
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("action", nargs="?", default="list", choices=["list", "champion", "promote", "rollback"])
    parser.add_argument("model", nargs="?", help="of promote")
    parser.add_argument("version", nargs="?", help="of promote; the newest unless it is given")
    given = parser.parse_args(arguments)
    paths = Paths(given.dataset)
    if given.action == "promote" and not given.model:
        parser.error("promote needs the name of a model")
    try:
        if given.action == "list":
            print(overview(paths))
        elif given.action == "champion":
            print(champion(paths))
        else:
            new = rollback(paths) if given.action == "rollback" else promote(paths, given.model, given.version)
            print(f"{new} is champion of {paths.name}")
    except (LookupError, FileNotFoundError) as problem:
        sys.stderr.write(f"{problem.args[0] if isinstance(problem, LookupError) else problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
