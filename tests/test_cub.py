"""Birds and sentences as a data set, embedded and real."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cub import CAPTIONS, CLASSES, EACH, captions_of, colour_of, write_cub

from data_scripts.cub import prepare
from shala_lite.datasets import cub, load_dataset, sentences
from shala_lite.datasets.birds import VALUES

REAL = Path(os.environ.get("SHALA_DATA") or Path(__file__).parents[2] / "shared" / "data")
TRAIN = CLASSES * EACH // 2
VAL = TRAIN // cub.VAL_ONE_IN


# Embedded


def texts_of(data):
    return data.modalities[1].vocabulary.decode(data.observations["sentence"])


@pytest.mark.parametrize(("split", "size"), [("train", 60), ("val", 1000), ("test", 60)])
def test_an_embedded_set_holds_pictures_sentences_and_what_they_say(split, size):
    data = load_dataset("cub", split, size=None if split == "val" else size)
    assert len(data) == size
    assert (data.name, data.split, data.source) == ("cub", split, "embedded")
    image, sentence = data.modalities
    assert (image.name, image.shape, image.kind) == ("image", (3, 64, 64), "image")
    assert (sentence.name, sentence.shape, sentence.kind) == ("sentence", (16,), "text")
    assert list(data.attributes) == [*VALUES, *(f"mentioned_{name}" for name in VALUES)]
    assert torch.equal(data.labels, data.attributes["belly"])
    said = sentences.read_off(texts_of(data))
    for name in VALUES:
        heard = torch.from_numpy(said[name])
        assert torch.equal(data.attributes[f"mentioned_{name}"], (heard >= 0).long())
        assert torch.equal(heard[heard >= 0], data.attributes[name][heard >= 0])


def test_a_bird_of_the_training_set_has_two_sentences():
    data = load_dataset("cub", "train", size=401)
    image, texts = data.observations["image"], texts_of(data)
    assert data.distinct == len(torch.unique(image, dim=0)) == 201
    assert torch.equal(image[201:], image[:200])
    for name in VALUES:
        assert torch.equal(data.attributes[name][201:], data.attributes[name][:200])
    same = sum(a == b for a, b in zip(texts, texts[201:]))
    assert same < 20  # short ones agree now and then
    test = load_dataset("cub", "test", size=100)
    assert test.distinct is None
    assert len(torch.unique(test.observations["image"], dim=0)) == 100


def test_an_unknown_word_of_a_sentence_becomes_the_unknown_token():
    vocabulary = cub.MODALITIES[1].vocabulary
    read = vocabulary.decode(vocabulary.encode(["a bird with a mauve belly"], 16))
    assert read == ["a bird with a <unk> belly"]


def test_the_usual_embedded_sizes():
    assert cub.SIZES == {"train": 10_000, "val": 1_000, "test": 2_000}


def test_same_arguments_same_bytes_and_other_arguments_other_bytes():
    arguments = [("train", 40, 0), ("train", 40, 1), ("val", 40, 0), ("test", 40, 0)]
    first, second = (
        [load_dataset("cub", s, size=n, seed=k).fingerprint for s, n, k in arguments]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(arguments)


def test_a_sentence_knows_nothing_of_the_light_behind_the_bird():
    data = load_dataset("cub", "train", size=2000)
    # The corner shows the sky and nothing else, whatever the bird does.
    light = data.observations["image"][:, :, :2, :2].float().mean((1, 2, 3))
    ids = data.observations["sentence"]
    words = torch.stack([(ids == k).any(1) for k in range(1, len(data.modalities[1].vocabulary))])
    words = words[words.float().var(1) > 0.02].float()
    assert len(words) > 30
    table = np.corrcoef(np.vstack([light[None].numpy(), words.numpy()]))
    assert abs(table[0, 1:]).max() < 4.5 / np.sqrt(2000)


# Real


@pytest.fixture
def root(tmp_path):
    prepare(tmp_path, write_cub(tmp_path / "CUB_200_2011"), captions="template", progress=False)
    return tmp_path


def real(root, split="train", **arguments):
    return load_dataset("cub", split, source="real", root=root, **arguments)


def numbers_of(data):
    """Which photograph each item shows, from its colour."""
    seen = data.observations["image"].float().mean((2, 3))
    known = torch.tensor([colour_of(n) for n in range(CLASSES * EACH)]).float()
    return torch.cdist(seen, known).argmin(1).tolist()


def test_photographs_come_with_their_own_class_and_one_of_their_captions(root):
    for split, count in (("train", TRAIN - VAL), ("val", VAL), ("test", TRAIN)):
        data = real(root, split)
        numbers = numbers_of(data)
        assert len(data) == len(set(numbers)) == data.distinct == count
        assert data.labels.tolist() == [number // EACH for number in numbers]
        assert {number % 2 for number in numbers} == {1 if split == "test" else 0}
        assert data.modalities[1].shape == (32,)
        # "p12" is in four captions of train, "unique12x0" in one only.
        for number, text in zip(numbers, texts_of(data)):
            name = f"p{number}" if split == "train" else "<unk>"
            assert text in [f"a bird numbered {name} said c{k} <unk>" for k in range(CAPTIONS)]


def test_real_splits_share_no_photograph_and_one_vocabulary(root):
    splits = [real(root, split) for split in ("train", "val", "test")]
    numbers = [set(numbers_of(data)) for data in splits]
    assert sum(map(len, numbers)) == len(set().union(*numbers)) == CLASSES * EACH
    assert len({data.modalities[1].vocabulary for data in splits}) == 1
    assert real(root, size=3).modalities == splits[0].modalities
    # val holds photographs of several classes.
    assert len(splits[1].labels.unique()) > 1


def test_the_vocabulary_is_of_the_training_captions(root):
    folder = root / cub.ARRAYS
    captions = json.loads((folder / "train_captions.json").read_text())
    held_out = next(at for at in range(len(captions)) if at not in cub._members(TRAIN, "train"))
    captions[0] += ["only here only here only here"]
    captions[held_out] += ["nowhere nowhere nowhere"]
    rewrite(folder, "train_captions.json", json.dumps(captions).encode())
    tokens = real(root, "test").modalities[1].vocabulary.tokens
    assert "only" in tokens
    assert "nowhere" not in tokens


def rewrite(folder, name, content):
    """Another content of a prepared file, with a manifest that agrees."""
    (folder / name).write_bytes(content)
    manifest = cub.read_manifest(folder)
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / cub.MANIFEST).write_text(json.dumps(manifest))


def test_more_pairs_than_photographs_repeat_none(root, monkeypatch):
    monkeypatch.setattr(cub, "LEAST", 1)  # every caption can be told from the others
    count = (TRAIN - VAL) * CAPTIONS
    data = real(root, size=count)
    assert data.distinct == TRAIN - VAL
    numbers = numbers_of(data)
    assert len(set(numbers[: data.distinct])) == data.distinct
    assert len(set(zip(numbers, texts_of(data)))) == count
    for number, text in zip(numbers, texts_of(data)):
        assert f"numbered p{number} " in text
        assert text.split()[-1] in {c.split()[-1].strip(".") for c in captions_of(number)}
    with pytest.raises(ValueError, match=f"size: there are {count} pairs.*got {count + 1}"):
        real(root, size=count + 1)


def test_the_seed_draws_photographs_and_captions(root):
    assert real(root, size=20).fingerprint == real(root, size=20).fingerprint
    assert real(root, size=20).fingerprint != real(root, size=20, seed=1).fingerprint


def test_a_long_caption_is_cut_with_a_warning_that_counts(root):
    folder = root / cub.ARRAYS
    captions = [["bird " * 40]] * TRAIN
    rewrite(folder, "train_captions.json", json.dumps(captions).encode())
    with pytest.warns(UserWarning, match=f"{TRAIN - VAL} of {TRAIN - VAL} texts cut to 32 tokens"):
        data = real(root)
    assert (data.observations["sentence"] == 2).all()


def test_the_note_says_which_captions_they_are(root):
    note = real(root, size=1).note
    assert "template captions" in note
    assert "60 of its 11,788 photographs" in note


def test_a_vocabulary_of_nothing_is_an_error(root):
    folder = root / cub.ARRAYS
    captions = [[f"word{at}"] for at in range(TRAIN)]
    rewrite(folder, "train_captions.json", json.dumps(captions).encode())
    with pytest.raises(ValueError, match=r"no vocabulary: .*none of 27 words occurs 3 times"):
        real(root)


def test_missing_data_say_how_to_prepare_them(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        real(tmp_path / "nowhere")
    message = str(caught.value)
    assert f"python -m data_scripts.cub --from DIR --root {tmp_path / 'nowhere'}" in message
    assert "$SHALA_DATA" in message


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "train_captions.json"])
def test_a_damaged_or_missing_file_is_named(root, name):
    path = root / cub.ARRAYS / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{name}: damaged"):
        real(root)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name}: missing"):
        real(root)


@pytest.mark.parametrize(
    "content", ["no json", "[]", '{"sha256": {}}', '{"sha256": {}, "items": {}, "captions": "x"}']
)
def test_a_manifest_that_is_none_is_named(root, content):
    (root / cub.ARRAYS / cub.MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"cub\.json: not a manifest"):
        real(root)


@pytest.mark.skipif(
    not (REAL / "CUB_200_2011").is_dir(), reason="CUB-200-2011 is not here; set SHALA_DATA"
)
def test_photographs_of_cub_become_a_data_set(tmp_path):
    prepare(tmp_path, REAL, captions="template", progress=False)
    data = real(tmp_path, "test", size=200)
    assert data.observations["image"].float().std() > 20
    assert 0 <= data.labels.min() <= data.labels.max() < 200
    assert (data.observations["sentence"] > 0).any(1).all()
