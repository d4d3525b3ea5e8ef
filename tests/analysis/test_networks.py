"""Means, intervals, ranks and one-stage changes against values worked out by hand."""

import pandas as pd
import pytest
from planted_studies import BASE, divisions, frame, rows, spread, stage_changes, wide

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.networks import Network, base_network, by_rank, networks, one_stage_changed, quarters
from robust_arch.architectures import ArchSpec, arch_name
from robust_arch.common.statistics import wilson_interval
from robust_arch.errors import InputError


def networks_of(planted: pd.DataFrame, *columns: str) -> list[Network]:
    group = main_group(planted)
    assert group is not None
    return networks(group, columns or ("worst_case_acc",))


def test_three_seeds_are_a_mean_with_a_t_interval() -> None:
    planted = frame(rows([wide(*BASE)], {"wrn_16_half": [50.0, 52.0, 54.0]}))
    (network,) = networks_of(planted, "worst_case_acc", "lipschitz")
    # s = 2, t(2, 0.95) = 4.302653: half width 4.302653 * 2 / sqrt(3)
    assert (network.robust.mean, network.robust.runs) == (52.0, 3)
    assert (network.robust.low, network.robust.high) == pytest.approx((52 - 4.968275, 52 + 4.968275), abs=1e-5)
    assert network.numbers["lipschitz"].low == pytest.approx(48 - 4.968275, abs=1e-5)
    assert (network.spec, network.params) == (wide(*BASE), 44_922)


def test_one_seed_has_wilsons_interval_for_a_share_and_none_for_another_number() -> None:
    planted = frame(rows([wide(*BASE)], {"wrn_16_half": [50.0]}))
    (network,) = networks_of(planted, "worst_case_acc", "lipschitz")
    assert (network.robust.low, network.robust.high) == pytest.approx([100 * end for end in wilson_interval(180, 360)])
    lipschitz = network.numbers["lipschitz"]
    assert (lipschitz.low, lipschitz.mean, lipschitz.high) == (50.0, 50.0, 50.0)


def test_a_t_interval_ends_at_0_and_100() -> None:
    (network,) = networks_of(frame(rows([wide(*BASE)], {"wrn_16_half": [1.0, 99.0]})))
    assert (network.robust.low, network.robust.high) == (0.0, 100.0)


def test_a_network_without_the_number_is_left_out() -> None:
    specs = divisions()[:2]
    planted = frame(rows(specs, spread(specs)))
    planted.loc[planted["arch"] == arch_name(specs[1]), "lipschitz"] = float("nan")
    assert [network.spec for network in networks_of(planted, "lipschitz")] == specs[:1]
    with pytest.raises(InputError, match="lipschitz"):
        networks_of(planted.assign(lipschitz=float("nan")), "lipschitz")


def test_changes_of_one_stage_are_found_in_order() -> None:
    specs = [*stage_changes("widths"), wide((2, 2, 2), (4, 8, 16)), wide((2, 2, 4), (8, 16, 16))]
    found = networks_of(frame(rows(specs, spread(specs))))
    assert base_network(found).arch == "wrn_16_half"
    assert [n.spec.widths for n in one_stage_changed(found, 2, "widths")] == [(8, 16, 16), (8, 16, 32), (8, 16, 64)]
    assert [n.spec.widths[0] for n in one_stage_changed(found, 0, "widths")] == [4, 8, 16]
    assert [n.arch for n in one_stage_changed(found, 0, "depths")] == ["wrn_16_half"]


def test_networks_of_fewer_stages_do_not_shorten_the_base() -> None:
    fours = [ArchSpec("resnet", (1, 1, 1, 1), (8, 16, 32, last)) for last in (64, 32, 128)]
    specs = [*fours, wide((1, 1, 1), (8, 16, 32))]
    found = networks_of(frame(rows(specs, spread(specs))))
    assert base_network(found).spec == fours[0]


def test_without_the_base_there_are_no_changes_of_it() -> None:
    specs = stage_changes("widths")[1:]
    with pytest.raises(InputError, match=r"\(8, 16, 32\)"):
        base_network(networks_of(frame(rows(specs, spread(specs)))))


def test_quarters_are_the_two_ends_of_the_ranking() -> None:
    specs = divisions()
    found = networks_of(frame(rows(specs, spread(specs))))
    best, worst = quarters(found)
    # means rise by 2 from network to network, and a quarter of eight is two
    assert [network.spec for network in best] == [specs[7], specs[6]]
    assert [network.spec for network in worst] == [specs[1], specs[0]]
    assert [network.robust.mean for network in by_rank(found)] == [76.0, 74.0, 72.0, 70.0, 68.0, 66.0, 64.0, 62.0]
    with pytest.raises(InputError, match="at least 2"):
        quarters(found[:1])
