"""Large arrays in files: whole or not there, mapped and not read, and never used when damaged."""

import hashlib
import resource
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from filelock import FileLock

from shala_lite.datasets import shards

SHAPE = (6, 2, 3)


def rows(count=SHAPE[0]):
    yield from np.random.default_rng(0).integers(256, size=(count, *SHAPE[1:]), dtype=np.uint8)


WHOLE = np.stack(list(rows()))


def never():
    raise AssertionError("made although it is there")


def test_what_is_written_is_what_numpy_reads(tmp_path):
    path = tmp_path / "x.npy"
    digest = shards.write(path, SHAPE, rows())
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.array_equal(np.load(path), WHOLE)
    assert np.array_equal(shards.mapped(path, digest), WHOLE)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_an_array_without_rows_is_one_too(tmp_path):
    path = tmp_path / "x.npy"
    digest = shards.write(path, (0, 4, 4), [])
    assert shards.mapped(path, digest).shape == (0, 4, 4)


def test_a_mapped_array_is_a_tensor_that_can_be_written_to_without_changing_the_file(
    tmp_path, recwarn
):
    path = tmp_path / "x.npy"
    digest = shards.write(path, SHAPE, rows())
    seen = torch.from_numpy(shards.mapped(path, digest))
    seen[2] = 7
    assert (seen[2] == 7).all()
    assert np.array_equal(shards.mapped(path, digest), WHOLE)
    assert not recwarn.list


def test_what_is_mapped_takes_no_memory_until_it_is_looked_at(tmp_path):
    path, row = tmp_path / "x.npy", np.zeros(1 << 20, np.uint8)
    digest = shards.write(path, (50, 1 << 20), (row for _ in range(50)))
    tracemalloc.start()
    x = torch.from_numpy(shards.mapped(path, digest))
    picked = x.numpy()[:, ::2][[3, 30]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert picked.shape == (2, 1 << 19)
    assert 1 << 20 <= peak < 4 << 20  # what was picked, and buffers


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (lambda: rows(5), "rows: there are 5, expected 6"),
        (lambda: rows(7), "rows: there are 7, expected 6"),
        (lambda: (row[:1] for row in rows()), r"rows: \(1, 3\) uint8, expected \(2, 3\) uint8"),
        (lambda: (row.astype(int) for row in rows()), r"rows: \(2, 3\) int64, expected"),
    ],
)
def test_rows_that_do_not_fit_leave_the_old_file(tmp_path, given, complaint):
    path = tmp_path / "x.npy"
    digest = shards.write(path, SHAPE, rows())
    with pytest.raises(ValueError, match=complaint):
        shards.write(path, SHAPE, given())
    assert np.array_equal(shards.mapped(path, digest), WHOLE)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_a_damaged_or_missing_file_is_named(tmp_path):
    path = tmp_path / "x.npy"
    digest = shards.write(path, SHAPE, rows())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"x\.npy: damaged: its sha256 is .* expected"):
        shards.mapped(path, digest)
    path.unlink()
    with pytest.raises(ValueError, match=r"x\.npy: missing"):
        shards.mapped(path, digest)


def test_a_cached_array_is_made_once(tmp_path, recwarn):
    path = tmp_path / "deep" / "x.npy"
    assert np.array_equal(shards.cached(path, SHAPE, rows), WHOLE)
    assert np.array_equal(shards.cached(path, SHAPE, never), WHOLE)
    assert not recwarn.list


def damage(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif how == "bit":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif how == "unsealed":
        path.with_suffix(".sha256").unlink()
    else:
        path.with_suffix(".sha256").write_text("no digest")


@pytest.mark.parametrize("how", ["cut", "bit", "unsealed", "other seal"])
def test_a_damaged_cached_array_is_made_again_with_a_warning(tmp_path, how):
    path = tmp_path / "x.npy"
    shards.cached(path, SHAPE, rows)
    damage(path, how)
    with pytest.warns(UserWarning, match=r"x\.npy is damaged; it is made anew"):
        assert np.array_equal(shards.cached(path, SHAPE, rows), WHOLE)
    assert np.array_equal(shards.cached(path, SHAPE, never), WHOLE)


def test_an_error_while_it_is_made_leaves_nothing_that_is_used(tmp_path):
    def broken():
        yield WHOLE[0]
        raise RuntimeError("no more")

    path = tmp_path / "x.npy"
    with pytest.raises(RuntimeError, match="no more"):
        shards.cached(path, SHAPE, broken)
    assert np.array_equal(shards.cached(path, SHAPE, rows), WHOLE)


def test_where_nothing_can_be_kept_the_array_is_made_in_memory(tmp_path):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "x.npy"
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"x\.npy cannot be kept .* made in memory"):
            assert np.array_equal(shards.cached(path, SHAPE, rows), WHOLE)


def test_a_full_disk_is_no_reason_to_fail(tmp_path):
    # A limit on the size of files stands for the disk: writing fails in the middle.
    path = tmp_path / "x.npy"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (140, usual[1]))
    try:
        with pytest.warns(UserWarning, match=r"x\.npy cannot be kept .* made in memory"):
            seen = shards.cached(path, SHAPE, rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert np.array_equal(seen, WHOLE)
    assert not list(tmp_path.glob("x.npy*"))
    assert np.array_equal(shards.cached(path, SHAPE, rows), WHOLE)


def test_one_makes_it_while_another_waits(tmp_path, capsys):
    path, held = tmp_path / "x.npy", threading.Event()

    def other():
        with FileLock(path.with_suffix(".lock")):
            held.set()
            time.sleep(1.5)
            digest = shards.write(path, SHAPE, rows())
            path.with_suffix(".sha256").write_text(digest)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10)
    assert np.array_equal(shards.cached(path, SHAPE, never), WHOLE)
    thread.join()
    assert "waiting for x.npy" in capsys.readouterr().err
