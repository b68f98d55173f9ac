"""What stage 2 learns from: posteriors as they are, never their means alone."""

import pytest
import torch
from tiny_models import (
    LATENT,
    NAMES,
    rng,
    some_present,
    tiny_dataset,
    tiny_latents,
    tiny_prior,
    tiny_vae,
)

from shala_lite.distributions import DiagonalGaussian
from shala_lite.latents import LatentDataset, encode


def masked_dataset():
    return tiny_dataset(present=some_present(48, share=0.7))


def test_encoding_is_what_stage_1_says_of_every_item():
    vae, data = tiny_vae(), masked_dataset()
    latents = encode(vae, data.batches(48))
    batch = next(data.batches(48))
    features = vae.features(batch["x"], batch["present"])
    posterior = vae.posterior(features, batch["present"])
    assert len(latents) == 48
    assert torch.equal(latents.present, data.present)
    assert torch.equal(latents.posterior.mean, posterior.mean)
    assert torch.equal(latents.posterior.std, posterior.std)
    assert list(latents.features) == list(NAMES)
    for name in NAMES:
        assert torch.equal(latents.features[name], features[name])


@pytest.mark.parametrize("size", [1, 7, 48])
def test_the_size_of_batches_is_irrelevant(size):
    vae, data = tiny_vae(), masked_dataset()
    one, other = encode(vae, data.batches(20)), encode(vae, data.batches(size))
    near = dict(atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.posterior.mean, other.posterior.mean, **near)
    torch.testing.assert_close(one.posterior.std, other.posterior.std, **near)
    assert torch.equal(one.present, other.present)
    for name in NAMES:
        torch.testing.assert_close(one.features[name], other.features[name], **near)


@pytest.mark.parametrize("training", [True, False])
def test_encoding_leaves_the_model_as_it_was(training):
    vae = tiny_vae().train(training)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    latents = encode(vae, tiny_dataset().batches(16))
    assert vae.training is training
    assert all(torch.equal(value, before[key]) for key, value in vae.state_dict().items())
    assert not latents.posterior.mean.requires_grad
    torch.testing.assert_close(
        latents.posterior.mean, encode(vae.eval(), tiny_dataset().batches(16)).posterior.mean
    )


def test_statistics_are_those_of_samples_not_of_means():
    latents = tiny_latents(20)
    many = latents.posterior[torch.arange(20).repeat(20_000)]
    z = many.sample(rng()).double()
    mean, std = latents.statistics()
    torch.testing.assert_close(mean.double(), z.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(std.double(), z.std(0), atol=0, rtol=0.01)
    assert (std > 1.01 * latents.posterior.mean.std(0, unbiased=False)).all()


def test_statistics_of_one_gaussian_are_its_own():
    std = torch.full((9, LATENT), 0.7)
    posterior = DiagonalGaussian(torch.full((9, LATENT), -2.0), std)
    latents = LatentDataset(posterior, {}, torch.ones(9, 3, dtype=torch.bool))
    found = latents.statistics()
    torch.testing.assert_close(found[0], posterior.mean[0])
    torch.testing.assert_close(found[1], std[0])


def test_a_batch_is_the_chosen_items_as_the_prior_takes_them():
    latents = tiny_latents(10, present=torch.rand(10, 3, generator=rng()) < 0.5)
    indices = torch.tensor([7, 2, 7])
    batch = latents.batch(indices)
    assert torch.equal(batch["latents"].mean, latents.posterior.mean[indices])
    assert torch.equal(batch["latents"].std, latents.posterior.std[indices])
    assert torch.equal(batch["present"], latents.present[indices])
    for name in NAMES:
        assert torch.equal(batch["features"][name], latents.features[name][indices])
    assert tiny_prior().loss(**batch, generator=rng())["loss"].isfinite()


def test_no_batch_at_all_is_refused():
    with pytest.raises(ValueError, match="batches: empty"):
        encode(tiny_vae(), [])
