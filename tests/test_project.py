"""The front doors: dependencies in step, make's commands, its set-up, and the README's promises."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import shala_lite

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SETUP = REPOSITORY / ".ci" / "setup.sh"

# A project without dependencies, and with a build backend of its own: it installs through the real
# pip, but needs no index.
SMALL_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1"
"""
SMALL_BACKEND = """
import os, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if os.path.exists("fail"):
        raise OSError(open("fail").read())
    info = "small-1.dist-info"
    files = {
        "small.pth": os.getcwd(),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: small\\nVersion: 1\\n" + REQUIRES
        + "Provides-Extra: book\\nProvides-Extra: test\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/RECORD": "",
    }
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    open("installs", "a").write("x")
    return name
"""


def constraints() -> dict[str, SpecifierSet]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {canonicalize_name(pin.name): pin.specifier for pin in pins}
    assert len(found) == len(pins), "a package is pinned twice"
    return found


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# Dependencies


def test_every_direct_dependency_has_a_tested_version_within_its_bounds():
    pins = constraints()
    for line in (*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"], *EXTRAS["bench"]):
        wanted = Requirement(line)
        pin = pins[canonicalize_name(wanted.name)]
        version = str(pin).removeprefix("==").replace(".*", ".0")
        assert wanted.specifier.contains(version), f"{line}, but constraints.txt has {pin}"


def test_what_would_pull_gigabytes_or_fetch_themes_is_capped():
    assert str(constraints()["torch"]) == "==2.13.*"
    book = {Requirement(line).name: Requirement(line).specifier for line in EXTRAS["book"]}
    assert not book["jupyter-book"].contains("2.0.0")
    assert book["jupyter-book"].contains("1.0.4.post1")


def test_no_extra_names_the_peer_or_what_would_replace_torch():
    named = {Requirement(line).name for extra in EXTRAS.values() for line in extra}
    assert not named & {"multivae", "pythae", "torchvision"}
    (alone,) = re.findall(r'ALONE="(.*?)"', (REPOSITORY / "Makefile").read_text())
    assert set(alone.split()) == {"multivae", "pythae", "torchvision"} <= set(constraints())


def test_the_extras_are_those_that_people_are_told_of():
    assert set(EXTRAS) == {"book", "test", "bench", "cluster"}


def test_the_installed_versions_are_the_tested_ones():
    from importlib.metadata import version

    if "shala-lite" not in installed():
        pytest.skip("not installed by make: no claim about versions")
    for name, specifier in constraints().items():
        if name in installed():
            assert specifier.contains(version(name)), f"{name} {version(name)}"


def installed() -> set[str]:
    from importlib.metadata import distributions

    return {canonicalize_name(found.metadata["Name"]) for found in distributions()}


def test_conda_defers_to_pyproject_and_constraints():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    # Only what pip cannot bring: a second list of packages would get out of step.
    assert conda == [f"python{PROJECT['requires-python']}", "pip", "make"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[book,test]"]}
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge"]


def test_version_and_licence_are_said_once_or_alike():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == shala_lite.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    licence = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert PROJECT["dynamic"] == ["version"]


def test_every_module_of_the_package_is_installed():
    listed = set(
        tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    found = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for path in (REPOSITORY / "shala_lite").rglob("*.py")
    }
    assert listed == found


# make


def targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text()
    return set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, flags=re.MULTILINE))


def test_make_alone_lists_every_target():
    done = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    commands = {"book", "test", "lint", "run", "lab", "bench-stage1", "clean", "help"}
    assert commands <= targets()
    for target in targets():
        assert re.search(rf"^  {target} +\w", done.stdout, flags=re.MULTILINE), target


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "book/intro.md", "book/reproduce.md"]
)
def test_the_make_commands_in_the_text_exist(name):
    text = (REPOSITORY / name).read_text()
    code = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    told = set(re.findall(r"^ *make ([a-z0-9-]+)", code, flags=re.MULTILINE))
    assert told, f"{name} tells of no command"
    assert told <= targets()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_and_pictures_in_the_text_lead_somewhere(name):
    text = (REPOSITORY / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (REPOSITORY / target).is_file(), f"{name} names {target}"
    assert all(re.findall(r"!\[([^\]]*)\]", text)), "a picture has no alternative text"


def test_run_without_a_chapter_says_which_there_are():
    done = subprocess.run(
        ["make", "run", f"PY={sys.executable}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode != 0
    for notebook in (REPOSITORY / "book").glob("*.ipynb"):
        assert f"CHAPTER={notebook.stem}" in done.stderr


# The set-up behind make


@pytest.fixture
def fresh(tmp_path):
    """A folder that .ci/setup.sh takes for the project."""
    folder = tmp_path / "project"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(SETUP, folder / ".ci")
    (folder / "pyproject.toml").write_text(SMALL_PROJECT)
    (folder / "constraints.txt").write_text("# none\n")
    (folder / "backend.py").write_text('REQUIRES = ""\n' + SMALL_BACKEND)
    return folder


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory):
    """A virtual environment with nothing but pip; to make one takes seconds."""
    folder = tmp_path_factory.mktemp("bare") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def small(fresh, bare_environment):
    """The same, with an environment into which nothing was installed yet."""
    target = fresh / ".venv"
    shutil.copytree(bare_environment, target, symlinks=True)
    pip = target / "bin" / "pip"
    pip.write_text(pip.read_text().replace(str(bare_environment), str(target)))
    return fresh


def set_up(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    given = {**clean, **unreachable, "PYTHON": sys.executable, **environment}
    command = ["sh", str(folder / ".ci" / "setup.sh")]
    return subprocess.run(command, env=given, capture_output=True, text=True)


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line that a failed set-up says on stderr."""
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    return line


def installs(folder: Path) -> int:
    path = folder / "installs"
    return len(path.read_text()) if path.exists() else 0


def test_setup_makes_an_environment_and_installs_into_it_once(fresh):
    first = set_up(fresh)
    assert first.returncode == 0, first.stderr
    assert installs(fresh) == 1
    again = set_up(fresh)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert installs(fresh) == 1


def test_setup_makes_an_environment_for_the_benchmark_beside_the_first(small):
    other = small / ".venv-bench"
    (small / ".venv").rename(other)
    pip = other / "bin" / "pip"
    pip.write_text(pip.read_text().replace("/.venv/", "/.venv-bench/"))
    asked = dict(VENV=".venv-bench", EXTRAS="test")
    assert set_up(small, **asked).returncode == 0
    assert (other / ".installed").exists()
    assert not (small / ".venv").exists()
    set_up(small, **asked)
    assert installs(small) == 1
    # What comes without its dependencies is asked for last; here there is no index to ask.
    assert "package index" in refused(set_up(small, **asked, ALONE="no-such-peer"))
    assert not (other / ".installed").exists()


def test_setup_installs_again_only_after_a_change(small):
    assert set_up(small).returncode == 0
    # Touched but not changed: git checkouts do that.
    os.utime(small / "pyproject.toml")
    set_up(small)
    assert installs(small) == 1
    (small / "constraints.txt").write_text("numpy==1.0\n")
    set_up(small)
    assert installs(small) == 2
    (small / "pyproject.toml").write_text(SMALL_PROJECT + "# changed\n")
    set_up(small)
    assert installs(small) == 3


def test_a_failed_install_leaves_no_stamp_and_says_why(small):
    (small / "fail").write_text("[Errno 28] No space left on device")
    line = refused(set_up(small))
    assert "disk is full" in line
    assert ".venv/install.log" in line
    assert not (small / ".venv" / ".installed").exists()
    (small / "fail").unlink()
    assert set_up(small).returncode == 0
    assert (small / ".venv" / ".installed").exists()
    # One that fails after one that worked does not count as installed either.
    (small / "constraints.txt").write_text("# changed\n")
    (small / "fail").write_text("something else")
    refused(set_up(small))
    assert not (small / ".venv" / ".installed").exists()


def test_no_index_is_one_clear_line(small):
    (small / "backend.py").write_text('REQUIRES = "Requires-Dist: no-such\\n"\n' + SMALL_BACKEND)
    assert "no package index could be reached" in refused(set_up(small))


def test_a_package_that_the_index_does_not_have_is_not_called_a_network_problem(small, tmp_path):
    (small / "backend.py").write_text('REQUIRES = "Requires-Dist: no-such\\n"\n' + SMALL_BACKEND)
    (tmp_path / "index" / "no-such").mkdir(parents=True)
    (tmp_path / "index" / "no-such" / "index.html").write_text("<html></html>")
    line = refused(set_up(small, PIP_INDEX_URL=(tmp_path / "index").as_uri()))
    assert "no-such" in line
    assert "index could be reached" not in line


def test_an_old_or_missing_python_is_one_clear_line(fresh, tmp_path):
    old = executable(
        tmp_path / "python",
        '#!/bin/sh\ncase "$2" in *exit*) exit 1;; *) echo 3.9.2;; esac\n',
    )
    line = refused(set_up(fresh, PYTHON=str(old)))
    assert "Python 3.11 or newer" in line
    assert "3.9.2" in line
    assert "no-python-here" in refused(set_up(fresh, PYTHON="no-python-here"))
    assert not (fresh / ".venv").exists()


def test_a_python_that_cannot_make_environments_is_one_clear_line(fresh, tmp_path):
    bare = executable(
        tmp_path / "python",
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n',
    )
    assert "-venv" in refused(set_up(fresh, PYTHON=str(bare)))


def test_too_little_disk_is_one_clear_line_before_anything_is_made(fresh, tmp_path):
    executable(
        tmp_path / "df",
        "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted'\n"
        "echo '/dev/x 9000000 8000000 1000000 90% /'\n",
    )
    line = refused(set_up(fresh, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    assert "976 MB free" in line
    assert not (fresh / ".venv").exists()


def test_an_environment_that_was_moved_is_made_anew(small, tmp_path):
    assert set_up(small).returncode == 0
    moved = tmp_path / "moved"
    small.rename(moved)
    assert set_up(moved).returncode == 0
    assert installs(moved) == 2
    assert str(moved) in (moved / ".venv" / "bin" / "pip").read_text()


# Continuous integration


def ci(tmp_path: Path, **tools: str) -> subprocess.CompletedProcess:
    """Run .ci/run with only a few harmless tools, and `make` replaced by one that says so."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in "bash dirname mktemp tail rm".split():
        (folder / name).symlink_to(shutil.which(name))
    for name, body in {"make": 'echo "made $*"', "id": "echo 0", **tools}.items():
        executable(folder / name, f"#!/bin/sh\n{body}\n")
    return subprocess.run(
        ["bash", str(REPOSITORY / ".ci" / "run"), "A=1"],
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_ci_goes_on_without_a_browser_and_says_so(tmp_path):
    done = ci(tmp_path, **{"apt-get": "echo E: no network; exit 100"})
    assert done.returncode == 0, done.stderr
    assert "browser tests will be skipped" in done.stdout
    assert "E: no network" in done.stdout
    assert done.stdout.endswith("made test A=1\n")


def test_ci_does_not_install_a_browser_that_is_there(tmp_path):
    done = ci(tmp_path, chromium="true", **{"apt-get": "echo touched >&2; exit 1"})
    assert "browser: found" in done.stdout
    assert done.stderr == ""


def test_ci_fails_when_the_tests_do(tmp_path):
    assert ci(tmp_path, chromium="true", make="exit 3").returncode == 3


def test_workflows_call_make_and_publish_what_it_built():
    folder = REPOSITORY / ".github" / "workflows"
    test = yaml.safe_load((folder / "test.yml").read_text())["jobs"]["test"]
    versions = test["strategy"]["matrix"]["python"]
    assert versions[0] == PROJECT["requires-python"].removeprefix(">=")
    assert any("bash .ci/run" in step.get("run", "") for step in test["steps"])
    jobs = yaml.safe_load((folder / "book.yml").read_text())["jobs"]
    build = jobs["build"]["steps"]
    assert any("make book" in step.get("run", "") for step in build)
    (upload,) = (s for s in build if "upload-pages-artifact" in s.get("uses", ""))
    assert upload["with"]["path"] == "book/_build/html"
    assert jobs["publish"]["needs"] == "build"


# The README


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch):
    text = (REPOSITORY / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    short, count = re.subn(r"steps=\d+", "steps=2", code)
    assert count == 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(short, "README.md", "exec"), names)
    assert list(names["views"]) == ["m0", "m1", "m2", "m3", "m4"]
    assert names["together"]["m4"].shape == (8, 3, 28, 28)
    loaded = shala_lite.ShaLa.load(tmp_path / "my_model")
    for name, weight in names["model"].vae.state_dict().items():
        assert weight.equal(loaded.vae.state_dict()[name])


def test_the_papermill_line_of_the_readme_names_files_that_exist():
    text = (REPOSITORY / "README.md").read_text()
    named = re.findall(r"book/(?:[\w/]+)\.(?:ipynb|yaml)", text)
    assert len(named) >= 2
    for path in named:
        assert (REPOSITORY / path).is_file(), path
