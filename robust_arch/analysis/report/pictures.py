"""The report's figures of the main group, as pictures with their sentences."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.markup import Markup, element, joined, picture
from robust_arch.analysis.networks import Network, networks
from robust_arch.analysis.report import figures, wording
from robust_arch.analysis.tables import Extras, last_share


def section(frame: pd.DataFrame, main: Group | None, extras: Extras) -> Markup:
    """Both figures, which rows they show, and what this many images can rank."""
    heading = element("h2", "Figures")
    if main is None:
        return joined(heading, element("p", wording.NO_FIGURE))
    left_out = [group for group in groups(frame) if group.key != main.key]
    found = networks(main)
    labels = {arch: str(position) for arch, position in extras.numbers.items()}
    by_params = figures.robust_against_params(main.rows, labels)
    return joined(
        heading,
        element("p", wording.shown(main)),
        element("ul", *(element("li", wording.left_out(group, main)) for group in left_out)) if left_out else Markup(),
        _share_figure(found, main, extras, labels),
        _figure("Figure 2: robust accuracy against the number of parameters.", by_params, wording.figure(found, main)),
        element("p", *wording.note(found, main), class_="note"),
    )


def _share_figure(found: list[Network], main: Group, extras: Extras, labels: Mapping[str, str]) -> Markup:
    known = [network for network in found if last_share(network.row, extras.stage_shares) is not None]
    if not known:
        return element("p", wording.NO_SHARES)
    facts = wording.figure(known, main) + wording.without_share(len(found) - len(known))
    figure = figures.robust_against_last_share(main.rows, extras.stage_shares, labels)
    return _figure("Figure 1: robust accuracy against the last stage's share of the parameters.", figure, facts)


def _figure(title: str, figure: Figure, facts: str) -> Markup:
    alt = f"Scatter plot. {title} {facts} The values stand in the tables of results."
    return element("figure", picture(figures.png(figure), alt), element("figcaption", f"{title} {facts}"))
