"""The data set in memory, and load_dataset's front door."""

import pytest
import torch
from tiny_models import NAMES, some_present, tiny_dataset

from shala_lite.datasets import MultimodalDataset, data_root, load_dataset
from shala_lite.modalities import Modality
from shala_lite.vocabulary import Vocabulary

MODALITIES = (Modality("a", (1, 2, 2)), Modality("b", (3, 4, 4)))


def make(n=7, **changes):
    generator = torch.Generator().manual_seed(0)
    observations = {
        m.name: torch.randint(256, (n, *m.shape), dtype=torch.uint8, generator=generator)
        for m in MODALITIES
    }
    fields = {
        "modalities": MODALITIES,
        "observations": observations,
        "labels": torch.arange(n) % 3,
        "name": "made",
        "split": "train",
        "source": "here",
    }
    return MultimodalDataset(**fields | changes)


def test_a_batch_is_the_stored_bytes_over_255():
    data = make()
    at = torch.tensor([3, 0, 3])
    batch = data.batch(at)
    assert set(batch) == {"x", "present"}
    assert list(batch["x"]) == ["a", "b"]
    for name, x in batch["x"].items():
        assert x.dtype == torch.float32
        assert torch.equal((x * 255).round().to(torch.uint8), data.observations[name][at])
        assert x.min() >= 0
        assert x.max() <= 1
    assert batch["present"] is None  # nobody lacks anything
    fewer = data.with_missing(0.5)
    assert torch.equal(fewer.batch(at)["present"], fewer.present[at])
    assert not fewer.complete


def test_texts_are_token_ids_and_attributes_go_along():
    word = Modality("word", (3,), "text", Vocabulary((" ", "x", "y"), ""))
    ids = torch.randint(3, (7, 3), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    observations = make().observations | {"word": ids}
    data = make(modalities=(*MODALITIES, word), observations=observations)
    batch = data.batch(torch.tensor([2, 0]))["x"]["word"]
    assert batch.dtype == torch.int64
    assert batch.tolist() == ids[[2, 0]].tolist()
    known = make(
        modalities=(*MODALITIES, word),
        observations=observations,
        attributes={"colour": torch.arange(7)},
    )
    assert known.subset([4, 2]).attributes["colour"].tolist() == [4, 2]
    assert known.to("cpu").attributes["colour"].tolist() == list(range(7))
    assert known.only(["word"]).attributes.keys() == {"colour"}
    assert len({make().fingerprint, data.fingerprint, known.fingerprint}) == 3
    with pytest.raises(ValueError, match=r"observations\['word'\].*int16"):
        make(modalities=(word,), observations={"word": ids.long()})
    with pytest.raises(ValueError, match=r"attributes\['colour'\].*int64"):
        make(attributes={"colour": torch.zeros(7)})


def test_a_batch_is_a_copy():
    data = make()
    before = data.observations["a"].clone()
    data.batch(torch.arange(7))["x"]["a"].fill_(0.5)
    assert torch.equal(data.observations["a"], before)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_go_once_through_everything_in_order(size):
    data = make()
    batches = list(data.batches(size))
    assert all(len(batch["x"]["a"]) <= size for batch in batches)
    whole = data.batch(torch.arange(7))
    for name in ("a", "b"):
        assert torch.equal(torch.cat([b["x"][name] for b in batches]), whole["x"][name])


def test_batches_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"batch_size.*got 0"):
        next(make().batches(0))


def test_subsets_by_list_mask_and_slice_agree():
    data = make()
    mask = torch.tensor([False, True, True, False, False, False, False])
    for indices in ([1, 2], mask, slice(1, 3), torch.tensor([1, 2])):
        part = data.subset(indices)
        assert len(part) == 2
        assert torch.equal(part.labels, data.labels[1:3])
        assert torch.equal(part.observations["b"], data.observations["b"][1:3])
        assert part.present.shape == (2, 2)
        assert part.name == data.name
        assert part.fingerprint == data.subset([1, 2]).fingerprint
    assert data.subset([2, 1]).fingerprint != data.subset([1, 2]).fingerprint


def test_the_fingerprint_follows_the_content_and_nothing_else():
    data = make()
    print_of = data.fingerprint
    assert len(print_of) == 64
    assert make(name="x", split="y", source="z", note="w").fingerprint == print_of
    assert data.to("cpu").fingerprint == print_of
    other = {name: x.clone() for name, x in data.observations.items()}
    other["b"][6, 2, 3, 3] ^= 1
    assert make(observations=other).fingerprint != print_of
    assert make(labels=(torch.arange(7) + 1) % 3).fingerprint != print_of
    present = torch.ones(7, 2, dtype=torch.bool)
    assert make(present=present).fingerprint == print_of
    present[0, 1] = False
    assert make(present=present).fingerprint != print_of
    renamed = (Modality("c", (1, 2, 2)), MODALITIES[1])
    as_c = {"c": data.observations["a"], "b": data.observations["b"]}
    assert make(modalities=renamed, observations=as_c).fingerprint != print_of


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (slice(3), 3),
        (slice(None), 4),
        ([3, 1, 0, 5, 2], 3),  # the fourth may repeat one
        ([0, 1, 1, 2], 2),
        ([5, 0, 1], 0),
        ([True, False, True, True, True, True, True], 3),
    ],
)
def test_a_subset_knows_how_many_of_its_first_items_repeat_nothing(indices, expected):
    data = make()
    data.distinct = 4
    at = torch.tensor(indices) if isinstance(indices, list) else indices
    assert data.subset(at).distinct == expected


def test_a_fingerprint_taken_before_subset_does_not_stick():
    data = make()
    assert data.fingerprint
    assert data.subset([0]).fingerprint == make().subset([0]).fingerprint != data.fingerprint


def test_observations_stand_in_the_order_of_the_modalities():
    data = make()
    turned = make(observations=dict(reversed(data.observations.items())))
    assert list(turned.observations) == ["a", "b"]
    assert turned.fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"modalities": ()}, "at least one"),
        ({"modalities": (MODALITIES[0], MODALITIES[0])}, "distinct"),
        ({"observations": {}}, r"expected the names \['a', 'b'\], got \[\]"),
        ({"labels": torch.arange(6)}, r"'a'.*expected \(6, 1, 2, 2\)"),
        ({"labels": torch.arange(7.0)}, "labels.*float32"),
        ({"present": torch.ones(7, 2)}, "present.*bool"),
        ({"present": torch.ones(7, 3, dtype=torch.bool)}, r"\(7, 3\)"),
    ],
)
def test_fields_that_do_not_fit_are_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(**changes)


def test_observations_must_be_bytes():
    wrong = {name: x.float() for name, x in make().observations.items()}
    with pytest.raises(ValueError, match=r"uint8.*float32"):
        make(observations=wrong)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "polymist"}, "name: expected one of polymnist, .*got 'polymist'"),
        ({"split": "valid"}, "split: expected one of train, val, test, got 'valid'"),
        ({"source": "web"}, "source: expected one of embedded, real, got 'web'"),
        ({"size": 0}, "size.*got 0"),
        ({"size": 2.5}, "size.*got 2.5"),
        ({"seed": -1}, "seed.*got -1"),
    ],
)
def test_arguments_that_are_not_allowed_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_dataset(**{"name": "polymnist", "split": "train"} | arguments)


def test_the_data_root_is_the_argument_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SHALA_DATA", str(tmp_path / "set"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "set"
    monkeypatch.delenv("SHALA_DATA")
    assert data_root().name == "shala_lite"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
def test_what_is_left_out_is_that_share_and_never_all_of_an_item(share):
    data = tiny_dataset(4000)
    some = data.with_missing(share, seed=3)
    assert some.present.any(1).all()
    left = 3 * (1 - share) + share**3  # the one that an item keeps which would lose all three
    assert some.present.float().sum(1).mean().item() == pytest.approx(left, abs=0.06)
    assert all(torch.equal(some.observations[n], data.observations[n]) for n in NAMES)
    assert (some.fingerprint == data.fingerprint) == (share == 0)
    assert torch.equal(some.present, data.with_missing(share, seed=3).present)
    if share:
        assert not torch.equal(some.present, data.with_missing(share, seed=4).present)


def test_what_was_missing_stays_missing():
    data = tiny_dataset(500, present=some_present(500))
    again = data.with_missing(0.5)
    assert not (again.present & ~data.present).any()
    assert again.present.any(1).all()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match=f"share: {share}, expected at least 0 and below 1"):
        tiny_dataset().with_missing(share)


def test_only_some_modalities_in_the_order_asked_for():
    data = tiny_dataset(6, present=some_present(6))
    fingerprint = data.fingerprint
    few = data.only(["c", "a"])
    assert [modality.name for modality in few.modalities] == ["c", "a"]
    assert torch.equal(few.present, data.present[:, [2, 0]])
    assert set(few.batch(torch.arange(3))["x"]) == {"a", "c"}
    assert few.fingerprint != fingerprint == data.fingerprint
    assert torch.equal(few.labels, data.labels)


def test_only_modalities_that_there_are():
    with pytest.raises(ValueError, match=r"names.*'z'.*expected"):
        tiny_dataset(6).only(["a", "z"])
