"""The baselines, held to the equations of their papers and to what they share."""

import math
from itertools import pairwise

import pytest
import torch
from tiny_models import LATENT, NAMES, rng, some_present, tiny_images, tiny_modalities, tiny_vae
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from shala_lite.distributions import DiagonalGaussian, GaussianMixture, product_of_gaussians
from shala_lite.experts import EXPERTS, MMVAEPlus
from shala_lite.observed import all_subsets

ALL = [*EXPERTS]
EVERYTHING = torch.ones(12, 3, dtype=torch.bool)


def experts_of(vae, x, present=EVERYTHING):
    h = vae.features(x)
    return vae.experts(torch.stack([h[name] for name in vae.names], 1), present)


def losses(vae, x, present=None, count=400):
    return torch.stack(
        [vae.loss(x, present, generator=rng(k))["loss"].detach() for k in range(count)]
    )


def normal_log_prob(z):
    return Normal(0, 1).log_prob(z).sum(-1)


# What all share


@pytest.mark.parametrize("variant", ALL)
def test_every_baseline_encodes_any_subset_and_generates(variant):
    vae, x = tiny_vae(variant=variant), tiny_images()
    for subset in (["a"], ["b", "c"], ["a", "b", "c"]):
        posterior = vae.posterior(vae.features({name: x[name] for name in subset}))
        z = posterior.sample(rng())
        assert z.shape == posterior.mean.shape == posterior.std.shape == (12, LATENT)
        assert posterior.log_prob(z).isfinite().all()
        decoded = vae.decode(z)
        assert list(decoded) == list(NAMES)
        assert all(image.shape == (12, 2, 8, 8) for image in decoded.values())
    joint = vae.decode(torch.randn(5, LATENT, generator=rng()))
    assert all(0 <= image.min() <= image.max() <= 1 for image in joint.values())


@pytest.mark.parametrize("variant", ALL)
def test_gradients_reach_everything(variant):
    vae = tiny_vae(variant=variant, alignment=1.0).train()
    vae.loss(tiny_images(), some_present(), generator=rng())["loss"].backward()
    still = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("variant", ["concat", *ALL])
def test_gradients_reach_every_encoder_from_complete_items(variant):
    vae = tiny_vae(variant=variant).train()
    vae.loss(tiny_images(), generator=rng())["loss"].backward()
    for name in NAMES:
        assert all(p.grad.any() for p in vae.encoders[name].parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", ["concat", "sum", "attention", *ALL])
@pytest.mark.parametrize("junk", [0.5, float("nan")])
def test_an_absent_modalitys_pixels_change_nothing(variant, training, junk):
    """Neither values nor gradients, nor the statistics of batch normalisation."""
    present, found = some_present(), []
    for other in (None, junk):
        vae = tiny_vae(variant=variant, alignment=1.0).train(training)
        x = tiny_images()
        if other is not None:
            for index, name in enumerate(NAMES):
                x[name][~present[:, index]] = other
        terms = vae.loss(x, present, generator=rng())
        terms["loss"].backward()
        grads = {name: p.grad for name, p in vae.named_parameters()}
        found.append({**terms, **grads, **vae.state_dict()})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
        assert value.isfinite().all(), name


@pytest.mark.parametrize("variant", ["concat", *ALL])
def test_a_modality_that_a_single_item_has_is_no_trouble_in_training(variant):
    present = EVERYTHING.clone()
    present[1:, 2] = False
    vae = tiny_vae(variant=variant).train()
    assert vae.loss(tiny_images(), present, generator=rng())["loss"].isfinite()
    assert all(module.training for module in vae.modules())
    present[:, 2] = False
    assert vae.loss(tiny_images(), present, generator=rng())["loss"].isfinite()


@pytest.mark.parametrize("variant", ALL)
def test_training_raises_the_bound(variant):
    vae, x = tiny_vae(variant=variant).train(), tiny_images(32)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    first = vae.loss(x, generator=rng())["loss"].item()
    for step in range(30):
        optimizer.zero_grad()
        loss = vae.loss(x, generator=rng(step))["loss"]
        loss.backward()
        optimizer.step()
    assert loss < first - 50


@pytest.mark.parametrize("variant", ALL)
def test_terms_add_up(variant):
    vae, x, present = tiny_vae(variant=variant), tiny_images(), some_present()
    terms = vae.elbo(x, present, beta=2.0, generator=rng())
    torch.testing.assert_close(terms["elbo"], terms["log_likelihood"] - 2 * terms["kl"])
    each = torch.stack([terms[f"log_likelihood/{name}"] for name in NAMES])
    torch.testing.assert_close(terms["log_likelihood"], (each * present.float().mean(0)).sum())


@pytest.mark.parametrize("variant", ALL)
def test_a_beta_of_zero_leaves_out_the_divergence_alone(variant):
    """The loss is linear in beta where it has no importance weights."""
    x = tiny_images()
    at = {b: tiny_vae(variant=variant, beta=b).loss(x, generator=rng())["loss"] for b in (0, 1, 3)}
    torch.testing.assert_close(at[3] - at[0], 3 * (at[1] - at[0]), atol=1e-2, rtol=1e-4)
    assert at[1] > at[0]


@pytest.mark.parametrize("variant", ALL)
def test_bad_input_is_named(variant):
    vae, x = tiny_vae(variant=variant), tiny_images()
    h = vae.features(x)
    with pytest.raises(KeyError, match=r"x: unknown modalities \['d'\]"):
        vae.loss({**x, "d": x["a"]})
    with pytest.raises(KeyError, match=r"features: unknown modalities \['d'\]"):
        vae.posterior({**h, "d": h["a"]})
    with pytest.raises(ValueError, match=r"features\['a'\]: shape \(12, 3\), expected \(12, 5\)"):
        vae.posterior({"a": h["a"][:, :3]})
    with pytest.raises(ValueError, match=r"x\['a'\]: NaN or infinite in 12 of 12 items"):
        vae.loss({**x, "a": x["a"] * torch.nan})
    with pytest.raises(ValueError, match="nothing is present"):
        vae.posterior(h, ~EVERYTHING)


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("poe", {"subsets": -2}, "subsets: -2, expected -1 or more"),
        ("moe", {"importance_samples": 0}, "importance_samples: 0, expected at least 1"),
        ("mmvaeplus", {"importance_samples": 0}, "importance_samples: 0, expected at least 1"),
        ("mmvaeplus", {"private_dim": 0}, "private_dim: 0 for 3 modalities of latent_dim 6"),
        ("mmvaeplus", {"private_dim": 2}, "private_dim: 2 for 3 modalities of latent_dim 6"),
        ("poe", {"depth": 0}, "depth: 0, expected at least 1"),
        ("round", {}, r"variant: 'round', expected one of \['concat', 'sum', 'attention', 'poe'"),
    ],
)
def test_arguments_out_of_range_are_named(variant, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_vae(variant=variant, **options)


# Posteriors


def test_the_posterior_of_a_product_is_the_closed_form():
    vae, x, present = tiny_vae(variant="poe"), tiny_images(), some_present()
    experts = experts_of(vae, x, present)
    posterior = vae.posterior(vae.features(x), present)
    for item in range(12):
        precision, weighted = torch.ones(LATENT), torch.zeros(LATENT)  # the prior
        for index in range(3):
            if present[item, index]:
                precision = precision + experts.std[item, index] ** -2
                weighted = weighted + experts.mean[item, index] * experts.std[item, index] ** -2
        torch.testing.assert_close(posterior.mean[item], weighted / precision)
        torch.testing.assert_close(posterior.std[item], precision**-0.5)


def test_the_density_of_a_mixture_of_experts_is_the_mixture_of_their_densities():
    vae, x = tiny_vae(variant="moe"), tiny_images()
    experts, z = experts_of(vae, x), torch.randn(12, LATENT, generator=rng())
    each = [DiagonalGaussian(experts.mean[:, m], experts.std[:, m]).log_prob(z) for m in range(3)]
    expected = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(vae.posterior(vae.features(x)).log_prob(z), expected)


@pytest.mark.parametrize("variant", ["moe", "mopoe"])
def test_a_mixture_over_what_is_present_is_that_of_the_modalities_alone(variant):
    vae, x = tiny_vae(variant=variant), tiny_images()
    z = torch.randn(12, LATENT, generator=rng())
    h = vae.features(x)
    mask = torch.tensor([[True, False, True]]).expand(12, -1)
    alone = vae.posterior({name: h[name] for name in "ac"})
    torch.testing.assert_close(vae.posterior(h, mask).log_prob(z), alone.log_prob(z))
    by_hand = experts_of(vae, x)
    parts = [by_hand.mean[:, [0, 2]], by_hand.std[:, [0, 2]]]
    if variant == "mopoe":
        precision = parts[1] ** -2
        total = precision.sum(1, keepdim=True)
        joint = (precision * parts[0]).sum(1, keepdim=True) / total
        parts = [torch.cat([parts[0], joint], 1), torch.cat([parts[1], total**-0.5], 1)]
    reference = MixtureSameFamily(
        Categorical(torch.ones(12, parts[0].shape[1])), Independent(Normal(*parts), 1)
    )
    torch.testing.assert_close(alone.log_prob(z), reference.log_prob(z))


def test_mopoe_of_two_is_the_mixture_over_three_subsets():
    vae = tiny_vae("ab", variant="mopoe")
    x = tiny_images(names="ab")
    experts = experts_of(vae, x, EVERYTHING[:, :2])
    precision = experts.std**-2
    product = DiagonalGaussian(
        (precision * experts.mean).sum(1) / precision.sum(1), precision.sum(1) ** -0.5
    )
    z = torch.randn(12, LATENT, generator=rng())
    parts = [DiagonalGaussian(experts.mean[:, m], experts.std[:, m]) for m in (0, 1)] + [product]
    expected = torch.stack([part.log_prob(z) for part in parts]).exp().mean(0).log()
    torch.testing.assert_close(vae.posterior(vae.features(x)).log_prob(z), expected)


def test_mopoe_has_a_part_for_every_subset():
    vae = tiny_vae(variant="mopoe")
    posterior = vae.posterior(vae.features(tiny_images()))
    assert posterior.means.shape == (12, 7, LATENT)
    assert torch.equal(vae.subsets, all_subsets(3))
    with pytest.raises(ValueError, match="modalities: 21, expected 1 to 20"):
        tiny_vae([f"m{k}" for k in range(21)], variant="mopoe")


def test_mopoe_generates_from_the_product_of_all_that_is_given():
    vae, x, present = tiny_vae(variant="mopoe"), tiny_images(), some_present()
    found = vae.generator_of(vae.features(x), present)
    expected = product_of_gaussians(experts_of(vae, x, present), present)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.std, expected.std)


@pytest.mark.parametrize("variant", ["concat", "poe", "moe", "mmvaeplus"])
def test_the_others_generate_from_their_posterior(variant):
    vae, x, present = tiny_vae(variant=variant), tiny_images(), some_present()
    h = vae.features(x)
    found, expected = vae.generator_of(h, present), vae.posterior(h, present)
    torch.testing.assert_close(found.mean, expected.mean)


def test_mmvaeplus_splits_what_is_shared_from_what_is_private():
    vae, x = tiny_vae(variant="mmvaeplus"), tiny_images()
    assert (vae.shared_dim, vae.private_dim) == (3, 1)
    z = torch.randn(12, LATENT, generator=rng())
    before = vae.decode(z)
    for index, name in enumerate(NAMES):
        moved = z.clone()
        moved[:, 3 + index] += 1
        changed = {n for n, image in vae.decode(moved).items() if not torch.equal(image, before[n])}
        assert changed == {name}
    moved = z.clone()
    moved[:, 0] += 1
    assert all(not torch.equal(image, before[n]) for n, image in vae.decode(moved).items())
    # the private part of what is absent is the prior's, of what is there its own expert's
    experts = experts_of(vae, x)
    q = vae.posterior({name: vae.features(x)[name] for name in "ab"})
    torch.testing.assert_close(q.mean[:, 3:5], experts.mean[:, :2, 3])
    torch.testing.assert_close(q.std[:, 3:5], experts.std[:, :2, 3])
    assert (q.mean[:, 5] == 0).all()
    torch.testing.assert_close(q.std[:, 5], torch.ones(12))


# Objectives


def test_the_objective_of_mvae_is_the_sum_of_the_bounds_of_its_subsets():
    """Each bound by itself; without random subsets, so that nothing else is random."""
    vae, x = tiny_vae(variant="poe", subsets=0), tiny_images()
    bounds = [
        torch.stack([vae.elbo(part, generator=rng(k))["elbo"].detach() for k in range(200)])
        for part in (x, *({name: x[name]} for name in NAMES))
    ]
    found = -losses(vae, x, count=200)
    expected = torch.stack(bounds).sum(0)
    spread = (expected.std() + found.std()) / math.sqrt(200)
    assert (found.mean() - expected.mean()).abs() < 5 * spread
    assert expected.mean() != pytest.approx(bounds[0].mean().item(), rel=0.1)


def test_random_subsets_add_bounds():
    x = tiny_images()
    more = [losses(tiny_vae(variant="poe", subsets=k), x, count=100).mean() for k in (-1, 0, 1, 2)]
    steps = [later - earlier for earlier, later in pairwise(more)]
    # the images of the tiny model cost nats: every further bound costs more of them
    assert all(step > 0 for step in steps)
    assert steps[1].item() == pytest.approx(steps[2].item(), rel=0.1)


def test_the_objective_of_mopoe_has_the_mean_divergence_of_its_parts():
    vae, x = tiny_vae(variant="mopoe"), tiny_images()
    q = vae.posterior(vae.features(x))
    kl = torch.stack([DiagonalGaussian(q.means[:, k], q.stds[:, k]).kl() for k in range(7)]).mean()
    terms = vae.loss(x, generator=rng())
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(terms["loss"], kl - terms["log_likelihood"])
    # by convexity it is no less than the divergence of the mixture
    many = q[torch.arange(12).repeat(2000)]
    assert kl > many.rate(many.sample(rng())).mean()


def by_hand_mmvaeplus(vae, x, seed):
    """The objective with its loops written out, on noise of its own."""
    generator, h = rng(seed), vae.features(x)
    scale = vae.log_scale.exp()
    q = dict(zip(NAMES, range(3)))
    experts = vae.experts(torch.stack([h[name] for name in NAMES], 1), EVERYTHING)
    total = 0
    for m in NAMES:
        mean, std = experts.mean[:, q[m]], experts.std[:, q[m]]
        draw = mean + std * torch.randn(mean.shape, generator=generator)
        u, w = draw[:, : vae.shared_dim], draw[:, vae.shared_dim :]
        for n in NAMES:
            auxiliary = scale[q[n]] * torch.randn(w.shape, generator=generator)
            image = vae.decoders[n](torch.cat([u, w if n == m else auxiliary], 1))
            total = total - ((x[n] - image).abs() / 0.1 + math.log(0.2)).flatten(1).sum(1)
        shared = [
            Normal(experts.mean[:, k, : vae.shared_dim], experts.std[:, k, : vae.shared_dim])
            .log_prob(u)
            .sum(1)
            for k in range(3)
        ]
        total = total + normal_log_prob(u) - torch.stack(shared).exp().mean(0).log()
        private = Normal(mean[:, vae.shared_dim :], std[:, vae.shared_dim :]).log_prob(w).sum(1)
        total = total + normal_log_prob(w) - private
    return (total / 3).mean()


def test_the_objective_of_mmvaeplus_is_its_equation():
    vae, x = tiny_vae(variant="mmvaeplus"), tiny_images()
    with torch.no_grad():
        expected = torch.stack([by_hand_mmvaeplus(vae, x, 1000 + k) for k in range(400)])
    found = -losses(vae, x)
    spread = (expected.std() + found.std()) / math.sqrt(400)
    assert (found.mean() - expected.mean()).abs() < 5 * spread
    # the test is sharp: with other auxiliary priors the objective differs by far more
    with torch.no_grad():
        vae.log_scale += 1
    assert (-losses(vae, x).mean() - expected.mean()).abs() > 20 * spread


def test_a_shared_part_takes_no_help_from_a_private_part_that_has_seen_the_answer():
    """Decoding n from the expert of m: the gradient of x_n's likelihood misses the expert of n."""
    vae, x = tiny_vae(variant="mmvaeplus"), tiny_images()
    vae.zero_grad()
    only = torch.tensor([[True, True, False]]).expand(12, -1)
    vae.loss(x, only, generator=rng())["loss"].backward()
    assert not any(p.grad is not None and p.grad.any() for p in vae.encoders["c"].parameters())
    assert vae.log_scale.grad[:2].any()
    assert not vae.log_scale.grad[2].any()


def test_experts_combine_as_their_names_say():
    kinds = {
        name: type(tiny_vae(variant=name).posterior(tiny_vae(variant=name).features(tiny_images())))
        for name in ALL
    }
    assert kinds["poe"] is DiagonalGaussian
    assert all(kinds[name] is GaussianMixture for name in ("moe", "mopoe", "mmvaeplus"))


def test_a_latent_that_is_not_named_has_its_default():
    vae = MMVAEPlus(tiny_modalities(), private_dim=4, feature_dim=4, hidden=4, widths=(2, 2))
    assert (vae.latent_dim, vae.shared_dim) == (64, 52)
