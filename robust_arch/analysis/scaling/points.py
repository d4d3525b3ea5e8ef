"""The runs behind a scaling law: size, training images seen, robust error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import GROUP_COLUMNS, Group, groups

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
        per_epoch: training images per epoch; None where they are not known.
        error: (R,) robust error, in (0, 1].
        member: (R,) position of the architecture.
        names: (A,) architectures.
        runs: (R,) run ids.
    """

    title: str
    checkpoint: str
    resource: str
    size: np.ndarray
    images: np.ndarray
    per_epoch: int | None
    error: np.ndarray
    member: np.ndarray
    names: tuple[str, ...]
    runs: tuple[str, ...]

    @property
    def varies(self) -> tuple[bool, bool]:
        """Whether sizes differ, and whether images seen do."""
        return len(np.unique(self.size)) > 1, len(np.unique(self.images)) > 1

    def part(self, chosen: np.ndarray) -> Points:
        """The chosen runs; chosen: (R,) booleans or positions."""
        runs = tuple(np.array(self.runs, dtype=object)[chosen])
        arrays = {name: getattr(self, name)[chosen] for name in ("size", "images", "error", "member")}
        return Points(self.title, self.checkpoint, self.resource, per_epoch=self.per_epoch, names=self.names, runs=runs,
                      **arrays)  # fmt: skip


def points_of(frame: pd.DataFrame, resource: str, per_epoch: int | None = None) -> list[Points]:
    """Every set of runs that differ in architecture, seed and epochs alone, the largest first.

    Runs without a cost, or with an error of 0, whose logarithm is infinite, are left out.

    Args:
        frame: rows of results.csv.
        resource: "params" or "macs".
        per_epoch: training images per epoch; by default those of the data set, where its name is known.
    """
    place = GROUP_COLUMNS.index("epochs")
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups(frame):
        alike.setdefault((*group.key[:place], *group.key[place + 1 :]), []).append(group)
    found = [_points(members, resource, per_epoch) for members in alike.values()]
    return sorted((each for each in found if each is not None), key=lambda each: -len(each.error))


def _points(members: Sequence[Group], resource: str, per_epoch: int | None) -> Points | None:
    rows = pd.concat([group.rows for group in members])
    rows = rows[rows["worst_case_acc"].lt(100) & rows[resource].gt(0)]
    epochs = rows["epochs"].to_numpy(float)
    if not len(rows) or (np.isnan(epochs).any() and not np.isnan(epochs).all()):
        rows = rows[rows["epochs"].notna()]
        epochs = rows["epochs"].to_numpy(float)
    if not len(rows):
        return None
    images = per_epoch or TRAIN_IMAGES.get(str(rows["data"].iloc[0]))
    member, names = pd.factorize(rows["arch"])
    title = str(members[0])
    start, end = title.index("(") + 1, title.index(",", title.index(" epoch"))
    return Points(
        title=f"{title[:start]}{_span(epochs)}{title[end:]}",
        checkpoint=members[0].checkpoint,
        resource=resource,
        size=rows[resource].to_numpy(float),
        images=np.nan_to_num(epochs, nan=1.0) * (images or 1),
        per_epoch=images,
        error=1 - rows["worst_case_acc"].to_numpy(float) / 100,
        member=np.asarray(member),
        names=tuple(map(str, names)),
        runs=tuple(map(str, rows["run_id"])),
    )


def _span(epochs: np.ndarray) -> str:
    known = epochs[~np.isnan(epochs)]
    if not len(known):
        return "epochs not recorded"
    low, high = int(known.min()), int(known.max())
    return f"{low:,} to {high:,} epochs" if low < high else counted(low, "epoch")
