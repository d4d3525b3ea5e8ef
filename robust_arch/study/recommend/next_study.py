"""The study that tests a recommendation, as a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from robust_arch.analysis.formatting import counted
from robust_arch.common.files import write_text
from robust_arch.common.paths import conf_dir
from robust_arch.errors import invalid
from robust_arch.runs import StudyFolder
from robust_arch.study.recommend.recommendation import Recommendation

_TRAINER = ("precision", "devices", "limit_train_batches")
"""Keys of `trainer` that are part of a run's identity and no column of results.csv."""


def study_file(path: Path) -> Path:
    """Where Hydra finds a study named like `path`: in a folder named study, which is made beside it if need be.

    Raises:
        InputError: for another ending than .yaml, or the name of a study of this package.
    """
    if path.suffix != ".yaml" or not path.stem or path.stem.startswith("."):
        raise invalid("--write-study", str(path), "a file that ends in .yaml, like next.yaml")
    if (conf_dir() / "study" / path.name).is_file():
        raise invalid("--write-study", str(path), "another name: the project has a study of this one")
    return path if path.resolve().parent.name == "study" else path.parent / "study" / path.name


def command(path: Path) -> str:
    """The command that runs the study of a file; with `robust-arch plan` its arguments show the plan."""
    return f"python -m robust_arch.train -m --config-dir {quote(str(path.parent.parent))} study={path.stem}"


def recorded_config(found: Recommendation, studies: Sequence[Path]) -> dict[str, Any]:
    """The configuration of a run of the reference site; empty where only results.csv is recorded."""
    for study in studies:
        for run in StudyFolder(study).runs():
            facts = run.read().facts
            name = facts.study if facts else None
            if name == found.observations.sites[found.observations.reference][0] and run.recorded_config:
                return run.recorded_config
    return {}


def write_study(found: Recommendation, path: Path, seeds: int, recorded: Mapping[str, Any]) -> list[str]:
    """Write the study of the proposals and the rules at their recorded condition.

    Args:
        found: the recommendation.
        path: of the file, in a folder named study.
        seeds: number of seeds, 0, 1, ...
        recorded: the configuration of a run at that condition, from which come settings that results.csv has not.

    Returns:
        What of the condition no configuration file sets, in words.

    Raises:
        InputError: if the file exists with other content.
    """
    content, unknown = _content(found, path, seeds, recorded)
    text = "\n".join(
        [*_head(found, path, unknown), yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)]
    )
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise invalid("--write-study", str(path), "a file that does not exist, or one with this study")
    write_text(path, text)
    return unknown


def _content(
    found: Recommendation, path: Path, seeds: int, recorded: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    condition = found.observations.condition
    _, recipe, epochs, _ = found.observations.sites[found.observations.reference]
    wanted = {"data": condition["data"], "objective": condition["objective"], "recipe": recipe}
    defaults: list[Any] = [{"override /hydra/sweeper": "budget"}]
    unknown = []
    folders = (path.parent.parent, conf_dir())
    target = _group(recorded, "data").get("_target_")
    for group, name in wanted.items():
        by_target = target if group == "data" else None
        choice = next((each for folder in folders if (each := _choice(folder / group, name, by_target))), None)
        if choice is None:
            unknown.append(f"{group} {name}")
        else:
            defaults.append({f"override /{group}": choice})
    content: dict[str, Any] = {"defaults": defaults}
    template = found.observations.specs[0].to_dict()
    content["arch"] = {key: value for key, value in template.items() if key not in ("depths", "widths")}
    content["arch"] |= {name: list(getattr(found.entries[0].spec, name)) for name in ("depths", "widths")}
    norm, _, eps = condition["train_threat"].partition("-")
    content["threat"] = {"norm": norm, "eps": eps if "/" in eps else float(eps)}
    content["trainer"] = {"max_epochs": int(epochs)} if epochs.isdigit() else {}
    trainer = _group(recorded, "trainer")
    content["trainer"] |= {key: trainer[key] for key in _TRAINER if key in trainer}
    if "precision" not in trainer:
        unknown.append("trainer.precision")
    if target:
        content["data"] = {key: value for key, value in _group(recorded, "data").items() if key != "_target_"}
    if images := _group(recorded, "selection").get("images"):
        content["selection"] = {"images": images}
    attacks = condition["attacks"].split(" + ")
    known = [name for name in attacks if any((folder / "attack" / f"{name}.yaml").is_file() for folder in folders)]
    unknown += [f"attack {name}" for name in attacks if name not in known]
    if known:
        content["evaluate"] = {"attacks": known}
    budget = {name: getattr(found.budget, name) for name in ("params", "macs", "tolerance")}
    content["search"] = {
        "space": {"architectures": _architectures(found)},
        "budget": budget,
        "seeds": list(range(seeds)),
    }
    return content, unknown


def _group(recorded: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = recorded.get(name)
    return group if isinstance(group, Mapping) else {}


def _choice(group: Path, name: str, target: str | None) -> str | None:
    """The file of a group whose content has this name in the records, or else builds this class."""
    targets: dict[object, str] = {}
    for file in sorted(group.glob("*.yaml")):
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(read, Mapping):
            content = _group(read, group.name) or read
            if str(content.get("name") or file.stem) == name:
                return file.stem
            targets.setdefault(content.get("_target_"), file.stem)
    return targets.get(target) if target else None


def _architectures(found: Recommendation) -> list[dict[str, list[int]]]:
    distinct = dict.fromkeys(entry.spec for entry in found.entries)
    return [{"depths": list(spec.depths), "widths": list(spec.widths)} for spec in distinct]


def _head(found: Recommendation, path: Path, unknown: list[str]) -> Iterator[str]:
    yield "# @package _global_"
    yield "# Are the networks that robust-arch recommend proposes more robust than those of published rules?"
    yield f"# Command:  {command(path)}"
    yield f"# Budget:   {found.budget}"
    yield f"# Intervals: 95%, for the mean of {counted(found.seeds, 'new run')}"
    for entry in found.entries:
        value = entry.of_runs
        yield (
            f"# Predicts: {entry.kind} {entry.name}: {entry.spec.depths_text}, {entry.spec.widths_text}: "
            f"{value.value:.1f} [{value.low:.1f}, {value.high:.1f}]{' (extrapolated)' if entry.extrapolates else ''}"
        )
    for each in unknown:
        yield f"# Unknown:  {each} is not set here: the default is used unless the command sets it"
