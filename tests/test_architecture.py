"""Who may import whom, how large files may grow, and that every library file has its tests."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "shala_lite"

# Data flow: a module imports only from its own group and from those before it.
CORE = [
    "vocabulary",
    "modalities",
    "observed",
    "datasets",
    "distributions",
    "nets",
    "text_nets",
    "kinds",
    "banks",
    "alignment",
    "fusion",
    "vae",
    "fused",
    "experts",
    "latents",
    "schedule",
    "denoiser",
    "samplers",
    "density",
    "guidance",
    "prior",
    "flow_map",
    "model",
]
JUDGING = [
    "judge_nets",
    "judges",
    "manifolds",
    "keys",
    "inception",
    "metrics",
    "two_sample",
    "prior_hole",
    "ladder",
    "likelihood",
    "probes",
    "evaluation",
    "agreement",
    "text_metrics",
    "stress",
    "attribute_judges",
    "retrieval",
    "captions",
    "view_sets",
    "visual_hull",
    "view_matcher",
    "view_agreement",
    "view_evaluation",
    "view_edits",
]
# Runs see paths and dictionaries: none of these knows a model, a dataset or a metric.
BOOKKEEPING = [
    "files",
    "machine",
    "code_digest",
    "artifacts",
    "profiles",
    "runs",
    "publish",
    "execute",
    "__main__",
]
# What ties all of it together for the chapters, and is imported by nothing below.
TOP = ["report", "stages", "scaling", "text_probes", "experiments", "more_judges", "view_scaling"]
# Modules that import only what stands here, whatever their place in the flow. Pictures are drawn
# from arrays, and training knows neither models nor data.
ONLY = {
    "pages": set(),
    "choices": {"pages"},
    "pictures": set(),
    "plotting": {"choices", "pages", "pictures"},
    "checkpoints": set(),
    "recorded": set(),
    "training": {"checkpoints", "recorded"},
}


def name_of(path: Path) -> str:
    """First name below the package: a subpackage counts as one module."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, at the top or inside a function."""
    package = ("shala_lite", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1],) if node.level else ()
            base = ".".join((*base, *([node.module] if node.module else [])))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "shala_lite" and len(parts) > 1:
                found.add(parts[1])
    return found - {name_of(path)}


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, no comments, no docstrings."""
    source = path.read_text()
    prose = set()
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, node.end_lineno + 1))
    rows = enumerate(map(str.strip, source.splitlines()), start=1)
    return sum(bool(row) and not row.startswith("#") and n not in prose for n, row in rows)


def test_prose_is_not_code(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('"""Says\n\nmuch."""\n\n# why\nx = 1  # what\ny = """\ntext"""\n')
    assert code_lines(module) == 3


def allowed(name: str) -> set[str]:
    """Modules that `name` may import."""
    if name in ONLY:
        return ONLY[name]
    if name in BOOKKEEPING:
        return set(BOOKKEEPING[: BOOKKEEPING.index(name)])
    flow = CORE + JUDGING
    if name in flow:  # files are written whole, whoever writes them
        return {"files", *flow[: flow.index(name)]}
    return {*flow, *BOOKKEEPING, *ONLY, *TOP[: TOP.index(name)]} - {"__main__"}


def test_every_module_has_its_place_and_every_place_its_module():
    placed = {*CORE, *JUDGING, *BOOKKEEPING, *ONLY, *TOP}
    assert placed == {name_of(path) for path in files()}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_flow_of_data(path):
    wrong = imports(path) - allowed(name_of(path))
    assert not wrong, f"{path.name} must not import {sorted(wrong)}"


def test_the_walk_sees_every_way_to_import(tmp_path, monkeypatch):
    # Else the test above could pass by seeing nothing.
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "datasets").mkdir()
    module = tmp_path / "datasets" / "polymnist.py"
    module.write_text(
        "import torch, shala_lite.vae\n"
        "from shala_lite import prior\n"
        "from shala_lite.model import ShaLa\n"
        "from .. import judges\n"
        "from ..metrics import KEYS\n"
        "from .base import MultimodalDataset\n"
        "def late():\n"
        "    from ..training import fit\n"
    )
    found = imports(module)
    assert found == {"vae", "prior", "model", "judges", "metrics", "training"}


def test_the_flow_forbids_going_back():
    assert "vae" in allowed("prior")
    assert "prior" not in allowed("vae")
    assert not allowed("training") & {*CORE, *JUDGING}
    assert not allowed("runs") & {*CORE, *JUDGING}
    assert not allowed("plotting") & {*CORE, *JUDGING, *BOOKKEEPING}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_under_300_lines(path):
    assert lines(path) < 300


def test_the_core_and_the_package_stay_small():
    # Data sets and baselines come and go with the chapters, each on its own: they are not counted.
    own = [path for path in files() if name_of(path) not in {"datasets", "experts"}]
    # The code is counted, not what explains it: docstrings are wanted.
    assert sum(map(code_lines, [path for path in own if name_of(path) in CORE])) < 2000
    assert sum(map(code_lines, own)) < 7000


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_has_its_tests(path):
    # test_<file>.py; what a subpackage merely divides may be tested as the whole it is.
    names = [path.stem, *path.relative_to(PACKAGE).parent.parts]
    tests = [REPOSITORY / "tests" / f"test_{name}.py" for name in names]
    found = [test.read_text() for test in tests if test.is_file()]
    assert found, f"{path.name} has no tests/{tests[0].name}"
    # And they are about it: they name the module, or something that it defines.
    defined = [n.name for n in ast.parse(path.read_text()).body if hasattr(n, "name")]
    assert any(name in text for text in found for name in [*names, *defined])
