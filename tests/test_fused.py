"""The fused posterior: one Gaussian of all features, whatever the fusion."""

import pytest
import torch
from tiny_models import (
    LATENT,
    NAMES,
    rng,
    some_present,
    tiny_images,
    tiny_modalities,
    tiny_vae,
)

from shala_lite.distributions import DiagonalGaussian
from shala_lite.fused import FusedVAE
from shala_lite.fusion import FUSIONS


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_posterior_is_one_gaussian_of_what_the_fusion_says(fusion):
    vae, x, present = tiny_vae(variant=fusion), tiny_images(), some_present()
    h = vae.features(x, present)
    posterior = vae.posterior(h, present)
    assert isinstance(posterior, DiagonalGaussian)
    mean, std = vae.fusion(torch.stack([h[name] for name in NAMES], 1), present)
    assert mean.shape == (12, LATENT)
    torch.testing.assert_close(posterior.mean, mean)
    torch.testing.assert_close(posterior.std, std)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_everything_learns_from_the_loss_whatever_the_fusion(fusion):
    vae = tiny_vae(variant=fusion, masked=0.5).train()
    vae.loss(tiny_images(), some_present(), generator=rng())["loss"].backward()
    still = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_masking_hides_features_from_the_posterior_and_nothing_from_the_decoders():
    vae, x = tiny_vae(masked=1.0), tiny_images()
    seen = []
    whole = vae._posterior
    vae._posterior = lambda features, present: seen.append(present) or whole(features, present)
    terms = vae.loss(x, generator=rng())
    sizes = torch.bincount(torch.cat([seen[0]]).sum(1), minlength=4)
    assert sizes[0] == 0
    assert (sizes[1:3] > 0).all()
    assert all(terms[f"log_likelihood/{name}"] != 0 for name in NAMES)
    hidden = {name: terms[f"log_likelihood/{name}"] for name in NAMES}
    torch.testing.assert_close(terms["log_likelihood"], sum(hidden.values()))


def test_masking_keeps_its_share_whole():
    vae, x = tiny_vae(masked=0.3), {k: v.repeat(200, 1, 1, 1) for k, v in tiny_images().items()}
    seen = []
    whole = vae._posterior
    vae._posterior = lambda features, present: seen.append(present) or whole(features, present)
    vae.loss(x, generator=rng())
    # of the masked, one in three draws all three modalities
    assert (~seen[0].all(1)).float().mean().item() == pytest.approx(0.3 * 2 / 3, abs=0.04)


def test_masking_touches_the_loss_and_not_the_bound():
    x = tiny_images()
    masked, plain = tiny_vae(masked=1.0), tiny_vae()
    torch.testing.assert_close(
        masked.elbo(x, generator=rng())["elbo"], plain.elbo(x, generator=rng())["elbo"]
    )
    assert masked.loss(x, generator=rng())["loss"] != plain.loss(x, generator=rng())["loss"]


def test_an_unknown_fusion_is_named():
    message = r"fusion: 'round', expected one of \['attention', 'concat', 'sum'\]"
    with pytest.raises(ValueError, match=message):
        FusedVAE(tiny_modalities(), fusion="round")


@pytest.mark.parametrize("masked", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(masked):
    with pytest.raises(ValueError, match=f"masked: {masked}, expected a share"):
        tiny_vae(masked=masked)


@pytest.mark.parametrize("present", [None, some_present()], ids=["complete", "gaps"])
def test_the_cycle_term_is_added_to_the_loss_and_not_to_the_bound(present):
    x = tiny_images()
    plain, cycled = tiny_vae(alignment=2.0), tiny_vae(alignment=2.0, cycle=3.0)
    before, after = (vae.loss(x, present, generator=rng()) for vae in (plain, cycled))
    features = cycled.features(x, present)
    z = cycled.posterior(features, present).sample(rng())
    term = cycled.alignment.cycle(cycled.encoders, cycled.decode(z), features, present)
    torch.testing.assert_close(after["cycle"], term)
    torch.testing.assert_close(after["loss"], before["loss"] + 3 * term)
    bounds = [vae.elbo(x, present, generator=rng())["elbo"] for vae in (plain, cycled)]
    torch.testing.assert_close(*bounds)


def test_decoders_and_fusion_learn_from_the_cycle_term_alone():
    vae = tiny_vae(alignment=1e-9, cycle=1.0).train()
    vae._weighted = lambda nats: torch.zeros(())
    vae.beta = 0.0
    vae.loss(tiny_images(), generator=rng())["loss"].backward()
    for name, p in vae.named_parameters():
        if name.startswith(("decoders", "fusion")) and "absent" not in name:
            assert p.grad is not None, name
            assert p.grad.any(), name


@pytest.mark.parametrize(("cycle", "alignment"), [(1.0, 0.0), (-1.0, 2.0)])
def test_a_cycle_without_alignment_is_refused(cycle, alignment):
    with pytest.raises(ValueError, match=f"cycle: {cycle} with alignment {alignment}, expected"):
        tiny_vae(cycle=cycle, alignment=alignment)
