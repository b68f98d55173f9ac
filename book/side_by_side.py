"""Execute every chapter at a profile, several at a time, each with its share of the cores.

    python book/side_by_side.py --workers 2 --profile quick

A chapter that needs a stage which another one is just making waits for it, and does not make it
again. What is finished, with this code and these parameters, is left out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE, STDOUT, Popen
from threading import Event, Lock
from time import perf_counter
from typing import NamedTuple, TextIO

from shala_lite import profiles


class Ended(NamedTuple):
    """Exit status of a command, and how long it took."""

    status: int
    seconds: float


def side_by_side(
    commands: Mapping[str, Sequence[str]], workers: int, stream: TextIO
) -> dict[str, Ended]:
    """Run commands, at most `workers` at a time, and show what they print, line by line.

    On a few cores two processes of one thread each do more than one after the other with two
    threads. So each gets `OMP_NUM_THREADS`, cores / workers, unless that is set already.

    Args:
        commands: {name: program and arguments}, started in this order.
        workers: at least 1.
        stream: gets each line, stdout's and stderr's, with the name of its command before it.

    Returns:
        {name: how it ended}, without those that were not started because one before had failed.
        Those that run when one fails are waited for.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1")
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    turn, stop, interrupted, running = Lock(), Event(), Event(), list[Popen[str]]()

    def run(name: str) -> Ended | None:
        if stop.is_set():
            return None
        begun = perf_counter()
        with Popen(
            commands[name], env=environment, stdout=PIPE, stderr=STDOUT, text=True, errors="replace"
        ) as process:
            running.append(process)
            if interrupted.is_set():  # after the others were told
                process.send_signal(signal.SIGINT)
            for line in process.stdout or ():
                with turn:
                    stream.write(f"{name}: {line}")
                    stream.flush()
        if process.returncode:
            stop.set()
        return Ended(process.returncode, perf_counter() - begun)

    with ThreadPoolExecutor(workers) as pool:
        futures = {name: pool.submit(run, name) for name in commands}
        try:
            found = {name: future.result() for name, future in futures.items()}
        except BaseException:
            stop.set()
            interrupted.set()
            for process in list(running):
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            raise
    return {name: ended for name, ended in found.items() if ended is not None}


def order(data_of: Mapping[str, str]) -> list[str]:
    """Chapters in turns of one for each data set, the first of each first.

    Chapters of one data set share stages, and of two that begin together one waits. So they begin
    apart, as far as that goes.

    Args:
        data_of: {chapter: its data set}, in the order of the book.
    """
    seen = Counter[str]()
    turns = {}
    for chapter, dataset in data_of.items():
        turns[chapter] = seen[dataset]
        seen[dataset] += 1
    return sorted(turns, key=turns.__getitem__)


def main() -> int:
    """Exit status: 0 if every chapter was executed to its end, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument("--profile", default="quick", help="of every chapter (%(default)s)")
    options = parser.parse_args()
    program = [sys.executable, "-m", "shala_lite", "run", "--resume", "--profile", options.profile]
    begun = perf_counter()
    try:
        names = profiles.chapters(profiles.home())
        data_of = {name: profiles.resolve(name, options.profile)["dataset"] for name in names}
        commands = {name: [*program, name] for name in order(data_of)}
        ended = side_by_side(commands, options.workers, sys.stderr)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    seconds = {name: ended[name].seconds for name in names if name in ended}
    for name, taken in (seconds | {"all": perf_counter() - begun}).items():
        print(f"{taken:8.1f} s  {name}")
    failed = [name for name, found in ended.items() if found.status]
    for name in failed:
        print(f"failed: {name}, exit status {ended[name].status}", file=sys.stderr)
    for name in commands.keys() - ended.keys():
        print(f"not started: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
