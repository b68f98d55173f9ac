"""Stage 1: the ELBO and its terms, subsets, and the symmetry between modalities."""

import pytest
import torch
from tiny_models import FEATURE, LATENT, NAMES, rng, some_present, tiny_images, tiny_vae

from shala_lite.distributions import laplace_log_likelihood

EVERYTHING = torch.ones(12, 3, dtype=torch.bool)


def assert_same(found, expected):
    """Equal names and close values, of dicts of tensors."""
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_shapes_and_ranges():
    vae, x = tiny_vae(), tiny_images()
    features = vae.features(x)
    assert {name: h.shape for name, h in features.items()} == dict.fromkeys(NAMES, (12, FEATURE))
    z = vae.posterior(features).sample(rng())
    assert z.shape == (12, LATENT)
    for image in vae.decode(z).values():
        assert image.shape == (12, 2, 8, 8)
        assert 0 <= image.min() <= image.max() <= 1


def test_the_elbo_is_the_log_likelihood_less_beta_times_the_divergence():
    vae, x = tiny_vae(), tiny_images()
    for beta in (0.0, 1.0, 2.5):
        terms = vae.elbo(x, beta=beta, generator=rng())
        expected = terms["log_likelihood"] - beta * terms["kl"]
        torch.testing.assert_close(terms["elbo"], expected)


def test_terms_are_what_they_are_called():
    vae, x = tiny_vae(likelihood_scale=0.3), tiny_images()
    terms = vae.elbo(x, generator=rng())
    posterior = vae.posterior(vae.features(x))
    torch.testing.assert_close(terms["kl"], posterior.kl().mean())
    decoded = vae.decode(posterior.sample(rng()))
    for name in NAMES:
        nats = laplace_log_likelihood(x[name], decoded[name], 0.3).mean()
        torch.testing.assert_close(terms[f"log_likelihood/{name}"], nats)
    each = [terms[f"log_likelihood/{name}"] for name in NAMES]
    torch.testing.assert_close(terms["log_likelihood"], sum(each))


def test_terms_sum_over_what_is_present():
    vae, x, present = tiny_vae(), tiny_images(), some_present()
    terms = vae.elbo(x, present, generator=rng())
    each = torch.stack([terms[f"log_likelihood/{name}"] for name in NAMES])
    torch.testing.assert_close(terms["log_likelihood"], (each * present.float().mean(0)).sum())


def test_absent_observations_change_nothing():
    vae, present = tiny_vae(), some_present()
    x, other = tiny_images(seed=1), tiny_images(seed=2)
    mixed = {
        name: torch.where(present[:, i, None, None, None], x[name], other[name])
        for i, name in enumerate(NAMES)
    }
    assert_same(vae.elbo(mixed, present, generator=rng()), vae.elbo(x, present, generator=rng()))


def test_a_modality_that_is_left_out_is_one_that_no_item_has():
    vae, x = tiny_vae(), tiny_images()
    present = EVERYTHING.clone()
    present[:, 1] = False
    fewer = {name: x[name] for name in "ac"}
    some, masked = vae.elbo(fewer, generator=rng()), vae.elbo(x, present, generator=rng())
    assert masked.pop("log_likelihood/b") == 0
    assert_same(some, masked)
    everything = vae.elbo(fewer, EVERYTHING, generator=rng())  # cannot be present: not there
    assert_same(everything, some)


def test_posterior_of_a_subset_is_that_of_its_mask():
    vae = tiny_vae()
    features = vae.features(tiny_images())
    for subset in (["a"], ["b", "c"], ["c", "a"]):
        mask = torch.tensor([name in subset for name in NAMES]).expand(12, -1)
        few = vae.posterior({name: features[name] for name in subset})
        masked = vae.posterior(features, mask)
        assert torch.equal(few.mean, masked.mean)
        assert torch.equal(few.std, masked.std)


def test_absent_features_have_no_influence_even_if_they_are_no_numbers():
    vae, present = tiny_vae(), some_present()
    features = vae.features(tiny_images())
    spoiled = {
        name: torch.where(present[:, i, None], h, torch.nan)
        for i, (name, h) in enumerate(features.items())
    }
    found, expected = vae.posterior(spoiled, present), vae.posterior(features, present)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)


def test_an_item_with_nothing_present_is_named():
    vae, x, present = tiny_vae(), tiny_images(), some_present()
    present[[3, 7]] = False
    message = r"present: nothing is present for items \[3, 7\] \(2 in all\), expected at least one"
    for call in (vae.features, vae.elbo, vae.loss):
        with pytest.raises(ValueError, match=message):
            call(x, present)
    with pytest.raises(ValueError, match=message):
        vae.posterior(vae.features(x), present)


def test_the_order_of_a_dict_is_irrelevant():
    vae, x, present = tiny_vae(alignment=1.0), tiny_images(), some_present()
    turned = {name: x[name] for name in "cab"}
    assert list(vae.features(turned)) == list(NAMES)
    assert_same(vae.loss(turned, present, generator=rng()), vae.loss(x, present, generator=rng()))
    features = vae.features(x)
    reordered = {name: features[name] for name in "bca"}
    assert torch.equal(vae.posterior(reordered).mean, vae.posterior(features).mean)


def renamed(state, partner, order):
    """The weights of stage 1 with modalities renamed by `partner`, columns put in `order`."""
    result = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part in ("encoders", "decoders", "alignment"):
            words = key.split(".")
            words[2] = partner[words[2]]
            key = ".".join(words)
        elif rest == "absent":
            value = value[order]
        elif rest == "layers.0.weight":
            value = value.unflatten(1, (len(order), -1))[:, order].flatten(1)
        result[key] = value
    return result


def test_swapping_two_modalities_with_their_weights_swaps_their_outputs():
    swap = {"a": "b", "b": "a", "c": "c"}
    vae, other = tiny_vae(seed=1, alignment=1.0), tiny_vae(seed=2, alignment=1.0)
    other.load_state_dict(renamed(vae.state_dict(), swap, [1, 0, 2]))
    x, present = tiny_images(), some_present()
    swapped = {name: x[swap[name]] for name in NAMES}
    features = vae.features(x)
    expected = {name: features[swap[name]] for name in NAMES}
    found = other.features(swapped)
    assert_same(found, expected)

    turned = present[:, [1, 0, 2]]
    posterior, same = vae.posterior(features, present), other.posterior(found, turned)
    torch.testing.assert_close(same.mean, posterior.mean)
    torch.testing.assert_close(same.std, posterior.std)

    z = posterior.sample(rng())
    decoded = vae.decode(z)
    assert_same(other.decode(z), {name: decoded[swap[name]] for name in NAMES})

    terms, others = (
        vae.loss(x, present, generator=rng()),
        other.loss(swapped, turned, generator=rng()),
    )
    keep = ("loss", "kl", "log_likelihood", "alignment")
    assert_same({key: others[key] for key in keep}, {key: terms[key] for key in keep})
    torch.testing.assert_close(others["log_likelihood/a"], terms["log_likelihood/b"])
    # and without the weights it does not: the law is not empty
    assert not torch.allclose(vae.posterior(vae.features(swapped), turned).mean, posterior.mean)


def test_listing_the_modalities_in_another_order_is_only_another_order():
    same = {name: name for name in NAMES}
    vae, other = tiny_vae(seed=1), tiny_vae("cab", seed=2)
    other.load_state_dict(renamed(vae.state_dict(), same, [2, 0, 1]))
    x = tiny_images()
    features = vae.features(x)
    posterior = vae.posterior(features)
    torch.testing.assert_close(other.posterior(other.features(x)).mean, posterior.mean)
    decoded = other.decode(posterior.mean)
    assert list(decoded) == ["c", "a", "b"]
    assert_same({name: decoded[name] for name in NAMES}, vae.decode(posterior.mean))


def test_the_loss_is_minus_the_elbo_with_its_beta():
    vae, x = tiny_vae(beta=2.0), tiny_images()
    loss = vae.loss(x, generator=rng())
    torch.testing.assert_close(loss["loss"], -vae.elbo(x, beta=2.0, generator=rng())["elbo"])


def test_alignment_is_added_by_its_weight_and_only_where_asked_for():
    vae, x = tiny_vae(alignment=3.0), tiny_images()
    terms = vae.loss(x, generator=rng())
    expected = 3 * vae.alignment(vae.features(x)) - vae.elbo(x, generator=rng())["elbo"]
    torch.testing.assert_close(terms["loss"], expected)
    assert "alignment" not in tiny_vae().loss(x, generator=rng())
    assert not hasattr(tiny_vae(), "alignment")


def test_alignment_takes_a_subset_of_the_modalities():
    vae, x, present = tiny_vae(alignment=1.0), tiny_images(), some_present()
    present[:, 0] |= ~present[:, 2]  # else an item has nothing
    fewer = {name: x[name] for name in "ac"}
    terms = vae.loss(fewer, present, generator=rng())
    h = vae.features(fewer)
    torch.testing.assert_close(terms["alignment"], vae.alignment(h, present[:, [0, 2]]))


def test_one_generator_gives_one_loss_and_the_global_state_is_left_alone():
    vae, x = tiny_vae(), tiny_images()
    before = torch.random.get_rng_state()
    first, second, third = (vae.loss(x, generator=rng(seed))["loss"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("decoder", ["convolutional", "layered"])
def test_everything_learns_from_the_loss(decoder):
    vae = tiny_vae(alignment=1.0, decoder=decoder, decoder_hidden=9).train()
    vae.loss(tiny_images(), some_present(), generator=rng())["loss"].backward()
    still = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("decoder", ["convolutional", "layered"])
def test_training_raises_the_elbo(decoder):
    vae, x = tiny_vae(decoder=decoder, decoder_hidden=9).train(), tiny_images(32)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    first = vae.loss(x, generator=rng())["loss"].item()
    for step in range(30):
        optimizer.zero_grad()
        loss = vae.loss(x, generator=rng(step))["loss"]
        loss.backward()
        optimizer.step()
    assert loss < first - 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "round"}, r"decoder: 'round', expected one of \['convolutional', 'layered'"),
        ({"likelihood_scale": 0.0}, "likelihood_scale: 0.0, expected a positive"),
        ({"names": ()}, "modalities: empty"),
        ({"depth": 0}, "depth: 0"),
        ({"widths": (4,)}, "widths"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_vae(**options)


def test_unknown_modalities_are_named():
    vae, x = tiny_vae(), tiny_images()
    with pytest.raises(KeyError, match=r"x: unknown modalities \['d'\].*'a', 'b', 'c'"):
        vae.features({**x, "d": x["a"]})
    h = vae.features(x)["a"]
    with pytest.raises(KeyError, match=r"features: unknown modalities \['d'\].*'a', 'b', 'c'"):
        vae.posterior({"a": h, "d": h})
    with pytest.raises(ValueError, match="features: empty"):
        vae.posterior({})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("present", [None, some_present()])
def test_pixels_of_another_precision_are_as_good(dtype, present):
    vae, x = tiny_vae(), {name: value.half() for name, value in tiny_images().items()}
    expected = vae.features({name: value.float() for name, value in x.items()}, present)
    found = vae.features({name: value.to(dtype) for name, value in x.items()}, present)
    assert_same(found, expected)
    loss = vae.loss({name: value.to(dtype) for name, value in x.items()}, present, generator=rng())
    assert loss["loss"].isfinite()


@pytest.mark.parametrize("shape", [(12,), (12, 2), (3, 12)])
def test_a_mask_of_another_shape_is_named(shape):
    vae = tiny_vae()
    with pytest.raises(ValueError, match=r"present: shape .*expected \(12, 3\)"):
        vae.posterior(vae.features(tiny_images()), torch.ones(shape, dtype=torch.bool))
