"""The rows of the paper's comparison, each with its command, what is published, and what was recorded here.

python -m experiments.reproduction.rows                    writes table.csv, ours from experiments/studies
python -m experiments.reproduction.rows results/mine ...   the same from these studies, into table.csv of this folder
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.published import comparison, leaderboard
from experiments.recorded import STUDIES as RECORDED
from experiments.recorded import given, read
from robust_arch.architectures import PRESETS, ArchSpec, arch_name, cost
from robust_arch.common.files import write_text
from robust_arch.common.statistics import accuracy_interval
from robust_arch.errors import InputError, invalid

HERE = Path(__file__).parent
CONF = "experiments/reproduction/conf"
NOT_AT_HAND = "not at hand"
ACCURACIES = ("clean", "pgd20", "cw40", "autoattack")
CLASSES = {"cifar10": 10, "cifar100": 100}
EPOCHS = {"huang2021": 100, "huang2021_500k": 400}
N_TEST = 10_000
PICKLE = "ti_500K_pseudo_labeled.pickle"
TABLE_2 = "Huang et al. 2023, Table 2: best checkpoint, mean over three seeds"
ROBUSTBENCH = "RobustBench leaderboard"
WRNS = {"WRN-34-12": "wrn_34_12", "WRN-34-R": "wrn_34_r"}
OBJECTIVES = ("sat_huang2021", "trades", "mart_huang2021")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a network, how it is trained, and what is published about it.

    Attributes:
        name: of the network.
        arch: its preset.
        changes: fields in which the network differs from its preset.
        study: the study's YAML in CONF.
        objective: of the group `objective`.
        data: of the group `data`.
        recipe: as in results.csv.
        weights: as in results.csv.
        published: accuracies in percent, by name; empty if not at hand.
        source: of the published accuracies.
    """

    name: str
    arch: str
    study: str
    objective: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str = "cifar10"
    recipe: str = "huang2021"
    weights: str = "raw"
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = NOT_AT_HAND

    @property
    def spec(self) -> ArchSpec:
        """The network."""
        return ArchSpec.from_dict({**PRESETS[self.arch].to_dict(), **self.changes})

    @property
    def overrides(self) -> list[str]:
        """The overrides of the command, in a form that Hydra reads."""
        words = [f"study={self.study}", f"arch={self.arch}", f"objective={self.objective}", f"data={self.data}"]
        for key, value in self.changes.items():
            for option, content in value.items() if key == "options" else [(None, value)]:
                name = f"arch.{key}" if option is None else f"+arch.options.{option}"
                words.append(f"{name}={content}".replace(" ", ""))
        return [*words, *([f"extra.path={PICKLE}"] if self.recipe.startswith("huang2021_500k") else [])]

    @property
    def command(self) -> str:
        """The one command of the row."""
        return f"python -m robust_arch.train -m --config-dir {CONF} {shlex.join(self.overrides)}"

    def ours(self, frame: pd.DataFrame | None) -> dict[str, str]:
        """Seeds and accuracies of this row's runs: the mean with its 95% interval; empty where there is none.

        Raises:
            InputError: where two runs have the same seed.
        """
        wanted = {
            "study": self.study,
            "arch": arch_name(self.spec),
            "data": self.data,
            "objective": self.objective,
            "recipe": self.recipe,
            "weights": self.weights,
            "checkpoint": "best",
            "threat": "linf-8/255",
            "train_threat": "linf-8/255",
            "n_test": N_TEST,
            "epochs": EPOCHS[self.recipe.split("+")[0]],
        }
        cells = dict.fromkeys(("seeds", *ACCURACIES), "")
        if frame is None:
            return cells
        rows = frame[(frame[list(wanted)] == pd.Series(wanted)).all(axis="columns")]
        if rows["seed"].duplicated().any():
            raise invalid("results", f"{self.name}, {self.study}: seeds {sorted(rows['seed'])}", "one run per seed")
        if len(rows):
            cells["seeds"] = str(len(rows))
        for name in ACCURACIES:
            if values := rows[f"{name}_acc"].dropna().tolist():
                mean, low, high = accuracy_interval(values, N_TEST)
                cells[name] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        return cells


def rows() -> Iterator[Row]:
    """All rows, in the order of the table."""
    table_2 = {row["name"]: row for row in comparison()}
    for data in CLASSES:
        for objective in OBJECTIVES:
            for name, arch in WRNS.items():
                published = {"published": table_2[name][data], "source": TABLE_2} if objective == "trades" else {}
                yield Row(name=name, arch=arch, study="reproduction", objective=objective, data=data, **published)
    recipe = "huang2021_500k+steps_per_epoch196{}+ti_500k@0.5"
    plain = recipe.format("")
    yield Row(name="WRN-34-12", arch="wrn_34_12", study="reproduction_500k", objective="trades", recipe=plain)
    for entry in leaderboard():
        known = {name: entry[name] for name in ACCURACIES if name in entry}
        study = "reproduction_500k_ema" if entry["ema"] else "reproduction_500k"
        weights, averaging = ("ema", "+ema:decay-0.995") if entry["ema"] else ("raw", "")
        yield Row(
            name=entry["arch"],
            arch=WRNS[entry["arch"]],
            study=study,
            objective="trades",
            recipe=recipe.format(averaging),
            weights=weights,
            published=known,
            source=ROBUSTBENCH,
        )
    # 0.4 of the last stage's width, as in WRN-34-R, in multiples of 8; in DenseNet 0.4 of the channels that enter the
    # stage, which the published code sets
    reduced: dict[str, tuple[str, dict[str, Any]]] = {
        "VGG-16": ("vgg16", {"widths": [64, 128, 256, 512, 208]}),
        "DenseNet-121": ("densenet121", {"options": {"transition_widths": [128, 256, 208]}}),
        "DARTS": ("darts", {"widths": [36, 72, 56]}),
    }
    for name, (arch, changes) in reduced.items():
        common: dict[str, Any] = {
            "arch": arch,
            "study": "reproduction_last_stage",
            "objective": "sat_huang2021",
        }
        yield Row(name=name, **common)
        yield Row(name=f"{name}, last stage reduced", changes=changes, **common)


def tabulate(frame: pd.DataFrame | None) -> pd.DataFrame:
    """The table: published and ours side by side. frame: recorded results, or None."""
    lines = []
    for row in rows():
        takes, ours = cost(row.spec, CLASSES[row.data]), row.ours(frame)
        published = {name: f"{row.published[name]:.2f}" if name in row.published else "" for name in ACCURACIES}
        lines.append(
            {
                "network": row.name,
                "params": takes.params,
                "macs": takes.macs,
                "data": row.data,
                "objective": row.objective,
                "recipe": row.recipe,
                "weights": row.weights,
                **{f"published_{name}": text for name, text in published.items()},
                "source": row.source,
                **{f"ours_{name}": text for name, text in ours.items()},
                "command": row.command,
            }
        )
    return pd.DataFrame(lines)


def recorded(studies: Sequence[str]) -> pd.DataFrame | None:
    """The rows of these studies, or of the recorded ones; None if there are none."""
    known = sorted({row.study for row in rows()})
    paths = [given(study) for study in studies] or [RECORDED / name for name in known if (RECORDED / name).is_dir()]
    return read(paths) if paths else None


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduction.rows", usage=__doc__)
    parser.add_argument("studies", nargs="*")
    arguments = parser.parse_args()
    try:
        table = tabulate(recorded(arguments.studies))
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    write_text(HERE / "table.csv", table.to_csv(index=False))
    print(f"written: {HERE / 'table.csv'}")


if __name__ == "__main__":
    main()
