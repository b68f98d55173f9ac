import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from shala_lite.datasets.digits import embedded_scans, enlarge

SPLITS = ("train", "val", "test")


def test_every_scan_is_in_exactly_one_split():
    # The original, not the enlarged scans, so that a split by enlarged content could not pass.
    originals = enlarge(load_digits().images)
    assert len(np.unique(originals, axis=0)) == 1797
    together = np.concatenate([embedded_scans(split)[0] for split in SPLITS])
    assert len(together) == 1797
    assert np.array_equal(np.unique(together, axis=0), np.unique(originals, axis=0))


@pytest.mark.parametrize("split", SPLITS)
def test_scans_keep_their_labels(split):
    digits = load_digits()
    label_of = {scan.tobytes(): label for scan, label in zip(enlarge(digits.images), digits.target)}
    scans, labels = embedded_scans(split)
    assert [label_of[scan.tobytes()] for scan in scans] == labels.tolist()


def test_val_and_test_hold_thirty_of_each_digit():
    for split in ("val", "test"):
        assert np.bincount(embedded_scans(split)[1]).tolist() == [30] * 10
    assert np.bincount(embedded_scans("train")[1]).min() > 100


def test_the_ink_stays_where_the_scan_has_it():
    scans = load_digits().images
    mask = enlarge(scans) > 128
    assert not mask[:, :2].any()
    assert not mask[:, :, -2:].any()
    blocks = mask[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4))
    assert abs(blocks.mean() - scans.mean() / 16) < 0.01
    # Within a block nine pixels are on or off, so that its share is off by 0.06 on average
    # even at best; by 0.25 were it drawn at random.
    assert abs(blocks - scans / 16).mean() < 0.1
    assert blocks[scans == 0].mean() < 0.01
    assert blocks[scans == 16].mean() > 0.99


def test_enlarging_commutes_with_mirroring_and_turning():
    scans = load_digits().images[:50]
    assert np.array_equal(enlarge(scans[:, :, ::-1]), enlarge(scans)[:, :, ::-1])
    turned = enlarge(scans.transpose(0, 2, 1)).transpose(0, 2, 1).astype(int)
    assert abs(turned - enlarge(scans)).max() <= 1  # sums in another order


def test_blank_and_full_scans_stay_so():
    assert not enlarge(np.zeros((1, 8, 8))).any()
    full = enlarge(np.full((1, 8, 8), 16.0))
    assert (full[:, 2:26, 2:26] > 128).sum() >= 24 * 24 - 4  # corners may round off
    assert (full[:, 5:23, 5:23] == 255).all()


def test_the_masks_are_legible():
    # A classifier of the eighties reads the bare masks of scans that it has never seen.
    (seen, seen_labels), (new, new_labels) = embedded_scans("train"), embedded_scans("test")
    machine = SVC(C=10).fit((seen > 128).reshape(len(seen), -1), seen_labels)
    assert machine.score((new > 128).reshape(len(new), -1), new_labels) > 0.95
