"""Studies whose every number is set by hand, as rows of results.csv, for figures and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robust_arch.architectures import ArchSpec, arch_name, cost
from robust_arch.runs import to_frame

BASE = ((2, 2, 2), (8, 16, 32))


def wide(depths: Sequence[int], widths: Sequence[int]) -> ArchSpec:
    return ArchSpec("wide_resnet", tuple(depths), tuple(widths))


def stage_changes(quantity: str) -> list[ArchSpec]:
    """The base, and each stage alone at half and at double."""
    depths, widths = BASE
    values = depths if quantity == "depths" else widths
    changed = [
        tuple(int(factor * value) if place == stage else value for place, value in enumerate(values))
        for stage in range(3)
        for factor in (0.5, 2)
    ]
    if quantity == "depths":
        return [wide(*BASE), *(wide(each, widths) for each in changed)]
    return [wide(*BASE), *(wide(depths, each) for each in changed)]


def divisions() -> list[ArchSpec]:
    """Eight networks whose stages' shares differ widely."""
    widths = [
        (8, 16, 32),
        (28, 12, 12),
        (12, 28, 12),
        (20, 20, 20),
        (12, 12, 30),
        (26, 10, 22),
        (16, 24, 16),
        (30, 8, 8),
    ]
    return [wide((2, 2, 2), each) for each in widths]


def rows(specs: Sequence[ArchSpec], accuracies: Mapping[str, Sequence[float]], **changes: Any) -> list[dict[str, Any]]:
    """A row a network, seed and checkpoint; accuracies: arch to the worst case of each seed, `last` one point lower."""
    return [
        _row(spec, seed, checkpoint, value, lower) | changes
        for spec in specs
        for seed, value in enumerate(accuracies[arch_name(spec)])
        for checkpoint, lower in (("best", 0), ("last", 1))
    ]


def spread(specs: Sequence[ArchSpec]) -> dict[str, list[float]]:
    """Three seeds a network at 60, 62 and 64 percent for the first, two points more for each further one."""
    return {arch_name(spec): [60.0 + 2 * (place + seed) for seed in range(3)] for place, spec in enumerate(specs)}


def write_studies(into: Path) -> None:
    """A results.csv of every study that experiments/ draws, and the epochs of one."""
    resnets = [ArchSpec("resnet", (1, 1, 1, 1), (8 * k, 16, 16, 32)) for k in (1, 2)]
    scaled = [wide((2, 2, 2), [int(k * width) for width in BASE[1]]) for k in (0.5, 1, 2)]
    studies = {
        "stage_width": stage_changes("widths"),
        "stage_depth": stage_changes("depths"),
        "capacity": scaled,
        "cifar10_capacity": scaled,
        "budget": divisions(),
        "families": [*divisions()[:3], *resnets],
        "overfitting": [wide(*BASE)],
    }
    for name, specs in studies.items():
        (into / name).mkdir(parents=True)
        frame(rows(specs, spread(specs), study=name)).to_csv(into / name / "results.csv", index=False)
    epochs().to_csv(into / "overfitting" / "metrics.csv", index=False)


def frame(planted: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return to_frame(planted)


def epochs() -> pd.DataFrame:
    """Five epochs of the three runs of the base: 24, 48, 60, 60 and 36 of 120 held-out images robust."""
    counts, rates = (24, 48, 60, 60, 36), (0.1, 0.1, 0.1, 0.01, 0.001)
    return pd.DataFrame(
        [
            {"run_id": f"wrn_16_half-{seed}", "epoch": epoch, "lr": rate, "train_loss": 1.0, "train_acc": 20.0 * epoch}
            | {"val_clean_acc": 90.0, "val_robust_acc": count / 1.2, "val_robust_count": count}
            for seed in range(3)
            for epoch, (count, rate) in enumerate(zip(counts, rates, strict=True))
        ]
    )


def _row(spec: ArchSpec, seed: int, checkpoint: str, value: float, lower: float) -> dict[str, Any]:
    takes, arch = cost(spec, image_shape=(1, 8, 8)), arch_name(spec)
    row: dict[str, Any] = {"run_id": f"{arch}-{seed}", "study": "planted", "arch": arch, "family": spec.family}
    row |= {"depths": "-".join(map(str, spec.depths)), "widths": "-".join(map(str, spec.widths))}
    row |= {"params": takes.params, "macs": takes.macs, "objective": "sat", "recipe": "digits", "seed": seed}
    row |= {"train_threat": "linf-0.2", "data": "digits", "epochs": 5, "checkpoint": checkpoint, "weights": "raw"}
    row |= {"threat": "linf-0.2", "n_test": 360, "clean_acc": 90 + value / 10, "fgsm_acc": value + 2}
    row |= {"pgd20_acc": value + 1, "cw40_acc": value + 1, "worst_case_acc": value - lower, "stability": value + 3}
    return row | {"lipschitz": 100 - value, "train_seconds": 10.0, "status": "completed"}
