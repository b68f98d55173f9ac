"""Command line: `python -m shala_lite run CHAPTER... --profile P`, `... publish RUN_FOLDER`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from . import files, profiles
from .execute import execute, up_to_date
from .publish import publish
from .runs import run_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it succeeded, 1 if a notebook failed, 2 if the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m shala_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute chapters, one after the other")
    run.add_argument(
        "chapter", nargs="+", help="chapters, such as 04_prior_hole 05_diffusion_prior, or all"
    )
    run.add_argument("--profile", default="quick", help="smoke, quick, laptop, full (%(default)s)")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter"
    )
    run.add_argument("--out", type=Path, help="folder in place of runs/, as $SHALA_RUNS is")
    run.add_argument(
        "--resume",
        action="store_true",
        help="leave out chapters that have finished with these parameters and this code",
    )
    merge = commands.add_parser("publish", help="merge a finished run into book/results")
    merge.add_argument("folder", type=Path, help="the run's folder")
    options = parser.parse_args(arguments)
    try:
        if options.command == "publish":
            return _publish(options.folder)
        # The notebook's process takes its folder from here, so that both mean the same one.
        os.environ["SHALA_RUNS"] = str(options.out.resolve() if options.out else files.root())
        overrides = {name: profiles.parse_value(value) for name, value in options.p}
        home = profiles.home()
        names = profiles.chapters(home) if options.chapter == ["all"] else options.chapter
        # All are resolved before the first starts: a mistake in the last one is told at once.
        plan = {name: profiles.resolve(name, options.profile, overrides, home) for name in names}
        folders = {name: run_folder(name, parameters) for name, parameters in plan.items()}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return _run(home, plan, folders, options.resume)
    except ModuleNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _publish(folder: Path) -> int:
    results = publish(folder)
    print(f"published: {results.folder}\n{results.origin}")
    if any(run["dirty"] or not run["commit"] for run in results.manifest["runs"]):
        print("note: code of a run was not committed; the manifest says so", file=sys.stderr)
    code = [run["code"] for run in results.manifest["runs"]]
    unlike = sorted({m for one in code for m in one if any(o.get(m) != one[m] for o in code)})
    if unlike:
        print(f"note: the seeds were made by unlike code: {', '.join(unlike)}", file=sys.stderr)
    return 0


def _run(
    home: Path, plan: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path], resume: bool
) -> int:
    seconds: dict[str, float] = {}
    for name, parameters in plan.items():
        begun, folder = perf_counter(), folders[name]
        if resume and up_to_date(home / f"{name}.ipynb", folder):
            print(f"finished before: {folder}", flush=True)
            continue
        if not execute(home / f"{name}.ipynb", folder, parameters):
            return 1
        seconds[name] = perf_counter() - begun
        if not (folder / "manifest.json").exists():
            print(f"note: {name} never called runs.start(...).finish()", file=sys.stderr)
        print(f"results: {folder}", flush=True)
    if len(seconds) > 1:
        seconds["all"] = sum(seconds.values())
        print("\n".join(f"{taken:8.1f} s  {name}" for name, taken in seconds.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
