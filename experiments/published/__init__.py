"""Published figures, from published.json, to draw: CIFAR-10, l-inf, eps 8/255; no intervals are published."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_arch.architectures import ArchSpec, Cost, cost

_FACTS: dict[str, Any] = json.loads(Path(__file__).parent.with_suffix(".json").read_text(encoding="utf-8"))
STAGE_CHANNELS = (16, 32, 64)  # of a WideResNet with widening factor 1


@dataclass(frozen=True)
class Scaled:
    """A published network: how its budget was divided, what it costs by the closed form, accuracy in percent."""

    name: str
    rule: str
    cost: Cost
    pgd20: float


def scaled() -> Iterator[Scaled]:
    """The networks of `independent_scaling`: depths, widening factors or both scaled to three budgets."""
    for row in _FACTS["independent_scaling"]["rows"]:
        widths = tuple(factor * channels for factor, channels in zip(row["widen"], STAGE_CHANNELS, strict=True))
        spec = ArchSpec("wide_resnet", tuple(row["depths"]), widths)
        yield Scaled("", row["rule"], cost(spec), row["pgd20"])


def uniform() -> Iterator[Scaled]:
    """The WideResNets of `last_stage_comparison`; costs of its other families are not recorded."""
    specs = {
        row["name"]: ArchSpec("wide_resnet", tuple(row["depths"]), tuple(row["widths"]))
        for row in (*_FACTS["wide_resnet_cost"]["rows"], *_FACTS["wide_resnet_cost"]["published_rounded"]["rows"])
        if "name" in row
    }
    for row in comparison():
        if row["name"] in specs:
            yield Scaled(row["name"], "uniform", cost(specs[row["name"]]), row["cifar10"]["pgd20"])


def comparison() -> list[dict[str, Any]]:
    """The rows of `last_stage_comparison`: TRADES, mean of three seeds, checkpoint best."""
    return list(_FACTS["last_stage_comparison"]["rows"])


def leaderboard() -> list[dict[str, Any]]:
    """The rows of `robustbench`: with 500k pseudo-labelled images more."""
    return list(_FACTS["robustbench"]["rows"])
