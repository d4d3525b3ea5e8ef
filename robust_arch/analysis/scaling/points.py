"""The runs behind a scaling law: size, training images seen, robust error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from robust_arch.analysis.claims import Sites, without_site_effects
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import GROUP_COLUMNS, Group, groups
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import folder_of, read_results
from robust_arch.runs import StudyFolder

TRAIN_IMAGES = {
    "cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000, "svhn": 73_257, "tiny_imagenet": 100_000,
    "imagenet": 1_281_167,
}  # fmt: skip
"""Images of the whole training set, by the name of the data."""


@dataclass(frozen=True)
class Points:
    """R comparable runs of A architectures, which may differ in the number of epochs.

    Attributes:
        title: what the runs have in common, in words.
        checkpoint: `best`, `last` or `external`.
        resource: "params" or "macs".
        size: (R,) of the network in that resource.
        images: (R,) training images seen, or epochs where the images per epoch are not known.
        per_epoch: training images per epoch of each number that occurs; none where they are not known.
        error: (R,) robust error, in (0, 1].
        member: (R,) position of the architecture.
        names: (A,) architectures.
        runs: (R,) run ids.
        sites: of the runs; None for one site. Their effects are not in `error` where they can be estimated.
        left_out: comparable runs that are not among these, in words.
        setting: what the runs have in common, as values.
    """

    title: str
    checkpoint: str
    resource: str
    size: np.ndarray
    images: np.ndarray
    per_epoch: tuple[int, ...]
    error: np.ndarray
    member: np.ndarray
    names: tuple[str, ...]
    runs: tuple[str, ...]
    sites: Sites | None = None
    left_out: tuple[str, ...] = ()
    setting: tuple[object, ...] = ()

    @property
    def varies(self) -> tuple[bool, bool]:
        """Whether sizes differ, and whether images seen do."""
        return len(np.unique(self.size)) > 1, len(np.unique(self.images)) > 1

    def part(self, chosen: np.ndarray) -> Points:
        """The chosen runs; chosen: (R,) booleans or positions."""
        runs = tuple(np.array(self.runs, dtype=object)[chosen])
        arrays = {name: getattr(self, name)[chosen] for name in ("size", "images", "error", "member")}
        return replace(self, runs=runs, **arrays)


def recorded_images(study: Path) -> dict[str, int]:
    """Run id to training images per epoch, from the records of a study's own runs or the provenance of imported ones.

    study: its folder or its results.csv; runs of which nothing is recorded are absent.
    """
    if provenance := provenance_of(study):
        images = provenance.train_images
        return {} if images is None else dict.fromkeys(read_results(study)["run_id"].astype(str), images)
    results = {run.run_id: run.result for run in StudyFolder(folder_of(study)).runs()}
    return {
        run_id: result.data.images_per_epoch or result.data.train
        for run_id, result in results.items()
        if result and result.data
    }


def points_of(frame: pd.DataFrame, resource: str, per_epoch: int | Mapping[str, int] | None = None) -> list[Points]:
    """Every set of runs that differ in architecture, seed, epochs and training images alone, the largest first.

    Runs without a cost, or with an error of 0, whose logarithm is infinite, are left out, and so are those without
    recorded epochs where others have them.

    Args:
        frame: rows of results.csv.
        resource: "params" or "macs".
        per_epoch: training images per epoch, of all runs or by run id; by default those of the whole data set, where
            its name is known.
    """
    place = GROUP_COLUMNS.index("epochs")
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups(frame):
        alike.setdefault((*group.key[:place], *group.key[place + 1 :]), []).append(group)
    ranked = sorted(alike.items(), key=lambda item: item[1][0].rank)
    found = [(key, _points(members, resource, per_epoch)) for key, members in ranked]
    known = [replace(points, setting=key) for key, points in found if points is not None]
    return sorted(known, key=lambda each: -len(each.error))


def _points(members: Sequence[Group], resource: str, per_epoch: int | Mapping[str, int] | None) -> Points | None:
    rows = pd.concat([group.rows for group in members]).drop_duplicates(["run_id", "epochs"])
    rows, left_out = _usable(rows[rows["worst_case_acc"].notna()], resource)
    if not len(rows):
        return None
    # with other epochs an architecture is another one
    alike = rows["arch"] + (" for " + rows["epochs"].astype(str) if len(rows["epochs"].unique()) > 1 else "")
    corrected, sites = without_site_effects(rows.assign(arch=alike))
    rows = rows.assign(worst_case_acc=corrected["worst_case_acc"].clip(0, rows["worst_case_acc"].max()))
    epochs = rows["epochs"].to_numpy(float)
    images = _per_epoch(rows, per_epoch)
    known = not np.isnan(images).any()
    member, names = pd.factorize(rows["arch"])
    return Points(
        title=members[0].described(_span(epochs)),
        checkpoint=members[0].checkpoint,
        resource=resource,
        size=rows[resource].to_numpy(float),
        images=np.nan_to_num(epochs, nan=1.0) * (images if known else 1),
        per_epoch=tuple(sorted({int(each) for each in images})) if known else (),
        error=1 - rows["worst_case_acc"].to_numpy(float) / 100,
        member=np.asarray(member),
        names=tuple(map(str, names)),
        runs=tuple(map(str, rows["run_id"])),
        sites=sites,
        left_out=left_out,
    )


def _usable(rows: pd.DataFrame, resource: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows that a law can be fitted to, and what the others lack."""
    known = rows["epochs"].notna()
    lacks = {
        "with a robust error of 0, whose logarithm is infinite": rows["worst_case_acc"].ge(100),
        f"without recorded {resource}": ~rows[resource].gt(0).fillna(value=False).astype(bool),
        "without recorded epochs": ~known if known.any() else known & False,
    }
    told = tuple(f"{counted(int(each.sum()), 'run')} {what}" for what, each in lacks.items() if each.any())
    return rows[~np.logical_or.reduce(list(lacks.values()))], told


def _per_epoch(rows: pd.DataFrame, given: int | Mapping[str, int] | None) -> np.ndarray:
    """(R,) training images per epoch, NaN where they are not known."""
    if isinstance(given, int):
        return np.full(len(rows), float(given))
    usual = TRAIN_IMAGES.get(str(rows["data"].iloc[0]), np.nan)
    return np.array([float((given or {}).get(str(run), usual)) for run in rows["run_id"]])


def _span(epochs: np.ndarray) -> str:
    known = epochs[~np.isnan(epochs)]
    if not len(known):
        return "epochs not recorded"
    low, high = int(known.min()), int(known.max())
    return f"{low:,} to {high:,} epochs" if low < high else counted(low, "epoch")
