"""The report of a run: report.md and a self-contained index.html, made from the JSON and figures of the notebooks."""

from __future__ import annotations

import argparse
import base64
import html
import json
import mimetypes
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import mistune

from recsys_lib.data.catalogue import METRICS, MODELS, about, label, readable_title
from recsys_lib.data.s3 import StorageError
from recsys_lib.evaluation.return_visits import SAME
from recsys_lib.files import read_json, replacing
from recsys_lib.paths import REPOSITORY, Paths, shown
from recsys_lib.run.parameters import NOTEBOOKS
from recsys_lib.run.remote import push
from recsys_lib.run.run import Run
from recsys_lib.run.steps import STEPS

TEMPLATES = Path(__file__).parent / "templates"
# The figures that the report takes up, with what they show; the others stay in outputs/<dataset>/figures.
FIGURES = {
    "results": {
        "evaluation_leaderboard": "NDCG@10 of each model with its 95% interval over users",
        "evaluation_return_visits": "The same on the rest of the sitting, and when users come back after a pause",
        "evaluation_differences": "How far each model is behind the best, user by user",
        "evaluation_trade_offs": "What accuracy costs in diversity, coverage and time",
        "evaluation_segments": "NDCG@10 of the four best models by group of users",
        "evaluation_reliability": "Predicted and given ratings, a tenth of the rows a point: equal on the diagonal",
    },
    "models": {"neural_ranker_training": "The neural ranker, epoch by epoch"},
    "data": {
        "01_ratings": "How ratings are spread, and the means of users and of films",
        "01_long_tail": "How unequal films and users are",
        "01_genres": "How many ratings each genre gets, and how high they are",
        "01_time": "When ratings were given",
    },
    "studies": {
        "studies_random_split": "NDCG@10 of models tuned for a random split, with 95% intervals",
        "studies_rolling_cuts": "NDCG@10 after each of several cuts in time, with 95% intervals",
    },
}
# Made apart from the run.
STUDIES = ("canonical", "other_splits", "return_visits", "later_visits", "sampled_metrics", "cold_start", "seeds")
REPORTS = ("exploration", "preprocessing", "training", "evaluation", "recommendation")


def interval(metric: dict[str, Any] | None) -> str:
    """A mean with its interval as text; a dash where there is none.

    >>> interval({"mean": 0.2214, "low": 0.2101, "high": 0.2333, "n_users": 906})
    '0.221 (0.210–0.233)'
    >>> interval(None)
    '–'
    """
    if not metric or metric.get("mean") is None:
        return "–"
    low, high = metric.get("low"), metric.get("high")
    return f"{metric['mean']:.3f}" + ("" if low is None or high is None else f" ({low:.3f}–{high:.3f})")


def ratio(measured: dict[str, Any]) -> str:
    """A ratio with its interval as text.

    >>> ratio({"ratio": 1.0604, "low": 1.0421, "high": 1.0782})
    '1.060 (1.042–1.078)'
    """
    return interval({**measured, "mean": measured["ratio"]})


def best_first(pooled: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Models of a pooled table, those with the highest mean first, each with its name.

    >>> [row["model"] for row in best_first({"als": {"mean": 0.1}, "net": {"mean": 0.2}})]
    ['net', 'als']
    """
    return sorted(({"model": name, **row} for name, row in pooled.items()), key=lambda row: -row["mean"])


def plain(text: Any) -> str:
    r"""A title or an id in Markdown as it stands: no picture, link, tag or cell of a table.

    >>> print(plain("![x](http://y) <b> M*A*S*H"))
    !\[x\](http://y) \<b> M\*A\*S\*H
    """
    return re.sub(r"([\\`*_\[\]<|]|&(?=#?\w+;))", r"\\\1", " ".join(readable_title(str(text)).split()))


def main_results(evaluation: dict[str, Any], served: str) -> list[str]:
    """Sum up a run in three sentences: what ranks best, what is best for users who come back, what serves."""

    def times(row: dict[str, Any], of: str) -> str:
        shown = "" if row["distinct"] else "; Holm-corrected, no difference"
        return f"{row['ratio']:.2f} times that of `{of}` ({row['ratio_low']:.2f}–{row['ratio_high']:.2f}{shown})"

    best, baseline = evaluation["leaderboard"][0]["model"], evaluation["return_visits_baseline"]
    ahead = [row for row in evaluation["baselines"] if row["model"] == best and row["ratio"]]
    ratios = [times(row, row["baseline"]) for row in ahead if row["baseline"] in ("popularity", baseline)]
    what = "rates highly" if evaluation["protocol"].get("relevant_from") else "turns to"
    first = f"**What a user {what} next:** {evaluation['conclusion'].rstrip('.')}"
    sentences = [f"{first}; its mean is {' and '.join(ratios)}" if ratios else first]
    later = [row for row in evaluation["return_visits"] or [] if row["visit"] != SAME]
    if later:
        back = [row for row in later if row["visit"] == later[0]["visit"]]  # the best first
        mean = interval({"mean": back[0]["ndcg@10"], **{end: back[0][f"ndcg@10_{end}"] for end in ("low", "high")}})
        who = f"**What to show a user who comes back {back[0]['visit']}** ({back[0]['n_users']:,} users): "
        parts = [f"{who}`{back[0]['model']}` has the highest NDCG@10, {mean}"]
        shown = [row for row in back if row["model"] in (back[0]["model"], best, "popularity") and row["ratio"]]
        sentences.append("; ".join([*parts, *(f"`{row['model']}` has {times(row, baseline)}" for row in shown)]))
    return [*(f"{sentence}." for sentence in sentences), f"**So `{served}` is the model that serves.**"]


def run_times(paths: Paths) -> list[dict[str, Any]]:
    """Seconds of each step that was run, in the order of the sequence, from the runner's logs."""
    return [times for step in STEPS if (times := _read(paths.logs / "times" / f"{step.name}.json"))]


def readings(paths: Paths) -> dict[str, Any]:
    """How often the test part was read in this folder: count, since when (UTC), and by which notebooks and programs."""
    file = paths.outputs / "test_log.jsonl"
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    readers = Counter(entry["reader"] for entry in entries)
    return {"count": len(entries), "since": entries[0]["at"][:10] if entries else "", "readers": dict(readers)}


def write_report(dataset: str) -> Path:
    """Write ``reports/<dataset>/report.md`` and ``index.html``, whose pictures are inside: it asks no other machine.

    MissingArtifactError if a step's JSON is not there; names the step that makes it.
    """
    run = Run(dataset)
    paths = run.paths
    content = {name: run.read(paths.reports / f"{name}_report.json") for name in REPORTS}
    leaderboard = run.read(paths.metrics / "leaderboard.json")
    names = [entry["name"] for entry in leaderboard["models"]]
    measured = {metric for entry in leaderboard["models"] for metric in entry["metrics"]}
    figures = {subject: _take_up(paths, captions) for subject, captions in FIGURES.items()}
    studies = {name: _study(paths, name, leaderboard["data"]["sha256"]) for name in STUDIES}
    loader = jinja2.FileSystemLoader(TEMPLATES)
    templates = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    templates.filters |= {"interval": interval, "ratio": ratio, "best_first": best_first, "thousands": "{:,}".format}
    templates.filters |= {"plain": plain, "label": label, "about": about}
    text = templates.get_template("report.md.jinja").render(
        name=paths.name,
        leaderboard=leaderboard,
        rows=leaderboard["models"],
        models=dict.fromkeys([*filter(names.__contains__, MODELS), *names]),  # the simple ones first
        metrics={begin: text for begin, text in METRICS.items() if any(name.startswith(begin) for name in measured)},
        figures=figures,
        times=run_times(paths),
        readings=readings(paths),
        main_results=main_results(content["evaluation"], content["recommendation"]["model"]),
        trials=_read(NOTEBOOKS / "params" / f"{paths.name}.trials.json"),
        environment=_read(paths.logs / "environment.json"),
        chaos=_read(paths.reports / "benchmark_chaos.json"),
        published=_published(paths),
        scale=_read(paths.reports.parent / "scale.json"),
        **content,
        **studies,
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    headings = re.findall(r"^## (.+)$", text, re.M)
    text = text.replace("CONTENTS", " · ".join(f"[{heading}](#{_anchor(heading)})" for heading in headings), 1)
    body = _with_pictures_inside(_reachable(mistune.create_markdown(plugins=["table"])(text)), paths.reports)
    page = templates.get_template("page.html.jinja").render(title=html.escape(f"recsys-lab: {paths.name}"), body=body)
    for name, written in (("report.md", text), ("index.html", page)):
        with replacing(paths.reports / name) as temporary:
            temporary.write_text(written, encoding="utf-8")
    return paths.reports / "index.html"


def _anchor(heading: str) -> str:
    """The anchor of a heading, in the page as on GitHub."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def _reachable(page: str) -> str:
    """Links find headings, the keyboard finds tables that scroll on narrow screens; a head without text is no head."""
    page = re.sub(r"<h2>(.+?)</h2>", lambda match: f'<h2 id="{_anchor(match[1])}">{match[1]}</h2>', page)
    return page.replace("<table>", '<table tabindex="0">').replace("<th></th>", "<td></td>")


def _study(paths: Paths, name: str, sha256: str) -> dict[str, Any]:
    """Results of a study in the report's folder; nothing where there are none, or they were made from other data."""
    content = _read(paths.reports / "studies" / f"{name}.json")
    return content if content.get("data", {}).get("sha256") == sha256 else {}


def _take_up(paths: Paths, captions: dict[str, str]) -> dict[str, str]:
    """Copy figures into the report's folder; those that are there then, as ``{file below the report: caption}``."""
    taken_up = {}
    for name, caption in captions.items():
        source, taken = paths.figures / f"{name}.png", paths.reports / "figures" / f"{name}.png"
        if source.is_file():
            with replacing(taken) as temporary:
                shutil.copyfile(source, temporary)
        if taken.is_file():
            taken_up[f"figures/{taken.name}"] = caption
    return taken_up


def _published(paths: Paths) -> dict[str, list[dict[str, Any]]]:
    """By data set the rows of its published table, best first; all sets in the report of the one that is known best."""
    if paths.name != "ml-100k":
        return {}
    files = sorted(paths.reports.parent.glob("*/studies/published_tables.json"))
    return {file.parts[-3]: sorted(read_json(file)["rows"], key=lambda row: -row["ndcg@10"]) for file in files}


def _read(file: Path) -> dict[str, Any]:
    """A JSON file's contents; nothing where there is none."""
    return read_json(file) if file.is_file() else {}


def _with_pictures_inside(text: str, folder: Path) -> str:
    """Put each picture that the page names into the page itself."""

    def inside(match: re.Match[str]) -> str:
        file = folder / match.group(1)
        kind = mimetypes.guess_type(file.name)[0]
        return f'src="data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"'

    return re.sub(r'src="(figures/[^"]+)"', inside, text)


def first_tables(report: str) -> dict[str, str]:
    r"""The first two tables of a report in Markdown: the leaderboard ("results") and the glossary ("models").

    >>> first_tables("# Title\n\n| a | b |\n| - | - |\n\nText\n\n| c |\n| - |\n")
    {'results': '| a | b |\n| - | - |', 'models': '| c |\n| - |'}
    """
    return dict(zip(("results", "models"), map(str.rstrip, re.findall(r"(?:^\|.*\n)+", report, re.M)), strict=False))


def write_readme_tables(readme: Path, report: Path) -> None:
    """Put tables of a report between README's marks, ``<!-- results ... -->`` and ``<!-- /results -->`` say."""
    text = readme.read_text("utf-8")
    for name, table in first_tables(report.read_text(encoding="utf-8")).items():
        marks = re.compile(rf"(<!-- {name}.*?-->)(.*?)(?=<!-- /{name} -->)", re.S)
        text = marks.sub(lambda match, table=table: f"{match[1]}\n\n{table}\n\n", text)
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summary(dataset: str) -> str:
    """The text that a run ends with: the short table, and what to open."""
    run = Run(dataset)
    paths = run.paths
    leaderboard = run.read(paths.metrics / "leaderboard.json")
    where = {"report": paths.reports / "index.html", "notebooks": paths.outputs / "notebooks"}
    where |= {"leaderboard": paths.metrics / "leaderboard.json"}
    width = max(len(entry["name"]) for entry in leaderboard["models"])
    lines = [f"{'model':<{width}}  NDCG@10 (95% interval)  RMSE (95% interval)"]
    for entry in leaderboard["models"]:
        ndcg, rmse = (interval(entry["metrics"].get(name)) for name in ("ndcg@10", "rmse"))
        lines.append(f"{entry['name']:<{width}}  {ndcg:<23}  {rmse}")
    lines += ["", *(f"{name:<12} {shown(path)}" for name, path in where.items())]
    return "\n".join([*lines, f"{'demo':<12} {run.command('demo')}"])


def main() -> None:
    """Write the report of a run, show its summary, or put its leaderboard into the README."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.report", description=main.__doc__)
    parser.add_argument("what", choices=["write", "show", "readme"])
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    given = parser.parse_args()
    try:
        if given.what == "write":
            write_report(given.dataset)
            push(given.dataset)
        elif given.what == "readme":
            write_readme_tables(REPOSITORY / "README.md", Paths(given.dataset).reports / "report.md")
        else:
            print(summary(given.dataset))
    except StorageError as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main()
