"""Judges of pictures and of texts, before they are put together."""

import pytest
import torch

from shala_lite.judge_nets import ImageJudge, TextJudge, make_judge, random_shift
from shala_lite.modalities import Modality
from shala_lite.training import fit
from shala_lite.vocabulary import Vocabulary

IMAGE = Modality("m0", (3, 28, 28))
SMALL = Modality("grey", (1, 9, 12))
WORD = Modality("word", (6,), "text", Vocabulary((" ", "a", "b", "c"), ""))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, modality=IMAGE, seed=0):
    return torch.rand(n, *modality.shape, generator=generator(seed))


@pytest.mark.parametrize("modality", [IMAGE, SMALL, Modality("tall", (3, 64, 8))])
def test_shapes_for_images_of_any_size(modality):
    judge = ImageJudge(modality, classes=7)
    assert judge(images(4, modality)).shape == (4, 7)
    assert judge.features(images(4, modality)).shape == (4, 64)


def test_loss_is_the_cross_entropy_in_nats():
    judge = ImageJudge(IMAGE).eval()
    image, label = images(6), torch.arange(6)
    terms = judge.loss(image, label, generator=generator())
    assert next(iter(terms)) == "loss"
    share = judge(image).softmax(-1)[range(6), label]
    assert terms["loss"].item() == pytest.approx(-share.log().mean().item(), rel=1e-5)
    right = (judge(image).argmax(-1) == label).float().mean().item()
    assert terms["accuracy"].item() == pytest.approx(right)


def test_bytes_and_floats_are_the_same_image():
    judge = ImageJudge(IMAGE).eval()
    bytes_ = torch.randint(0, 256, (3, *IMAGE.shape), generator=generator(), dtype=torch.uint8)
    torch.testing.assert_close(judge(bytes_), judge(bytes_.float() / 255))


def test_shifts_move_the_whole_batch_by_at_most_so_many_pixels_and_repeat_the_edge():
    image = images(2, SMALL)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")
    possible = {(i, j): padded[..., i : i + 9, j : j + 12] for i in range(5) for j in range(5)}
    draw, seen = generator(), set()
    for _ in range(200):
        moved = random_shift(image, 2, draw)
        (found,) = [offset for offset, view in possible.items() if torch.equal(moved, view)]
        seen.add(found)
    assert seen == set(possible)


def test_training_shifts_only_with_a_generator_and_only_in_training():
    judge = ImageJudge(IMAGE, shift=2)
    image, label = images(8), torch.arange(8)
    still = [judge.loss(image, label)["loss"].item() for _ in range(2)]
    assert still[0] == still[1]
    moving = {judge.loss(image, label, generator=generator(s))["loss"].item() for s in range(5)}
    assert len(moving) > 1
    judge.eval()
    settled = {judge.loss(image, label, generator=generator(s))["loss"].item() for s in range(5)}
    assert len(settled) == 1


class Spelling:
    """Texts of three classes: one letter somewhere among blanks."""

    def __init__(self):
        self.label = torch.arange(300) % 3
        self.x = torch.zeros(300, 6, dtype=torch.int16)
        place = torch.randint(6, (300,), generator=generator(1))
        self.x[torch.arange(300), place] = (self.label + 1).to(torch.int16)

    def __len__(self):
        return 300

    def batch(self, indices):
        return {"x": self.x[indices].long(), "label": self.label[indices]}


def test_a_judge_of_texts_learns_which_letter_there_is_wherever_it_stands():
    data = Spelling()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = make_judge(WORD, 3, width=8)
    assert isinstance(judge, TextJudge)
    fit(judge, data, steps=80, batch_size=60, learning_rate=1e-2, progress=False)
    assert judge.loss(data.x, data.label)["accuracy"] > 0.95
    assert judge.features(data.x).shape == (300, 64)


def test_the_kind_of_a_modality_chooses_its_judge():
    assert isinstance(make_judge(IMAGE, width=4), ImageJudge)
    with pytest.raises(ValueError, match="'word' is of kind 'text'"):
        ImageJudge(WORD)
    with pytest.raises(ValueError, match="kind 'image'"):
        TextJudge(IMAGE)
    with pytest.raises(ValueError, match="4x28; expected >= 8x8"):
        ImageJudge(Modality("flat", (3, 4, 28)))
