import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import counted, counted_spec
from pyautoattack.examples.resnet import ResNet18

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.architectures.family import get_family
from robust_arch.errors import InputError

WRN_34_R = ArchSpec("wide_resnet", (5, 5, 5), (320, 640, 512))

depths = st.tuples(*[st.integers(1, 3)] * 3)
widths = st.tuples(*[st.sampled_from([1, 2, 3, 8, 16, 33, 100])] * 3)
tasks = st.tuples(st.integers(2, 20), st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)))


def three_digits(value):
    return float(f"{value:.3g}")


def test_exact_published_totals(published):
    for row in published["wide_resnet_cost"]["rows"]:
        result = cost(ArchSpec("wide_resnet", row["depths"], row["widths"]))
        assert result.params == row["params"], row["name"]
        assert round(result.macs / 1e9, 3) == row["gmacs"], row["name"]


def test_the_costs_of_wrn_34_r_that_the_interface_promises():
    result = cost(WRN_34_R, num_classes=10, image_shape=(3, 32, 32))
    assert (result.params, result.macs) == (68_116_698, 19_132_765_184)


def test_rounded_published_totals(published):
    for row in published["wide_resnet_cost"]["published_rounded"]["rows"]:
        result = cost(ArchSpec("wide_resnet", row["depths"], row["widths"]))
        assert three_digits(result.params / 1e6) == row["params_m"], row
        # the published counter adds element-wise work, less than 0.1% of these networks
        gmacs = result.macs / 1e9
        assert three_digits(gmacs) <= row["gmacs"] <= three_digits(gmacs * 1.001), row


def test_hand_computed_network():
    # 1x4x4 images, 2 classes, stem 16. Stage 1 (16 to 2, 4x4): BN 32 + 4, convolutions 288 + 36, shortcut 32.
    # Stage 2 (2 to 2 at stride 2, 2x2): BN 4 + 4, convolutions 36 + 36, shortcut on the raw input 4.
    # Stage 3 (2 to 3, 1x1): BN 4 + 6, convolutions 54 + 81, shortcut 6.
    # Outside: stem 144 weights at 16 positions; head BN 6, linear 6 + 2.
    result = cost(ArchSpec("wide_resnet", (1, 1, 1), (2, 2, 3)), num_classes=2, image_shape=(1, 4, 4))
    assert result.stage_params == (392, 84, 151)
    assert result.stage_macs == (356 * 16, 76 * 4, 141)
    assert result.params == 392 + 84 + 151 + 144 + 14
    assert result.macs == 5696 + 304 + 141 + 144 * 16 + 6
    # shares are over the sum of the stages
    assert result.shares() == pytest.approx((392 / 627, 84 / 627, 151 / 627))
    assert result.shares("macs") == pytest.approx((5696 / 6141, 304 / 6141, 141 / 6141))


def test_hand_computed_network_of_four_stages():
    # 1x8x8 images, 2 classes, stem 2. Stage 1 (2 to 2, 8x8): convolutions 36 + 36, BN 4 + 4.
    # Stage 2 (2 to 2 at stride 2, 4x4): the same, and a projection 4 with BN 4.
    # Stage 3 (2 to 3, 2x2): convolutions 54 + 81, BN 6 + 6, projection 6 with BN 6.
    # Stage 4 (3 to 1, 1x1): convolutions 27 + 9, BN 2 + 2, projection 3 with BN 2.
    # Outside: stem 18 weights at 64 positions, BN 4; linear 2 + 2.
    result = cost(ArchSpec("resnet", (1, 1, 1, 1), (2, 2, 3, 1), stem_width=2), 2, (1, 8, 8))
    assert result.stage_params == (80, 88, 159, 45)
    assert result.stage_macs == (72 * 64, 76 * 16, 141 * 4, 39)
    assert result.params == 80 + 88 + 159 + 45 + 18 + 4 + 4
    assert result.macs == 4608 + 1216 + 564 + 39 + 18 * 64 + 2


def test_shares_of_an_unknown_resource_are_an_error():
    with pytest.raises(InputError, match="flops"):
        cost(WRN_34_R).shares("flops")


@settings(max_examples=60)
@given(depths, widths, tasks, st.sampled_from([1, 16, 24]))
def test_formula_equals_what_torch_counts_in_the_built_network(depths, widths, task, stem_width):
    spec = ArchSpec("wide_resnet", depths, widths, stem_width=stem_width)
    result = cost(spec, *task)
    assert (result.params, result.macs) == counted_spec(spec, *task)


@settings(max_examples=25)
@given(depths, st.integers(1, 3), widths, st.sampled_from([1, 8, 33]), tasks, st.sampled_from([1, 8, 24]))
def test_the_same_for_four_stages(depths, last_depth, widths, last_width, task, stem_width):
    spec = ArchSpec("resnet", (*depths, last_depth), (*widths, last_width), stem_width=stem_width)
    result = cost(spec, *task)
    assert (result.params, result.macs) == counted_spec(spec, *task)


def test_the_preset_resnet18_costs_what_published_code_does():
    with torch.device("meta"):
        net = ResNet18().eval()
    result = cost(PRESETS["resnet18"])
    assert result.params == 11_173_962
    assert (result.params, result.macs) == counted(net, (3, 32, 32))


@pytest.mark.parametrize("widths", [(16, 16, 16), (32, 32, 8), (8, 32, 32)], ids=str)
def test_formula_where_adjacent_widths_are_equal_at_stride_2(widths):
    spec = ArchSpec("wide_resnet", (2, 1, 2), widths)
    result = cost(spec, 10, (3, 9, 6))
    assert (result.params, result.macs) == counted_spec(spec, 10, (3, 9, 6))


@pytest.mark.parametrize(("name", "stages", "stem_width"), [("wide_resnet", 3, 16), ("resnet", 4, 64)])
def test_arrays_of_architectures_cost_what_each_costs_alone(name, stages, stem_width):
    rng = np.random.default_rng(0)
    many_depths = rng.integers(1, 30, size=(stages, 200))
    many_widths = rng.choice([16, 64, 160, 640, 2048], size=(stages, 200))  # equal adjacent widths are among them
    terms = get_family(name).cost_terms(tuple(many_depths), tuple(many_widths), stem_width, 10, (3, 32, 31))
    params = sum(terms.stage_params) + terms.outside_params
    macs = sum(terms.stage_macs) + terms.outside_macs
    assert params.dtype == macs.dtype == np.int64
    for i in range(200):
        spec = ArchSpec(name, many_depths[:, i].tolist(), many_widths[:, i].tolist(), stem_width=stem_width)
        alone = cost(spec, 10, (3, 32, 31))
        assert (params[i], macs[i]) == (alone.params, alone.macs)
        assert tuple(stage[i] for stage in terms.stage_params) == alone.stage_params
        assert tuple(stage[i] for stage in terms.stage_macs) == alone.stage_macs


@pytest.mark.parametrize(
    ("num_classes", "image_shape", "key"),
    [
        (1, (3, 32, 32), "num_classes = 1"),
        (10, (0, 32, 32), r"image_shape = \(0, 32, 32\)"),
        (10, (3, 32), r"image_shape = \(3, 32\)"),
    ],
)
@pytest.mark.parametrize("function", [cost, build])
def test_impossible_tasks_are_named(function, num_classes, image_shape, key):
    with pytest.raises(InputError, match=f"{key}: .*at least"):
        function(WRN_34_R, num_classes, image_shape)
