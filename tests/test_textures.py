import hashlib

import numpy as np

from shala_lite.datasets.textures import draw_textures


def crops(texture, n, seed):
    """Random crops (n, 28, 28, 3) in [0, 1]."""
    rng = np.random.default_rng(seed)
    at = rng.integers(texture.shape[0] - 27, size=(n, 2))
    return np.stack([texture[y : y + 28, x : x + 28] for y, x in at]) / 255


def test_the_textures_are_the_same_on_every_machine():
    # A snapshot on purpose: this is the law. Other bytes would make every published number of
    # the embedded data set one of another data set.
    digest = hashlib.sha256(b"".join(texture.tobytes() for texture in draw_textures()))
    assert digest.hexdigest() == "e9df87f36d8b000e94b194d516ab663af43243b0a601fd874ba51fc9162db366"


def test_colour_alone_tells_the_textures_apart():
    def colours(k, seed):
        return crops(draw_textures()[k], 200, seed).mean((1, 2))  # (200, 3)

    centres = np.stack([colours(k, 0).mean(0) for k in range(5)])
    for k in range(5):
        distance = np.linalg.norm(colours(k, 1)[:, None] - centres, axis=-1)
        assert (distance.argmin(1) == k).all()


def test_pattern_alone_tells_the_textures_apart():
    # Brightness removed: what remains is how neighbours at several distances differ.
    def pattern(k, seed):
        grey = crops(draw_textures()[k], 200, seed).mean(-1)
        grey = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
        down = [abs(grey[:, d:] - grey[:, :-d]).mean((1, 2)) for d in (1, 3, 6)]
        across = [abs(grey[:, :, d:] - grey[:, :, :-d]).mean((1, 2)) for d in (1, 3, 6)]
        return np.stack([*down, *across], 1)

    centres = np.stack([pattern(k, 0).mean(0) for k in range(5)])
    guesses = [
        np.linalg.norm(pattern(k, 1)[:, None] - centres, axis=-1).argmin(1) == k for k in range(5)
    ]
    assert np.mean(guesses) > 0.8  # chance is 0.2


def test_inverting_shows_everywhere():
    # A digit pixel differs from its background by 2 b - 1 in each channel.
    for texture in draw_textures():
        contrast = np.linalg.norm(2 * (texture / 255) - 1, axis=-1)
        assert contrast.min() > 0.5


def test_the_pattern_shows_within_a_crop():
    for texture in draw_textures():
        spread = crops(texture, 200, 2).std((1, 2)).max(-1)
        assert np.quantile(spread, 0.1) > 0.02
