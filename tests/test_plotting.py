import matplotlib
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from shala_lite import plotting

# The variants that the design names.
VARIANTS = """prior standard_normal gaussian_mixture oracle judge floor concat sum poe moe mopoe
mmvaeplus multivae_mvtcae nfe_8""".split()
DISTINCT = 0.13  # in the unit cube of simulated colours
SAMPLERS = ["prior", "standard_normal", "gaussian_mixture", "oracle"]
STEPPERS = ["euler", "heun", "dpmpp_2m", "ancestral", "flow_map", "mopoe", "oracle"]
POSTERIORS = ["concat", "tuned", "sum", "attention", "poe", "moe", "mopoe", "mmvaeplus"]
CHOICES = ["base", "transformer", "noise", "variance_preserving", "one_source", "any_subset"]
ENCODERS = ["concat", "sum", "poe", "moe", "mopoe", "mmvaeplus", "multivae_mvtcae"]


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield


def texts(axes):
    return [text.get_text() for text in axes.texts]


def simulated(colour, kind):
    """A colour as a dichromat sees it, in linear RGB (Vienot, Brettel and Mollon, 1999)."""
    matrix = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind]
    linear = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
    return (np.array(matrix) @ linear).clip(0, 1) ** (1 / 2.2)


def test_the_style_is_one_file_and_changes_what_is_drawn():
    assert plotting.STYLE.is_file()
    assert matplotlib.rcParams["figure.facecolor"] == "white"
    assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == plotting.BLUE
    matplotlib.rcdefaults()
    assert matplotlib.rcParams["axes.spines.top"]
    plotting.use_style()
    assert not matplotlib.rcParams["axes.spines.top"]


def test_every_variant_has_its_colour_and_keeps_it_with_any_prior():
    for variant in VARIANTS:
        colour = plotting.variant_colour(variant)
        assert variant in plotting.VARIANT_COLOURS
        assert plotting.variant_colour(f"{variant}+prior") == colour
    assert plotting.variant_colour("something new") in plotting.CLASS_COLOURS
    assert plotting.variant_colour("something new") == plotting.variant_colour("something new")


@pytest.mark.parametrize("family", [SAMPLERS, ENCODERS, STEPPERS, CHOICES, POSTERIORS])
@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_variants_that_share_a_chart_differ_for_colour_blind_readers(family, kind):
    seen = [simulated(plotting.variant_colour(variant), kind) for variant in family]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert np.linalg.norm(one - other) > DISTINCT


def test_the_measure_of_colours_finds_a_red_and_a_green_too_alike():
    red, green = (simulated(colour, "deutan") for colour in ("#CA0000", "#008700"))
    assert np.linalg.norm(red - green) < DISTINCT


def test_nothing_is_left_with_pyplot():
    plotting.coherence_matrix(np.eye(2), ["a", "b"])
    plotting.bars_with_ceiling({"prior": 0.5})
    assert not plt.get_fignums()


def test_a_coherence_matrix_prints_its_numbers_and_leaves_gaps():
    matrix = torch.tensor([[float("nan"), 0.25], [0.999, float("nan")]])
    axes = plotting.coherence_matrix(matrix, ["a", "b"]).axes[0]
    found = {text.get_position(): text.get_text() for text in axes.texts}
    assert found == {(1, 0): "0.25", (0, 1): "1.00"}  # x is the target, y the source
    assert axes.get_ylabel() == "given"
    assert axes.get_xlabel() == "generated"
    with pytest.raises(ValueError, match=r"\(2, 2\); expected \(3, 3\)"):
        plotting.coherence_matrix(matrix, ["a", "b", "c"])


def test_bars_show_values_errors_ceiling_and_floor():
    figure = plotting.bars_with_ceiling(
        {"standard_normal": 0.244, "prior": 0.9},
        errors={"prior": 0.02},
        ceiling=0.981,
        floor=0.1,
        xlabel="coherence (share)",
    )
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [0.244, 0.9]
    assert texts(axes) == ["0.24", "0.90 ± 0.02", "ceiling 0.981", "floor 0.1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["standard normal", "prior"]
    assert axes.get_xlim()[1] > 0.981
    assert axes.get_xlabel() == "coherence (share)"
    with pytest.raises(ValueError, match="scores is empty"):
        plotting.bars_with_ceiling({})


@pytest.mark.parametrize("value", [0.02, 0.5, 0.97])
def test_no_value_of_a_bar_leaves_the_figure(value):
    figure = plotting.bars_with_ceiling(
        {"a variant with a long name": value, "prior": 0.97}, errors={"prior": 0.1}, ceiling=0.98
    )
    renderer = figure._get_renderer()
    figure.draw(renderer)
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text


def test_score_curves_differ_in_marker_and_colour():
    figure = plotting.score_curves(
        [1, 2, 4, 8],
        {"concat": [0.1, 0.2, 0.3, 0.4], "sum": torch.tensor([0.4, 0.3, 0.2, 0.1])},
        errors={"sum": [0.01] * 4},
        ceiling=0.98,
        logarithmic=True,
    )
    axes = figure.axes[0]
    curves = [container.lines[0] for container in axes.containers]
    assert len({line.get_marker() for line in curves}) == 2
    assert len({line.get_color() for line in curves}) == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert texts(axes) == ["ceiling 0.98"]


def test_latent_scatter_writes_each_class_where_its_points_are():
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [9.0, 0.0]])
    figure = plotting.latent_scatter(
        points, torch.tensor([3, 3, 3, 7]), groups=[0, 1, 0, 1], group_names=["m0", "m1"]
    )
    axes = figure.axes[0]
    found = {text.get_text(): tuple(text.get_position()) for text in axes.texts}
    assert found == {"3": (1, 1), "7": (9, 0)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["m0", "m1"]
    drawn = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets())])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, points.tolist()))


def test_latent_scatter_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match=r"expected \(N, 2\), \(N,\)"):
        plotting.latent_scatter(np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="classes go up to 10"):
        plotting.latent_scatter(np.zeros((4, 2)), [0, 1, 2, 10])
