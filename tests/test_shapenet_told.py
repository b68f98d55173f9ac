"""What the preparation of views tells: meshes and colours it lacks, and what comes next."""

import json
import os
import shlex

import pytest
from PIL import Image
from small_meshes import ALL, EACH, solid_of, write_archive, write_folder, write_obj, write_shapenet

from data_scripts import shapenet as script
from data_scripts.shapenet_meshes import CUT, LINKED, NO_FILE, OUTSIDE, UNREADABLE, find, read
from data_scripts.shapenet_splits import SHARES
from shala_lite import profiles
from shala_lite.datasets import load_dataset, meshes, shapenet

SHAPENET, ARCHIVE = OUTSIDE["shapenet"], OUTSIDE["archive"]


def run(root, folder, *arguments):
    small = ["--quiet", "--views", "3", "--side", "8", "--workers", "1"]
    return script.main(["--root", str(root), "--from", str(folder), *small, *arguments])


def manifest(root, name="shapenet"):
    return json.loads((root / f"{name}_arrays" / shapenet.MANIFEST).read_text())


# Meshes that the layout passes over


def test_meshes_outside_of_the_layout_of_shapenet_are_counted(tmp_path, capsys):
    root, folder = tmp_path / "root", write_shapenet(tmp_path / "local")
    others = ["02691156/m1/models/model_more.obj", "02691156/m1.obj", "deep/er/x/y/z.obj"]
    for name in others:
        write_obj(folder / name, solid_of(1))
    (folder / "lost.PLY").symlink_to(folder / "nowhere")
    (folder / "02691156" / "m1" / "notes.txt").write_text("no mesh")
    for _ in range(2):  # a second run, which keeps the arrays, says so again
        assert run(root, folder) == 0
        told = capsys.readouterr().err
        assert f"left out: {SHAPENET}: 3 (" in told
        assert f"left out: {NO_FILE}: 1 (lost.PLY)" in told
        assert told.count("left out") == 2
    seen = manifest(root)
    assert seen["overlooked"] == {SHAPENET: others, NO_FILE: ["lost.PLY"]}
    assert seen["left_out"] == {}
    assert sum(len(part["names"]) for part in seen["items"].values()) == 2 * EACH


def test_one_mesh_in_the_layout_of_shapenet_does_not_hide_the_others(tmp_path, capsys):
    folder = write_folder(tmp_path / "local")
    write_obj(folder / "a" / "b" / "models" / "model_normalized.obj", solid_of(0))
    assert run(tmp_path / "root", folder) == 1
    told = capsys.readouterr().err
    assert "families: 1 of meshes that differ" in told
    assert f"{SHAPENET}: {ALL} (cup/m0.obj" in told


def test_what_is_added_beside_the_layout_is_told_and_nothing_is_rendered_again(tmp_path, capsys):
    root = tmp_path / "root"
    folder = write_archive(tmp_path / "local", [f"p/Thing{chr(65 + n)}.obj" for n in range(6)])
    assert run(root, folder) == 0
    assert "left out" not in capsys.readouterr().err
    views = root / "shapenet_arrays" / "train_views.npy"
    written = views.stat().st_mtime_ns
    for there in (True, False):
        if there:
            write_obj(folder / "more.obj", solid_of(0))
        else:
            (folder / "more.obj").unlink()
        assert run(root, folder) == 0
        told = capsys.readouterr().err
        assert (f"left out: {ARCHIVE}: 1 (more.obj)" in told) == there
        assert manifest(root)["overlooked"] == ({ARCHIVE: ["more.obj"]} if there else {})
    assert views.stat().st_mtime_ns == written


def test_links_that_lead_nowhere_or_to_folders_are_counted(tmp_path, capsys):
    folder, elsewhere = write_folder(tmp_path / "local"), write_folder(tmp_path / "elsewhere")
    (folder / "cup" / "gone.obj").symlink_to(tmp_path / "nowhere.obj")
    (folder / "hut" / "round.obj").symlink_to("round.obj")
    (folder / "pot").symlink_to(elsewhere / "cup")
    (folder / "odd.obj").mkdir()
    os.link(folder / "cup" / "m0.obj", folder / "cup" / "twin.obj")
    (folder / "cup" / "linked.obj").symlink_to(elsewhere / "cup" / "m1.obj")
    assert run(tmp_path / "root", folder) == 0
    told = capsys.readouterr().err
    assert f"left out: {NO_FILE}: 2 (cup/gone.obj, hut/round.obj)" in told
    assert f"left out: {LINKED}: 1 (pot)" in told
    names = [n for split in SHARES for n in manifest(tmp_path / "root")["items"][split]["names"]]
    assert len(names) == ALL + 2
    assert {"cup/linked.obj", "cup/twin.obj"} <= set(names)


# STL files that were cut off


def write_stl(path, kind):
    content = solid_of(2).export(file_type=kind)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def reason(folder):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(find(folder)[1][0])
    return str(caught.value)


@pytest.mark.parametrize("kind", ["stl", "stl_ascii"])
@pytest.mark.parametrize("length", [0.5, 50, -1, -30])
def test_an_stl_that_was_cut_off_says_so(tmp_path, kind, length):
    path = tmp_path / "m.stl"
    write_stl(path, kind)
    whole = path.read_bytes()
    mesh, coloured = read(find(tmp_path)[1][0])
    assert (len(mesh.faces), coloured) == (len(solid_of(2).faces), False)
    if kind == "stl_ascii":
        whole = whole.rstrip()
    path.write_bytes(whole[: int(len(whole) * length) if isinstance(length, float) else length])
    assert reason(tmp_path) == CUT


def test_a_second_solid_that_was_cut_off_is_not_passed_over(tmp_path):
    path = tmp_path / "m.stl"
    write_stl(path, "stl_ascii")
    text = path.read_text()
    path.write_text(text + text)
    assert len(read(find(tmp_path)[1][0])[0].faces) == 2 * len(solid_of(2).faces)
    path.write_text(text + text[:-20])
    assert reason(tmp_path) == CUT


def test_other_stl_files_without_faces_say_what_they_are(tmp_path):
    path = tmp_path / "m.stl"
    write_stl(path, "stl")
    whole = path.read_bytes()
    # A binary file whose header begins like text is none.
    path.write_bytes(b"solid" + whole[5:])
    assert len(read(find(tmp_path)[1][0])[0].faces) == len(solid_of(2).faces)
    path.write_bytes(b"solid" + whole[5:-1])
    assert reason(tmp_path) == CUT
    path.write_bytes(whole + b"\0")
    assert reason(tmp_path) == f"{UNREADABLE} (it is longer than it says)"
    path.write_bytes(bytes(84))
    assert reason(tmp_path) == meshes.NO_FACES
    path.write_bytes(b"")
    assert reason(tmp_path) == meshes.NO_FACES
    path.write_text("no STL at all\n" * 20)
    assert reason(tmp_path) == CUT


# Colours


def write_pictured(path, paint, named="look.png"):
    """A square as OBJ with coordinates on a picture, and a material that names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = ["v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    faces = [f"mtllib {path.stem}.mtl", "usemtl p", "f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    path.write_text("\n".join([*corners, *faces]) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl p\nKd {paint}\nmap_Kd {named}\n")


def picture(path, colour=(10, 220, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def colours_of(folder):
    mesh, coloured = read(find(folder)[1][0])
    return coloured, set(map(tuple, mesh.colours.tolist()))


@pytest.mark.parametrize("paint", ["1 1 1", "0.8 0.2 0.1"])
def test_a_surface_whose_picture_is_missing_has_an_unknown_colour(tmp_path, paint):
    write_pictured(tmp_path / "a" / "m.obj", paint)
    assert colours_of(tmp_path) == (False, {meshes.GREY})
    (tmp_path / "a" / "look.png").write_bytes(b"no picture")
    assert colours_of(tmp_path) == (False, {meshes.GREY})
    picture(tmp_path / "a" / "look.png")
    assert colours_of(tmp_path) == (True, {(10, 220, 30)})


@pytest.mark.parametrize("named", ["../images/look.png", "..\\images\\look.png"])
def test_pictures_in_a_folder_beside_that_of_the_mesh_are_seen(tmp_path, named):
    """As ShapeNetCore has them."""
    mesh = tmp_path / "synset" / "model" / "models" / "model_normalized.obj"
    write_pictured(mesh, "1 1 1", named)
    assert colours_of(tmp_path) == (False, {meshes.GREY})
    picture(mesh.parents[1] / "images" / "look.png")
    assert colours_of(tmp_path) == (True, {(10, 220, 30)})


def test_pictures_further_away_are_not_opened(tmp_path):
    mesh = tmp_path / "a" / "b" / "m.obj"
    write_pictured(mesh, "1 1 1", "../../look.png")
    picture(tmp_path / "look.png")
    assert colours_of(tmp_path) == (False, {meshes.GREY})


def test_missing_pictures_are_counted_with_the_grey_meshes(tmp_path, capsys):
    folder = write_folder(tmp_path / "local")
    write_pictured(folder / "cup" / "lost.obj", "1 1 1")
    write_pictured(folder / "cup" / "there.obj", "1 1 1", "there.png")
    picture(folder / "cup" / "there.png")
    assert run(tmp_path / "root", folder) == 0
    assert "as a colour is unknown: 1 (cup/lost.obj)" in capsys.readouterr().err


# Sizes, and the next command


def command_of(out):
    """What `python -m shala_lite run` is told with -p, as it reads it; its chapter and profile."""
    (line,) = [line for line in out.splitlines() if line.startswith("    python -m shala_lite")]
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "shala_lite", "run"]
    chapter, option, profile, *given = words[4:]
    assert option == "--profile"
    assert given[::3] == ["-p"] * (len(given) // 3)
    values = map(profiles.parse_value, given[2::3])
    return chapter, profile, dict(zip(given[1::3], values, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shapenet", ("--views", "2")),
        ("shapenet", ("--views", "16")),
        ("shapenet_32", ("--views", "32")),
        ("shapenet_64px", ("--views", "5", "--side", "64")),
    ],
)
def test_sizes_are_told_and_a_command_that_fits_them(
    tmp_path, capsys, monkeypatch, repository, name, options
):
    folder = write_folder(tmp_path / "local")
    for number in range(12):
        write_obj(folder / "pan" / f"m{number}.obj", solid_of(number))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run("a root", "local", *options) == 0
        out = capsys.readouterr().out
        counts = {
            s: len(p["labels"]) for s, p in manifest(tmp_path / "a root", name)["items"].items()
        }
        assert counts["val"] != counts["test"]
        assert "Objects: train {train}, val {val}, test {test}.".format(**counts) in out
        chapter, profile, given = command_of(out)
        # From elsewhere, as the chapter may run in another folder.
        values = profiles.resolve(chapter, profile, given, repository / "book")
        where = {"source": values["source"], "root": values["root"]}
        assert os.path.isabs(values["root"])
        views = int(options[1])
        for split in ("train", "test"):
            data = load_dataset(values["dataset"], split, size=values[f"{split}_size"], **where)
            assert (len(data), len(data.modalities)) == (counts[split], views)


def test_fewer_views_than_the_chapter_takes_are_told(tmp_path, capsys):
    assert run(tmp_path / "root", write_folder(tmp_path / "local"), "--views", "1") == 0
    out = capsys.readouterr().out
    assert "Objects: train" in out
    assert "The chapter 09_shapenet_views needs --views 2 or more." in out
    assert "python -m shala_lite" not in out
