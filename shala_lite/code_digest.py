"""A hash of the code that made something, so that a result made by other code is known.

The digest of a module is the sha256 of its syntax tree without docstrings. Comments, docstrings
and formatting do not change it; anything that can change what the code does, does. What a module
imports from this package counts too, however far down.

Two things are left out on purpose. A package's `__init__` counts only where something is imported
from it, for it merely re-exports. And the modules in `BOOKKEEPING` move results about or draw
them: no number depends on them.

Sources are read once, when this module is imported: what is hashed is the code that this process
loaded, also when a file is edited while it runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from .files import text_sha256

PACKAGE = Path(__file__).resolve().parent
BOOKKEEPING = frozenset(
    {
        "__main__",
        "artifacts",
        "code_digest",
        "execute",
        "files",
        "machine",
        "plotting",
        "profiles",
        "publish",
        "runs",
    }
)
_LOADED = {path: path.read_bytes() for path in PACKAGE.rglob("*.py")}


def module_digests(sources: Iterable[str], package: Path | None = None) -> dict[str, str]:
    """Digest of each module in `sources` and of each one that these import, however far down.

    sources: module names, with or without the package in front: "shala_lite.vae" or "vae".
    package: folder of the package, this one unless told.
    Raises ValueError for a name that is no module of the package.
    """
    package = package or PACKAGE
    names = [s if s.split(".")[0] == package.name else f"{package.name}.{s}" for s in sources]
    for name in names:
        if _locate(name, package) is None:
            known = ", ".join(sorted(path.stem for path in package.glob("*.py")))
            raise ValueError(f"sources names {name!r}, no module of {package}; there are {known}")
    digests: dict[str, str] = {}
    while names:
        name = names.pop()
        path = _locate(name, package)
        if name in digests or path is None:
            continue
        digests[name], imported = _parse(path, _read(path), name, package)
        names += [found for found in imported if not _is_bookkeeping(found)]
    return dict(sorted(digests.items()))


def own_digests(names: Iterable[str]) -> dict[str, str]:
    """Digest of each module by itself, without what it imports; names without the package's."""
    found = {f"{PACKAGE.name}.{name}": module_digest(f"{PACKAGE.name}.{name}") for name in names}
    if missing := [name for name, digest in found.items() if digest is None]:
        raise ValueError(f"names: {missing}, no modules of {PACKAGE}")
    return {name: digest for name, digest in found.items() if digest is not None}


def module_digest(name: str, package: Path | None = None) -> str | None:
    """Digest of one module by itself; None if there is no such module."""
    package = package or PACKAGE
    path = _locate(name, package)
    return _parse(path, _read(path), name, package)[0] if path else None


def loaded_modules() -> list[str]:
    """Names of this package's modules that the process has loaded, bookkeeping apart."""
    inside = (name for name in list(sys.modules) if name.startswith(PACKAGE.name + "."))
    return sorted(name for name in inside if not _is_bookkeeping(name))


def _is_bookkeeping(name: str) -> bool:
    return name.partition(".")[2] in BOOKKEEPING


def _locate(name: str, package: Path) -> Path | None:
    stem = package.joinpath(*name.split(".")[1:])
    if name != package.name and stem.with_suffix(".py").is_file():
        return stem.with_suffix(".py")
    return stem / "__init__.py" if (stem / "__init__.py").is_file() else None


def _read(path: Path) -> bytes:
    return _LOADED[path] if path in _LOADED else path.read_bytes()


@cache
def _parse(path: Path, source: bytes, name: str, package: Path) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(source, filename=str(path))
    imported = tuple(dict.fromkeys(_imports(tree, name, path, package)))
    return text_sha256(_dump(_without_docstrings(tree))), imported


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _dump(node: object) -> str:
    """Like `ast.dump`, with absent fields left out, so that Python versions agree."""
    if isinstance(node, ast.AST):
        fields = (
            (name, value)
            for name, value in ast.iter_fields(node)
            if value not in (None, []) or isinstance(node, ast.Constant)
        )
        inner = ", ".join(f"{name}={_dump(value)}" for name, value in fields if name != "kind")
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ", ".join(map(_dump, node)) + "]"
    return repr(node)


def _imports(tree: ast.Module, name: str, path: Path, package: Path) -> Iterator[str]:
    """Modules of this package that the tree imports, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                up = node.level - (path.name == "__init__.py")
                base = ".".join([*parts[: len(parts) - up], *base.split(".")]).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
            inside = base.split(".")[0] == package.name
            candidates = [n if inside and _locate(n, package) else base for n in names]
        else:
            continue
        yield from (n for n in candidates if n.split(".")[0] == package.name)
