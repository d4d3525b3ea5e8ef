"""Which figures answer the question of a study, chosen from its rows: a name, a title and a caption each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robust_arch.analysis.claims.measured import above
from robust_arch.analysis.epochs import read_epochs
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import GROUP_COLUMNS, Group, at_last, groups
from robust_arch.analysis.networks import Network, Quantity, base_network, one_stage_changed
from robust_arch.analysis.plots import captions
from robust_arch.analysis.plots.by_stage import against_stage
from robust_arch.analysis.plots.cost import COSTS, against_cost, varies
from robust_arch.analysis.plots.curves import training_curves
from robust_arch.analysis.plots.outliers import Extent
from robust_arch.analysis.plots.pairs import kinds_of_pairs, smaller_last_stage
from robust_arch.analysis.plots.pooled import Pooled, pooled
from robust_arch.analysis.plots.scatter import clean_against_robust
from robust_arch.analysis.plots.series import has_bars
from robust_arch.analysis.plots.shares import against_shares
from robust_arch.analysis.plots.simplex import on_simplex
from robust_arch.analysis.plots.study_figure import StudyFigure
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import read_results
from robust_arch.errors import InputError

_MOST_SETTINGS = 6  # groups of comparable rows that are drawn
_MOST_CURVES = 3  # architectures, one row of the figure each
_IN_BUDGET = 0.8  # part of the networks that must cost the same
_FEWEST_DIVISIONS = 3


def figures_at(path: Path) -> list[StudyFigure]:
    """The figures of the study at `path`: a study's folder, recorded or imported, or a results.csv.

    Raises:
        InputError: for another path, or a study without a number to draw.
    """
    frame = read_results(path)
    try:
        epochs = read_epochs(path)
    except InputError:  # a table of results alone
        epochs = None
    if not (found := figures_of(frame, epochs)):
        raise InputError(f"study = {str(path)!r}: no run has a worst-case accuracy to draw")
    source = provenance_of(path)
    told = " ".join(source.sentences()) if source else ""
    return [replace(figure, caption=f"{figure.caption} {told}".strip()) for figure in found]


def figures_of(frame: pd.DataFrame, epochs: pd.DataFrame | None = None) -> list[StudyFigure]:
    """The figures that answer the question of a study, the most telling one first; none without worst-case accuracies.

    They are chosen from the rows, not from the study's name:

    | the networks | figures |
    |---|---|
    | differ from a base in one stage's width or depth, in several stages | `stage_width`, `stage_depth` |
    | divide one budget | `simplex` (three stages) and `stage_shares`, with the last stage's share |
    | differ in the last stage, the others kept or grown to an equal cost | `last_stage`: pairs |
    | differ in parameters or multiply-accumulates | `cost`, one kind of mark per family |
    | are at most three, at best and at last, with `epochs` | `training_curves` |
    | none of these | `clean_robust` |

    Each figure shows rows that may be compared: at `best` if there are such rows, else at `external`. A study of
    several objectives, data sets or the like has each figure once per setting, whose values end its name.

    Args:
        frame: rows of results.csv of one study.
        epochs: the table of `analysis.epochs.read_epochs`; None where epochs are not recorded.
    """
    settings = _settings(frame)
    return [
        figure
        for group, name in zip(settings, _suffixes(settings), strict=True)
        for figure in _Setting(group, name, frame, epochs).figures()
    ]


def _settings(frame: pd.DataFrame) -> list[Group]:
    """The groups to draw, the largest first, each in its main checkpoint and weights alone."""
    whole = [group for group in groups(frame) if group.rows["worst_case_acc"].notna().all()]
    best, external = ([group for group in whole if group.checkpoint == which] for which in ("best", "external"))
    chosen: list[Group] = []
    for group in sorted(best or external, key=lambda group: (-len(group.rows), group.weights == "raw")):
        if not any(group.is_like(other) for other in chosen):
            chosen.append(group)
    several = [group for group in chosen if len(set(group.rows["arch"])) > 1]
    return (several or chosen[:1])[:_MOST_SETTINGS]


def _suffixes(settings: list[Group]) -> list[str]:
    """What tells each setting from the others, for the names of its figures."""
    names = [*GROUP_COLUMNS, "attacks"]
    differ = [place for place in range(len(names)) if len({group.key[place] for group in settings}) > 1]
    return ["".join(f"-{_word(group.key[place])}" for place in differ) for group in settings]


def _word(value: object) -> str:
    text = "+".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isalnum() or letter in "+.-" else "_" for letter in text)


@dataclass(frozen=True)
class _Setting:
    """One group of comparable rows of a study, and what else is recorded of it."""

    group: Group
    suffix: str
    frame: pd.DataFrame
    epochs: pd.DataFrame | None

    @cached_property
    def found(self) -> Pooled:
        """The networks with pooled intervals."""
        return pooled(self.group)

    @cached_property
    def alone(self) -> list[Network]:
        """The networks; none if one of them is of no known family, or without stages."""
        found = [each.network for each in self.found]
        try:
            return [network for network in found if network.spec]
        except InputError:
            return []

    def figures(self) -> Iterator[StudyFigure]:
        """Those that apply."""
        drawn = [*self._by_structure(), *self._by_cost(), *self._by_epoch()]
        yield from drawn or [self._figure("clean_robust", "Clean and robust accuracy", "", _clean_robust)]

    def _by_structure(self) -> Iterator[StudyFigure]:
        changed: list[Quantity] = [name for name in ("widths", "depths") if _stages_changed(self.alone, name)]
        if changed:
            yield from map(self._by_stage, changed)
        elif self._divides_a_budget():
            if {len(network.shares) for network in self.alone} == {3}:
                what = (
                    "Each point is a network at its stages' shares of the parameters; its colour is its mean, on a "
                    "scale as wide as all intervals. "
                )
                title = "Divisions of one budget over three stages"
                yield self._figure("simplex", title, what + captions.by_chance(self.found), _simplex, bars=False)
            what = f"Each panel has all networks. {captions.by_chance(self.found)}"
            title = "Robust accuracy against the stages' shares of the parameters"
            yield self._figure("stage_shares", title, what, against_shares)
        elif self.alone and self._are_pairs():
            what = (
                "Each row is a pair of networks, larger \N{RIGHTWARDS ARROW} smaller last stage, and its difference in "
                "robust accuracy; the square is the mean of all pairs (claim C2)."
            )
            yield self._figure("last_stage", "A smaller last stage, pair by pair", what, _pairs)

    def _by_stage(self, quantity: Quantity) -> StudyFigure:
        name = quantity.removesuffix("s")
        what = "In each panel only that stage differs from the base network (square), whose interval is the grey band."
        title = f"Robust accuracy against the {name} of each stage"
        return self._figure(f"stage_{name}", title, what, lambda found: against_stage(found.group, quantity))

    def _divides_a_budget(self) -> bool:
        """Whether nearly all networks cost the same, and divide it over their stages differently."""
        if len({network.shares for network in self.alone}) < _FEWEST_DIVISIONS:
            return False
        for resource in COSTS:
            cost = np.array([network.row[resource] for network in self.alone], dtype=float)
            middle = np.asarray(np.median(cost))
            if (np.isfinite(cost) & ~above(cost, middle) & ~above(middle, cost)).mean() >= _IN_BUDGET:
                return True
        return False

    def _are_pairs(self) -> bool:
        """Whether at least half of the networks are in pairs that differ in the last stage as C2 says."""
        try:
            found, kinds = kinds_of_pairs(self.group)
        except InputError:  # one name for two networks
            return False
        members = {int(place) for pairs in kinds.values() for place in pairs.members}
        return bool(kinds) and len(members) >= len(found.names) / 2

    def _by_cost(self) -> Iterator[StudyFigure]:
        if any(varies(self.found, cost) for cost in COSTS):
            what = "One kind of mark per family." if len(set(self.group.rows["family"])) > 1 else ""
            last = self._at_last()
            if last is not None:
                what = "Both checkpoints of the same runs."
                if last.sigma:
                    ((family, sigma),) = last.sigma.items()
                    freedom = counted(last.degrees[family], "degree")
                    what += f" At last the standard deviation is {sigma:.2f} points ({freedom} of freedom)."
            elif Extent.of(self.found).far().any():
                what += " An arrowhead at the edge has the value of a network outside the axes."
            draw = partial(against_cost, last=last)
            yield self._figure("cost", "Robust accuracy against the cost of the networks", what, draw)

    def _at_last(self) -> Pooled | None:
        """The same runs at their last epoch; None for several families, or too many networks for bars."""
        if len(set(self.group.rows["family"])) > 1 or not has_bars(self.found):
            return None
        last = at_last(self.frame, self.group)
        if last is None or set(last.rows["run_id"]) != set(self.group.rows["run_id"]):
            return None
        return pooled(last)

    def _by_epoch(self) -> Iterator[StudyFigure]:
        rows = self._at_best_and_last()
        if rows is None or self.epochs is None:
            return
        known = set(self.epochs.dropna(subset=["val_robust_count", "train_acc"])["run_id"])
        if set(rows["run_id"]) <= known:
            yield StudyFigure(
                f"training_curves{self.suffix}",
                "Robust accuracy by epoch, and at the best and the last one",
                "Left: on training images under the attack of training, during the epoch, and on held-out images under "
                "the attack that selects the best epoch, after it; dotted lines: the learning rate is lowered. Right: "
                "worst case on test images at both checkpoints, with Wilson 95% intervals over test images. "
                + captions.sentence(self.found),
                training_curves(rows, self.epochs),
            )

    def _at_best_and_last(self) -> pd.DataFrame | None:
        """The rows of few architectures, each run once at best and once at last; None for other studies."""
        last = at_last(self.frame, self.group)
        if last is None:
            return None
        rows = pd.concat([self.group.rows, last.rows])
        whole = rows.groupby("run_id")["checkpoint"].agg(sorted).map(tuple).isin([("best", "last")]).all()
        return rows if whole and rows["arch"].nunique() <= _MOST_CURVES else None

    def _figure(
        self, name: str, title: str, what: str, draw: Callable[[Pooled], Figure], *, bars: bool = True
    ) -> StudyFigure:
        bars = bars and has_bars(self.found)
        parts = [what, self.found.sentences(bars=bars), captions.sentence(self.found)]
        return StudyFigure(f"{name}{self.suffix}", title, " ".join(filter(None, parts)).strip(), draw(self.found))


def _stages_changed(found: Sequence[Network], quantity: Quantity) -> bool:
    """Whether at least half of the networks are a base and changes of one of its stages, in several stages."""
    try:
        base = base_network(found) if found else None
    except InputError:
        return False
    if base is None:
        return False
    changes = [len(one_stage_changed(found, stage, quantity)) - 1 for stage in range(len(base.spec.depths))]
    return sum(map(bool, changes)) > 1 and 1 + sum(changes) >= len(found) / 2


def _simplex(found: Pooled) -> Figure:
    return on_simplex(found.group, {})


def _pairs(found: Pooled) -> Figure:
    return smaller_last_stage(found.group)


def _clean_robust(found: Pooled) -> Figure:
    return clean_against_robust(found.group)
