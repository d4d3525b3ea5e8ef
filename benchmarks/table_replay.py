"""What searches need on a published table: evaluations, or epochs, until within the noise of the best.

Noise is the standard error of a difference of two runs, sqrt(2) times the standard deviation of a run: as given, from
runs of one architecture, or at least that of counting test images. Without repeated runs the last one is used, which is
too small, since seeds scatter as well. A repetition that does not get there within its budget is censored: quantiles
count it as infinite, and the share that got there is told. Intervals are of 95%: percentiles of 2,000 resamples of
the repetitions, and Wilson's for shares.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from table_searches import SEARCHES, Curves, Schedule, Space, asha, halving

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.published.mapping import Mapping, read_mapping
from robust_arch.analysis.published.table import read_rows
from robust_arch.analysis.reading import read_results
from robust_arch.common.statistics import wilson_interval
from robust_arch.errors import InputError, invalid
from robust_arch.search.halving import geometric_rungs

RESAMPLES = 2_000
WORKERS = (1, 4, 16)
_FEWEST = 10  # architectures of the top tenth of which a rank correlation is told


@dataclass(frozen=True)
class Table:
    """A architectures of one evaluation.

    Attributes:
        names: (A,).
        target: (A,) robust accuracy in percent, the mean over runs.
        deviation: standard deviation of a run in points, and where it is from, in words.
        features: (A, F) as text or numbers; no columns where the table tells nothing but a name.
        cheap: name of a cheaper measurement to (A,), NaN where it is missing.
        curves: (A, E) per epoch; None for a table without.
        macs: (A,); None where unknown.
    """

    names: np.ndarray
    target: np.ndarray
    deviation: tuple[float, str]
    features: pd.DataFrame
    cheap: dict[str, np.ndarray]
    curves: np.ndarray | None = None
    macs: np.ndarray | None = None

    @property
    def noise(self) -> float:
        """Standard error of a difference of two runs, in points."""
        return math.sqrt(2) * self.deviation[0]

    @property
    def good(self) -> np.ndarray:
        """(A,) whether an architecture is within the noise of the best."""
        return np.asarray(self.target >= self.target.max() - self.noise)

    @property
    def space(self) -> Space:
        """The architectures as levels of features."""
        coded = [np.unique(self.features[name], return_inverse=True)[1] for name in self.features]
        ordered = [pd.api.types.is_numeric_dtype(self.features[name]) for name in self.features]
        levels = np.column_stack(coded) if coded else np.zeros((len(self.names), 0), dtype=int)
        return Space(levels, np.array(ordered, dtype=bool), self.target)


def read_table(
    path: Path, columns: str | None, features: Sequence[str], evaluation: int, curve: str | None, noise: float | None
) -> Table:
    """The table in a CSV file, under a mapping or as a results.csv.

    Args:
        path: of the file.
        columns: a mapping by name or path; None for a results.csv.
        features: columns of the file that describe an architecture, or beginnings of their names with a `*`; empty for
            depths and widths.
        evaluation: position of the evaluation in the mapping.
        curve: column per epoch that decides which runs go on, for a mapping with epochs; None for the attack's
            column, or that of clean accuracy where the attack did not run at every epoch.
        noise: standard deviation of a run in points; None to estimate it.
    """
    if columns is None:
        group = main_group(read_results(path))
        if group is None:
            raise invalid("--table", str(path), "a results.csv with worst-case accuracies")
        return _table(group.rows, features, noise, pd.DataFrame())
    mapping = read_mapping(columns)
    if not 0 <= evaluation < len(mapping.evaluations):
        raise invalid("--evaluation", evaluation, f"from 0 to {len(mapping.evaluations) - 1}")
    raw = pd.read_csv(path, sep=mapping.delimiter, dtype=str)
    one = replace(mapping, evaluations=[mapping.evaluations[evaluation]])
    frame = pd.DataFrame(read_rows(path, one).rows)
    data = frame["data"].iloc[0]
    further = {}
    for place, other in enumerate(mapping.evaluations):
        if place != evaluation and mapping.epoch is None:
            rows = pd.DataFrame(read_rows(path, replace(mapping, evaluations=[other])).rows)
            if rows["data"].iloc[0] == data:
                own = rows.set_index("arch").filter(like="_acc").drop(columns=["worst_case_acc", "clean_acc"])
                further |= {f"{name.removesuffix('_acc')} at {rows['threat'].iloc[0]}": own[name] for name in own}
    wanted = [name for each in features for name in _matching(raw.columns, each)]
    lines = frame.get("run", frame["line"]).fillna(frame["line"]).to_numpy(dtype=int)
    described = raw[wanted].iloc[lines - 2].set_index(frame.index)
    numbers = {name: pd.to_numeric(described[name], errors="coerce") for name in wanted}
    frame = frame.assign(**{name: numbers[name] if numbers[name].notna().all() else described[name] for name in wanted})
    table = _table(frame, wanted, noise, pd.DataFrame(further))
    if mapping.epoch is None:
        return table
    return replace(table, curves=_curves(raw, mapping, frame, lines, curve, table.names))


def _matching(columns: pd.Index, name: str) -> list[str]:
    found = [each for each in columns if each == name or (name.endswith("*") and each.startswith(name[:-1]))]
    if not found:
        raise invalid("--features", name, f"columns of the table: {', '.join(columns)[:200]}")
    return found


def _table(rows: pd.DataFrame, features: Sequence[str], noise: float | None, further: pd.DataFrame) -> Table:
    first = rows.drop_duplicates("arch").set_index("arch")
    by_arch = rows.groupby("arch", sort=False)
    target = by_arch["worst_case_acc"].mean().loc[first.index]
    described = first[list(features)] if features else pd.DataFrame(index=first.index)
    if not features and "depths" in first and first["depths"].notna().all():
        for name in ("depths", "widths"):
            stages = first[name].str.split("-", expand=True).astype(int)
            described = described.join(stages.set_axis([f"{name} {stage}" for stage in stages], axis=1))
    described = described.loc[:, [len(described[name].unique()) > 1 for name in described]]
    cheap = {
        str(name).removesuffix("_acc"): by_arch[name].mean().loc[first.index]
        for name in rows.columns
        if str(name).endswith("_acc") and name != "worst_case_acc" and not target.equals(first[name])
    }
    cheap |= {str(name): further[name].reindex(first.index) for name in further}
    macs = first["macs"].to_numpy(dtype=float) if "macs" in first and first["macs"].notna().all() else None
    return Table(
        names=first.index.to_numpy(),
        target=target.to_numpy(dtype=float),
        deviation=_deviation(rows, noise),
        features=described,
        cheap={name: value.to_numpy(dtype=float) for name, value in cheap.items() if value.notna().all()},
        macs=macs,
    )


def _deviation(rows: pd.DataFrame, noise: float | None) -> tuple[float, str]:
    """Of a run, in points."""
    if noise is not None:
        return noise, "stated"
    by_arch = rows.groupby("arch")["worst_case_acc"]
    freedom = len(rows) - by_arch.ngroups
    if freedom > 0:
        squares = ((rows["worst_case_acc"] - by_arch.transform("mean")) ** 2).sum()
        return float(np.sqrt(squares / freedom)), f"repeated runs, {freedom} degrees of freedom"
    best = float(rows["worst_case_acc"].max()) / 100
    n = int(rows["n_test"].iloc[0])
    return 100 * math.sqrt(best * (1 - best) / n), f"counting {n:,} test images alone, no run is repeated"


def _curves(
    raw: pd.DataFrame, mapping: Mapping, frame: pd.DataFrame, lines: np.ndarray, curve: str | None, names: np.ndarray
) -> np.ndarray:
    """(A, E) in the order of the names."""
    assert mapping.epoch is not None
    epoch, attack = mapping.epoch
    if curve is None:
        absent = raw[attack].isna() | raw[attack].isin(mapping.missing)
        curve = mapping.evaluations[0].clean if absent.any() else attack
    if curve not in raw:
        raise invalid("--curve", curve, f"a column of the table: {', '.join(raw.columns)}")
    key = raw[list(dict.fromkeys(mapping.architecture.columns))].agg("/".join, axis="columns")
    numbers = {name: pd.to_numeric(raw[name], errors="coerce") for name in (curve, epoch)}
    wide = pd.DataFrame({"key": key, **numbers}).pivot_table(curve, "key", epoch)
    arch_key = dict(zip(frame["arch"], key.iloc[lines - 2], strict=True))
    return wide.loc[[arch_key[name] for name in names]].to_numpy()


def quantile(hits: np.ndarray, level: float) -> dict[str, Any]:
    """A quantile of numbers that may be infinite, with the percentiles of its resamples; None: beyond the budget."""
    rng = np.random.default_rng(0)
    resampled = np.quantile(
        hits[rng.integers(0, len(hits), (RESAMPLES, len(hits)))], level, axis=1, method="inverted_cdf"
    )
    numbers = [np.quantile(each, at, method="inverted_cdf") for each, at in ((hits, level), (resampled, 0.025))]
    numbers.append(np.quantile(resampled, 0.975, method="inverted_cdf"))
    value, low, high = (round(float(number), 1) if np.isfinite(number) else None for number in numbers)
    return {"value": value, "interval": [low, high]}


def summary(hits: np.ndarray, budget: float) -> dict[str, Any]:
    """Median, 90% quantile and the share within the budget. hits: infinite where a repetition did not get there."""
    reached = int(np.isfinite(hits).sum())
    low, high = wilson_interval(reached, len(hits))
    return {
        "budget": budget if math.isfinite(budget) else None,
        "median": quantile(hits, 0.5),
        "quantile_90": quantile(hits, 0.9),
        "share_reached": round(reached / len(hits), 3),
        "share_interval": [round(low, 3), round(high, 3)],
    }


def replay(table: Table, names: Sequence[str], budget: int, repetitions: int) -> dict[str, Any]:
    """Evaluations until the first architecture within the noise of the best, by search."""
    space, good, found = table.space, table.good, {}
    for name in names:
        started = time.process_time()
        limit = len(good) if name == "random" else min(budget, len(good))
        hits = np.full(repetitions, np.inf)
        for repetition in range(repetitions):
            search = SEARCHES[name](space, limit, np.random.default_rng(repetition))
            hits[repetition] = next((count for count, position in enumerate(search, 1) if good[position]), np.inf)
        found[name] = {**summary(hits, limit), "cpu_seconds": round(time.process_time() - started, 1)}
        if name == "random":
            found[name] |= {"mean": round(float(hits.mean()), 1), "expected_mean": expected_random(good)}
    return found


def expected_random(good: np.ndarray) -> float:
    """Mean evaluations of random search until the first of k good ones of n: (n + 1) / (k + 1)."""
    return round((len(good) + 1) / (int(good.sum()) + 1), 1)


def correlations(table: Table) -> dict[str, Any]:
    """Spearman's rank correlation of cheaper measurements with the target, overall and in the best tenth."""
    cheap = dict(table.cheap)
    if table.curves is not None:
        epochs = table.curves.shape[1]
        cheap |= {f"after {rung} epochs": table.curves[:, rung - 1] for rung in geometric_rungs(1, epochs, 3)}
    top = table.target >= np.quantile(table.target, 0.9)
    found = {}
    for name, values in cheap.items():
        found[name] = {"overall": _spearman(values, table.target)}
        if top.sum() >= _FEWEST:
            found[name]["top_tenth"] = _spearman(values[top], table.target[top])
    return found


def _spearman(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """With the percentiles of 200 resamples of architectures."""
    known = np.isfinite(first)
    first, second, rng = first[known], second[known], np.random.default_rng(0)
    if len(first) < 3 or np.ptp(first) == 0:
        return {"n": len(first), "value": None, "interval": [None, None]}

    def of(places: np.ndarray) -> float:
        ranks = rankdata(first[places]), rankdata(second[places])
        return float(np.corrcoef(*ranks)[0, 1]) if min(map(np.ptp, ranks)) > 0 else 0.0

    drawn = [of(rng.integers(0, len(first), len(first))) for _ in range(200)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "n": len(first),
        "value": round(of(np.arange(len(first))), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
    }


def rungs_compared(table: Table, plan: int, eta: int, least: int, repetitions: int) -> dict[str, Any]:
    """Successive halving and ASHA on random plans, on several numbers of workers.

    Runs go on where they stopped, with the schedule of the whole training. An epoch costs as much as the architecture's
    MACs, 1 in the mean over the plan, or 1 where they are unknown.
    """
    if table.curves is None:
        raise InputError("--table: no curves")
    epochs = table.curves.shape[1]
    rungs = geometric_rungs(least, epochs, eta)
    plan = min(plan, len(table.names))
    found: dict[str, Any] = {"plan": plan, "eta": eta, "rungs": list(rungs), "whole_plan_epochs": plan * epochs}
    for workers in WORKERS:
        made: dict[str, list[Schedule]] = {"halving": [], "asha": []}
        regrets: dict[str, list[float]] = {"halving": [], "asha": []}
        for repetition in range(repetitions):
            order = np.random.default_rng(repetition).permutation(len(table.names))[:plan]
            target = table.target[order]
            cost = np.ones(plan) if table.macs is None else table.macs[order] / table.macs[order].mean()
            seen = np.column_stack([table.curves[order][:, rung - 1] for rung in rungs])
            seen[:, -1] = target
            curves = Curves(seen, rungs, cost, target >= target.max() - table.noise, eta)
            for name, search in (("halving", halving), ("asha", asha)):
                schedule = search(curves, list(range(plan)), workers)
                made[name].append(schedule)
                regrets[name].append(float(target.max() - target[schedule.chosen]))
        found[f"workers_{workers}"] = {
            name: {
                "epochs_spent": _mean([each.spent for each in schedules]),
                "time_to_the_end": _mean([each.ended for each in schedules]),
                "time_until_within_noise": summary(np.array([each.found for each in schedules]), math.inf),
                "points_below_best": _mean(regrets[name]),
            }
            for name, schedules in made.items()
        }
        paired = np.array(made["halving"], dtype=object), np.array(made["asha"], dtype=object)
        for key in ("spent", "ended"):
            ratios = [getattr(two, key) / getattr(one, key) for one, two in zip(*paired, strict=True)]
            found[f"workers_{workers}"][f"asha_over_halving_{key}"] = _mean(ratios)
        worse = [two - one for one, two in zip(regrets["halving"], regrets["asha"], strict=True)]
        found[f"workers_{workers}"]["asha_minus_halving_points_below_best"] = _mean(worse)
    return found


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """With the percentiles of resamples."""
    own = np.array(values)
    means = own[np.random.default_rng(0).integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": round(float(own.mean()), 3), "interval": [round(float(low), 3), round(float(high), 3)]}
