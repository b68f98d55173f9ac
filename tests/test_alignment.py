"""Alignment of features: low where partners can be told, log B where they cannot."""

import math

import pytest
import torch
from tiny_models import FEATURE, NAMES, rng, tiny_features, tiny_images, tiny_vae

from shala_lite.alignment import AlignFirst, Alignment


def alignment(names=NAMES, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Alignment(names, FEATURE, **options)


def shared_heads(names=NAMES, **options):
    """All modalities are projected alike, so that equal features are equal points."""
    net = alignment(names, **options)
    for name in names[1:]:
        net.heads[name].load_state_dict(net.heads[names[0]].state_dict())
    return net


def by_loops(net, features, present):
    """The definition, written as it reads."""
    names = list(features)
    points = {n: torch.nn.functional.normalize(net.heads[n](features[n]), dim=-1) for n in names}
    losses = []
    for i, m in enumerate(names):
        for j, k in enumerate(names):
            if i == j:
                continue
            for item in range(len(present)):
                if present[item, i] and present[item, j]:
                    scores = points[k][present[:, j]] @ points[m][item] / net.temperature
                    own = points[k][item] @ points[m][item] / net.temperature
                    losses.append(scores.exp().sum().log() - own)
    return torch.stack(losses).mean()


def test_it_is_its_definition():
    features = tiny_features(10)
    present = torch.rand(10, 3, generator=rng(3)) < 0.6
    net = alignment(temperature=0.5)
    torch.testing.assert_close(net(features, present), by_loops(net, features, present))
    everything = torch.ones_like(present)
    torch.testing.assert_close(net(features), by_loops(net, features, everything))


def test_partners_that_match_cost_less_than_shuffled_ones():
    h = torch.randn(32, FEATURE, generator=rng())
    net = shared_heads()
    aligned = net(dict.fromkeys(NAMES, h))
    shuffled = net({"a": h, "b": h.roll(1, 0), "c": h.roll(5, 0)})
    assert aligned < math.log(32) < shuffled


@pytest.mark.parametrize("batch", [2, 7, 32])
def test_features_that_tell_nothing_cost_log_of_the_batch(batch):
    same = {name: h[:1].expand(batch, -1) for name, h in tiny_features().items()}
    assert alignment()(same).item() == pytest.approx(math.log(batch), rel=1e-5)


def test_absent_items_are_no_candidates():
    """So that features which tell nothing cost the log of those that have the modality."""
    same = {name: h[:1].expand(12, -1) for name, h in tiny_features(names="ab").items()}
    present = torch.ones(12, 2, dtype=torch.bool)
    present[4:, 1] = False
    expected = (math.log(4) + math.log(12)) / 2  # a looks among 4 of b, b among 12 of a
    assert alignment("ab")(same, present).item() == pytest.approx(expected, rel=1e-5)


def test_partners_told_apart_with_certainty_cost_nothing():
    net = shared_heads(temperature=0.01, width=16)
    h = 10 * torch.randn(6, FEATURE, generator=rng())
    loss = net(dict.fromkeys(NAMES, h))
    assert 0 <= loss < 1e-3


def test_absent_features_have_no_influence_and_get_no_gradient():
    present = torch.rand(12, 3, generator=rng(1)) < 0.6
    net = alignment()
    features = tiny_features(12)
    junk = {
        name: torch.where(present[:, i, None], h, 1e3).requires_grad_()
        for i, (name, h) in enumerate(features.items())
    }
    loss = net(junk, present)
    torch.testing.assert_close(loss, net(features, present))
    loss.backward()
    for i, h in enumerate(junk.values()):
        assert h.grad.isfinite().all()
        assert not h.grad[~present[:, i]].any()
        assert h.grad[present[:, i]].any()


def test_a_modality_that_no_item_has_leaves_the_others_as_they_are():
    features = tiny_features(12)
    present = torch.ones(12, 3, dtype=torch.bool)
    present[:, 1] = False
    net = alignment()
    loss = net(features, present)
    torch.testing.assert_close(loss, net({name: features[name] for name in "ac"}))
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_without_a_pair_there_is_nothing_to_align():
    one_each = torch.eye(3, dtype=torch.bool).repeat(4, 1)
    net = alignment()
    loss = net(tiny_features(12), one_each)
    assert loss == 0
    loss.backward()
    assert not any(p.grad.any() for p in net.parameters())
    assert net({"a": tiny_features()["a"]}) == 0


def test_the_order_of_modalities_and_of_items_is_irrelevant():
    features = tiny_features(12)
    present = torch.rand(12, 3, generator=rng(1)) < 0.7
    net = alignment()
    loss = net(features, present)
    turned = {name: features[name] for name in "cab"}
    torch.testing.assert_close(net(turned, present[:, [2, 0, 1]]), loss)
    order = torch.randperm(12, generator=rng(2))
    items = {name: h[order] for name, h in features.items()}
    torch.testing.assert_close(net(items, present[order]), loss)


def test_following_its_gradient_aligns():
    net = alignment()
    features = {name: h.requires_grad_() for name, h in tiny_features(16).items()}
    optimizer = torch.optim.Adam([*features.values(), *net.parameters()], lr=0.05)
    first = net(features).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = net(features)
        loss.backward()
        optimizer.step()
    assert first > math.log(16)
    assert loss < 0.5


def test_aligning_first_is_the_alignment_of_what_the_encoders_say():
    vae, x = tiny_vae(alignment=2.0), tiny_images()
    first = AlignFirst(vae.encoders, vae.alignment).eval()
    present = torch.rand(12, 3, generator=rng(1)) < 0.7
    for given in (None, present):
        expected = vae.alignment(vae.features(x), given)
        assert first.loss(x, given, generator=rng())["loss"] == expected


def test_aligning_first_never_looks_at_what_is_absent():
    vae, x = tiny_vae(alignment=2.0), tiny_images()
    present = torch.rand(12, 3, generator=rng(1)) < 0.7
    spoiled = {
        name: torch.where(present[:, m, None, None, None], seen, torch.nan)
        for m, (name, seen) in enumerate(x.items())
    }
    losses = []
    for given in (x, spoiled):
        first = AlignFirst(vae.encoders, vae.alignment).train()
        losses.append(first.loss(given, present)["loss"].item())
    assert losses[0] == losses[1]


def test_aligning_first_trains_encoders_and_heads_in_place_and_nothing_else():
    vae = tiny_vae(alignment=2.0)
    before = {name: p.clone() for name, p in vae.named_parameters()}
    first = AlignFirst(vae.encoders, vae.alignment).train()
    optimizer = torch.optim.Adam(first.parameters(), lr=0.01)
    first.loss(tiny_images())["loss"].backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, p in vae.named_parameters() if (p != before[name]).any()}
    assert moved == {"encoders", "alignment"}


def test_a_pair_of_views_is_found_again_after_aligning_first():
    """Views that share a pattern and differ in brightness: partners stand out once trained."""
    generator = rng(3)
    shared = torch.rand(64, 2, 8, 8, generator=generator)
    x = {
        name: (shared * (0.3 + 0.7 * torch.rand(64, 1, 1, 1, generator=generator)))
        for name in NAMES
    }
    vae = tiny_vae(alignment=1.0)
    first = AlignFirst(vae.encoders, vae.alignment).train()
    optimizer = torch.optim.Adam(first.parameters(), lr=0.02)
    start = first.loss(x)["loss"].item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = first.loss(x)["loss"]
        loss.backward()
        optimizer.step()
    assert start > 3
    assert loss < start - 1


def encoders_and_decoded(n=12):
    vae = tiny_vae(alignment=1.0)
    x = tiny_images(n)
    decoded = {name: x[name].clone().requires_grad_() for name in NAMES[:2]}
    return vae, x, decoded


def test_cycle_is_its_definition():
    vae, x, decoded = encoders_and_decoded()
    there = torch.rand(12, 3, generator=rng(1)) < 0.7
    there[:, 0] |= ~there.any(1)
    net, features = vae.alignment, vae.features(x, there)
    heard = vae.encoders(decoded, there)
    real, said = (
        {n: torch.nn.functional.normalize(net.heads[n](h[n]), dim=-1) for n in h}
        for h in (features, heard)
    )
    losses = [
        -(said[m][i] @ real[k][there[:, at]].T / net.temperature).log_softmax(0)[partner]
        for m in decoded
        for at, k in enumerate(NAMES)
        if k != m
        for partner, i in enumerate(there[:, at].nonzero()[:, 0])
        if there[i, NAMES.index(m)]
    ]
    found = net.cycle(vae.encoders, decoded, features, there)
    torch.testing.assert_close(found, torch.stack(losses).mean())
    everything = net.cycle(vae.encoders, decoded, features, torch.ones_like(there))
    torch.testing.assert_close(everything, net.cycle(vae.encoders, decoded, features))


def test_cycle_teaches_who_decoded_and_nobody_else():
    vae, x, decoded = encoders_and_decoded()
    features = {n: h.detach().requires_grad_() for n, h in vae.features(x).items()}
    vae.alignment.cycle(vae.encoders, decoded, features).backward()
    assert all(image.grad.any() for image in decoded.values())
    assert all(h.grad is None for h in features.values())
    assert all(p.grad is None for p in vae.parameters())


def test_cycle_reads_with_the_statistics_of_real_views_and_leaves_them_alone():
    vae, x, decoded = encoders_and_decoded()
    features = {n: h.detach() for n, h in vae.features(x).items()}
    expected = vae.alignment.cycle(vae.encoders, decoded, features)
    before = {name: buffer.clone() for name, buffer in vae.named_buffers()}
    vae.train()
    torch.testing.assert_close(vae.alignment.cycle(vae.encoders, decoded, features), expected)
    assert all(net.training for net in vae.encoders.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in vae.named_buffers())
    with pytest.raises(RuntimeError):
        vae.alignment.cycle(vae.encoders, {"a": decoded["a"].flatten(1)}, features)
    assert all(net.training for net in vae.encoders.modules())


def test_decoded_views_that_show_their_partners_cost_less():
    vae, x, _ = encoders_and_decoded(40)
    vae.alignment = shared_heads()
    features = dict.fromkeys(NAMES, vae.features(x)["a"].detach())
    right, wrong = {"a": x["a"]}, {"a": x["a"].roll(1, 0)}
    costs = [vae.alignment.cycle(vae.encoders, y, features) for y in (right, wrong)]
    assert costs[0] < math.log(40) < costs[1]
