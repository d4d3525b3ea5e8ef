"""The report's figures of the main group, with their sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.networks import Network, networks
from robust_arch.analysis.report import figures, wording
from robust_arch.analysis.tables import Extras, last_share


def section(frame: pd.DataFrame, main: Group | None, extras: Extras) -> dict[str, Any]:
    """Both figures, and which rows they show."""
    if main is None:
        return {"lead": wording.NO_FIGURE, "left_out": [], "drawn": [], "missing": ""}
    found = networks(main)
    known = [network for network in found if last_share(network.row, extras.stage_shares) is not None]
    return {
        "lead": wording.shown(main),
        "left_out": [wording.left_out(group, main) for group in groups(frame) if group.key != main.key],
        "drawn": list(_drawn(found, known, main, extras)),
        "missing": "" if known else wording.NO_SHARES,
    }


def _drawn(found: list[Network], known: list[Network], main: Group, extras: Extras) -> Iterator[Mapping[str, Any]]:
    labels = {arch: str(position) for arch, position in extras.numbers.items()}
    if known:
        by_share = figures.robust_against_last_share(main.rows, extras.stage_shares, labels)
        yield {
            "title": "Figure 1: robust accuracy against the last stage's share of the parameters.",
            "facts": wording.figure(known, main) + wording.without_share(len(found) - len(known)),
            "png": figures.png(by_share),
        }
    if (costed := main.rows["params"].notna()).any():
        yield {
            "title": "Figure 2: robust accuracy against the number of parameters.",
            "facts": wording.figure(found, main),
            "png": figures.png(figures.robust_against_params(main.rows[costed], labels)),
        }
