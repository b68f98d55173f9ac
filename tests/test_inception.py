"""FID against its formula computed otherwise, with a small network of the real one's interface."""

import math
import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from tiny_models import LATENT, rng, tiny_dataset, tiny_modalities, tiny_vae
from torch import Tensor, nn

from shala_lite import inception, metrics
from shala_lite.inception import VARIABLE, features, fid, load, scores
from shala_lite.runs import check_metric

WIDTH = 12  # of most networks here, in place of 2048
SHAPE = (1, 8, 8)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
quiet = pytest.mark.filterwarnings("ignore:FID of:UserWarning")


class Standin(nn.Module):
    """Takes what the real network takes, and nothing else: bytes of three channels, any size."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("weight", torch.randn(3 * 6 * 6, width, generator=rng(7)) / 100)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8 and img.dim() == 4 and img.size(1) == 3  # noqa: PT018
        x = nn.functional.interpolate(img.float(), size=[6, 6], mode="bilinear")
        found = torch.tanh((x.flatten(1) - 128) @ self.weight)
        return found if return_features else found[:, :3]


class Without(nn.Module):
    def forward(self, img: Tensor) -> Tensor:
        return img


class Nothing(nn.Module):
    @torch.jit.export
    def other(self, img: Tensor) -> Tensor:
        return img


def saved(module, folder):
    path = folder / "inception.pt"
    torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A file whose network has 2048 features."""
    return saved(Standin(2048), tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def narrow_file(tmp_path_factory):
    return saved(Standin(WIDTH), tmp_path_factory.mktemp("narrow"))


@pytest.fixture
def narrow(narrow_file, monkeypatch):
    """A file whose network has 12 features, taken for the full number: distances cost nothing."""
    monkeypatch.setattr(inception, "FEATURES", WIDTH)
    return narrow_file


@pytest.fixture(autouse=True)
def none_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def pixels(n, shape=(3, 10, 9), seed=0, low=0, high=256):
    return torch.randint(low, high, (n, *shape), generator=rng(seed), dtype=torch.uint8)


def normal(n, d=WIDTH, seed=0):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def by_square_root(a, b):
    """The formula with scipy's root of the product of the covariances, as most programs have it."""
    a, b = a.numpy(), b.numpy()
    of_a, of_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(of_a @ of_b).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(of_a + of_b - 2 * root)


def by_singular_values(a, b):
    """tr((C C')^1/2) is the sum of singular values of X X'^T, X centred: cheap in any width."""
    a, b = a.numpy(), b.numpy()
    x, y = ((h - h.mean(0)) / math.sqrt(len(h) - 1) for h in (a, b))
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + (x**2).sum() + (y**2).sum() - 2 * shared


# The distance


def test_fid_is_the_formula_with_the_unbiased_covariance():
    real, fake = normal(40), 3 + 2 * normal(25, seed=1) @ normal(WIDTH, WIDTH, seed=2)
    expected = by_square_root(real, fake)
    assert fid(real, fake) == pytest.approx(expected, rel=1e-9)
    assert by_singular_values(real, fake) == pytest.approx(expected, rel=1e-9)


def test_fid_is_that_of_torchmetrics(narrow):
    image = pytest.importorskip("torchmetrics.image.fid")
    net = load(narrow)

    class Extractor(nn.Module):
        def forward(self, x):
            return net(x, return_features=True)

    theirs = image.FrechetInceptionDistance(feature=Extractor()).set_dtype(torch.float64)
    real, fake = pixels(70), pixels(50, seed=1, high=180)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    found = fid(features(net, real), features(net, fake))
    assert found > 1
    assert found == pytest.approx(theirs.compute().item(), rel=1e-6)


@quiet
def test_from_the_variable_to_fid_at_the_real_width(wide, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(wide))
    net = load()
    real, fake = features(net, pixels(30)), features(net, pixels(20, seed=1, low=60))
    assert real.shape == (30, 2048)
    expected = by_singular_values(real, fake)
    assert expected > 100
    assert fid(real, fake) == pytest.approx(expected, rel=1e-5)


def test_the_same_images_are_at_distance_zero_and_others_farther_the_more_they_differ(narrow):
    net, images = load(narrow), pixels(60, high=200)
    real = features(net, images)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)
    far = [fid(real, features(net, images + step)) for step in (1, 5, 20, 50)]
    assert 1e-5 < far[0] < far[1] < far[2] < far[3]


def test_a_shift_of_all_features_counts_squared_and_nothing_is_rescaled():
    real = 5 * normal(40)
    assert fid(real, real + 2) == pytest.approx(4 * WIDTH, rel=1e-9)
    assert fid(3 * real, 3 * real + 6) == pytest.approx(9 * 4 * WIDTH, rel=1e-9)


@pytest.mark.parametrize(("few", "n"), [(True, WIDTH), (False, WIDTH + 1)])
def test_fid_warns_where_a_covariance_is_singular(few, n):
    for real, fake in ((normal(n), normal(50)), (normal(50), normal(n))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fid(real, fake)
        assert [f"FID of {n} items" in str(w.message) for w in caught] == [True] * few
        assert all(w.filename == __file__ for w in caught)


def test_fid_refuses_one_item_and_what_is_not_finite():
    with pytest.raises(ValueError, match=r"second features have shape \(1, 12\)"):
        fid(normal(5), normal(1))
    with pytest.raises(ValueError, match="not all finite"):
        fid(normal(5).fill_(math.nan), normal(5))


# Features


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_the_size_of_chunks_is_irrelevant(narrow, chunk):
    net, images = load(narrow), pixels(30)
    found = features(net, images, chunk=chunk)
    assert (found.shape, found.dtype) == ((30, WIDTH), torch.float64)
    torch.testing.assert_close(found, features(net, images), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[17:18], features(net, images[17:18]), rtol=0, atol=1e-5)


def test_features_are_what_the_network_says_of_the_bytes(narrow):
    net, images = load(narrow), pixels(10)
    expected = net(images, return_features=True).double()
    assert expected.std(0).min() > 0.1
    torch.testing.assert_close(features(net, images), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_are_rounded_to_the_nearest_byte(narrow, dtype):
    net, images = load(narrow), pixels(10, low=1, high=255)
    expected = features(net, images)
    for less in (-0.4, 0.0, 0.4):
        assert features(net, (images.to(dtype) + less) / 255).equal(expected)
    assert features(net, (images.to(dtype) + 0.6) / 255).equal(features(net, images + 1))
    assert not features(net, images + 1).equal(expected)


def test_both_ends_of_the_range_are_allowed(narrow):
    net = load(narrow)
    ends = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    expected = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 255)]).to(torch.uint8)
    assert features(net, ends).equal(features(net, expected))
    # an error of rounding is none
    assert features(net, ends * 1.0001 - 0.00001).equal(features(net, ends))


def test_grey_images_are_repeated_to_three_channels(narrow):
    net, grey = load(narrow), pixels(10, SHAPE)
    expected = features(net, torch.cat([grey, grey, grey], 1))
    assert features(net, grey).equal(expected)
    assert features(net, grey.float() / 255).equal(expected)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (torch.zeros(4, 2, 8, 8), r"\(4, 2, 8, 8\); expected \(B, C, H, W\), B > 0, C 1 or 3"),
        (torch.zeros(4, 4, 8, 8), "C 1 or 3"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "B > 0"),
        (torch.full((4, 3, 8, 8), math.nan), r"images hold NaN; expected floats in \[0, 1\]"),
        (torch.full((4, 3, 8, 8), 128.0), "images span 128 to 128"),
        (torch.full((4, 3, 8, 8), -0.5), r"images span -0.5 to -0.5; expected floats in \[0, 1\]"),
        (torch.full((4, 3, 8, 8), math.inf), "images span inf"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), "images are torch.int64"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.bool), "images are torch.bool"),
    ],
)
def test_images_that_do_not_fit_are_refused(narrow, images, match):
    with pytest.raises(ValueError, match=match):
        features(load(narrow), images)


def test_one_bad_pixel_is_enough(narrow):
    for value, match in ((math.nan, "NaN"), (1.01, "span 0.5 to 1.01")):
        images = torch.full((9, 3, 8, 8), 0.5)
        images[8, 2, 7, 7] = value
        with pytest.raises(ValueError, match=match):
            features(load(narrow), images, chunk=2)


def test_a_chunk_below_one_is_refused(narrow):
    with pytest.raises(ValueError, match="chunk is 0; expected at least 1"):
        features(load(narrow), pixels(4), chunk=0)


def test_a_network_that_gives_another_shape_is_refused_at_use(narrow_file):
    with pytest.raises(ValueError, match=r"net gives \(4, 12\).*expected \(4, 2048\)"):
        features(load(narrow_file), pixels(4))


# The file


def test_without_a_name_there_is_no_network(monkeypatch):
    assert load() is None
    monkeypatch.setenv(VARIABLE, "")
    assert load() is None


def test_a_path_goes_before_the_variable(narrow, monkeypatch):
    monkeypatch.setenv(VARIABLE, "nowhere.pt")
    assert features(load(narrow), pixels(3)).shape == (3, WIDTH)
    assert features(load(str(narrow)), pixels(3)).shape == (3, WIDTH)


def test_a_tilde_is_the_home_folder(narrow, monkeypatch):
    monkeypatch.setenv("HOME", str(narrow.parent))
    monkeypatch.setenv(VARIABLE, f"~/{narrow.name}")
    assert features(load(), pixels(3)).shape == (3, WIDTH)


def test_the_network_is_only_evaluated(tmp_path):
    class Trainable(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2048))

        def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
            return img.float().mean((2, 3)) @ self.weight

    net = load(saved(Trainable().train(), tmp_path))
    assert not net.training
    assert net.weight.requires_grad  # else the next line could not fail
    assert not features(net, pixels(3)).requires_grad


@pytest.mark.parametrize("by_path", [True, False])
def test_a_missing_file_is_named_with_who_named_it(tmp_path, monkeypatch, by_path):
    who = "path" if by_path else VARIABLE
    for missing in (tmp_path / "none.pt", tmp_path):
        monkeypatch.setenv(VARIABLE, str(missing))
        with pytest.raises(FileNotFoundError) as caught:
            load(missing if by_path else None)
        expected = f"{who} is {str(missing)!r}, no file; expected a copy of inception-2015-12-05.pt"
        assert str(caught.value) == expected


@pytest.mark.parametrize("by_path", [True, False])
@pytest.mark.parametrize("kind", ["text", "empty", "state", "old state"])
def test_what_is_not_torchscript_is_refused(tmp_path, monkeypatch, by_path, kind):
    path = tmp_path / "weights.pt"
    if "state" in kind:  # as pytorch-fid publishes its weights
        zipped = kind == "state"
        state = {"weight": torch.ones(2)}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    else:
        path.write_text("<html>not found</html>" if kind == "text" else "")
    monkeypatch.setenv(VARIABLE, str(path))
    who = "path" if by_path else VARIABLE
    with pytest.raises(ValueError, match=f"{who} is .*weights.pt', not TorchScript; expected a"):
        load(path if by_path else None)


@pytest.mark.parametrize(("module", "takes"), [(Without, r"\['self', 'img'\]"), (Nothing, r"\[\]")])
def test_torchscript_of_another_interface_is_refused(tmp_path, module, takes):
    with pytest.raises(ValueError, match=f"takes {takes}; expected return_features"):
        load(saved(module(), tmp_path))


# A model


def latents(n, seed=0):
    return torch.randn(n, LATENT, generator=rng(seed))


@torch.no_grad()
def expected_fid(net, vae, z, data, name, count):
    fake = vae.decode(z)[name][:count]
    return fid(features(net, data.observations[name][:count]), features(net, fake))


def test_scores_are_plain_calls_at_equal_counts(narrow):
    vae, data = tiny_vae(shape=SHAPE), tiny_dataset(40, shape=SHAPE)
    z_of = {"prior": latents(30), "oracle": 2 * latents(55, 1)}
    found = scores(vae, z_of, data, narrow)
    expected = {}
    for variant, count in (("prior", 30), ("oracle", 40)):
        each = {
            f"{variant}/fid@{name}": expected_fid(
                load(narrow), vae, z_of[variant], data, name, count
            )
            for name in vae.names
        }
        expected |= each | {f"{variant}/fid": sum(each.values()) / 3}
    assert found == pytest.approx(expected, rel=1e-4)
    # all are large and differ, so that none could stand for another
    values = sorted(expected.values())
    assert values[0] > 0.1
    assert all(b / a > 1.001 for a, b in pairwise(values))
    for key in found:
        check_metric(key, metrics.KEYS)


def test_real_training_sets_are_the_floor(narrow):
    vae, test = tiny_vae(shape=SHAPE), tiny_dataset(40, shape=SHAPE)
    train = tiny_dataset(30, shape=SHAPE, seed=1)
    z = {"prior": latents(40)}
    found, net = scores(vae, z, test, narrow, train=train), load(narrow)
    sides = {name: (test.observations[name][:30], train.observations[name]) for name in vae.names}
    for name, (real, other) in sides.items():
        assert found[f"floor/fid@{name}"] == fid(features(net, real), features(net, other))
    assert found["floor/fid"] == sum(found[f"floor/fid@{name}"] for name in vae.names) / 3
    assert scores(vae, z, test, narrow, train=test)["floor/fid"] == pytest.approx(0, abs=1e-6)


def test_scores_do_not_depend_on_how_latents_are_cut_nor_on_the_mode(narrow, monkeypatch):
    vae, data = tiny_vae(shape=SHAPE), tiny_dataset(40, shape=SHAPE)
    whole = scores(vae, {"prior": latents(40)}, data, narrow)
    monkeypatch.setattr(inception, "DECODED", 7)
    assert scores(vae.train(), {"prior": latents(40)}, data, narrow) == pytest.approx(
        whole, rel=1e-3
    )
    assert vae.training


@quiet
def test_scores_honour_the_variable_at_the_real_width(wide, monkeypatch):
    vae, data = tiny_vae(("a",), SHAPE), tiny_dataset(12, ("a",), SHAPE)
    z = latents(12)
    assert scores(vae, {"prior": z}, data) == {}
    monkeypatch.setenv(VARIABLE, str(wide))
    found = scores(vae, {"prior": z}, data)
    assert found["prior/fid"] == found["prior/fid@a"]
    with torch.no_grad():
        fake = features(load(), vae.decode(z)["a"])
    expected = by_singular_values(features(load(), data.observations["a"]), fake)
    assert found["prior/fid"] == pytest.approx(expected, rel=1e-4)


def test_a_wrong_name_is_an_error_and_not_an_absent_score(tmp_path):
    vae, data = tiny_vae(shape=SHAPE), tiny_dataset(12, shape=SHAPE)
    with pytest.raises(FileNotFoundError, match="path is"):
        scores(vae, {"prior": latents(12)}, data, tmp_path / "none.pt")


def test_decoding_keeps_no_graph(narrow, monkeypatch):
    vae, with_graph = tiny_vae(shape=SHAPE), []
    decode = vae.decode
    monkeypatch.setattr(
        vae, "decode", lambda z: with_graph.append(torch.is_grad_enabled()) or decode(z)
    )
    scores(vae, {"prior": latents(40)}, tiny_dataset(40, shape=SHAPE), narrow)
    assert with_graph == [False]


def test_without_latents_there_are_no_scores(narrow):
    assert scores(tiny_vae(shape=SHAPE), {}, tiny_dataset(12, shape=SHAPE), narrow) == {}


def test_scores_warn_once_of_too_few(narrow):
    vae, data = tiny_vae(shape=SHAPE), tiny_dataset(40, shape=SHAPE)
    for n, count in ((9, 1), (40, 0)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            scores(vae, {"prior": latents(40), "oracle": latents(n)}, data, narrow)
        told = [w for w in caught if "FID of 9 items" in str(w.message)]
        assert len(told) == count
        assert all(w.filename == __file__ for w in told)


def test_real_images_that_are_absent_are_left_out(narrow):
    vae, whole = tiny_vae(shape=SHAPE), tiny_dataset(60, shape=SHAPE)
    present = torch.ones(60, 3, dtype=torch.bool)
    present[::2, 1] = False
    spoilt = {name: x.clone() for name, x in whole.observations.items()}
    spoilt["b"][::2] = 255
    data = tiny_dataset(60, shape=SHAPE, present=present)
    data.observations = spoilt
    found = scores(vae, {"prior": latents(60)}, data, narrow)
    half = whole.subset(slice(1, None, 2))
    expected = expected_fid(load(narrow), vae, latents(60), half, "b", 30)
    assert found["prior/fid@b"] == pytest.approx(expected, rel=1e-4)
    expected = expected_fid(load(narrow), vae, latents(60), whole, "a", 60)
    assert found["prior/fid@a"] == pytest.approx(expected, rel=1e-4)


def test_only_images_have_a_fid(narrow):
    vae, data = tiny_vae(shape=SHAPE), tiny_dataset(40, shape=SHAPE)
    kinds = zip(tiny_modalities(shape=SHAPE), ("image", "text", "image"))
    vae.modalities = tuple(SimpleNamespace(name=m.name, kind=kind) for m, kind in kinds)
    found = scores(vae, {"prior": latents(40)}, data, narrow)
    assert set(found) == {"prior/fid", "prior/fid@a", "prior/fid@c"}
    assert found["prior/fid"] == (found["prior/fid@a"] + found["prior/fid@c"]) / 2
    vae.modalities = (SimpleNamespace(name="a", kind="text"),)
    assert scores(vae, {"prior": latents(40)}, data, narrow) == {}


def test_a_modality_without_real_images_is_refused(narrow):
    data = tiny_dataset(40, ("a", "c"), SHAPE)
    with pytest.raises(ValueError, match=r"modalities \['a', 'c'\]; expected 'b'"):
        scores(tiny_vae(shape=SHAPE), {"prior": latents(40)}, data, narrow)


def test_colours_that_no_png_file_has_are_refused(narrow):
    shape = (2, 8, 8)
    with pytest.raises(ValueError, match="C 1 or 3"):
        scores(tiny_vae(shape=shape), {"prior": latents(9)}, tiny_dataset(9, shape=shape), narrow)
