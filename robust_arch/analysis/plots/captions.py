"""The words in figures: what a reader needs to know of the numbers without leaving the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Network, half_width

ROBUST = "Robust accuracy (%)"
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}
_ATTACKS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "autoattack": "AutoAttack",
    "autoattack_plus": "AutoAttack+",
    "square": "Square",
}


def attack_text(name: str) -> str:
    """`pgd20` as PGD-20; a name of another form as it is."""
    found = re.fullmatch(r"([a-z]+)(\d+)", name)
    return _ATTACKS.get(name) or (f"{found[1].upper()}-{found[2]}" if found else name)


def threat_text(threat: str) -> str:
    """`linf-8/255` with the norm's sign and eps as a Greek letter."""
    norm, _, eps = threat.partition("-")
    return rf"{_NORMS.get(norm, norm)} $\epsilon$={eps}"


def conditions(group: Group, found: Sequence[Network]) -> str:
    """Data, threat model, attacks; test images, seeds and what the bars are: two lines."""
    runs = {network.robust.runs for network in found}
    if runs == {1}:
        return f"{_setting(group)}, one seed, Wilson 95% interval"
    wilson = " (Wilson for one)" if 1 in runs else ""
    return f"{_setting(group)}, mean of {_span(runs)} seeds, t 95% interval{wilson}"


def conditions_without_bars(group: Group, found: Sequence[Network]) -> str:
    """The same for a figure that shows no intervals: how wide they are, as the median half width."""
    runs = {network.robust.runs for network in found}
    half = half_width(network.robust for network in found)
    return f"{_setting(group)}, {_span(runs)} seeds, 95% interval $\\pm${half:.1f} (median)"


def _setting(group: Group) -> str:
    first = group.rows.iloc[0]
    attacks = ", ".join(map(attack_text, group.attacks))
    threat = threat_text(str(first["threat"]))
    return f"{first['data']}, {threat}, worst case over {attacks}\nn = {group.n_test:,} test images"


def _span(runs: set[int]) -> str:
    return f"{min(runs)}" if len(runs) == 1 else f"{min(runs)} to {max(runs)}"
