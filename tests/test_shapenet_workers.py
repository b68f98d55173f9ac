"""The preparation of views in two processes: the same bytes, and nothing is lost if one dies.

Processes take long to start; as they wait for work for some seconds, the tests share them.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_meshes import ALL, write_folder

from data_scripts import shapenet as script
from data_scripts.shapenet_meshes import draw, find

SMALL = ("--quiet", "--views", "3", "--side", "16")


@pytest.fixture
def local(tmp_path):
    return write_folder(tmp_path / "local")


def run(root, local, workers):
    given = ["--root", root, "--from", local, *SMALL, "--workers", workers]
    return script.main([*map(str, given)])


def content(root):
    """The bytes of all that was prepared, by name."""
    return {p.name: p.read_bytes() for p in sorted((root / "shapenet_arrays").iterdir())}


def blocks(root):
    return sorted((root / "shapenet_blocks").glob("*.json"))


def test_a_killed_run_of_two_processes_goes_on_where_it_stopped(
    local, tmp_path, capsys, monkeypatch
):
    root, drawn = tmp_path / "root", tmp_path / "drawn"
    # The end comes as the third block of four meshes is to be kept; no handler sees it.
    code = (
        "import os, signal, sys\n"
        "from data_scripts import shapenet as script\n"
        "keep, seen = script._keep, []\n"
        "def keeping(*given):\n"
        "    seen.append(given)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return keep(*given)\n"
        "script._keep, script.BLOCK = keeping, 4\n"
        "script.main(sys.argv[1:])\n"
    )
    arguments = ["--root", str(root), "--from", str(local), *SMALL, "--workers", "2"]
    repository = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "shapenet_arrays").exists()
    assert len(blocks(root)) == 2
    drawn.mkdir()

    def drawing(job):
        (drawn / job[0].name.replace("/", " ")).touch()
        return draw(job)

    monkeypatch.setattr(script, "BLOCK", 4)
    monkeypatch.setattr(script, "draw", drawing)
    assert run(root, local, 2) == 0
    assert f"8 of {ALL} meshes were rendered before" in capsys.readouterr().err
    missing = [source.name for source in find(local)[1]][8:]
    assert sorted(path.name.replace(" ", "/") for path in drawn.iterdir()) == missing
    assert run(tmp_path / "whole", local, 1) == 0
    assert content(root) == content(tmp_path / "whole")
    assert sorted(p.name for p in root.iterdir()) == [".shapenet.lock", "shapenet_arrays"]


def test_two_processes_prepare_the_same_bytes_as_one(local, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "BLOCK", 4)
    ids, here = tmp_path / "ids", os.getpid()
    ids.mkdir()

    def drawing(job):
        (ids / str(os.getpid())).touch()
        return draw(job)

    monkeypatch.setattr(script, "draw", drawing)
    assert run(tmp_path / "one", local, 1) == 0
    assert [path.name for path in ids.iterdir()] == [str(here)]
    assert run(tmp_path / "two", local, 2) == 0
    assert len(list(ids.iterdir())) > 1
    assert len(content(tmp_path / "one")) == 4
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_a_process_that_dies_is_told_in_one_line_and_loses_no_block(
    local, tmp_path, capfd, monkeypatch
):
    root, gate = tmp_path / "root", tmp_path / "gate"
    os.mkfifo(gate)
    opened, keep = [], script._keep

    def keeping(*given):
        kept = keep(*given)
        if not opened:  # the first block is kept: now the process may die that waits to read
            opened.append(os.open(gate, os.O_RDWR))
        return kept

    def dying(job):
        if job[0].name == "hut/m4.obj":
            gate.open("rb")
            os._exit(9)
        return draw(job)

    monkeypatch.setattr(script, "BLOCK", 4)
    monkeypatch.setattr(script, "draw", dying)
    monkeypatch.setattr(script, "_keep", keeping)
    assert run(root, local, 2) == 1
    os.close(opened[0])
    told = capfd.readouterr()  # of this process whole, not of Python alone
    assert told.out == ""
    assert told.err.startswith("error: a process that rendered has ended: it was killed, or there")
    assert f"kept in {root / 'shapenet_blocks'}: start again with fewer --workers" in told.err
    assert told.err.count("\n") == 1
    assert not (root / "shapenet_arrays").exists()
    before = 4 * len(blocks(root))
    assert 4 <= before <= 8  # the third block is that of the mesh
    monkeypatch.setattr(script, "draw", draw)
    assert run(root, local, 1) == 0
    assert f"{before} of {ALL} meshes were rendered before" in capfd.readouterr().err
    assert run(tmp_path / "whole", local, 1) == 0
    assert content(root) == content(tmp_path / "whole")
