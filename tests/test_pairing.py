import numpy as np
import pytest

from shala_lite.datasets.pairing import deal, distinct, draw_labels, generator, part_of

LABELS = np.repeat([0, 1, 2], [5, 3, 8])


def test_labels_are_drawn_as_often_as_they_occur():
    drawn = draw_labels(LABELS, 16 * 4, np.random.default_rng(0))
    assert np.bincount(drawn).tolist() == [20, 12, 32]
    assert len(draw_labels(LABELS, 7, np.random.default_rng(0))) == 7


def test_every_source_is_dealt_equally_often_and_to_its_own_label():
    rng = np.random.default_rng(0)
    drawn = rng.integers(3, size=1001)  # other frequencies than the source's
    chosen = deal(LABELS, drawn, rng)
    assert np.array_equal(LABELS[chosen], drawn)
    used = np.bincount(chosen, minlength=len(LABELS))
    for of_one_label in np.split(used, [5, 8]):
        assert np.ptp(of_one_label) <= 1


def test_a_label_without_a_source_is_an_error():
    with pytest.raises(ValueError, match="labels: none is 7, expected all"):
        deal(LABELS, np.array([0, 7]), np.random.default_rng(0))


def test_distinct_counts_up_to_the_first_repetition_in_any_modality():
    assert distinct(np.array([4, 2, 9, 4, 1]), np.array([0, 1, 2, 3, 4])) == 3
    assert distinct(np.array([4, 2, 9]), np.array([0, 1, 1])) == 2
    assert distinct(np.arange(6), np.arange(6)) == 6


@pytest.mark.parametrize("count", [5, 12, 60_000, 73_257])
def test_train_and_val_divide_the_published_training_items(count):
    items = list(range(count))
    assert items[part_of("train", count)] + items[part_of("val", count)] == items
    assert len(items[part_of("val", count)]) == count // 12
    assert items[part_of("test", count)] == items


def test_names_sources_splits_and_seeds_draw_independently():
    arguments = [
        ("a", "real", "train", 0),
        ("b", "real", "train", 0),
        ("a", "embedded", "train", 0),
        ("a", "real", "val", 0),
        ("a", "real", "train", 1),
    ]
    first, second = ([generator(*each).random() for each in arguments] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(arguments)
