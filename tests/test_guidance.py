"""What is given, and velocities exaggerated; in a whole prior, see test_prior."""

import pytest
import torch
from tiny_models import FEATURE, NAMES, rng, tiny_features

from shala_lite.guidance import guided_velocity, which_given

Z, T = torch.randn(12, 3, generator=rng()), torch.rand(12, generator=rng())
EVERYTHING = torch.ones(12, 3, dtype=torch.bool)


def velocity(z, t, given, have):
    """Any function of all that it is told, item by item."""
    told = sum(h.mean(1) * have[:, i] for i, h in enumerate(given.values()))
    return z * t[:, None] + told[:, None]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_moves_along_the_line_through_both_velocities(guidance):
    given = tiny_features(12)
    better, free = velocity(Z, T, given, EVERYTHING), velocity(Z, T, given, ~EVERYTHING)
    found = guided_velocity(velocity, given, EVERYTHING, guidance, None)(Z, T)
    torch.testing.assert_close(found, free + guidance * (better - free))
    found = guided_velocity(velocity, given, EVERYTHING, guidance, lambda *of: -velocity(*of))(Z, T)
    torch.testing.assert_close(found, -better + guidance * 2 * better)


def test_both_velocities_of_one_network_are_one_call():
    sizes = []

    def counted(z, t, given, have):
        sizes.append((len(z), have.sum().item()))
        return velocity(z, t, given, have)

    guided_velocity(counted, tiny_features(12), EVERYTHING, 2.0, None)(Z, T)
    assert sizes == [(24, 36)]


def test_what_is_given_is_what_is_there_and_may_be_used():
    given = tiny_features(12)
    del given["b"]
    present = torch.rand(12, 3, generator=rng()) < 0.5
    expected = present & torch.tensor([True, False, True])
    assert torch.equal(which_given(12, FEATURE, given, present, NAMES), expected)
    here = torch.tensor([True, False, True]).expand(12, -1)
    assert torch.equal(which_given(12, FEATURE, given, None, NAMES), here)
    assert not which_given(12, FEATURE, {}, None, NAMES).any()


def test_what_cannot_be_given_is_named():
    given = tiny_features(12)
    with pytest.raises(KeyError, match=r"given: unknown \['d'\].*'a', 'b', 'c'"):
        which_given(12, FEATURE, {"d": given["a"]}, None, NAMES)
    with pytest.raises(
        ValueError, match=r"given: shapes \{'b': \(11, 5\)\}, expected .* \(12, 5\)"
    ):
        which_given(12, FEATURE, given | {"b": given["b"][:11]}, None, NAMES)
    with pytest.raises(ValueError, match=r"present: shape \(12, 2\), expected \(12, 3\)"):
        which_given(12, FEATURE, given, EVERYTHING[:, :2], NAMES)
    narrow = given | {"a": given["a"][:, :1]}  # would be broadcast
    with pytest.raises(ValueError, match=r"'a': \(12, 1\)\}, expected \(n, D\) = \(12, 5\)"):
        which_given(12, FEATURE, narrow, None, NAMES)
    with pytest.raises(ValueError, match=r"present: torch.float32, expected torch.bool"):
        which_given(12, FEATURE, given, EVERYTHING.float(), NAMES)
