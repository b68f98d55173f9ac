"""The hash of code: blind to comments, and sensitive to whatever the code imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from shala_lite import code_digest
from shala_lite.code_digest import module_digest, module_digests

MODULES = {
    "__init__.py": "from .top import run\n",
    "top.py": '"""Top."""\nfrom . import middle\n\n'
    'def run(x):\n    """Run."""\n    return middle.f(x)\n',
    "middle.py": "from tiny.parts.low import g\n\nclass F:\n    '''Doc.'''\n\nf = g\n",
    "parts/__init__.py": "from .. import aside\n",
    "parts/low.py": "def g(x):\n    from ..late import h\n    return h(x)\n",
    "late.py": "h = abs\n",
    "aside.py": "unused = 1\n",
    "plotting.py": "colour = 'red'\n",
    "whole.py": "import tiny\nfrom tiny import run\nfrom . import plotting\n",
}


@pytest.fixture
def tiny(tmp_path):
    package = tmp_path / "tiny"
    for name, text in MODULES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def edit(package, name, old, new):
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))


def test_the_walk_follows_absolute_relative_and_late_imports(tiny):
    assert list(module_digests(["top"], tiny)) == [
        "tiny.late",
        "tiny.middle",
        "tiny.parts.low",
        "tiny.top",
    ]
    assert module_digests(["tiny.top"], tiny) == module_digests(["top"], tiny)


def test_a_package_counts_where_something_is_imported_from_it(tiny):
    found = module_digests(["whole"], tiny)
    assert {"tiny", "tiny.top", "tiny.late"} <= set(found)
    assert "tiny.parts" not in found
    assert "tiny.aside" in module_digests(["parts"], tiny)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("top.py", '"""Top."""', '"""Another docstring."""'),
        ("top.py", '    """Run."""\n', ""),
        ("middle.py", "'''Doc.'''", "'''Longer.'''\n    # and a comment"),
        ("parts/low.py", "(x):\n", "( x ):   # spaced\n\n"),
        ("aside.py", "1", "2"),
        ("parts/__init__.py", "aside", "late"),
    ],
)
def test_comments_docstrings_formatting_and_unrelated_modules_do_not_count(tiny, name, old, new):
    before = module_digests(["top"], tiny)
    edit(tiny, name, old, new)
    assert module_digests(["top"], tiny) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "module"),
    [
        ("late.py", "abs", "float", "tiny.late"),
        ("parts/low.py", "return h(x)", "return h(-x)", "tiny.parts.low"),
        ("middle.py", "f = g", "f = g  # same\nf2 = None", "tiny.middle"),
        ("top.py", "return middle.f(x)", "return middle.f(x), None", "tiny.top"),
    ],
)
def test_a_change_however_far_down_changes_the_digest_of_that_module_only(
    tiny, name, old, new, module
):
    before = module_digests(["top"], tiny)
    edit(tiny, name, old, new)
    after = module_digests(["top"], tiny)
    assert {m for m in before if before[m] != after[m]} == {module}
    assert module_digest(module, tiny) == after[module]


def test_bookkeeping_does_not_count_unless_it_is_named(tiny):
    assert "tiny.plotting" not in module_digests(["whole"], tiny)
    assert "tiny.plotting" in module_digests(["plotting"], tiny)


def test_an_unknown_module_is_an_error_that_lists_the_known(tiny):
    with pytest.raises(ValueError, match=r"tiny\.tpo.*aside.*top"):
        module_digests(["tpo"], tiny)
    assert module_digest("tiny.tpo", tiny) is None


def test_a_module_that_has_gone_since_is_simply_not_there(tiny):
    assert module_digest("tiny.late", tiny)
    (tiny / "late.py").unlink()
    assert module_digest("tiny.late", tiny) is None


def test_bookkeeping_names_modules_that_exist():
    there = {path.stem for path in code_digest.PACKAGE.glob("*.py")}
    assert there >= code_digest.BOOKKEEPING


def test_an_edit_during_a_process_counts_for_the_next_one(tmp_path):
    """What is hashed is the code that was loaded, not the file as it is a while later."""
    package = tmp_path / "shala_lite"
    package.mkdir()
    for name in ("files.py", "code_digest.py"):
        (package / name).write_bytes((Path(code_digest.__file__).parent / name).read_bytes())
    (package / "__init__.py").touch()
    (package / "vae.py").write_text("depth = 1\n")
    # The path is spelled out: should another shala_lite be imported, its files stay as they are.
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shala_lite.code_digest import PACKAGE, module_digest as d\n"
        f"assert str(PACKAGE) == {str(package)!r}, PACKAGE\n"
        "print(d('shala_lite.vae'))\n"
        f"open({str(package / 'vae.py')!r}, 'w').write('depth = 2')\n"
        "print(d('shala_lite.vae'))\n"
    )

    def run():
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = run(), run()
    assert first[0] == first[1]
    assert second[0] == second[1] != first[0]


def test_a_module_by_itself_counts_without_what_it_imports():
    every = code_digest.module_digests(["vae"])
    assert code_digest.own_digests(["vae"]) == {"shala_lite.vae": every["shala_lite.vae"]}
    assert len(every) > 1
    with pytest.raises(ValueError, match=r"names: \['shala_lite.nowhere'\], no modules"):
        code_digest.own_digests(["nowhere"])
