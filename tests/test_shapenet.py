"""Objects from many azimuths as a data set, embedded and real."""

import json
import zlib

import numpy as np
import pooch
import pytest
import torch
from small_meshes import CATEGORIES, EACH, write_folder

from data_scripts.shapenet import prepare
from shala_lite.datasets import load_dataset, objects, shapenet
from shala_lite.datasets.cameras import Rig
from shala_lite.datasets.views import render

RIG = Rig(3, 10.0, 12)
SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test renders into the user's cache folder."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "shala_lite" / "rendered"


# Embedded


def test_an_embedded_set_shows_what_its_attributes_say(cache):
    data = load_dataset("shapenet", "train", size=12)
    assert (data.name, data.split, data.source, len(data)) == ("shapenet", "train", "embedded", 12)
    assert [m.name for m in data.modalities] == [f"view{view:02d}" for view in range(16)]
    assert {(m.shape, m.kind) for m in data.modalities} == {((4, 32, 32), "image")}
    assert list(data.attributes) == list(objects.VALUES)
    assert torch.equal(data.labels, data.attributes["category"])
    assert torch.bincount(data.labels).tolist() == [3] * 4
    # Alpha is 0 on the white ground, and a silhouette in every view.
    for x in data.observations.values():
        ground = x[:, 3] == 0
        assert (x[:, :3].amin(1)[ground] == 255).all()
        share = (x[:, 3] == 255).float().mean((1, 2))
        assert 0.03 < share.min() < share.max() < 0.7
    assert len(list(cache.glob("*.npy"))) == 1


def test_the_usual_embedded_sizes():
    assert shapenet.SIZES == {"train": 2_000, "val": 300, "test": 600}


def test_same_arguments_same_bytes_and_other_arguments_other_objects():
    arguments = [("train", 6, 0), ("train", 6, 1), ("val", 6, 0), ("test", 6, 0)]
    first, second = (
        [load_dataset("shapenet", s, size=n, seed=k) for s, n, k in arguments] for _ in range(2)
    )
    assert [d.fingerprint for d in first] == [d.fingerprint for d in second]
    seen = [row.numpy().tobytes() for data in first for row in data.observations["view03"]]
    assert len(set(seen)) == len(seen) == 24


def test_the_number_of_processes_changes_no_byte(cache):
    alone = shapenet.embedded("val", 5, 0, workers=1).fingerprint
    for path in cache.iterdir():
        path.unlink()
    assert shapenet.embedded("val", 5, 0, workers=2).fingerprint == alone


@pytest.mark.parametrize(
    ("name", "size", "shown"),
    [("shapenet", 200, True), ("shapenet", 199, False), ("shapenet_64px", 50, True)],
)
def test_only_what_takes_long_shows_a_bar_and_shows_it_without_a_terminal_too(
    monkeypatch, capsys, name, size, shown
):
    def blank(job):
        return np.zeros((job[0].views, 4, job[0].side, job[0].side), np.uint8)

    monkeypatch.setattr(shapenet, "_draw", blank)
    load_dataset(name, "val", size=size)
    told = capsys.readouterr().err
    assert (f"{name} val" in told) == (f"/{size}" in told) == shown
    assert "\n" not in told  # the bar is taken away at the end
    load_dataset(name, "val", size=size)  # rendered before
    assert capsys.readouterr().err == ""


def test_what_is_rendered_is_kept_and_what_is_damaged_is_rendered_again(cache, monkeypatch):
    fingerprint = load_dataset("shapenet", "val", size=4).fingerprint
    (path,) = cache.glob("*.npy")
    written = path.stat().st_mtime_ns
    assert load_dataset("shapenet", "val", size=4).fingerprint == fingerprint
    assert path.stat().st_mtime_ns == written
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        assert load_dataset("shapenet", "val", size=4).fingerprint == fingerprint
    # Other code, other file.
    monkeypatch.setattr(shapenet, "_CODE", "another")
    assert load_dataset("shapenet", "val", size=4).fingerprint == fingerprint
    assert len(list(cache.glob("*.npy"))) == 2


def test_the_digest_of_the_code_is_that_of_all_modules_that_make_pictures():
    digests = {
        shapenet.code(modules) for modules in (("views",), ("cameras",), ("cameras", "views"))
    }
    assert len(digests) == 3
    assert shapenet.code() == shapenet.code(("cameras", "meshes", "views"))


def test_thirty_two_views_are_of_the_same_objects():
    few, many = (
        load_dataset("shapenet", "test", size=4),
        load_dataset("shapenet_32", "test", size=4),
    )
    assert (many.name, len(many.modalities)) == ("shapenet_32", 32)
    assert {k: v.tolist() for k, v in few.attributes.items()} == {
        k: v.tolist() for k, v in many.attributes.items()
    }
    for view in range(16):
        x, y = few.observations[f"view{view:02d}"], many.observations[f"view{2 * view:02d}"]
        assert ((x.int() - y.int()).abs().amax(1) > 1).float().mean() < 0.01


def test_larger_pictures_are_of_the_same_objects_from_the_same_sides():
    few, fine = (load_dataset(name, "test", size=2) for name in ("shapenet", "shapenet_64px"))
    assert fine.modalities[0].shape == (4, 64, 64)
    assert len(fine.modalities) == 16
    for name, x in few.observations.items():
        smaller = torch.nn.functional.avg_pool2d(fine.observations[name].float(), 2)
        assert (smaller - x.float()).abs().mean() < 3


def test_batches_of_some_views_come_from_the_mapped_file_alone():
    data = load_dataset("shapenet", "val", size=6)
    x = data.observations["view05"]
    # A window of one storage, which is the file: nothing was copied.
    assert {v.untyped_storage().data_ptr() for v in data.observations.values()} == {
        x.untyped_storage().data_ptr()
    }
    assert x.stride(0) == 16 * 4 * 32 * 32
    some = data.only(["view05", "view09"])
    at = torch.tensor([4, 1])
    batch = some.batch(at)["x"]
    assert list(batch) == ["view05", "view09"]
    assert torch.equal((batch["view05"] * 255).round().to(torch.uint8), x[at])
    assert torch.equal(data.to("cpu").observations["view05"], x)


def test_an_embedded_item_is_its_object_rendered():
    data = load_dataset("shapenet", "val", size=3)
    rng = np.random.default_rng([0, zlib.crc32(b"shapenet/embedded/val")])
    values, shapes = rng.spawn(2)
    dealt, nuisance = objects.deal(3, values), shapes.random((3, objects.NUISANCES))
    made = objects.build({name: int(known[2]) for name, known in dealt.items()}, nuisance[2])
    views = np.stack([x[2].numpy() for x in data.observations.values()])
    assert np.array_equal(render(made, Rig()), views)


# Real


@pytest.fixture
def root(tmp_path):
    prepare(tmp_path, write_folder(tmp_path / "local"), RIG, workers=1, progress=False)
    return tmp_path


def real(root, split="train", **arguments):
    return load_dataset("shapenet", split, source="real", root=root, **arguments)


def manifest_of(root):
    return json.loads((root / "shapenet_arrays" / shapenet.MANIFEST).read_text())


def rewrite(root, **changes):
    path = root / "shapenet_arrays" / shapenet.MANIFEST
    path.write_text(json.dumps(manifest_of(root) | changes))


def test_real_views_follow_the_cameras_that_were_asked_for(root):
    manifest = manifest_of(root)
    assert shapenet.rig_of("real", root) == RIG
    assert shapenet.rig_of("embedded", root) == shapenet.RIGS["shapenet"]
    for split in SPLITS:
        data = real(root, split)
        assert [m.name for m in data.modalities] == ["view00", "view01", "view02"]
        assert {m.shape for m in data.modalities} == {(4, 12, 12)}
        known = manifest["items"][split]
        assert data.labels.tolist() == known["labels"]
        named = [CATEGORIES[label] for label in known["labels"]]
        assert named == [name.split("/")[0] for name in known["names"]]
    total = len(CATEGORIES) * EACH
    assert data.note == (
        f"{total} meshes of 3 categories from a folder of meshes, which is not ShapeNet, "
        "3 views each at 12x12"
    )


def test_a_smaller_size_is_drawn_with_the_seed(root):
    whole = real(root)
    bytes_of = [row.numpy().tobytes() for row in whole.observations["view01"]]
    few = real(root, size=5)
    at = [bytes_of.index(row.numpy().tobytes()) for row in few.observations["view01"]]
    assert len(set(at)) == 5
    assert torch.equal(few.labels, whole.labels[at])
    assert real(root, size=5).fingerprint == few.fingerprint
    assert real(root, size=5, seed=1).fingerprint != few.fingerprint
    assert real(root, seed=1).fingerprint == whole.fingerprint
    with pytest.raises(ValueError, match=rf"size: there are {len(whole)} objects.*got 1,000"):
        real(root, size=1000)


def test_real_arrays_are_mapped(root):
    data = real(root)
    x = data.observations["view02"]
    assert x.untyped_storage().nbytes() == len(data) * 3 * 4 * 12 * 12
    assert data.batch(torch.tensor([1]))["x"]["view02"].shape == (1, 4, 12, 12)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("shapenet", ""), ("shapenet_32", " --views 32"), ("shapenet_64px", " --side 64")],
)
def test_missing_data_say_how_to_prepare_them(tmp_path, name, extra):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name, "train", source="real", root=nowhere)
    message = str(caught.value)
    assert f"python -m data_scripts.shapenet --from DIR --root {nowhere}{extra}`" in message
    assert "$SHALA_DATA" in message


def test_a_damaged_or_missing_file_is_named(root):
    path = root / "shapenet_arrays" / "val_views.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"val_views\.npy: damaged.*prepare the data again"):
        real(root, "val")
    path.unlink()
    with pytest.raises(ValueError, match=r"val_views\.npy: missing.*prepare the data again"):
        real(root, "val")


@pytest.mark.parametrize(
    "changes",
    [
        {"rig": {"views": 0}},
        {"rig": {"lens": 3}},
        {"items": {}},
        {"sha256": {}},
        {"sha256": dict.fromkeys(SPLITS)},
        {"layout": "x"},
        {"categories": 3},
        {"items": {s: {"names": ["a"], "labels": [], "families": []} for s in SPLITS}},
    ],
)
def test_a_manifest_that_is_none_is_named(root, changes):
    rewrite(root, **changes)
    with pytest.raises(ValueError, match=r"shapenet\.json: not a manifest"):
        real(root)


def test_a_manifest_of_other_arrays_is_noticed(root):
    rewrite(root, rig={"views": 4, "side": 12})
    with pytest.raises(ValueError, match=r"train has the shape \(.*\), shapenet\.json another"):
        real(root)
    (root / "shapenet_arrays" / shapenet.MANIFEST).write_text("no json")
    with pytest.raises(ValueError, match=r"shapenet\.json: not a manifest"):
        real(root)
