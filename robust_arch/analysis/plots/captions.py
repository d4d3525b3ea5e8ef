"""The texts in figures: what a reader needs to know about the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Network, half_width

ROBUST = "Robust accuracy (%)"
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}
_ATTACKS = {
    "fgsm": "FGSM",
    "aa_screen": "APGD-CE + APGD-T",
    "autoattack": "AutoAttack",
    "autoattack_plus": "AutoAttack+",
    "square": "Square",
}


def attack_text(name: str) -> str:
    """`pgd20` as PGD-20; other names unchanged."""
    found = re.fullmatch(r"([a-z]+)(\d+)", name)
    return f"{found[1].upper()}-{found[2]}" if found else _ATTACKS.get(name, name)


def threat_text(threat: str) -> str:
    """`linf-8/255` in mathematical notation."""
    norm, _, eps = threat.partition("-")
    return rf"{_NORMS.get(norm, norm)} $\epsilon$={eps}"


def conditions(group: Group, found: Sequence[Network]) -> str:
    """Two lines: data, threat model and attacks; test images, seeds and the kind of interval."""
    runs = {network.robust.runs for network in found}
    if runs == {1}:
        return f"{_setting(group)}, one seed, Wilson 95% interval"
    wilson = " (Wilson for one)" if 1 in runs else ""
    return f"{_setting(group)}, mean of {_span(found)} seeds, t 95% interval{wilson}"


def conditions_without_bars(group: Group, found: Sequence[Network]) -> str:
    """The same for a figure without error bars, with the median half width of the intervals."""
    half = half_width(network.robust for network in found)
    return f"{_setting(group)}, {_span(found)} seeds, 95% interval $\\pm${half:.1f} (median)"


def _setting(group: Group) -> str:
    first = group.rows.iloc[0]
    attacks = ", ".join(map(attack_text, group.attacks))
    threat = threat_text(str(first["threat"]))
    return f"{first['data']}, {threat}, worst case over {attacks}\nn = {group.n_test:,} test images"


def _span(found: Sequence[Network]) -> str:
    runs = [network.robust.runs for network in found]
    return " to ".join(map(str, sorted({min(runs), max(runs)})))
