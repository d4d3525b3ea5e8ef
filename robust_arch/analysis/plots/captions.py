"""The texts in figures: what a reader needs to know about the numbers."""

from __future__ import annotations

import re

from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import Group
from robust_arch.analysis.plots.pooled import Pooled

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


def conditions(found: Pooled) -> str:
    """Two lines: data, threat model and attacks; test images, seeds and the kind of interval."""
    seeds = "one seed" if found.seeds == "1 seed" else f"{found.seeds} (small dots)"
    return f"{_setting(found.group)}, {seeds}, {found.interval}"


def conditions_without_bars(found: Pooled) -> str:
    """The same for a figure without error bars, with the median half width of the intervals."""
    return f"{_setting(found.group)}, {found.seeds}, 95% interval $\\pm${found.half_width:.1f}"


def sentence(found: Pooled) -> str:
    """Data, threat models, training and attacks of the rows as plain text."""
    text = str(found.group)
    return f"{text[:1].upper()}{text[1:]}, {counted(len(found), 'network')} of {found.seeds}."


def by_chance(found: Pooled) -> str:
    """How far the means of the networks are apart, beside what noise alone gives."""
    return (
        f"The means span {found.span:.1f} points; those of {counted(len(found), 'equal network')} would span up to "
        f"{found.by_chance():.1f} by chance (in 19 of 20 studies)."
    )


def _setting(group: Group) -> str:
    first = group.rows.iloc[0]
    attacks = ", ".join(map(attack_text, group.attacks))
    threat = threat_text(str(first["threat"]))
    return f"{first['data']}, {threat}, worst case over {attacks}\nn = {group.n_test:,} test images"
