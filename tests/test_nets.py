"""Image encoders and decoders: shapes, ranges, and that everything in them counts."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import rng, stir
from torch import nn

from shala_lite.modalities import Modality
from shala_lite.nets import ImageDecoder, ImageEncoder, LayeredDecoder, Residual

SHAPES = [(3, 28, 28), (1, 16, 16), (2, 9, 14), (3, 8, 20)]
WIDTHS = [(4, 5), (3, 4, 5)]

every = pytest.mark.parametrize(
    ("shape", "widths", "residual"),
    [(shape, widths, residual) for shape in SHAPES for widths in WIDTHS for residual in (0, 1)],
)


def encoder(shape=(2, 9, 14), widths=(3, 4, 5), residual=1):
    return stir(ImageEncoder(Modality("a", shape), 7, widths, residual))


def decoder(shape=(2, 9, 14), widths=(3, 4, 5), residual=1):
    return stir(ImageDecoder(Modality("a", shape), 6, widths, residual))


def layered(shape=(2, 9, 14), **options):
    return stir(LayeredDecoder(Modality("a", shape), 6, 11, **options))


@every
def test_an_image_becomes_a_feature_and_a_latent_an_image(shape, widths, residual):
    x = torch.rand(4, *shape, generator=rng())
    assert encoder(shape, widths, residual).eval()(x).shape == (4, 7)
    image = decoder(shape, widths, residual).eval()(torch.randn(4, 6, generator=rng()))
    assert image.shape == (4, *shape)
    assert image.min() >= 0
    assert image.max() <= 1


@every
def test_every_pixel_counts_on_the_way_in(shape, widths, residual):
    x = torch.rand(3, *shape, generator=rng()).requires_grad_()
    weights = torch.randn(3, 7, generator=rng(1))
    (encoder(shape, widths, residual).eval()(x) * weights).sum().backward()
    assert (x.grad != 0).all()


@every
def test_every_number_of_the_latent_reaches_every_pixel(shape, widths, residual):
    net = decoder(shape, widths, residual).eval()

    def before_the_sigmoid(z):  # which rounds large numbers to exactly 0 or 1
        return net.convolutions(net.head(z).unflatten(1, net.start))

    z = torch.randn(1, 6, generator=rng())
    still = before_the_sigmoid(z)
    for index in range(6):
        moved = z.clone()
        moved[0, index] += 3
        assert (before_the_sigmoid(moved) != still).float().mean() > 0.9


@pytest.mark.parametrize("make", [encoder, decoder, layered])
def test_every_parameter_learns(make):
    net = make().train()
    size = (8, 2, 9, 14) if make is encoder else (8, 6)
    out = net(torch.rand(size, generator=rng()))
    (out * torch.rand(out.shape, generator=rng(1))).sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("make", [encoder, decoder, layered])
def test_items_are_independent_in_evaluation(make):
    net = make().eval()
    size = (6, 2, 9, 14) if make is encoder else (6, 6)
    x = torch.rand(size, generator=rng())
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(net(x[order]), net(x)[order])
    other = x.clone()
    other[1] = 1 - other[1]
    changed = (net(other) - net(x)).flatten(1).abs().amax(1) > 1e-4
    assert changed.tolist() == [False, True, False, False, False, False]


def test_features_have_unit_scale_in_training():
    """Whatever the pixels' contrast, so that fusion and prior see one scale."""
    net = ImageEncoder(Modality("a", (2, 16, 16)), 7, (4, 8)).train()
    for contrast in (1.0, 0.1):
        h = net(0.5 + contrast * (torch.rand(64, 2, 16, 16, generator=rng()) - 0.5))
        torch.testing.assert_close(h.mean(0), torch.zeros(7), atol=1e-4, rtol=0)
        torch.testing.assert_close(h.var(0, unbiased=False), torch.ones(7), atol=1e-2, rtol=0)


@pytest.mark.parametrize("make", [decoder, layered])
def test_images_are_full_precision_when_the_layers_are_not(make):
    """A pixel of bfloat16 has 8 bits; a Laplace likelihood of scale 0.1 would feel it."""
    net, z = make().eval(), torch.randn(4, 6, generator=rng())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = net(z)
    assert image.dtype == torch.float32
    # on average: how one pixel is rounded depends on the processor's kernels
    assert (image - net(z)).square().mean().sqrt() < 0.05 * net(z).std()


def test_a_residual_block_without_its_body_passes_on_what_it_gets():
    block = stir(Residual(3)).eval()
    x = torch.randn(2, 3, 5, 5, generator=rng())
    assert not torch.allclose(block(x), nn.functional.silu(x))
    nn.init.zeros_(block.body[-1].weight)
    block.body[-1].running_mean.zero_()
    nn.init.zeros_(block.body[-1].bias)
    torch.testing.assert_close(block(x), nn.functional.silu(x))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_there_are_as_many_residual_blocks_at_each_resolution_as_asked_for(count):
    for net, resolutions in ((encoder(residual=count), 3), (decoder(residual=count), 2)):
        assert sum(isinstance(module, Residual) for module in net.modules()) == count * resolutions


LAYERED = [(2, 1), (2, 4), (3, 1), (4, 3), (3, 99)]


@pytest.mark.parametrize(("count", "stride"), LAYERED)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layered_image_lies_among_its_pictures_and_the_masks_say_where(shape, count, stride):
    net, z = layered(shape, count=count, stride=stride).eval(), torch.randn(4, 6, generator=rng())
    image, (masks, pictures) = net(z), net.shown(z)
    assert image.shape == (4, *shape)
    assert masks.shape == (4, count, 1, *shape[1:])
    assert pictures.shape == (4, count, *shape)
    torch.testing.assert_close(masks.sum(1), torch.ones(4, 1, *shape[1:]))
    assert (image >= pictures.amin(1) - 1e-6).all()
    assert (image <= pictures.amax(1) + 1e-6).all()
    last, pixels = net.layers[-1], shape[1] * shape[2]  # masks come first, none for the last layer
    nn.init.zeros_(last.weight[: (count - 1) * pixels])
    for k in range(count):
        nn.init.constant_(last.bias[: (count - 1) * pixels], -60.0)
        nn.init.constant_(last.bias[k * pixels : min(k + 1, count - 1) * pixels], 60.0)
        torch.testing.assert_close(net(z), pictures[:, k])
        assert not torch.allclose(net(z), image)


def test_between_the_colours_of_a_coarse_picture_are_straight_lines():
    net, z = layered((2, 9, 14), stride=4).eval(), torch.randn(4, 6, generator=rng())
    assert net.coarse == [3, 4]
    colours = net.layers(z)[:, net.parts[0] :].unflatten(1, (4, 3, 4))
    expected = nn.functional.interpolate(colours, (9, 14), mode="bilinear").sigmoid()
    torch.testing.assert_close(net.shown(z)[1].flatten(1, 2), expected)
    (alone,) = layered((2, 9, 14), stride=99).eval().shown(z)[1].flatten(3).std(-1).unique()
    assert alone == 0  # one colour for all of a picture


def test_a_sharp_mask_gives_each_pixel_to_one_picture_but_not_in_training():
    soft, sharp = layered(count=3), layered(count=3, sharpness=1e6)
    sharp.load_state_dict(soft.state_dict())
    z = torch.randn(4, 6, generator=rng())
    torch.testing.assert_close(sharp.train()(z), soft.train()(z))
    soft.load_state_dict(sharp.eval().state_dict())  # running statistics moved in training
    (masks, pictures), image = soft.eval().shown(z), sharp(z)
    # and to the one that the soft mask leans to
    nearest = masks.argmax(1, keepdim=True).expand_as(pictures[:, :1])
    torch.testing.assert_close(image, pictures.gather(1, nearest)[:, 0])
    assert (soft(z)[:, None] - pictures).abs().amin(1).amax() > 0.02


@pytest.mark.parametrize("sharpness", [0.0, -1.0])
def test_a_sharpness_that_is_not_positive_is_refused(sharpness):
    with pytest.raises(ValueError, match=f"sharpness: {sharpness}, expected a positive"):
        layered(sharpness=sharpness)


@pytest.mark.parametrize("odd", [{"count": 1}, {"stride": 0}])
def test_a_layered_decoder_of_one_layer_or_of_no_stride_is_refused(odd):
    ((name, value),) = odd.items()
    with pytest.raises(ValueError, match=f"{name}: {value}, expected at least"):
        layered(**odd)


@pytest.mark.parametrize("net", [ImageEncoder, ImageDecoder, LayeredDecoder])
def test_what_is_no_image_is_refused(net):
    words = SimpleNamespace(name="caption", kind="text", shape=(32, 1000))
    with pytest.raises(ValueError, match=r"'caption': kind 'text' with shape \(32, 1000\)"):
        net(words, 6, 5 if net is LayeredDecoder else (4, 5))


@pytest.mark.parametrize("net", [ImageEncoder, ImageDecoder])
@pytest.mark.parametrize("widths", [(), (8,)])
def test_too_few_widths_are_refused(net, widths):
    with pytest.raises(ValueError, match=r"widths: .*expected at least two"):
        net(Modality("a", (1, 8, 8)), 6, widths)


def test_more_halvings_than_the_image_has_are_refused():
    with pytest.raises(ValueError, match=r"widths: 4 halvings.*'a'.*\(1, 8, 16\)"):
        ImageEncoder(Modality("a", (1, 8, 16)), 6, (4, 4, 4, 4))
    ImageEncoder(Modality("a", (1, 8, 16)), 6, (4, 4, 4)).eval()(torch.rand(1, 1, 8, 16))
