"""Execution of one notebook by papermill, in this Python, with its progress and output shown."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .code_digest import module_digest
from .files import file_sha256, read_json

EVERY = 60  # seconds between two states of a progress bar in a file


def execute(notebook: Path, folder: Path, parameters: Mapping[str, Any]) -> bool:
    """Execute a notebook; the executed copy is `<folder>/<name>.ipynb`. True if it succeeded.

    Progress and output go to stderr. If it fails, stderr says at which cell, the copy ends in
    `.failed.ipynb`, and what an earlier run left in the folder stays.
    """
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; chapters need pip install -e '.[book]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f"{notebook.stem}.running.ipynb"
    failed = folder / f"{notebook.stem}.failed.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    try:
        with _this_python(), _echo(len(cells) + 1):  # papermill adds one with the parameters
            papermill.execute_notebook(
                notebook,
                running,
                dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                log_output=True,
            )
    except papermill.PapermillExecutionError as error:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        sources = ["".join(cell["source"]) for cell in cells]
        known = error.source in sources
        index = sources.index(error.source) if known else error.cell_index
        lines = error.source.strip().splitlines() or [""]
        print(
            f"{trace}\nfailed: {notebook}, cell {index + 1} of {len(cells)}, which begins\n"
            f"    {lines[0]}\n{error.ename}: {error.evalue}",
            file=sys.stderr,
        )
    except DeadKernelError as error:
        print(f"failed: {notebook}, its process died (out of memory?): {error}", file=sys.stderr)
    else:
        running.replace(folder / notebook.name)
        failed.unlink(missing_ok=True)
        return True
    running.replace(failed)
    print(f"executed so far: {failed}", file=sys.stderr)
    return False


def finished(notebook: Path, folder: Path) -> bool:
    """Whether the last run of this notebook in the folder went through all of its cells.

    A run that failed or was killed leaves the copy of the one before it, beside its own. It may
    have written another manifest, which that copy is not of.
    """
    leftovers = (folder / f"{notebook.stem}.{state}.ipynb" for state in ("running", "failed"))
    whole = (folder / notebook.name).is_file() and (folder / "manifest.json").is_file()
    return whole and not any(path.is_file() for path in leftovers)


def up_to_date(notebook: Path, folder: Path) -> bool:
    """Whether the folder holds a finished run of this notebook, by the code its numbers rest on."""
    copy, manifest = folder / notebook.name, folder / "manifest.json"
    if not finished(notebook, folder) or cell_sources(copy) != cell_sources(notebook):
        return False
    try:
        known = read_json(manifest)
        whole = known["metrics_sha256"] == file_sha256(folder / "metrics.json")
        return whole and all(module_digest(name) == d for name, d in known["code"].items())
    except (ValueError, KeyError, OSError):  # damaged, and so not finished
        return False


def own_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cells of a notebook's JSON without the one that papermill injects."""
    injected = "injected-parameters"
    return [c for c in notebook["cells"] if injected not in c.get("metadata", {}).get("tags", [])]


def cell_sources(notebook: Path) -> list[str]:
    """Source of each cell of the chapter itself."""
    return ["".join(cell["source"]) for cell in own_cells(json.loads(notebook.read_text()))]


@contextmanager
def _this_python() -> Iterator[None]:
    """Let the kernel `python3` be this interpreter, whatever kernels the user has installed.

    Threads that wait give up their core: by default they spin, and on two cores a chapter beside
    anything else that computes becomes several times slower.
    """
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / "python3"
        kernel.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec: dict[str, Any] = {"argv": command, "display_name": "Python 3", "language": "python"}
        spec["env"] = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            del os.environ["JUPYTER_PATH"]
            if before is not None:
                os.environ["JUPYTER_PATH"] = before


@contextmanager
def _echo(cells: int) -> Iterator[None]:
    logger = logging.getLogger("papermill")
    before = logger.level, logger.propagate
    handler = Echo(sys.stderr, cells)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class Echo(logging.Handler):
    """Shows papermill's log on a stream: which cell runs, and what the cells print.

    Progress bars redraw their line by a carriage return. A terminal gets that as it is; a file
    gets each line as it stood when it was complete, and once a minute as it stands until then.

    Args:
        stream: where it is shown.
        cells: how many there are.
        clock: seconds, from any start.
    """

    def __init__(
        self, stream: TextIO, cells: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logging.INFO)
        self.stream, self.cells, self.clock = stream, cells, clock
        self.line = ""  # what the current line of a cell's stderr shows so far
        self.shown = clock()  # when a file last got a line

    def emit(self, entry: logging.LogRecord) -> None:
        """Write one message; papermill logs a cell's stderr as warnings."""
        text = entry.getMessage()
        if text.startswith("Ending Cell"):
            return
        text = re.sub(r"^Executing Cell (\d+)-*$", rf"-- cell \1 of {self.cells}", text)
        if entry.levelno == logging.WARNING:
            self._stderr(text)
            return
        if self.line:
            self._stderr("\n")
        self.stream.write(text if text.endswith("\n") else text + "\n")
        self.stream.flush()

    def _stderr(self, text: str) -> None:
        *complete, rest = (self.line + text).split("\n")
        self.line = rest.rsplit("\r", 1)[-1]
        if self.stream.isatty():
            self.stream.write(text)
        else:
            due = self.line.strip() and self.clock() - self.shown >= EVERY
            for line in [*complete, self.line] if due else complete:
                self.stream.write(line.rstrip("\r").rsplit("\r", 1)[-1] + "\n")
                self.shown = self.clock()
        self.stream.flush()
