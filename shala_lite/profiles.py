"""Profiles: the YAML files that give a chapter's parameters their values.

`book/profiles/<profile>/<chapter>.yaml` is what `papermill -f` reads as it is. Here its keys and
types are compared with the notebook's cell tagged `parameters`, whose literal values say which
parameters there are and of which type.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files


@dataclass(frozen=True)
class Parameter:
    """A notebook's parameter: its value in the `parameters` cell, and whether None may replace it.

    None may where the value is None or the cell annotates it so: `size: int | None = 500`.
    """

    value: Any
    optional: bool


def home(book: Path | None = None) -> Path:
    """Folder of the book: the given one, else that of the project; ValueError if there is none."""
    found = book or files.book()
    if found is None or not found.is_dir():
        raise ValueError(f"there is no book at {found or Path.cwd()}; run this inside a clone")
    return found


def chapters(book: Path | None = None) -> list[str]:
    """Names of the chapters, `NN_name`, in their order."""
    return sorted(path.stem for path in home(book).glob("[0-9][0-9]_*.ipynb"))


def profile_names(chapter: str, book: Path | None = None) -> list[str]:
    """Profiles that have a file for this chapter."""
    return sorted(p.parent.name for p in home(book).glob(f"profiles/*/{chapter}.yaml"))


def resolve(
    chapter: str,
    profile: str,
    overrides: Mapping[str, Any] | None = None,
    book: Path | None = None,
) -> dict[str, Any]:
    """Every parameter of a chapter: the profile's value, or the one in `overrides`.

    Raises ValueError for an unknown chapter or profile (it lists those there are), a parameter
    that is unknown or missing, and a value of the wrong type.
    """
    book = home(book)
    if chapter not in chapters(book):
        raise ValueError(f"there is no chapter {chapter!r} in {book}; {_choose(chapters(book))}")
    known = profile_names(chapter, book)
    if profile not in known:
        raise ValueError(f"{chapter} has no profile {profile!r}; {_choose(known)}")
    path = book / "profiles" / profile / f"{chapter}.yaml"
    parameters = notebook_parameters(book / f"{chapter}.ipynb")
    values = read_profile(path)
    check(values, parameters, str(path))
    if values.get("profile", profile) != profile:
        raise ValueError(f"{path} says profile: {values['profile']}; expected {profile}")
    merged = values | dict(overrides or {})
    check(merged, parameters, "-p")
    return merged


def read_profile(path: Path) -> dict[str, Any]:
    """Read a profile's file. Raises ValueError, naming it, if it holds no mapping of names."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} holds {values!r}; expected lines `name: value`")
    return values


def notebook_parameters(notebook: Path) -> dict[str, Parameter]:
    """Parameters of a notebook, from its one cell tagged `parameters`.

    Raises ValueError if there is not exactly one such cell, or if it holds anything but
    assignments of literal values to names.
    """
    cells = [
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text())["cells"]
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{notebook} has {len(cells)} cells tagged `parameters`; expected one")
    found: dict[str, Parameter] = {}
    for statement in ast.parse(cells[0]).body:
        text = ast.unparse(statement)
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=literal):
                annotation = ""
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as literal):
                annotation = ast.unparse(statement.annotation)
            case _:
                raise ValueError(f"{notebook}, parameters cell: {text!r} assigns no name")
        try:
            value = ast.literal_eval(literal)
        except ValueError as error:
            raise ValueError(f"{notebook}, parameters cell: {text!r} is no literal") from error
        found[name] = Parameter(value, value is None or "None" in annotation)
    return found


def check(values: Mapping[str, Any], parameters: Mapping[str, Parameter], where: str) -> None:
    """Raise ValueError unless `values` has each parameter, no other key, and the right types."""
    check_names(values, parameters, where)
    for name, value in values.items():
        expected = parameters[name]
        if not _fits(value, expected):
            kind = type(expected.value).__name__
            hint = ""
            if isinstance(value, str) and _is_number(value):
                hint = "; YAML reads a number as text unless it is written like 1.0e-3"
            raise ValueError(
                f"{where}: {name} is {value!r}, a {type(value).__name__}; expected {kind}{hint}"
            )


def check_names(values: Iterable[str], parameters: Iterable[str], where: str) -> None:
    """Raise ValueError, naming it, for a key that is no parameter or a parameter without a key."""
    given, known = set(values), set(parameters)
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, known, n=1)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{where}: unknown parameter {name!r}{guess}; {_choose(sorted(known))}")
    if missing := sorted(known - given):
        raise ValueError(f"{where}: missing {', '.join(missing)}; {_choose(sorted(known))}")


def parse_value(text: str) -> Any:
    """Value of `text` on the command line: a number as papermill reads it, else as YAML does.

    What YAML reads as something that JSON does not have, a date for one, stays text.
    """
    import yaml

    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, bool | list | dict) else text


def _fits(value: Any, expected: Parameter) -> bool:
    default = expected.value
    if value is None or default is None:
        return expected.optional
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, float | int)
    return isinstance(value, type(default))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _choose(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there are none"
