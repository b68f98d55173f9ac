"""Render the book from the copies of the chapters that were executed at the quick profile.

    python book/side_by_side.py
    python book/build.py

The pages' sources are assembled in `book/_build/src`: the Markdown pages, the executed copies, the
published images and MathJax. Jupyter Book renders them, without executing anything, to
`book/_build/html`. A warning is an error; so is a page over 5 MB, and one that would fetch
anything from elsewhere when it is opened.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shala_lite import profiles, publish, runs
from shala_lite.execute import cell_sources, finished, own_cells
from shala_lite.files import read_json

BOOK = Path(__file__).resolve().parent
PROFILE = "quick"
PAGE_BYTES = 5_000_000
# What tex-chtml.js may load; its other outputs and languages stay away.
MATHJAX = (
    "tex-chtml.js",
    "input/tex/extensions",
    "output/chtml",
    "ui",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)


class BuildError(Exception):
    """The book cannot be built; the message says why, in one line per reason."""


def executed(chapter: str, book: Path = BOOK) -> Path:
    """Folder of the run that holds the executed copy of `chapter` at the quick profile.

    Raises BuildError if it was never executed to its end, or has been edited since.
    """
    folder = runs.run_folder(chapter, profiles.resolve(chapter, PROFILE, book=book))
    command = f"python -m shala_lite run {chapter} --profile {PROFILE}"
    copy = folder / f"{chapter}.ipynb"
    if not finished(copy, folder):
        raise BuildError(f"{chapter} has not been executed at {PROFILE}; run: {command}")
    if cell_sources(copy) != cell_sources(book / f"{chapter}.ipynb"):
        raise BuildError(f"{chapter} was edited after it was executed; run: {command}")
    return folder


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; a vertical bar in a cell is escaped."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([str(v).replace("|", "\\|") for v in r] for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def commit_text(entry: dict[str, Any]) -> str:
    """Commit of a manifest in words, saying whether files differed from it."""
    commit = f"`{entry['commit'][:8]}`" if entry["commit"] else "not under git"
    return commit + (" with changes" if entry["dirty"] else "")


def chapter_table(folders: dict[str, Path]) -> str:
    """What each chapter's page was computed from; `folders` are their runs."""
    rows = []
    for chapter, folder in folders.items():
        known = read_json(folder / "manifest.json")
        rows.append(
            (
                f"[{chapter}]({chapter}.ipynb)",
                known["finished"][:16].replace("T", " "),
                f"{known['seconds']:.0f}",
                f"{known['dataset']}, {known['source']}, seed {known['seed']}",
                commit_text(known),
                ", ".join(f"{name} {known['versions'][name]}" for name in ("python", "torch")),
                known["device"],
            )
        )
    header = ["chapter", "run (UTC)", "seconds", "data", "commit", "versions", "device"]
    return table(header, rows) if rows else "There are no chapters yet."


def published_table(book: Path = BOOK) -> str:
    """Every folder of published results: seeds, when, and whether its code has changed since."""
    rows = []
    for result in publish.all_published(book):
        known, changed = result.manifest, publish.changed_code(result)
        modules = ", ".join(f"`{name.removeprefix('shala_lite.')}`" for name in changed)
        rows.append(
            (
                known["chapter"],
                f"{known['dataset']}, {known['source']}",
                known["profile"],
                ", ".join(str(seed) for seed in result.seeds),
                max(run["finished"] for run in known["runs"])[:10],
                "; ".join(dict.fromkeys(commit_text(run) for run in known["runs"])),
                "; ".join(dict.fromkeys(run["device"] for run in known["runs"])),
                modules or "no",
            )
        )
    header = "chapter|data|profile|seeds|last run|commit|device|changed since".split("|")
    return table(header, rows) if rows else "Nothing has been published yet."


def mathjax(target: Path) -> None:
    """Copy MathJax 3 from the package sphinx-mathjax-offline, whose name no import can spell."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None or not found.origin:
        raise BuildError("sphinx-mathjax-offline is not installed; run: pip install -e '.[book]'")
    source = Path(found.origin).parent / "static" / "mathjax"
    for name in MATHJAX:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copy(source / name, target / name)


def assemble(source: Path, book: Path = BOOK) -> None:
    """Write into the empty folder `source` everything that Jupyter Book reads."""
    folders, problems = {}, []
    for chapter in profiles.chapters(book):
        try:
            folders[chapter] = executed(chapter, book)
        except (BuildError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise BuildError("\n".join(problems))
    for path in (*book.glob("*.md"), *book.glob("*.yml"), *book.glob("*.bib")):
        shutil.copy(path, source / path.name)
    shutil.copytree(book / "_static", source / "_static")
    for chapter, folder in folders.items():
        page = json.loads((folder / f"{chapter}.ipynb").read_text())
        (source / f"{chapter}.ipynb").write_text(json.dumps(page | {"cells": own_cells(page)}))
    for path in (p for kind in ("*.png", "*.txt") for p in (book / "results").rglob(kind)):
        target = source / path.relative_to(book)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    status = source / "status.md"
    text = status.read_text()
    for name, content in (
        ("chapters", chapter_table(folders)),
        ("published", published_table(book)),
    ):
        text = text.replace(f"<!-- table: {name} -->", content)
    status.write_text(text)
    mathjax(source / "extra" / "_static" / "mathjax")


def render(source: Path, output: Path) -> Path:
    """Run Jupyter Book on `source`; the pages are in `output/_build/html`, which is returned."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(source)]
    command += ["--path-output", str(output), "--all", "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BuildError("jupyter-book failed; the warnings above say where")
    return output / "_build" / "html"


# What a browser fetches when it opens a page: attribute by tag, and relations of a link.
FETCHED = {"object": "data", "image": "href"} | dict.fromkeys(
    "script img iframe source video audio embed".split(), "src"
)
LINKS = {"stylesheet", "preload", "modulepreload", "icon", "preconnect", "dns-prefetch"}


class Resources(HTMLParser):
    """Addresses that a browser fetches when it opens a page, in `found`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)
        self.found += re.findall(r"(?:@import\s+|url\()\s*['\"]?(https?:[^'\")\s]+)", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and LINKS & set((values.get("rel") or "").split()):
            self.found.append(values.get("href") or "")
        if tag in FETCHED:
            self.found.append(values.get(FETCHED[tag]) or "")


def is_external(address: str) -> bool:
    """Whether an address names another host (`data:` and relative ones do not)."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def problems(html: Path) -> Iterator[str]:
    """One line for each page that is too large or would fetch something from elsewhere.

    A page's size is that of its HTML and of the images it shows.
    """
    for page in sorted(html.rglob("*.html")):
        if "_static" in page.relative_to(html).parts:
            continue
        found = set(Resources(page.read_text()).found)
        for address in sorted(filter(is_external, found)):
            yield f"{page.name} fetches {address}; a page brings what it needs with it"
        relative = (urlsplit(address) for address in found if not is_external(address))
        local = {page.parent / unquote(parts.path) for parts in relative if not parts.scheme}
        images = {p for p in local if p.is_file() and "_static" not in p.relative_to(html).parts}
        size = page.stat().st_size + sum(path.stat().st_size for path in images)
        if size > PAGE_BYTES:
            limit = PAGE_BYTES / 1e6
            yield f"{page.name} has {size / 1e6:.1f} MB with its images; at most {limit:.0f} MB"


def main() -> int:
    """Build the book and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    build = BOOK / "_build"
    source = build / "src"
    try:
        for folder in (source, build / "html"):
            shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        assemble(source)
        html = render(source, BOOK)
        if found := list(problems(html)):
            raise BuildError("\n".join(found))
    except BuildError as error:
        for line in str(error).splitlines():
            print(f"book: {line}", file=sys.stderr)
        return 1
    print(f"the book is at {html / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
