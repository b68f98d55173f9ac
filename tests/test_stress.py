"""The stress test: who is dealt which part, what spoiling does, and that a seed fixes all of it."""

import dataclasses

import pytest
import torch
from tiny_models import (
    FEATURE,
    LATENT,
    NAMES,
    rng,
    stir,
    tiny_dataset,
    tiny_latents,
    tiny_prior,
    tiny_vae,
)

from shala_lite import evaluation, load_dataset, metrics, stress
from shala_lite.judges import Judges
from shala_lite.model import make_vae

N = 60


@pytest.fixture(scope="module")
def data():
    return tiny_dataset(N)


@pytest.fixture(scope="module")
@torch.no_grad()
def judges(data):
    """Untrained judges, centred so that they give several labels to what is generated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judges = Judges.for_modalities(data.modalities, width=4).eval()
    for name, images in (
        tiny_vae().decode(2 + 3 * torch.randn(200, LATENT, generator=rng())).items()
    ):
        judges[name].head.bias -= judges[name](images).mean(0)
    judges.fit_feature_statistics(data)
    return judges


@pytest.fixture(scope="module")
def prior():
    prior = tiny_prior()
    prior.standardise(tiny_latents())
    return prior


def small_vae(modalities):
    """A stirred stage 1 of a real data set's modalities."""
    sizes = dict(latent_dim=LATENT, feature_dim=FEATURE, hidden=7, widths=(3, 4), text_width=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = make_vae("concat", modalities, **sizes)
    return stir(vae).eval()


def test_a_deal_gives_each_part_to_one_view_and_nests_the_good_ones():
    parts = stress.deal(500, 5, seed=3)
    target = torch.nn.functional.one_hot(parts.target, 5).bool()
    spoilt = parts.spoilt()
    assert (spoilt.sum(1) == 1).all()
    assert not (target & spoilt).any()
    before = torch.zeros(500, 5, dtype=torch.bool)
    for good in (1, 2, 3):
        given = parts.given(good, spoilt=1)
        assert (given.sum(1) == good + 1).all()
        assert not (given & target).any()
        assert (given & spoilt).any(1).all()
        assert (given >= before).all()
        assert torch.equal(given & ~spoilt, parts.given(good))
        before = given
    assert torch.equal(parts.given(0, spoilt=1), spoilt)
    assert (parts.given(4).sum(1) == 4).all()
    shares = torch.bincount(parts.target, minlength=5) / 500
    assert (shares - 0.2).abs().max() < 0.1
    assert torch.equal(parts.rank, stress.deal(500, 5, seed=3).rank)
    assert not torch.equal(parts.rank, stress.deal(500, 5, seed=4).rank)


@pytest.mark.parametrize(("good", "spoilt"), [(0, 0), (4, 1), (5, 0), (-1, 2)])
def test_a_deal_without_room_is_an_error(good, spoilt):
    with pytest.raises(ValueError, match="expected 1 to 4"):
        stress.deal(3, 5, seed=0).given(good, spoilt)


@pytest.mark.parametrize("kind", stress.KINDS)
@pytest.mark.parametrize("name", ["polymnist", "mst"])
def test_spoiling_is_the_same_bytes_from_a_seed(name, kind):
    data = load_dataset(name, "test", size=50)
    which = stress.deal(50, len(data.modalities), seed=0).spoilt()
    first = stress.spoil(data, which, kind, 0.4, seed=7)
    again = stress.spoil(data, which, kind, 0.4, seed=7)
    assert first.fingerprint == again.fingerprint
    assert stress.spoil(data, which, kind, 0.4, seed=8).fingerprint != first.fingerprint
    odd, labels = stress.with_odd_one(data, which, seed=7)
    same, others = stress.with_odd_one(data, which, seed=7)
    assert odd.fingerprint == same.fingerprint
    assert torch.equal(labels, others)


@pytest.mark.parametrize("kind", stress.KINDS)
def test_only_the_views_asked_for_are_spoilt_and_more_with_more_strength(kind, data):
    which = stress.deal(N, 3, seed=0).spoilt()
    assert stress.spoil(data, which, kind, 0.0, seed=1).fingerprint == data.fingerprint
    changes = []
    for strength in (0.2, 0.5, 1.0):
        found = stress.spoil(data, which, kind, strength, seed=1)
        total = 0.0
        for index, name in enumerate(NAMES):
            before, after = data.observations[name], found.observations[name]
            assert torch.equal(before[~which[:, index]], after[~which[:, index]])
            total += (before.float() - after.float()).abs().sum().item()
        changes.append(total)
    assert 0 < changes[0] < changes[1] < changes[2]
    assert torch.equal(found.labels, data.labels)


def test_a_rectangle_has_the_share_it_says_and_full_noise_nothing_of_the_picture(data):
    everything = torch.ones(N, 3, dtype=torch.bool)
    hidden = stress.spoil(data, everything, "occlusion", 0.25, seed=0).observations["a"]
    assert ((hidden == 128).all(1).sum((1, 2)) >= 16).all()  # 4 by 4 of 8 by 8
    places = (hidden == 128).all(1).flatten(1).unique(dim=0)
    assert len(places) > 5
    gone = stress.spoil(data, everything, "occlusion", 1.0, seed=0).observations["a"]
    assert (gone == 128).all()
    other = tiny_dataset(N, seed=1)
    noise = [stress.spoil(d, everything, "noise", 1.0, seed=0) for d in (data, other)]
    assert torch.equal(*(d.observations["a"] for d in noise))


@pytest.fixture(scope="module")
def spoken():
    """600 texts of eight letters beside their pictures, and their ids of 0 to 15."""
    return load_dataset("mst", "test", size=600)


def spoilt_words(data, kind, strength, seed=1):
    """All words (N, 8) after all of the item was spoilt; the ids still are tokens."""
    everything = torch.ones(len(data), 3, dtype=torch.bool)
    found = stress.spoil(data, everything, kind, strength, seed).observations["word"]
    assert found.dtype == torch.int16
    assert found.min() >= 0
    assert found.max() < len(data.modalities[2].vocabulary)
    return found


def test_noise_replaces_that_share_of_the_tokens_by_uniform_ones(spoken):
    before, tokens = spoken.observations["word"], 16
    assert torch.equal(spoilt_words(spoken, "noise", 0.0), before)
    weak, strong = (spoilt_words(spoken, "noise", s) != before for s in (0.3, 0.7))
    # one draw in 16 is the token that was there; 4,800 tokens: a standard error of 0.007
    assert weak.double().mean().item() == pytest.approx(0.3 * 15 / tokens, abs=0.03)
    assert strong.double().mean().item() == pytest.approx(0.7 * 15 / tokens, abs=0.03)
    assert (weak <= strong).all()
    assert (weak.any(1) & ~weak.all(1)).any()  # each token for itself
    every = spoilt_words(spoken, "noise", 1.0)
    shares = torch.bincount(every.flatten().long(), minlength=tokens) / every.numel()
    assert (shares - 1 / tokens).abs().max() < 0.02
    other = load_dataset("mst", "test", size=600, seed=1)
    assert torch.equal(spoilt_words(other, "noise", 1.0), every)  # nothing is left


def test_occlusion_blanks_that_share_of_the_positions_in_one_place(spoken):
    whole = torch.ones_like(spoken.observations["word"])
    filled = {**spoken.observations, "word": whole}
    data = dataclasses.replace(spoken, observations=filled)
    assert torch.equal(spoilt_words(data, "occlusion", 0.0), whole)
    for strength, count in ((0.25, 2), (0.5, 4), (0.9, 7), (1.0, 8)):
        gone = spoilt_words(data, "occlusion", strength) == 0
        assert (gone.sum(1) == count).all()
        edges = torch.nn.functional.pad(gone.int(), (1, 1)).diff(dim=1)
        assert (edges.abs().sum(1) == 2).all()  # one after another
        starts = edges.argmax(1).bincount()
        assert len(starts) == 8 - count + 1  # every place, and as often
        assert starts.min() > 0.7 * len(data) / len(starts)
    kept = spoilt_words(spoken, "occlusion", 0.5)
    assert ((kept == spoken.observations["word"]) | (kept == 0)).all()


@pytest.mark.parametrize("kind", stress.KINDS)
def test_only_the_words_asked_for_are_spoilt_and_a_model_reads_them(spoken, kind):
    which = torch.zeros(len(spoken), 3, dtype=torch.bool)
    which[::2, 2] = True
    found = stress.spoil(spoken, which, kind, 0.8, seed=1)
    for name in ("digit", "street"):
        assert torch.equal(found.observations[name], spoken.observations[name])
    before, after = spoken.observations["word"], found.observations["word"]
    assert torch.equal(after[1::2], before[1::2])
    assert (after[::2] != before[::2]).any(1).double().mean() > 0.9
    few = small_vae(spoken.modalities)
    assert evaluation.features_of(few, found.subset(slice(8)))["word"].isfinite().all()


def test_the_odd_one_is_a_real_view_of_another_class(data):
    which = stress.deal(N, 3, seed=0).spoilt()
    found, odd = stress.with_odd_one(data, which, seed=5)
    assert (odd != data.labels).all()
    for index, name in enumerate(NAMES):
        for item in which[:, index].nonzero()[:, 0].tolist():
            view = found.observations[name][item]
            origin = (data.observations[name] == view).flatten(1).all(1).nonzero()
            assert data.labels[origin[0, 0]] == odd[item]
        assert torch.equal(
            found.observations[name][~which[:, index]], data.observations[name][~which[:, index]]
        )
    with pytest.raises(ValueError, match="one class"):
        stress.with_odd_one(data.subset(data.labels == 3), which[data.labels == 3], seed=0)


def test_what_does_not_fit_is_named(data):
    which = torch.zeros(N, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="kind"):
        stress.spoil(data, which, "rain", 0.5, seed=0)
    with pytest.raises(ValueError, match="strength"):
        stress.spoil(data, which, "noise", 1.5, seed=0)
    with pytest.raises(ValueError, match="which"):
        stress.spoil(data, which[:, :2], "noise", 0.5, seed=0)


def test_an_outcome_is_that_of_plain_calls(data, judges, prior):
    parts = stress.deal(N, 3, seed=0)
    given, odd = parts.given(2), (data.labels + 1) % 10
    asked = dict(steps=2, guidance=2.0)
    found = stress.outcome(
        tiny_vae(), prior, judges, data, parts.target, given, seed=4, odd=odd, **asked
    )
    h = tiny_vae().features(data.batch(torch.arange(N))["x"])
    z = prior.sample(N, h, given, generator=rng(4), **asked).z
    with torch.no_grad():
        labels = torch.stack(list(judges.predict(tiny_vae().decode(z)).values()), 1)
    shown = labels[torch.arange(N), parts.target]
    assert torch.equal(found.right, shown == data.labels)
    assert torch.equal(found.odd, shown == odd)
    assert 0 < found.right.sum() < N
    assert 0 < found.odd.sum() < N
    plain = stress.outcome(tiny_vae(), prior, judges, data, parts.target, given, seed=4, **asked)
    assert not plain.odd.any()
    own = stress.outcome(tiny_vae(), None, judges, data, parts.target, given, seed=4)
    z = tiny_vae().posterior(h, given).sample(rng(4))
    with torch.no_grad():
        labels = torch.stack(list(judges.predict(tiny_vae().decode(z)).values()), 1)
    assert torch.equal(own.right, labels[torch.arange(N), parts.target] == data.labels)


def test_removal_keeps_target_and_noise_and_is_the_same_each_time(data, judges, prior):
    found = stress.removal(tiny_vae(), prior, judges, data, seed=2, steps=2)
    again = stress.removal(tiny_vae(), prior, judges, data, seed=2, steps=2)
    assert list(found) == [2, 1]
    assert all(torch.equal(found[k], again[k]) for k in found)
    parts = stress.deal(N, 3, seed=2)
    one = stress.outcome(
        tiny_vae(), prior, judges, data, parts.target, parts.given(1), seed=2, steps=2
    )
    assert torch.equal(found[1], one.right)
    # with one modality left out of three, the target is all that is absent
    z = prior.sample(
        N, evaluation.features_of(tiny_vae(), data), parts.given(2), steps=2, generator=rng(2)
    ).z
    labels = evaluation.judge_latents(tiny_vae(), judges, z).labels
    share = metrics.coherence_of_absent(labels, data.labels, parts.given(2))
    assert found[2].double().mean().item() == pytest.approx(share)


def test_damage_is_one_outcome_after_another(data, judges, prior):
    found = stress.damage(
        tiny_vae(), prior, judges, data, "noise", [0.0, 0.8], [0, 1], seed=3, steps=2
    )
    assert {good: list(row) for good, row in found.items()} == {0: [0.0, 0.8], 1: [0.0, 0.8, None]}
    parts = stress.deal(N, 3, seed=3)
    some = stress.spoil(data, parts.spoilt(), "noise", 0.8, seed=3)
    asked = (tiny_vae(), prior, judges)
    one = stress.outcome(*asked, some, parts.target, parts.given(1, 1), seed=3, steps=2)
    assert found[1][0.8] == pytest.approx(one.right.double().mean().item())
    alone = stress.outcome(*asked, data, parts.target, parts.given(1), seed=3, steps=2)
    assert found[1][None] == pytest.approx(alone.right.double().mean().item())
    assert found[0][0.0] != found[0][0.8]


def test_a_quarrel_counts_both_sides(data, judges, prior):
    asked = (tiny_vae(), prior, judges, data)
    found = stress.quarrel(*asked, 1, 1, seed=3, steps=2)
    parts = stress.deal(N, 3, seed=3)
    some, odd = stress.with_odd_one(data, parts.spoilt(), seed=3)
    plain = stress.outcome(
        *asked[:3], some, parts.target, parts.given(1, 1), seed=3, odd=odd, steps=2
    )
    assert found["conditional_coherence"] == pytest.approx(plain.right.double().mean().item())
    assert found["odd_one_share"] == pytest.approx(plain.odd.double().mean().item())
    assert sum(found.values()) == pytest.approx(1)
    assert found == stress.quarrel(*asked, 1, 1, seed=3, steps=2)
    alone = stress.quarrel(*asked, 1, 0, seed=3, steps=2)
    assert alone["conditional_coherence"] != found["conditional_coherence"]


class Recorder:
    """Judges that keep every byte of what they are shown."""

    def __init__(self, judges):
        self.judges, self.seen = judges, []

    def __getitem__(self, name):
        return self.judges[name]

    def judge(self, x):
        self.seen.append({name: seen.numpy().tobytes() for name, seen in x.items()})
        return self.judges.judge(x)


RUNS = {
    "removal": lambda *asked, **how: stress.removal(*asked, **how),
    "noise": lambda *asked, **how: stress.damage(*asked, "noise", [0.6], [1], **how),
    "occlusion": lambda *asked, **how: stress.damage(*asked, "occlusion", [0.6], [0, 1], **how),
    "quarrel": lambda *asked, **how: stress.quarrel(*asked, 1, 1, **how),
}


@pytest.fixture(scope="module", params=["polymnist", "mst"])
def real_parts(request):
    """A model of both stages, judges and few items of a data set."""
    data = load_dataset(request.param, "test", size=16)
    names = [m.name for m in data.modalities]
    prior = tiny_prior(names)
    prior.standardise(tiny_latents(names=names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judges = Judges.for_modalities(data.modalities, width=4).eval()
    judges.fit_feature_statistics(data)
    return small_vae(data.modalities), prior, judges, data


@pytest.mark.parametrize("with_prior", [True, False])
@pytest.mark.parametrize("run", RUNS)
def test_what_is_generated_is_the_same_bytes_from_a_seed(real_parts, run, with_prior):
    vae, prior, judges, data = real_parts
    shown = []
    for seed in (2, 2, 3):
        recorder = Recorder(judges)
        options = dict(steps=2, guidance=2.0) if with_prior else {}
        RUNS[run](vae, prior if with_prior else None, recorder, data, seed=seed, **options)
        shown.append(recorder.seen)
    first, again, other = shown
    assert first == again
    for one, another in zip(first, other, strict=True):
        assert list(one) == [m.name for m in data.modalities]
        assert all(one[name] != another[name] for name in one)
