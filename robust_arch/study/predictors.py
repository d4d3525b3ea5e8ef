"""Predictors of a study's runs, computed from their configurations and recorded in predictors.csv."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robust_arch.analysis.predictors.reading import FILE, IDENTITY, predictors_path
from robust_arch.analysis.reading import read_results, spec_of
from robust_arch.architectures import ArchSpec, ImageShape, build, cost, named_spec
from robust_arch.attacks import ThreatModel
from robust_arch.common.files import write_rows
from robust_arch.common.paths import conf_dir
from robust_arch.common.plain import shown
from robust_arch.common.randomness import derive
from robust_arch.data import ImageSet
from robust_arch.data.images import stratified
from robust_arch.data.recorded import recorded_dataset
from robust_arch.errors import InputError, invalid
from robust_arch.evaluation.predictors import PREDICTORS, Start
from robust_arch.runs import StudyFolder

log = logging.getLogger(__name__)

BATCH = 32
"""Images, as the sources of the definitions use a few dozen."""
_SEEDS = 3  # of an architecture that was not trained


@dataclass(frozen=True)
class Initial:
    """What determines an untrained network and its batch.

    Attributes:
        spec: the architecture, with its initialisation.
        seed: of the run.
        threat: that the run is trained under, like linf-8/255.
        data: the group `data` of its configuration.
        normalize: its recipe's normalisation, identity or dataset.
    """

    spec: ArchSpec
    seed: int
    threat: str
    data: Mapping[str, Any]
    normalize: str = "identity"

    @property
    def _train(self) -> ImageSet:
        return _training_images(yaml.safe_dump(dict(self.data)))

    @property
    def task(self) -> tuple[int, ImageShape]:
        """Number of classes and image shape."""
        return self._train.num_classes, self._train.image_shape

    def start(self, batch: int) -> Start:
        """The network as the run starts from it, and images of its training set, drawn by class by its seed."""
        train = self._train
        if batch > len(train):
            raise invalid("--batch", batch, f"at most the {len(train)} training images")
        mean, std = train.channel_statistics() if self.normalize == "dataset" else (None, None)
        net = build(
            self.spec, train.num_classes, train.image_shape, mean=mean, std=std,
            seed=derive(self.seed, "initialisation"),
        )  # fmt: skip
        chosen = stratified(train.labels, batch, derive(self.seed, "predictors"))
        norm, _, eps = self.threat.partition("-")
        threat = ThreatModel(norm, eps if "/" in eps else float(eps))
        return Start(net, train.to_unit(train.images[chosen]), train.labels[chosen], threat, self.seed)


@cache
def _training_images(data: str) -> ImageSet:
    return recorded_dataset(yaml.safe_load(data)).load().train


def initial_networks(study: Path) -> Iterator[tuple[str, Initial]]:
    """Run id and start of every run of a study: from its configuration, or from its row where only rows are recorded.

    A row names its data set, whose usual settings and an identity normalisation are then taken. A run whose
    configuration cannot be read is named in the log and left out.
    """
    if study.is_file() or StudyFolder(study).is_only_a_table or StudyFolder(study).is_archived:
        for row in read_results(study).drop_duplicates("run_id").to_dict("records"):
            try:
                threat, data = str(row["train_threat"]), _usual_data(str(row["data"]))
                yield str(row["run_id"]), Initial(spec_of(row), int(row["seed"]), threat, data)
            except (InputError, ValueError) as error:
                log.warning("left out: run %s: %s", row["run_id"], error)
        return
    for run in StudyFolder(study).runs():
        facts, data = run.read().facts, run.recorded_group("data")
        if facts is None or facts.seed is None or not data:
            log.warning("left out: run %s: without a seed or a configuration of its data", run.run_id)
            continue
        try:
            spec = named_spec(facts.arch)
        except InputError as error:
            log.warning("left out: run %s: %s", run.run_id, error)
            continue
        normalize = str(run.recorded_group("recipe").get("normalize", "identity"))
        yield run.run_id, Initial(spec, facts.seed, str(facts.train_threat), data, normalize)


@cache
def _usual_data(name: str) -> Mapping[str, Any]:
    """The settings of the data set that has this name in the records."""
    for file in sorted((conf_dir() / "data").glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content = content.get("data", content)
        if content.get("name") == name:
            return content  # type: ignore[no-any-return]
    raise InputError(f"data = {shown(name)}: expected a data set of conf/data; its run's configuration is not recorded")


def compute_predictors(study: Path, names: Sequence[str], batch: int = BATCH) -> Path:
    """Compute what predictors.csv does not hold yet, write it after each run, and return it.

    Args:
        study: its folder, or its results.csv.
        names: of PREDICTORS.
        batch: images per network.

    Raises:
        InputError: for an unknown name, or a study without a run whose start is known.
    """
    for name in names:
        if name not in PREDICTORS:
            raise invalid("--columns", name, f"some of {', '.join(PREDICTORS)}")
    path = predictors_path(study)
    rows = {(row["run_id"], row["batch"]): row for row in _recorded(path)}
    found = dict(initial_networks(study))
    if not found:
        raise InputError(f"study = {str(study)!r}: no run whose architecture, seed and data are recorded")
    for run_id, initial in found.items():
        row = rows.setdefault((run_id, str(batch)), {"run_id": run_id, "batch": str(batch)})
        missing = [name for name in names if not row.get(name)]
        if not missing:
            continue
        start = initial.start(batch)
        priced = cost(initial.spec, *initial.task)
        row |= {"seed": initial.seed, "params": priced.params, "macs": priced.macs}
        row |= {name: _cell(PREDICTORS[name](start)) for name in missing}
        write_rows(path, (*IDENTITY, *PREDICTORS), rows.values())
    return path


def measured(studies: Sequence[Path], names: Sequence[str]) -> Callable[[Sequence[ArchSpec]], np.ndarray]:
    """From architectures to log10 of their predictors, (M, P), on the data of the studies' first run.

    They are means over the three seeds 0, 1 and 2, with the batch size of the first study's predictors.csv.
    """
    _, first = next(initial_networks(studies[0]))
    batch = int(_recorded(predictors_path(studies[0]))[0]["batch"])

    def measure(specs: Sequence[ArchSpec]) -> np.ndarray:
        found = []
        for spec in specs:
            starts = [replace(first, spec=spec, seed=seed).start(batch) for seed in range(_SEEDS)]
            values = [[PREDICTORS[name](start) or math.nan for name in names] for start in starts]
            found.append(np.log10(values).mean(axis=0))  # NaN or infinite where one is not defined
        return np.array(found).reshape(len(specs), len(names))

    return measure


def _cell(value: float | None) -> str:
    """A number with the digits that its definition is stable in; `none` where it is not defined."""
    return "none" if value is None or math.isnan(value) else f"{value:.8g}"


def _recorded(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        if list(reader.fieldnames or ()) != [*IDENTITY, *PREDICTORS]:
            raise invalid(FILE, str(path), f"a file with the columns {', '.join((*IDENTITY, *PREDICTORS))}")
        return list(reader)
