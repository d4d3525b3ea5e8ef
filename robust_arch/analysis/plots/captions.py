"""The words in figures: what a reader needs to know of the numbers without leaving the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Network

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


def runs_text(found: Sequence[Network]) -> str:
    """How many seeds are behind a mean, and which interval was drawn."""
    runs = sorted({network.robust.runs for network in found})
    if runs == [1]:
        return "one seed, Wilson 95% interval"
    seeds = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    return f"mean of {seeds} seeds, t 95% interval" + (" (Wilson for one)" if runs[0] == 1 else "")


def conditions(group: Group, found: Sequence[Network]) -> str:
    """Data, threat model, attacks, test images, seeds: two lines."""
    first = group.rows.iloc[0]
    attacks = ", ".join(map(attack_text, group.attacks))
    return (
        f"{first['data']}, {threat_text(str(first['threat']))}, worst case over {attacks}\n"
        f"n = {group.n_test:,} test images, {runs_text(found)}"
    )
