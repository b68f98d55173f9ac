"""The preparation of views: arrays, what is left out, and going on after an interruption."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from small_meshes import (
    ALL,
    CATEGORIES,
    EACH,
    FAULTS,
    add_bad,
    solid_of,
    write_archive,
    write_folder,
    write_obj,
    write_shapenet,
)

from data_scripts import shapenet as script
from data_scripts.shapenet_meshes import find, read
from data_scripts.shapenet_splits import SHARES
from shala_lite.datasets import load_dataset, meshes, shapenet

SMALL = ("--views", "3", "--side", "10", "--workers", "1")


@pytest.fixture
def local(tmp_path):
    return write_folder(tmp_path / "local")


def run(root, *arguments):
    given = ["--root", str(root), "--quiet", *SMALL, *map(str, arguments)]
    return script.main(given)


def manifest(root, name="shapenet"):
    return json.loads((root / f"{name}_arrays" / shapenet.MANIFEST).read_text())


def names_of(root):
    return sorted(n for part in manifest(root)["items"].values() for n in part["names"])


def views_of(root, split="train"):
    """The views of each mesh by name."""
    pixels = np.load(root / "shapenet_arrays" / f"{split}_views.npy")
    return dict(zip(manifest(root)["items"][split]["names"], pixels))


def all_views(root):
    return {name: x.tobytes() for split in SHARES for name, x in views_of(root, split).items()}


# Layouts


def test_a_folder_of_meshes_becomes_arrays(local, tmp_path, capsys):
    root = tmp_path / "root"
    assert run(root, "--from", local) == 0
    assert f"{ALL} meshes of 3 categories" in capsys.readouterr().out
    seen = manifest(root)
    assert seen["rig"] == {"views": 3, "side": 10, "elevation": 20.0, "field_of_view": 30.0}
    assert seen["categories"] == list(CATEGORIES)
    assert (seen["left_out"], seen["grey"]) == ({}, [])
    assert names_of(root) == sorted(f"{c}/m{n}.obj" for c in CATEGORIES for n in range(EACH))
    for split in SHARES:
        for name, views in views_of(root, split).items():
            mesh, _ = read(next(s for s in find(local)[1] if s.name == name))
            shown = views[0, 3] > 128
            tall, wide = np.ptp(mesh.vertices[:, 2]), np.ptp(mesh.vertices[:, 1])
            # Upright: what is taller than wide looks so from the front.
            if not 0.6 < tall / wide < 1.6:
                assert (shown.any(1).sum() > shown.any(0).sum()) == (tall > wide)
            assert (views[:, 0] >= views[:, 2]).all()  # reddish over white
    assert sorted(p.name for p in root.iterdir()) == [".shapenet.lock", "shapenet_arrays"]


def test_the_same_solid_looks_the_same_in_every_format(tmp_path):
    for kind, suffix in enumerate(("obj", "ply", "glb", "stl")):
        for number in range(3):
            mesh = solid_of(number)
            path = tmp_path / "local" / f"deep{kind}" / "er" / f"m{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == "obj":
                write_obj(path, mesh, colour=(0, 0, 1))
                continue
            mesh.visual.face_colors = [0, 0, 255, 255]
            if suffix == "glb":  # upright along y
                mesh.vertices = mesh.vertices[:, [1, 2, 0]]
            mesh.export(path)
    root = tmp_path / "root"
    assert run(root, "--from", tmp_path / "local") == 0
    seen = {name: x for split in SHARES for name, x in views_of(root, split).items()}
    assert manifest(root)["categories"] == [f"deep{kind}" for kind in range(4)]
    assert manifest(root)["grey"] == [f"deep3/er/m{n}.stl" for n in range(3)]
    for number in range(3):
        first = seen[f"deep0/er/m{number}.obj"].astype(int)
        for name in (f"deep1/er/m{number}.ply", f"deep2/er/m{number}.glb"):
            assert abs(seen[name] - first).max() <= 2 * 255 // 16
        stl = seen[f"deep3/er/m{number}.stl"].astype(int)
        assert abs(stl[:, 3] - first[:, 3]).max() <= 2 * 255 // 16
        assert np.array_equal(stl[:, 0], stl[:, 2])
        # The three share a shape, whatever their names: but each is of another category.
    lonely = tmp_path / "flat"
    for number in range(3):
        write_obj(lonely / f"m{number}.obj", solid_of(number))
    assert {source.category for source in find(lonely)[1]} == {"object"}


def test_the_layout_of_shapenet(tmp_path):
    root, folder = tmp_path / "root", write_shapenet(tmp_path / "ShapeNetCore")
    layout, sources = find(folder)
    assert (layout, len(sources)) == ("shapenet", 2 * EACH)
    assert run(root, "--from", folder) == 0
    seen = manifest(root)
    assert seen["categories"] == ["02691156", "03001627"]
    assert "12 meshes of 2 categories from ShapeNetCore" in real(root).note
    # A model that is in two synsets is in one split.
    homes = [s for s in SHARES for n in seen["items"][s]["names"] if n.endswith("/m0")]
    assert len(homes) == 2
    assert len(set(homes)) == 1


def real(root, split="train", name="shapenet"):
    return load_dataset(name, split, source="real", root=root)


def test_the_archive(tmp_path):
    names = [f"pack/Thing{chr(65 + n)}_{season}1.fbx" for n in range(5) for season in ("", "Snow_")]
    folder, root = write_archive(tmp_path / "archive", names), tmp_path / "root"
    assert run(root, "--from", folder) == 0
    assert names_of(root) == sorted(names)
    assert "which is not ShapeNet" in real(root).note
    homes = {n: split for split in SHARES for n in manifest(root)["items"][split]["names"]}
    assert all(homes[n] == homes[n.replace("Snow_", "")] for n in names)
    assert len(set(homes.values())) == 3
    mesh, coloured = read(next(s for s in find(folder)[1] if s.name == names[1]))
    assert coloured
    assert (mesh.colours == 9).all()
    size = np.ptp(mesh.vertices, axis=0)
    assert np.allclose(
        size / size.max(), solid_of(1).extents / solid_of(1).extents.max(), atol=0.01
    )


def test_thirty_two_views_have_a_place_of_their_own(local, tmp_path):
    root = tmp_path / "root"
    for views in ("3", "32"):
        assert run(root, "--from", local, "--views", views) == 0
    assert len(real(root).modalities) == 3
    many = real(root, name="shapenet_32")
    assert (many.name, len(many.modalities)) == ("shapenet_32", 32)


def test_larger_pictures_have_a_place_of_their_own(local, tmp_path):
    root = tmp_path / "root"
    assert run(root, "--from", local, "--side", "64") == 0
    assert real(root, name="shapenet_64px").modalities[0].shape == (4, 64, 64)


# Colours


def test_missing_materials_are_grey_and_counted(local, tmp_path, capsys):
    for name in ("hut/m1", "jar/m2"):
        (local / f"{name}.mtl").unlink()
    root = tmp_path / "root"
    for _ in range(2):  # a second run, which keeps the arrays, says so again
        assert run(root, "--from", local) == 0
        assert "as a colour is unknown: 2 (hut/m1.obj, jar/m2.obj)" in capsys.readouterr().err
    seen = {name: x for split in SHARES for name, x in views_of(root, split).items()}
    assert len(seen) == ALL
    for name, views in seen.items():
        grey = np.array_equal(views[:, 0], views[:, 1])
        assert grey == (name in {"hut/m1.obj", "jar/m2.obj"})


# What cannot be used


def test_bad_meshes_are_counted_and_named_and_the_others_are_rendered(local, tmp_path, capsys):
    reasons: dict[str, list[str]] = {}
    for number, fault in enumerate(FAULTS):
        name, reason = add_bad(local / f"{number}", fault)
        reasons.setdefault(reason, []).append(f"{number}/{name}")
    root = tmp_path / "root"
    for _ in range(2):  # a second run, which keeps the arrays, says so again
        assert run(root, "--from", local) == 0
        told = capsys.readouterr().err
        for reason, names in reasons.items():
            assert f"left out: {reason}: {len(names)} ({', '.join(names)})" in told
    assert manifest(root)["left_out"] == reasons
    assert manifest(root)["categories"] == list(CATEGORIES)
    assert names_of(root) == sorted(f"{c}/m{n}.obj" for c in CATEGORIES for n in range(EACH))


def test_a_long_list_of_bad_meshes_is_cut_short_but_written_down(local, tmp_path, capsys):
    for number in range(8):
        (local / f"bad{number}.stl").write_text("")
    assert run(tmp_path / "root", "--from", local) == 0
    assert "8 (bad0.stl, bad1.stl, bad2.stl, bad3.stl, bad4.stl and 3 more)" in (
        capsys.readouterr().err
    )
    assert len(manifest(tmp_path / "root")["left_out"][meshes.NO_FACES]) == 8


def test_nothing_usable_is_an_error(local, tmp_path, capsys):
    root = tmp_path / "root"
    for path in local.rglob("*.obj"):
        path.write_text("")
    assert run(root, "--from", local) == 1
    message = capsys.readouterr().err
    assert f"none of {ALL} meshes can be used: {meshes.NO_FACES}: {ALL} (cup/m0.obj" in message
    assert not (root / "shapenet_arrays").exists()
    (tmp_path / "empty").mkdir()
    assert run(root, "--from", tmp_path / "empty") == 1
    assert "found no meshes: neither <synset>" in capsys.readouterr().err
    assert run(root, "--from", tmp_path / "nowhere") == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_too_few_meshes_for_three_splits_are_an_error(tmp_path, capsys):
    for number in range(2):
        write_obj(tmp_path / "local" / f"m{number}.obj", solid_of(number))
    assert run(tmp_path / "root", "--from", tmp_path / "local") == 1
    assert "families: 2 of meshes that differ, expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--views", "0"), "views: expected a positive integer, got 0"),
        (("--elevation", "95"), "elevation: expected degrees"),
        (("--workers", "0"), "workers: expected at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_errors(local, tmp_path, capsys, option, complaint):
    assert run(tmp_path / "root", "--from", local, *option) == 1
    assert complaint in capsys.readouterr().err


# Going on


def blocks(root):
    return sorted((root / "shapenet_blocks").glob("*.json"))


def test_a_killed_run_goes_on_where_it_stopped(local, tmp_path, capsys, monkeypatch):
    root = tmp_path / "root"
    # The eleventh mesh brings the end, which no handler sees.
    code = (
        "import os, signal, sys\n"
        "from data_scripts import shapenet as script\n"
        "whole, seen = script.draw, []\n"
        "def drawing(job):\n"
        "    seen.append(job)\n"
        "    if len(seen) == 11: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(job)\n"
        "script.draw, script.BLOCK = drawing, 4\n"
        "script.main(sys.argv[1:])\n"
    )
    arguments = ["--root", str(root), "--from", str(local), "--quiet", *SMALL]
    repository = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "shapenet_arrays").exists()
    assert len(blocks(root)) == 2
    monkeypatch.setattr(script, "BLOCK", 4)
    assert run(root, "--from", local) == 0
    assert f"8 of {ALL} meshes were rendered before" in capsys.readouterr().err
    assert run(tmp_path / "whole", "--from", local) == 0
    assert all_views(root) == all_views(tmp_path / "whole")
    assert sorted(p.name for p in root.iterdir()) == [".shapenet.lock", "shapenet_arrays"]


def test_a_full_disk_while_rendering_loses_nothing(local, tmp_path, capsys, monkeypatch):
    root, synced, fsync = tmp_path / "root", [], os.fsync

    def full(file):
        synced.append(file)
        if len(synced) == 5:  # two for each block, of its views and of what is said of them
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(script, "BLOCK", 4)
    monkeypatch.setattr(os, "fsync", full)
    assert run(root, "--from", local) == 1
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert f"kept in {root / 'shapenet_blocks'}: start again" in message
    assert len(blocks(root)) == 2
    assert run(root, "--from", local) == 0
    assert f"8 of {ALL} meshes were rendered before" in capsys.readouterr().err
    assert len(names_of(root)) == ALL


def stop_at_the_end(root, local, monkeypatch):
    """A run in blocks of three meshes that fails when all of them are rendered."""
    monkeypatch.setattr(script, "BLOCK", 3)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may hold the views of five meshes: those of a block fit, those of train do not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 5 * 3 * 4 * 10 * 10, usual[1]))
    try:
        assert run(root, "--from", local) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_full_disk_at_the_end_loses_nothing(local, tmp_path, capsys, monkeypatch):
    root = tmp_path / "root"
    stop_at_the_end(root, local, monkeypatch)
    assert "File too large" in capsys.readouterr().err
    assert not (root / "shapenet_arrays").exists()
    assert run(root, "--from", local) == 0
    assert f"{ALL} of {ALL} meshes were rendered before" in capsys.readouterr().err
    assert len(names_of(root)) == ALL


@pytest.mark.parametrize("change", ["damage", "edit"])
def test_a_damaged_block_and_a_changed_mesh_are_rendered_again(
    local, tmp_path, capsys, monkeypatch, change
):
    root = tmp_path / "root"
    stop_at_the_end(root, local, monkeypatch)
    if change == "damage":
        path = blocks(root)[0].with_suffix(".npy")
        path.write_bytes(path.read_bytes()[:-1])
    else:
        write_obj(local / "hut" / "m5.obj", solid_of(0), colour=(0, 0, 1))
    assert run(root, "--from", local) == 0
    assert f"{ALL - 3} of {ALL} meshes were rendered before" in capsys.readouterr().err
    assert run(tmp_path / "whole", "--from", local) == 0
    assert all_views(root) == all_views(tmp_path / "whole")


def test_whole_arrays_are_kept_unless_something_else_is_asked_for(local, tmp_path):
    root = tmp_path / "root"
    path = root / "shapenet_arrays" / "test_views.npy"
    assert run(root, "--from", local) == 0
    written, before = path.stat().st_mtime_ns, real(root).fingerprint
    assert run(root, "--from", local) == 0
    assert path.stat().st_mtime_ns == written
    assert run(root, "--from", local, "--side", "8") == 0
    assert real(root).modalities[0].shape == (4, 8, 8)
    assert run(root, "--from", local) == 0
    assert real(root).fingerprint == before
    path.write_bytes(path.read_bytes()[:-1])
    assert run(root, "--from", local) == 0
    assert path.stat().st_size == 128 + len(real(root, "test")) * 3 * 4 * 10 * 10
    (local / "cup" / "m0.obj").unlink()
    assert run(root, "--from", local) == 0
    assert len(names_of(root)) == ALL - 1


def test_two_runs_do_not_meet(local, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    with FileLock(root / ".shapenet.lock"):
        assert run(root, "--from", local) == 1
    assert "another process" in capsys.readouterr().err


def test_real_splits_share_no_family(local, tmp_path):
    root = tmp_path / "root"
    write_obj(local / "cup" / "z.obj", solid_of(0), colour=(0, 1, 0))  # the shape of cup/m0
    assert run(root, "--from", local) == 0
    items = manifest(root)["items"]
    families = [set(items[split]["families"]) for split in SHARES]
    assert sum(map(len, families)) == len(set().union(*families)) == ALL
    homes = {name: split for split in SHARES for name in items[split]["names"]}
    assert homes["cup/z.obj"] == homes["cup/m0.obj"]
