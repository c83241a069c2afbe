"""Old names for what :mod:`recsys_lib.run.run` does, until the application and the service stand on ``Run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys_lib.models.base import Recommender
from recsys_lib.paths import Paths
from recsys_lib.run.run import PARTS, MissingArtifactError, Run, Tables

__all__ = ["PARTS", "MissingArtifactError", "Prepared"]
Prepared = Tables


def require(path: Path) -> Path:
    """Return the path if it exists."""
    parts = path.parts
    place = next((i for i, part in enumerate(parts) if part in ("outputs", "reports", "processed")), -2)
    return Run(parts[place + 1]).need(path)


def read_prepared(paths: Paths, *, test: bool = False) -> Tables:
    """The tables of 02_preprocessing."""
    run = Run(paths.dataset)
    return run.tables_with_test("application") if test else run.tables


def write_prepared(paths: Paths, split: Any, items: Any, users: Any, *, more: dict | None = None, **given: Any) -> dict:
    """Write the tables of a split."""
    return Run(paths.dataset).write_tables(split, items, users, **given, **(more or {}))


def save_model(paths: Paths, name: str, model: Recommender, prepared: Tables, **facts: Any) -> Path:
    """Save a fitted model."""
    return model.save(paths.models / name, data={**prepared.identity, **facts})


def load_models(paths: Paths, names: list[str] | None = None) -> dict[str, Recommender]:
    """Load saved models by name."""
    models = Run(paths.dataset).models
    if not len(models) and names is None:
        raise MissingArtifactError(f"no model of {paths.name} is there: `{Run(paths.dataset).command()}` makes them")
    return {name: models[name] for name in names or models}


def model_facts(paths: Paths, name: str) -> dict[str, Any]:
    """What ``config.json`` says of a saved model."""
    return Run(paths.dataset).model_config(name)
