"""Execute every notebook of the book at the smoke profile, under nbval.

Papermill writes each notebook with the profile's parameters into a scratch folder, and nbval
executes the copies cell by cell: a failure names the notebook and the cell. Runs and trained
stages go into the scratch folder too, which is kept only after a failure.

    python tests/notebooks.py [--workers 2] [--timeout 300] [CHAPTER ...]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import papermill
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK = REPOSITORY / "book"
PROFILE = "smoke"


def prepare(chapter: str, folder: Path) -> Path:
    """Write `chapter` with the smoke profile's parameters into `folder`, unexecuted."""
    parameters = yaml.safe_load((BOOK / "profiles" / PROFILE / f"{chapter}.yaml").read_text())
    target = folder / f"{chapter}.ipynb"
    papermill.execute_notebook(
        BOOK / f"{chapter}.ipynb", target, parameters=parameters, prepare_only=True
    )
    return target


def execute(notebooks: list[Path], *, workers: int, timeout: int, runs: Path) -> int:
    """Run nbval on `notebooks`; returns pytest's exit status. A cell may take `timeout` seconds."""
    command = [sys.executable, "-m", "pytest", "-v", "--nbval-lax", "--nbval-current-env"]
    command += [f"--nbval-cell-timeout={timeout}", "-c", str(REPOSITORY / "pyproject.toml")]
    if workers > 1:
        command += ["-n", str(min(workers, len(notebooks))), "--dist", "loadfile"]
    environment = {**os.environ, "SHALA_RUNS": str(runs)}
    # From their own folder, so that a cell is named by its notebook alone.
    folder = notebooks[0].parent
    command += [f"--rootdir={folder}", *(path.name for path in notebooks)]
    return subprocess.call(command, env=environment, cwd=folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="all, when none is named")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take")
    given = parser.parse_args()
    chapters = given.chapters or sorted(path.stem for path in BOOK.glob("*.ipynb"))
    if not chapters:
        print(f"no notebooks in {BOOK}")
        return 0
    # Inside the repository, so that a chapter finds the project as it does in its own folder.
    (REPOSITORY / ".scratch").mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="notebooks-", dir=REPOSITORY / ".scratch"))
    notebooks = [prepare(chapter, scratch) for chapter in chapters]
    status = execute(notebooks, workers=given.workers, timeout=given.timeout, runs=scratch / "runs")
    if status == 0:
        shutil.rmtree(scratch)
    else:
        print(f"the notebooks that failed, and what they wrote, are in {scratch}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
