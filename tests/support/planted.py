"""Studies whose truth is known: architectures, what each is really worth, and seeds that scatter about it."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from robust_arch.analysis.groups import Group, only_group
from robust_arch.architectures import ArchSpec, Cost, arch_name, cost
from robust_arch.runs import to_frame

Truth = Callable[[ArchSpec, Cost], float]


def no_effect(spec: ArchSpec, priced: Cost) -> float:
    """Every architecture is worth the same."""
    return 50.0


def planted(specs: Sequence[ArchSpec], truth: Truth, *, seeds: int, sd: float, draw: int = 0) -> Group:
    """The rows of such a study: normal about the truth with `sd` points, in percent of 10,000 test images."""
    generator = np.random.default_rng(draw)
    noise = generator.normal(0, sd, (len(specs), seeds)) + generator.normal(0, sd, seeds)  # a seed moves all alike too
    rows = _rows(tuple(specs), seeds).copy()
    truths = np.array([truth(spec, _price(spec)) for spec in specs])
    rows["worst_case_acc"] = rows["pgd20_acc"] = (truths[:, None] + noise).ravel()
    return only_group(rows)


@cache
def _price(spec: ArchSpec) -> Cost:
    return cost(spec)


@cache
def _rows(specs: tuple[ArchSpec, ...], seeds: int) -> pd.DataFrame:
    common = {
        "study": "planted", "objective": "sat", "recipe": "r", "train_threat": "linf-8/255", "data": "made-up",
        "epochs": 10, "checkpoint": "best", "weights": "raw", "threat": "linf-8/255", "n_test": 10_000,
        "clean_acc": 80.0, "pgd20_acc": 50.0, "worst_case_acc": 50.0, "status": "completed",
    }  # fmt: skip
    return to_frame(
        [
            {
                **common, "run_id": f"{number}-{seed}", "arch": arch_name(spec), "family": spec.family,
                "depths": "-".join(map(str, spec.depths)), "widths": "-".join(map(str, spec.widths)),
                "params": _price(spec).params, "macs": _price(spec).macs, "seed": seed,
            }
            for number, spec in enumerate(specs)
            for seed in range(seeds)
        ]
    )  # fmt: skip
