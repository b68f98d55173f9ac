"""The look of one object on another: colours, directions, and noise up to a time and back."""

import pytest
import torch

from shala_lite.prior import LatentPrior
from shala_lite.view_edits import colour_directions, edit_scores, mean_colours, regenerated


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def discs(colours, radii, views=3, side=16):
    """Views of balls: one colour each (N, 3), in [0, 1], on white."""
    line = torch.arange(side) + 0.5 - side / 2
    shape = line[:, None] ** 2 + line**2 < torch.as_tensor(radii).view(-1, 1, 1) ** 2
    alpha = shape.float()[:, None]
    picture = alpha * colours[:, :, None, None] + 1 - alpha
    return {f"view{m:02d}": torch.cat([picture, alpha], 1) for m in range(views)}


def prior_of(names=("view00", "view01", "view02")):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = LatentPrior(
            names, latent_dim=4, feature_dim=5, denoiser="mlp", width=16, depth=2, guide_width=0
        )
        for parameter in prior.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    prior.latent_mean.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    prior.latent_std.copy_(torch.tensor([2.0, 0.5, 1.5, 1.0]))
    return prior.eval()


def test_the_mean_colour_is_that_of_what_is_covered():
    colours = torch.rand(5, 3, generator=rng())
    views = discs(colours, [2, 3, 4, 5, 6])
    torch.testing.assert_close(mean_colours(views), colours.double())
    bytes_ = {name: (255 * x).round().byte() for name, x in views.items()}
    torch.testing.assert_close(mean_colours(bytes_), colours.double(), atol=0.003, rtol=0)


def test_nothing_covered_is_white():
    views = discs(torch.zeros(2, 3), [0, 4])
    assert mean_colours(views).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_directions_are_found_beside_what_has_nothing_to_do_with_colour():
    colours, other = torch.rand(400, 3, generator=rng()), torch.randn(400, 6, generator=rng(1))
    mixing = torch.randn(3, 6, generator=rng(2))
    found = colour_directions(colours @ mixing + 0.1 * other + 5, colours)
    torch.testing.assert_close(found, mixing, atol=0.1, rtol=0)
    with pytest.raises(ValueError, match="z, colours: 400, 399"):
        colour_directions(other, colours[1:])


def test_no_noise_changes_nothing_and_all_noise_is_a_sample():
    prior, z = prior_of(), torch.randn(6, 4, generator=rng())
    given = {"view01": torch.randn(6, 5, generator=rng(1))}
    same = regenerated(prior, z, 0.0, given, generator=rng(2))
    torch.testing.assert_close(same, z)
    fresh = regenerated(prior, z, 1.0, given, steps=9, generator=rng(2))
    drawn = prior.sample(6, given, steps=9, sampler="euler", generator=rng(2)).z
    torch.testing.assert_close(fresh, drawn, atol=1e-4, rtol=1e-4)


def test_a_condition_is_heard_and_more_noise_keeps_less():
    prior, z = prior_of(), torch.randn(200, 4, generator=rng())
    one, two = ({"view01": torch.randn(200, 5, generator=rng(k))} for k in (1, 2))
    moved = [
        (regenerated(prior, z, t, one, generator=rng(3)) - z).norm(dim=1).mean()
        for t in (0.1, 0.4, 0.8)
    ]
    assert moved[0] < moved[1] < moved[2]
    heard = [regenerated(prior, z, 0.5, given, generator=rng(3)) for given in (one, two, {})]
    assert (heard[0] - heard[1]).abs().max() > 0.01
    assert (heard[0] - heard[2]).abs().max() > 0.01


@pytest.mark.parametrize(("t", "steps"), [(-0.1, 8), (1.1, 8), (0.5, 0)])
def test_a_time_or_a_number_of_steps_that_does_not_fit_is_refused(t, steps):
    with pytest.raises(ValueError, match=f"t, steps: {t}, {steps}"):
        regenerated(prior_of(), torch.zeros(2, 4), t, {}, steps=steps)


def test_what_is_kept_and_what_is_taken():
    red, blue = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    own, other = red.expand(4, 3), blue.expand(4, 3)
    shapes = discs(own, [5] * 4)["view00"][:, 3:].expand(-1, 3, -1, -1) > 0.5
    kept = edit_scores(discs(own, [5] * 4), shapes, own, other)
    assert kept == {"outline_overlap": 1.0, "colour_taken": 0.0}
    assert edit_scores(discs(other, [5] * 4), shapes, own, other)["colour_taken"] == 1.0
    some = edit_scores(discs(torch.cat([red, blue, blue, red]), [5, 3, 5, 3]), shapes, own, other)
    assert some["colour_taken"] == 0.5
    assert 0.5 < some["outline_overlap"] < 0.9
