"""The book: pages, chapters and profiles in step, chapters as they should be, and its builder."""

import ast
import importlib.util
import json
import re
import symtable
from pathlib import Path

import nbformat
import notebooks
import pytest
import yaml

from shala_lite import profiles, publish, runs

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK = REPOSITORY / "book"
CHAPTERS = profiles.chapters(BOOK)
PROFILES = {"smoke", "quick", "laptop", "full"}


@pytest.fixture(scope="session")
def build():
    """The module book/build.py."""
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(chapter):
    return nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code_lines(source):
    """Lines with a word of code: no blank lines, no comments, no brackets that only close."""
    lines = (line.strip() for line in source.splitlines())
    return [line for line in lines if re.search(r"\w", line) and not line.startswith("#")]


def toc_files():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


# Pages, chapters, profiles


def test_the_contents_list_every_page_once_and_chapters_in_order():
    files = toc_files()
    assert sorted(files) == sorted([*CHAPTERS, *(path.stem for path in BOOK.glob("*.md"))])
    assert [name for name in files if name in CHAPTERS] == CHAPTERS
    assert CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_profile_has_exactly_the_parameters_of_its_notebook(chapter):
    assert set(profiles.profile_names(chapter, BOOK)) == PROFILES
    for profile in PROFILES:
        assert profiles.resolve(chapter, profile, book=BOOK)["profile"] == profile


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_parameters_cell_holds_the_quick_profile(chapter):
    cell = {k: p.value for k, p in profiles.notebook_parameters(BOOK / f"{chapter}.ipynb").items()}
    assert cell == profiles.read_profile(BOOK / "profiles" / "quick" / f"{chapter}.yaml")
    assert {"profile", "dataset", "source", "root", "seed"} <= set(cell)


def test_no_profile_is_left_of_a_chapter_that_is_gone():
    assert {path.stem for path in BOOK.glob("profiles/*/*")} == set(CHAPTERS)
    assert {path.parent.name for path in BOOK.glob("profiles/*/*")} == PROFILES


# A chapter


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_stripped(chapter):
    ids = [cell["id"] for cell in json.loads((BOOK / f"{chapter}.ipynb").read_text())["cells"]]
    assert len(set(ids)) == len(ids)
    for number, cell in enumerate(notebook(chapter).cells):
        if cell.cell_type == "code":
            assert not cell.outputs, f"cell {number} has outputs"
            assert cell.execution_count is None, f"cell {number} has an execution count"
            assert not {"execution", "papermill"} & set(cell.metadata), f"cell {number}"
    assert "papermill" not in notebook(chapter).metadata


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_the_sizes_of_one(chapter):
    cells = notebook(chapter).cells
    assert 15 <= len(cells) <= 32
    # the parameters are a list of sizes, which nobody reads line by line
    sizes = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    code = [cell.source for cell in cells if cell.cell_type == "code" and cell not in sizes]
    assert sum(len(code_lines(source)) for source in code) <= 200
    for number, cell in enumerate(cells):
        most = 40 if cell in sizes else 30
        assert len(cell.source.splitlines()) <= most, f"cell {number}"
        assert cell.source.strip(), f"cell {number} is empty"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_run_starts_right_after_the_parameters(chapter):
    code = [cell for cell in notebook(chapter).cells if cell.cell_type == "code"]
    (at,) = (number for number, cell in enumerate(code) if "parameters" in tags(cell))
    after = code[at + 1].source
    assert re.search(rf"runs\.start\(\s*\"{chapter}\",\s*globals\(\)", after)
    # Every plain global counts as a parameter: none may be assigned before.
    for cell in code[:at]:
        assigned = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assign)]
        assert not assigned


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_the_parts_of_one(chapter):
    cells = notebook(chapter).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert cells[0].source.startswith("# ")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1
    headings = " ".join(re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)).lower()
    for part in ("from scratch", "does not show", "exercises", "full scale"):
        assert part in headings, f"no heading says {part!r}"
    folded = [cell for cell in cells if cell.cell_type == "code" and "hide-cell" in tags(cell)]
    assert len(folded) >= 2, "exercises have folded solutions that run: tag them hide-cell"


def globals_of(source):
    """Names that a cell reads before or after it sets them, and names that it sets."""
    top = symtable.symtable(source, "cell", "exec")
    read, todo = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, [top]
    while todo:
        todo += (children := todo.pop().get_children())
        read |= {s.get_name() for inner in children for s in inner.get_symbols() if s.is_global()}
    return read, {s.get_name() for s in top.get_symbols() if s.is_assigned()}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_cell_reads_what_a_solution_has_overwritten(chapter):
    known, lost = set(), set()
    for number, cell in enumerate(notebook(chapter).cells):
        if cell.cell_type == "code":
            read, stored = globals_of(cell.source)
            if "hide-cell" in tags(cell):
                lost |= stored & known
            else:
                assert not (read - stored) & lost, f"cell {number} reads what a solution left"
                lost -= stored
            known |= stored


def test_what_a_cell_reads_is_known_with_its_functions():
    read, stored = globals_of("x = y\ndef f(a):\n    return [a + b for c in d]\nfor k in m: pass")
    assert {"y", "b", "d", "m"} <= read
    assert not {"a", "c", "k"} & read
    assert stored == {"x", "f", "k"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_results_are_saved_as_soon_as_there_are_all(chapter):
    # exercises may take as long as the chapter: stopped there, a run can still be published
    code = [cell.source for cell in notebook(chapter).cells if cell.cell_type == "code"]
    noted = [k for k, source in enumerate(code) if re.search(r"run\.(record|save_|stage)", source)]
    last = code[noted[-1]]
    before, _, after = last.partition("\nrun.finish()\n")
    assert after, f"the last cell that records something does not finish the run:\n{last}"
    assert "run." in before
    assert not re.search(r"run\.(record|save_|stage)", after)


@pytest.mark.parametrize("path", [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")], ids=lambda p: p.name)
def test_pictures_in_the_text_have_alternative_texts(path):
    if path.suffix == ".ipynb":
        text = "\n".join(c.source for c in notebook(path.stem).cells if c.cell_type == "markdown")
    else:
        text = path.read_text()
    assert "![](" not in text
    for figure in re.findall(r"```\{(?:figure|image)\}.*?```", text, flags=re.DOTALL):
        assert re.search(r"^:alt: \S", figure, flags=re.MULTILINE), figure
    for image in re.findall(r"<img[^>]*>", text):
        assert re.search(r'\balt="[^"]+"', image), image
    for drawing in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert 'role="img"' in drawing
        assert re.search(r"<title[^>]*>[^<]+</title>", drawing)
        assert re.search(r"<desc[^>]*>[^<]+</desc>", drawing)


# The builder, on a book of one chapter


@pytest.fixture
def small(tmp_path, monkeypatch, build):
    """A book with one chapter, without a run."""
    book = tmp_path / "book"
    (book / "profiles" / "quick").mkdir(parents=True)
    (book / "_static").mkdir()
    (book / "_static" / "book.css").write_text("p {}")
    (book / "status.md").write_text(
        "# Status\n\n<!-- table: chapters -->\n\n<!-- table: published -->\n"
    )
    values = {"profile": "quick", "dataset": "d", "source": "embedded", "root": None, "seed": 0}
    (book / "profiles" / "quick" / "01_small.yaml").write_text(yaml.safe_dump(values))
    (book / "01_small.ipynb").write_text(nbformat.writes(cells_of(values)))
    monkeypatch.chdir(tmp_path)
    return book


def cells_of(values, *more):
    new = nbformat.v4
    parameters = new.new_code_cell("\n".join(f"{k} = {v!r}" for k, v in values.items()))
    parameters.metadata["tags"] = ["parameters"]
    return new.new_notebook(cells=[new.new_markdown_cell("# A | B"), parameters, *more])


def execute(book, *, finish=True):
    """Do what running the chapter does, as far as the builder sees it."""
    values = profiles.resolve("01_small", "quick", book=book)
    run = runs.Run("01_small", values, {"nfe": None})
    run.record("prior", "nfe", 8)
    if finish:
        run.finish()
    injected = nbformat.v4.new_code_cell("seed = 0")
    injected.metadata["tags"] = ["injected-parameters"]
    own = {k: p.value for k, p in profiles.notebook_parameters(book / "01_small.ipynb").items()}
    nbformat.write(cells_of(own, injected), run.folder / "01_small.ipynb")
    return run.folder


def test_a_chapter_that_was_not_executed_is_an_error_that_names_it(small, tmp_path, build):
    source = tmp_path / "src"
    source.mkdir()
    with pytest.raises(build.BuildError, match=r"01_small has not been executed.*run 01_small"):
        build.assemble(source, small)
    execute(small, finish=False)
    with pytest.raises(build.BuildError, match="01_small has not been executed"):
        build.assemble(source, small)


def test_a_chapter_whose_last_run_failed_is_an_error_that_names_it(small, build):
    folder = execute(small)
    assert build.executed("01_small", small) == folder
    (folder / "01_small.failed.ipynb").write_text("{}")
    with pytest.raises(build.BuildError, match="01_small has not been executed"):
        build.executed("01_small", small)


def test_a_chapter_edited_after_its_run_is_an_error_that_names_it(small, build):
    execute(small)
    path = small / "01_small.ipynb"
    edited = nbformat.read(path, as_version=4)
    edited.cells[0].source = "# Another title"
    nbformat.write(edited, path)
    with pytest.raises(build.BuildError, match="01_small was edited"):
        build.executed("01_small", small)


def test_the_pages_come_from_the_executed_copy_and_say_what_made_them(small, tmp_path, build):
    folder = execute(small)
    image = small / "results" / "01_small" / "d-real-full" / "samples.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"png")
    source = tmp_path / "src"
    source.mkdir()
    build.assemble(source, small)
    page, copy = (nbformat.read(f / "01_small.ipynb", as_version=4) for f in (source, folder))
    # What papermill injects at this profile repeats the chapter's own parameters.
    assert page.cells == [cell for cell in copy.cells if "injected-parameters" not in tags(cell)]
    assert len(page.cells) == len(copy.cells) - 1
    assert (source / image.relative_to(small)).read_bytes() == b"png"
    assert (source / "_static" / "book.css").exists()
    # MathJax goes where Jupyter Book does not look for scripts.
    assert (source / "extra" / "_static" / "mathjax" / "tex-chtml.js").exists()
    assert not list((source / "_static").rglob("*.js"))
    status = (source / "status.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    row = next(line for line in status.splitlines() if "01_small" in line)
    assert manifest["device"] in row
    assert manifest["finished"][:10] in row
    assert manifest["versions"]["torch"] in row
    assert (manifest["commit"] or "not under git")[:8] in row
    assert "Nothing has been published yet." in status


def test_published_results_say_their_seeds_and_what_changed_since(small, build, monkeypatch):
    publish.publish(execute(small), small)
    row = build.published_table(small).splitlines()[-1]
    assert row.startswith("| 01_small | d, embedded | quick | 0 | ")
    assert row.endswith("| no |")
    monkeypatch.setattr(publish, "changed_code", lambda results: ["shala_lite.vae"])
    assert build.published_table(small).endswith("| `vae` |")


def test_a_table_escapes_what_would_end_a_cell(build):
    text = build.table(["a", "b"], [["x|y", 1]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | 1 |"]


FETCHING = [
    '<script src="https://cdn.example/x.js"></script>',
    "<script src='//cdn.example/x.js'></script>",
    '<link rel="stylesheet" href="https://fonts.example/x.css">',
    '<link rel="preconnect" href="https://fonts.example">',
    '<img alt="" src="http://example.org/x.png">',
    '<iframe src="https://example.org"></iframe>',
    "<style>@import 'https://fonts.example/x.css';</style>",
    "<style>p {background: url(https://example.org/x.png)}</style>",
    '<svg><image href="https://example.org/x.png"/></svg>',
]


@pytest.mark.parametrize("text", FETCHING)
def test_a_page_that_fetches_something_is_found(text, tmp_path, build):
    (tmp_path / "page.html").write_text(f"<html><body>{text}</body></html>")
    (problem,) = build.problems(tmp_path)
    assert problem.startswith("page.html fetches ")
    assert "//" in problem


def test_a_page_that_only_links_elsewhere_is_none(tmp_path, build):
    (tmp_path / "page.html").write_text(
        f'<a href="https://arxiv.org">x</a><img alt="x" src="data:image/png;base64,{"A" * 9000}">'
        '<script src="_static/x.js"></script><link rel="stylesheet" href="_static/x.css">'
        '<link rel="canonical" href="https://example.org/page.html"><p>https://example.org</p>'
    )
    assert list(build.problems(tmp_path)) == []


def test_a_page_is_weighed_with_its_images(tmp_path, build):
    (tmp_path / "page.html").write_text('<img alt="x" src="_images/a%20b.png?v=1">' + "x" * 1000)
    (tmp_path / "_images").mkdir()
    image = tmp_path / "_images" / "a b.png"
    image.write_bytes(bytes(build.PAGE_BYTES - 2000))
    assert list(build.problems(tmp_path)) == []
    image.write_bytes(bytes(build.PAGE_BYTES - 500))
    (problem,) = build.problems(tmp_path)
    assert "page.html has 5.0 MB with its images" in problem


# The notebooks' runner


def test_a_cell_that_fails_under_nbval_is_named_with_its_notebook(tmp_path, capfd):
    new = nbformat.v4

    def write(name, *sources):
        cells = [new.new_code_cell(source) for source in sources]
        nbformat.write(new.new_notebook(cells=cells), tmp_path / name)
        return tmp_path / name

    place = "import os\nassert os.environ['SHALA_RUNS'].endswith('own-runs')"
    good = write("good.ipynb", place, "1 + 1")
    bad = write("bad.ipynb", "value = 1", "assert value == 2, 'the value is wrong'")
    given = {"workers": 1, "timeout": 60, "runs": tmp_path / "own-runs"}
    assert notebooks.execute([good], **given) == 0
    assert notebooks.execute([bad], **given) == 1
    shown = capfd.readouterr().out
    assert "2 passed" in shown
    assert "FAILED bad.ipynb::Cell 1" in shown
    assert "FAILED bad.ipynb::Cell 0" not in shown
    assert "the value is wrong" in shown
