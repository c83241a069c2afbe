"""The report: pictures inside, tables computed, hostile titles harmless."""

import base64
import json
import re
import subprocess

import pytest

from recsys_lib.files import write_json
from recsys_lib.paths import REPOSITORY, Paths
from recsys_lib.run import report
from recsys_lib.run.run import MissingArtifactError

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def metric(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n_users": 200}


def ratio_of(value: float | None) -> dict:
    return {"ratio": value, "ratio_low": value and value - 0.1, "ratio_high": value and value + 0.1}


def visit(model: str, mean: float, ratio: float | None) -> dict:
    ends = {"ndcg@10": mean, "ndcg@10_low": mean - 0.01, "ndcg@10_high": mean + 0.01, "n_users": 150}
    return {"visit": "an hour later", "model": model, **ends, **ratio_of(ratio), "distinct": False}


@pytest.fixture
def run(lab_home) -> Paths:
    """The files that the notebooks leave, at their smallest."""
    paths = Paths("ml-100k")
    leaderboard = {
        "protocol": {
            "split": {"name": "temporal_user", "params": {}},
            "users_kept": 200,
            "users_in_test": 210,
            "relevant_from": 4.0,
            "catalogue": 1500,
            "relevant_outside_catalogue": 0.004,
            "ties": "lower item code first",
        },
        "data": {"name": "ml-100k", "sha256": "0" * 64},
        "models": [
            {"name": "strong", "params": {}, "metrics": {"ndcg@10": metric(0.2)}, "fit_seconds": 1.0},
            {"name": "weak", "params": {}, "metrics": {"ndcg@10": metric(0.1)}, "fit_seconds": 0.1},
            {"name": "stars", "params": {}, "metrics": {"rmse": metric(0.93)}, "fit_seconds": 5.0},
        ],
    }
    write_json(paths.metrics / "leaderboard.json", leaderboard)
    contents = {
        "exploration": {
            "data": {"name": "ml-100k", "sha256": "0" * 64},
            "size": {"interactions": 100_000, "users": 943, "items": 1682, "density": 0.063},
        },
        "preprocessing": {
            "parts": [{"rows": 70_000}, {"rows": 10_000}, {"rows": 20_000}],
            "checks": [{"check": "order", "passed": True, "detail": "0 rows"}],
        },
        "training": {},
        "evaluation": {
            "conclusion": "strong is ahead of weak.",
            "protocol": {"relevant_from": 4.0},
            "leaderboard": [{"model": "strong"}, {"model": "weak"}],
            "baselines": [{"model": "strong", "baseline": "weak", **ratio_of(2.0), "distinct": True}],
            "return_visits": [visit("weak", 0.2, None), visit("strong", 0.1, 0.5)],
            "return_visits_baseline": "weak",
        },
        "recommendation": {
            "model": "strong",
            "users_served": 943,
            "items_listed": 300,
            "lists": [{"user_id": 7, "title": "<script>alert(1)</script>", "rank": 1, "score": 1.0}],
            "new_user": {
                "liked": {"![x](http://x.org/a.png)": 5},
                "list": [{"title": "a | b\n\n# [M*A*S*H](http://y) &#60;b> & co"}],
            },
        },
    }
    for name, content in contents.items():
        write_json(paths.reports / f"{name}_report.json", content)
    paths.figures.mkdir(parents=True)
    (paths.figures / "evaluation_leaderboard.png").write_bytes(PIXEL)
    return paths


def test_the_page_holds_its_pictures_and_asks_no_other_machine(run):
    page = report.write_report("ml-100k").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert any(source.startswith("data:image/png;base64,") for source in sources)
    assert not [source for source in sources if source.startswith("http") and "doi.org" not in source]
    assert "<link" not in page and "@import" not in page


def test_it_opens_with_what_was_found(run):
    text = report.write_report("ml-100k").with_name("report.md").read_text(encoding="utf-8")
    found = [line.removeprefix("> ") for line in text.splitlines() if line.startswith("> ")]
    assert found == [
        "**What a user rates highly next:** strong is ahead of weak; its mean is 2.00 times that of `weak` "
        "(1.90–2.10).",
        "**What to show a user who comes back an hour later** (150 users): `weak` has the highest NDCG@10, 0.200 "
        "(0.190–0.210); `strong` has 0.50 times that of `weak` (0.40–0.60; Holm-corrected, no difference).",
        "**So `strong` is the model that serves.**",
    ]


def test_links_of_the_contents_find_their_headings(run):
    page = report.write_report("ml-100k").read_text(encoding="utf-8")
    wanted = re.findall(r'href="#([^"]+)"', page)
    assert len(wanted) > 3 and wanted == re.findall(r'<h2 id="([^"]+)"', page)


def test_tables_that_scroll_can_be_reached_by_the_keyboard(run):
    page = report.write_report("ml-100k").read_text(encoding="utf-8")
    assert page.count('<table tabindex="0">') == page.count("<table") > 0
    assert "<th></th>" not in page


def test_models_stand_in_the_order_of_the_leaderboard(run):
    text = report.write_report("ml-100k").with_name("report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (weak|strong|stars) \|.*$", text, re.M)
    assert rows[:3] == ["strong", "weak", "stars"]
    assert "| strong | 0.200 (0.190–0.210) |" in text


def studies(sha256: str) -> dict[str, dict]:
    """What the studies that a report takes up leave, at their smallest."""
    times = {"reranker": {"ratio": 1.2, "low": 1.1, "high": 1.3}}
    row = {"model": "reranker", "ndcg@10": 0.4, "ndcg@10_low": 0.39, "ndcg@10_high": 0.41}
    random = {"board": [row], "ratios": {"als": times, "popularity": times}}
    random["other_seeds"] = [{"seed": 1, "over": "als", "ratio": 1.15, "low": 1.1, "high": 1.2}]
    pooled = {**metric(0.3), "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1, "p_holm": None}
    data = {"name": "ml-100k", "sha256": sha256}
    errors = {"rmse_u1": 0.9, "rmse": 0.88, "mae": 0.7}
    ends = {f"{name}_low": value - 0.01 for name, value in errors.items()}
    ends |= {f"{name}_high": value + 0.01 for name, value in errors.items()}
    rated = [{"model": "hybrid", **errors, **ends, "p_shrunk biases": 0.01}]
    published = [{"name": "somebody", "rmse": 0.887, "fold": "u1", "saw": "no times"}]
    canonical = {"boards": {"no times": rated}, "seen": {"no times": "nothing"}, "published": published}
    sampled = {"catalogue": 9, "k": 10, "whole": {"als": 0.2}, "sampled": {"99": {"als": 0.7}}}
    return {
        "other_splits": {"data": data, "trials": 30, "random": random, "rolling": {"pooled": {"als": pooled}}},
        "canonical": {"data": data, **canonical, "folds": {"u1": {}}},
        "sampled_metrics": {"data": data, **sampled},
        "cold_start": {"data": data, "films_needed": {"als": 3.0}},
    }


def test_studies_are_reported_where_they_were_made_from_this_data(run):
    for sha256, shown in (("1" * 64, False), ("0" * 64, True)):
        for name, content in studies(sha256).items():
            write_json(run.reports / "studies" / f"{name}.json", content)
        text = report.write_report("ml-100k").with_name("report.md").read_text(encoding="utf-8")
        row = "| hybrid | 0.900 (0.890–0.910) | 0.880 (0.870–0.890) | 0.700 (0.690–0.710) | 0.0100 | – |"
        assert (row in text) is shown
        assert ("| als | 0.200 | 0.700 |" in text) is shown
        assert ("above zero: als 3." in text) is shown
        assert ("| reranker | 0.400 (0.390–0.410) | 1.200 (1.100–1.300) | 1.200 (1.100–1.300) |" in text) is shown
        assert ("the re-ranker has 1.150 (1.100–1.200) times the NDCG@10 of ALS." in text) is shown
        assert ("| als | 0.300 (0.290–0.310) | 1.000 (0.900–1.100) | – |" in text) is shown


def test_titles_are_data_not_html(run):
    page = report.write_report("ml-100k").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "![x](http://x.org/a.png) gets: a | b # [M*A*S*H](http://y) &amp;#60;b&gt; &amp; co" in page, "as it stands"


def test_the_terminal_gets_a_short_table_and_what_to_open(run):
    shown = report.summary("ml-100k")
    assert shown.splitlines()[1].startswith("strong  0.200 (0.190–0.210)")
    assert "reports/ml-100k/index.html" in shown and "make demo" in shown


def test_a_missing_report_names_its_step(run):
    (run.reports / "evaluation_report.json").unlink()
    with pytest.raises(MissingArtifactError, match="`make 07` makes it"):
        report.write_report("ml-100k")


def test_the_readme_shows_the_committed_report():
    """`make readme` keeps them alike. A run on this machine may have written a report with other seconds since."""
    command = ["git", "show", "HEAD:reports/ml-100k/report.md"]
    committed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    if committed.returncode:
        pytest.skip("not a git checkout: nothing is committed")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert all(table in readme for table in report.first_tables(committed.stdout.decode("utf-8")).values())


def test_the_table_between_the_marks_of_a_readme_is_replaced(run, tmp_path):
    report.write_report("ml-100k")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: a mark -->\nold\n<!-- /results -->\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.write_readme_tables(readme, run.reports / "report.md")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- results: a mark -->\n\n| model |") and text.endswith(
        "<!-- /results -->\nafter\n"
    )
    assert "old" not in text and text.count("| strong |") == 1


def test_the_report_counts_the_readings_of_the_test_part(run):
    entries = [
        {"at": "2026-01-02T00:00:00+00:00", "reader": reader} for reader in ("07_evaluation", "splits", "splits")
    ]
    (run.outputs / "test_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    report.write_report("ml-100k")
    text = (run.reports / "report.md").read_text(encoding="utf-8")
    assert "read 3 times here\nsince 2026-01-02 (07_evaluation 1, splits 2)" in text
    assert "| blend | itself 0, its members 30 each" in text


def test_the_report_shows_how_stages_and_runs_grow(run):
    stages = [{"stage": "ALS: fit", "cpu_s": [2.0, 30.0], "peak_gib": [0.3, 1.2], "slope": 1.18}]
    steps = [{"step": "00_environment", "cpu_seconds": 30.0, "peak_gib": 0.5}]
    steps += [{"step": "02_preprocessing", "cpu_seconds": 90.0, "peak_gib": 2.5}]
    whole = {"dataset": "made", "rows": 1_000_000, "users": 7_000, "items": 3_700, "steps": steps}
    content = {"rows": [1_000_000, 10_000_000], "stages": stages, "runs": [whole]}
    write_json(run.reports.parent / "scale.json", content)
    report.write_report("ml-100k")
    text = (run.reports / "report.md").read_text(encoding="utf-8")
    assert "| ALS: fit | 2.00 | 30.00 | 1.18 | 1.20 |" in text
    assert "| 1,000,000 rows, 7,000 users, 3,700 films | 0.5 | 1.5 | **2** | **2.5** |" in text
