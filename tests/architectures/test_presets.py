import re

import pytest

from robust_arch.architectures import PRESETS, ArchSpec, arch_name, cost, named_spec
from robust_arch.errors import InputError

# the names that the interface promises
PROMISED = {"wrn_28_10", "wrn_34_10", "wrn_34_12", "wrn_34_r", "wrn_46_14", "wrn_70_16"}
PROMISED |= {"wrn_a1", "wrn_a2", "wrn_a3", "wrn_a4"}


def preset_of(name):
    return PRESETS[name.lower().replace("-", "_")]


def test_every_promised_preset_is_there():
    assert set(PRESETS) >= PROMISED


def test_presets_are_the_published_networks(published):
    costs = published["wide_resnet_cost"]
    named = [row for row in costs["rows"] + costs["published_rounded"]["rows"] if "name" in row]
    assert len(named) == 7
    for row in named:
        assert preset_of(row["name"]) == ArchSpec("wide_resnet", row["depths"], row["widths"]), row["name"]


def test_jointly_scaled_presets_are_the_published_depths_and_widening_factors(published):
    rows = [row for row in published["independent_scaling"]["rows"] if row["rule"] == "both"]
    for name, row in zip(("wrn_a1", "wrn_a2", "wrn_a3"), rows, strict=True):
        widths = tuple(base * factor for base, factor in zip((16, 32, 64), row["widen"], strict=True))
        assert PRESETS[name] == ArchSpec("wide_resnet", row["depths"], widths)
        # the published budgets are nominal: the most expensive of these networks costs 10.8 of "10"
        assert cost(PRESETS[name]).macs / 1e9 == pytest.approx(row["budget_gmacs"], rel=0.1)


@pytest.mark.parametrize("name", [n for n in PRESETS if re.fullmatch(r"wrn_\d+_\d+", n)])
def test_wrn_n_k_has_n_minus_4_sixths_blocks_of_k_times_16_32_64(name):
    n, k = (int(part) for part in name.split("_")[1:])
    blocks, remainder = divmod(n - 4, 6)
    assert remainder == 0
    assert PRESETS[name] == ArchSpec("wide_resnet", (blocks,) * 3, (16 * k, 32 * k, 64 * k))


def test_resnet18_is_the_one_of_small_images():
    # He et al. 2016, table 1, with the 3x3 stem that CIFAR-10 code gives it
    spec = ArchSpec("resnet", (2, 2, 2, 2), (64, 128, 256, 512), stem_width=64)
    assert PRESETS["resnet18"] == spec
    assert arch_name(spec) == "resnet18"


@pytest.mark.parametrize("end", ["-drop.", "-drop1e-", "-drop1-1", "-stem" + "9" * 5000, "-w16"])
def test_a_name_that_is_no_architecture_is_refused(end):
    with pytest.raises(InputError, match=r"arch = 'wide_resnet-d1-1-1-w8-8-9.*: expected a preset's name, or one like"):
        named_spec(f"wide_resnet-d1-1-1-w8-8-9{end}")


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"arch = 'wrn_34_11': .*wrn_34_10.*wrn_34_12"):
        PRESETS["wrn_34_11"]
    # as in any mapping
    assert "wrn_34_11" not in PRESETS
    assert PRESETS.get("wrn_34_11") is None


def test_a_spec_is_named_by_its_preset_or_its_stages():
    assert arch_name(ArchSpec("wide_resnet", [5, 5, 5], [320, 640, 512])) == "wrn_34_r"
    assert arch_name(ArchSpec("wide_resnet", (2, 2, 2), (16, 32, 63))) == "wide_resnet-d2-2-2-w16-32-63"


@pytest.mark.parametrize(
    "differences",
    [
        [{}, {"stem_width": 32}, {"activation": "silu"}, {"dropout": 0.3}],
        [{"dropout": 0.12345671}, {"dropout": 0.12345672}],
    ],
)
def test_different_specs_have_different_names(differences):
    names = [arch_name(ArchSpec("wide_resnet", (5, 5, 5), (320, 640, 512), **given)) for given in differences]
    assert len(set(names)) == len(names)
