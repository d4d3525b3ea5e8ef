"""What a surrogate learns from: robust accuracy of architectures, by site, and their variables in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from robust_arch.analysis.claims import without_site_effects
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import evaluations
from robust_arch.analysis.reading import spec_of
from robust_arch.analysis.robust_means import robust_means
from robust_arch.architectures import ArchSpec, ImageShape, cost
from robust_arch.architectures.cost import cost_terms
from robust_arch.errors import InputError, invalid

CONDITIONS = ("data", "objective", "train_threat", "threat", "weights", "checkpoint")
"""Columns in which runs must agree to be learnt from together."""
SITE = ("study", "recipe", "epochs", "n_test")
"""Columns in which they may differ: each combination has its own level."""
FEWEST = 8
"""Architectures; of fewer nothing can be predicted."""
_CLASSES, _CHANNELS, _SIZES = (10, 100, 2, 200, 1000, 43, 20), (3, 1), (32, 8, 28, 64, 16, 224, 128, 256)
_CHECKED = 3  # architectures whose recorded costs must be those of the task


@dataclass(frozen=True)
class Observations:
    """Robust accuracy of A architectures of one kind under one condition, in N observations.

    An observation is one architecture at one site: its mean over the runs there.

    Attributes:
        condition: column of results.csv to the value that all runs share; `attacks` and `kind` as well.
        column: of results.csv that is predicted, in percent.
        task: number of classes, and (C, H, W) of the images.
        names: of the architectures.
        specs: the architectures.
        extra: (A, P) values of predictors.
        predictors: names of the predictors.
        sites: their values of `SITE`.
        member: (N,) position of the architecture.
        site: (N,) position of the site.
        y: (N,) mean in percent.
        noise: (N,) variance of that mean over seeds; NaN where no architecture has two runs.
        runs: (N,) number of runs.
        wild: runs far from the other runs of their architecture, in words.
        left_out: rows of other conditions or kinds that are not used, in words.
        machines: the machines of each site with several, whose effects are not in `y` where they can be estimated.
    """

    condition: Mapping[str, str]
    column: str
    task: tuple[int, ImageShape]
    names: tuple[str, ...]
    specs: tuple[ArchSpec, ...]
    extra: np.ndarray
    predictors: tuple[str, ...]
    sites: tuple[tuple[str, ...], ...]
    member: np.ndarray
    site: np.ndarray
    y: np.ndarray
    noise: np.ndarray
    runs: np.ndarray
    wild: tuple[str, ...]
    left_out: tuple[str, ...]
    machines: tuple[str, ...]

    @property
    def points(self) -> np.ndarray:
        """(A, 2 * stages) depths, then widths."""
        return np.array([[*spec.depths, *spec.widths] for spec in self.specs])

    @property
    def scatter(self) -> float | None:
        """Standard deviation of a run about its architecture in points; None where no architecture has two runs."""
        return None if np.isnan(self.noise[0]) else float(np.sqrt(self.noise[0] * self.runs[0]))

    @property
    def reference(self) -> int:
        """The site with the most architectures, at whose level predictions are made."""
        return int(np.bincount(self.site).argmax())

    def part(self, chosen: np.ndarray) -> Observations:
        """The observations of the chosen architectures; chosen: (A,) booleans."""
        place = np.cumsum(chosen) - 1
        kept = chosen[self.member]
        arrays = {name: getattr(self, name)[kept] for name in ("site", "y", "noise", "runs")}
        kept_names = tuple(name for name, use in zip(self.names, chosen, strict=True) if use)
        specs = tuple(spec for spec, use in zip(self.specs, chosen, strict=True) if use)
        member = place[self.member[kept]]
        return replace(self, names=kept_names, specs=specs, extra=self.extra[chosen], member=member, **arrays)


def observations_of(
    frame: pd.DataFrame,
    column: str = "worst_case_acc",
    where: Mapping[str, str] | None = None,
    predictors: Sequence[str] = (),
) -> Observations:
    """The largest set of comparable architectures with stages; of equally large ones that at `best`.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.
        column: of the robust accuracy.
        where: columns of results.csv to the value that rows must have.
        predictors: columns of the frame that are variables too.

    Raises:
        InputError: where no such set has at least 8 architectures, or their task is not known.
    """
    rows, lost = _selected(frame, column, where or {}, predictors)
    kinds: dict[tuple[str, ...], list[int]] = {}
    specs = {}
    staged = rows["depths"].notna() & rows["widths"].notna()
    if not staged.any():
        raise InputError(
            f"studies: {counted(rows['arch'].nunique(), 'architecture')} without depths and widths, so that none can "
            "be proposed: expected architectures of a family with stages"
        )
    keys = (*CONDITIONS, "attacks", "kind")
    for position, row in enumerate(rows.to_dict("records")):
        if not staged.iloc[position]:
            continue
        name = str(row["arch"])
        if name not in specs:
            specs[name] = spec_of(row)
        spec = specs[name]
        kind = f"{spec.family}, {len(spec.depths)} stages, stem {spec.stem_width}, {spec.settings_text}"
        kinds.setdefault((*(str(row[key]) for key in keys[:-1]), kind), []).append(position)
    sizes = {key: rows.iloc[places]["arch"].nunique() for key, places in kinds.items()}
    best = CONDITIONS.index("checkpoint")
    chosen = max(kinds, key=lambda key: (key[best] == "best", sizes[key]))
    if sizes[chosen] < FEWEST:
        chosen = max(kinds, key=lambda key: sizes[key])
    if sizes[chosen] < FEWEST:
        raise InputError(
            f"studies: at most {counted(sizes[chosen], 'comparable architecture')} with depths, widths and {column}: "
            f"expected at least {FEWEST}"
        )
    others = [
        f"{counted(sizes[key], 'architecture')} with {_difference(keys, key, chosen)}" for key in kinds if key != chosen
    ]
    others += [lost] if lost else []
    if not staged.all():
        others.append(f"{counted(rows[~staged]['arch'].nunique(), 'architecture')} without depths and widths")
    return _observed(
        rows.iloc[kinds[chosen]], column, dict(zip(keys, chosen, strict=True)), specs, predictors, tuple(others)
    )


def _selected(
    frame: pd.DataFrame, column: str, where: Mapping[str, str], predictors: Sequence[str]
) -> tuple[pd.DataFrame, str]:
    """The rows with numbers and these values, each with the attacks that decide what its column means.

    Then the architectures that lack a number, in words; empty without any.
    """
    rows = evaluations(frame)
    attacks = [str(name) for name in rows.columns if str(name).endswith("_acc")]
    if column not in attacks or not rows[column].notna().any():
        named = [name.removesuffix("_acc") for name in attacks if rows[name].notna().any() and name != "clean_acc"]
        raise invalid("--attack", column.removesuffix("_acc"), f"one of {', '.join(named) or 'none'}")
    for key, value in where.items():
        if key not in rows.columns:
            raise invalid("--where", key, f"a column of results.csv, like {', '.join((*CONDITIONS, *SITE))}")
        texts = rows[key].map(_text)
        if not (texts == value).any():
            raise invalid(f"--where {key}", value, f"one of {', '.join(sorted(set(texts)))}")
        rows = rows[texts == value]
    needed = [column, "params", "macs", *predictors]
    whole = rows[needed].notna().all(axis="columns")
    missing = set(rows["arch"]) - set(rows["arch"][whole])
    lost = f"{counted(len(missing), 'architecture')} without one of {', '.join(needed)}" if missing else ""
    rows = rows[whole]
    if not len(rows):
        raise InputError(f"studies: no row with {', '.join(needed)}")
    worst = [name for name in attacks if name not in ("clean_acc", "worst_case_acc")]
    told = [
        " + ".join(name.removesuffix("_acc") for name in worst if pd.notna(row[name])) for _, row in rows.iterrows()
    ]
    return rows.assign(attacks=told if column == "worst_case_acc" else column.removesuffix("_acc")), lost


def _text(value: Any) -> str:
    if pd.isna(value):
        return "unrecorded"
    # a whole number in a column with gaps is read as 10.0
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _difference(names: Sequence[str], own: Sequence[str], other: Sequence[str]) -> str:
    pairs = zip(names, own, other, strict=True)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value, its in pairs if value != its)


def _observed(
    rows: pd.DataFrame,
    column: str,
    condition: Mapping[str, str],
    specs: Mapping[str, ArchSpec],
    predictors: Sequence[str],
    left_out: tuple[str, ...],
) -> Observations:
    rows, machines = _without_machines(rows.drop_duplicates(["run_id", "n_test"]), column)
    place, sites = pd.factorize(pd.Series(list(rows[list(SITE)].map(_text).itertuples(index=False, name=None))))
    labels = rows["arch"].astype(str) + ("" if len(sites) == 1 else " in " + rows["study"].astype(str))
    keyed = rows.assign(arch=[f"{label}\0{site}" for label, site in zip(labels, place, strict=True)])
    means = robust_means(keyed, column, step=100 / float(rows["n_test"].max()))
    firsts = rows.assign(keyed=keyed["arch"], site=place).drop_duplicates("keyed").set_index("keyed")
    firsts = firsts.loc[list(means.centres.index)]
    member, names = pd.factorize(firsts["arch"].astype(str))
    chosen = tuple(specs[str(name)] for name in names)
    extra = rows.groupby("arch")[list(predictors)].mean().loc[list(names)].to_numpy(float)
    runs = means.runs.to_numpy(float)
    return Observations(
        condition=condition,
        column=column,
        task=task_of(rows.drop_duplicates("arch"), specs),
        names=tuple(map(str, names)),
        specs=chosen,
        extra=extra,
        predictors=tuple(predictors),
        sites=tuple(sites),
        member=np.asarray(member),
        site=firsts["site"].to_numpy(int),
        y=means.centres.to_numpy(float),
        noise=np.full(len(runs), np.nan) if means.scatter is None else means.scatter**2 / runs,
        runs=runs,
        wild=tuple(text.replace("\0", ", site ") for text in means.wild),
        left_out=left_out,
        machines=machines,
    )


def _without_machines(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows without effects of machines inside a site, and what a reader must know of them."""
    corrected, told = [], []
    studies = rows.groupby(list(SITE), dropna=False, sort=False)
    for (study, *_), own in studies:
        found, machines = without_site_effects(own.assign(worst_case_acc=own[column]))
        corrected.append(found["worst_case_acc"])
        if machines:
            told.append(f"{study}: {machines.sentence}" if len(studies) > 1 else machines.sentence)
    return rows.assign(**{column: pd.concat(corrected)}), tuple(told)


def task_of(rows: pd.DataFrame, specs: Mapping[str, ArchSpec]) -> tuple[int, ImageShape]:
    """The classes and image shape at which the closed-form costs of the architectures are the recorded ones.

    Raises:
        InputError: if there are none among the usual ones.
    """
    checked = [(specs[str(row["arch"])], row) for row in rows.head(_CHECKED).to_dict("records")]
    for size, classes, channels in product(_SIZES, _CLASSES, _CHANNELS):
        shape = (channels, size, size)
        try:
            found = [cost(spec, classes, shape) for spec, _ in checked]
        except InputError:  # images too small for the family
            continue
        costs = zip(found, checked, strict=True)
        if all((each.params, each.macs) == (row["params"], row["macs"]) for each, (_, row) in costs):
            return classes, shape
    first = checked[0][1]
    raise InputError(
        f"studies: {first['arch']} has {first['params']:,.0f} parameters and {first['macs']:,.0f} MACs: expected costs "
        f"of images of {', '.join(f'{size}x{size}' for size in sorted(_SIZES))} pixels in a usual number of classes"
    )


def variables(
    template: ArchSpec, points: np.ndarray, task: tuple[int, ImageShape], extra: np.ndarray | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """What architectures are compared in: names, and (n, V) values of which 1 is a large difference.

    They are log2 of parameters, MACs and each stage's depth, so that 1 is a factor of two, and each stage's share of
    the stages' parameters but the first's, divided by 0.2. Predictors are appended as they are.

    Args:
        template: whose family and other settings all have.
        points: (n, 2 * stages) depths, then widths.
        task: number of classes and image shape.
        extra: (n, P) further variables.
    """
    stages = len(template.depths)
    columns = points.T.astype(np.int64)
    terms = cost_terms(template, list(columns[:stages]), list(columns[stages:]), *task)
    parts = np.stack([np.broadcast_to(part, len(points)) for part in terms.stage_params]) / sum(terms.stage_params)
    named = {
        "parameters": np.log2(terms.params),
        "MACs": np.log2(terms.macs),
        **{f"share of stage {stage + 1}": parts[stage] / 0.2 for stage in range(1, stages)},
        **{f"depth of stage {stage + 1}": np.log2(columns[stage]) for stage in range(stages)},
    }
    found = np.column_stack(list(named.values()))
    return tuple(named), found if extra is None else np.column_stack([found, extra])
