"""Parameters of the notebooks: defaults in the cell tagged ``parameters``, tuned values in ``notebooks/params``.

A file in ``notebooks/params`` has one section a notebook, and ``common`` for what several notebooks have::

    common: {relevant_from: 3.5}
    04_als: {factors: 32}

What its file does not say of a data set is the default, or what suits its size and form: see ``sizing.py``.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from recsys_lib.data.known import is_there, nothing_called
from recsys_lib.data.s3 import listed
from recsys_lib.files import read_json, replacing
from recsys_lib.paths import REPOSITORY, Paths, in_full, is_remote
from recsys_lib.run.remote import push
from recsys_lib.run.sizing import sized_for
from recsys_lib.run.steps import STEPS, engine_asked, gone

COMMON = "common"
NOTEBOOKS = REPOSITORY / "notebooks"
TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}


class ParameterError(ValueError):
    """A parameter that no notebook has, or of a type that it cannot be; one sentence says what would be right."""


def defaults(notebook: Path) -> dict[str, tuple[str, Any]]:
    """Type and default of each parameter, by name, from the cell tagged ``parameters``.

    >>> defaults(NOTEBOOKS / "03_popularity.ipynb")["dataset"]
    ('str', 'ml-100k')
    """
    cells = [cell for cell in read_json(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    tree = ast.parse("".join("".join(cell["source"]) + "\n" for cell in cells))
    return {
        node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }


def read_file(file: Path | str) -> dict[str, dict[str, Any]]:
    """Sections of a parameter file, checked against all notebooks.

    FileNotFoundError if there is no such file; ParameterError if it does not map sections to mappings, a section
    has no notebook, a name is unknown or a value has another type than the parameter.
    """
    import yaml  # which sessions of the application do without

    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no parameter file {file}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ParameterError(f"{file}{line}: this is not YAML") from error
    if not isinstance(content, dict) or not all(isinstance(part or {}, dict) for part in content.values()):
        raise ParameterError(f"{file} must map 'common' or a notebook's name, such as '04_als', to its parameters")
    sections = {str(name): dict(part or {}) for name, part in content.items()}
    known = {path.stem: defaults(path) for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in str(path)}
    for name, part in sections.items():
        if name != COMMON and name not in known:
            raise ParameterError(f"{file} has a section {name!r}, but no notebook is called {name}.ipynb")
        for key, value in part.items():
            places = known if name == COMMON else {name: known[name]}
            has = [parameters[key] for parameters in places.values() if key in parameters]
            if not has:
                of = "no notebook has" if name == COMMON else f"{name}.ipynb has no"
                names = "" if name == COMMON else f"; it has: {', '.join(known[name])}"
                raise ParameterError(f"{file} gives {key!r} under {name!r}, but {of} parameter {key!r}{names}")
            check_type(f"{file}: {name}, {key}", has[0][0], value)
            if key == "reading":
                _check_reading(f"{file}: {name}, {key}", value)
    return sections


def _check_reading(what: str, given: dict[str, Any]) -> None:
    from recsys_lib.data.load import check_reading  # whose packages take a second, for this alone

    try:
        check_reading(given)
    except ValueError as error:
        raise ParameterError(f"{what}: {error}") from error


def check_type(what: str, annotation: str, value: Any) -> None:
    """Refuse a value of another type than the parameter's with a ParameterError."""
    yes_or_no = isinstance(value, bool) and annotation in ("int", "float")
    if yes_or_no or not isinstance(value, TYPES.get(annotation, object)):
        raise ParameterError(f"{what} is {value!r}, not of type {annotation}")


def parameters_for(notebook: Path, file: Path | str | None) -> dict[str, Any]:
    """Parameters that a file gives a notebook: those of its section, over those of ``common`` that it has."""
    if file is None:
        return {}
    sections, known = read_file(file), defaults(notebook)
    common = {name: value for name, value in sections.get(COMMON, {}).items() if name in known}
    return {**common, **sections.get(notebook.stem, {})}


def file_of(dataset: str) -> Path | None:
    """The parameter file of a data set, ``notebooks/params/<dataset>.yaml``, where there is one."""
    file = NOTEBOOKS / "params" / f"{Paths(dataset).name}.yaml"
    return file if file.is_file() else None


def chosen_for(dataset: str, notebook: Path, file: Path | None = None) -> dict[str, Any]:
    """Parameters of a notebook by a file; where none is given by the data set's own, over those by its size."""
    if file:
        return engine_for(notebook) | parameters_for(notebook, file)
    changes = sized_for(dataset).get(notebook.stem, {})
    known = defaults(notebook) if changes else {}
    sized = {name: known[name][1] | new if isinstance(new, dict) else new for name, new in changes.items()}
    return {**sized, **engine_for(notebook), **parameters_for(notebook, file_of(dataset))}


def engine_for(notebook: Path) -> dict[str, str]:
    """The parameter ``engine`` of a notebook that has a choice, where ``ENGINE`` asks for another than its own."""
    engine = engine_asked()
    own = defaults(notebook).get("engine", ("str", engine))[1]
    return {} if engine == own else {"engine": engine}


def tuned(dataset: str, notebook: str, given: Mapping[str, Any]) -> SimpleNamespace:
    """The work of :meth:`recsys_lib.run.run.Run.parameters`; a value that differs from the cell's default stands."""
    path = next(NOTEBOOKS.rglob(f"{notebook}.ipynb"))
    known, chosen = defaults(path), chosen_for(dataset, path)
    values = {}
    for name, (annotation, default) in known.items():
        value = given.get(name, default)
        check_type(f"{notebook}: {name}", annotation, value)
        values[name] = chosen.get(name, value) if value == default else value
    return SimpleNamespace(**values)


def check_dataset(dataset: str) -> None:
    """Refuse what is neither the name of a known data set nor a path: ParameterError with the nearest name.

    StorageError if there is nothing at an s3:// address.
    """
    if not (is_remote(dataset) and listed(dataset)) and not is_there(dataset):
        raise ParameterError(nothing_called(dataset))


def write_stamps(dataset: str, file: Path | None) -> None:
    """Keep each step's parameters in a file of its own, touched only when they change.

    Make compares their times, so that a changed section re-runs its own notebook and what comes after it. An executed
    notebook is removed where something that it made is gone, so that Make runs it again.
    """
    folder = Paths(dataset).outputs / "params"
    sections = read_file(file) if file else {}
    table = Path(in_full(dataset))
    about: Any = [table.stat().st_size, table.stat().st_mtime_ns] if table.is_file() else None  # to see a change
    about = listed(dataset) if is_remote(dataset) else about
    _write(Paths(dataset).given_params, str(file) if file and file != file_of(dataset) else "")
    for step in STEPS:
        given = {"dataset": dataset, "file": about, **engine_for(NOTEBOOKS / f"{step.name}.ipynb")}
        given |= {**sections.get(COMMON, {}), **sections.get(step.name, {})}
        _write(folder / f"{step.name}.json", json.dumps(given, indent=2, sort_keys=True, default=str) + "\n")
        if gone(step, dataset):
            (Paths(dataset).outputs / "notebooks" / f"{step.name}.ipynb").unlink(missing_ok=True)


def _write(file: Path, text: str) -> None:
    """Write a text where another one, or none, stands."""
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> int:
    """Check the data set's name and a parameter file, and write the stamps that Make compares."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.run.parameters", description=main.__doc__)
    parser.add_argument("dataset")
    parser.add_argument("file", nargs="?", default="", help="none: that of the data set, where there is one")
    given = parser.parse_args()
    try:
        check_dataset(given.dataset)
        push(given.dataset)  # after a pull: what could not be pushed before is not left behind
        write_stamps(given.dataset, Path(given.file) if given.file else file_of(given.dataset))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
