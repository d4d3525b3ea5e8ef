"""The groups `threat`, `evaluate` and `study.finalists`: what is evaluated, and how."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.attacks.base import require_inside
from robust_arch.common.identity import describe
from robust_arch.configuration.nodes import built, config_folders, instantiate, plain
from robust_arch.data import Dataset
from robust_arch.errors import InputError, invalid, require_integer, require_keys
from robust_arch.evaluation import EvaluationSettings, NamedAttack
from robust_arch.interop.normalisation import Request
from robust_arch.runs.records import RESERVED_NAMES

NORMALISATION_KEYS = ("normalize", "mean", "std")
"""Keys of `evaluate` about a checkpoint from elsewhere, and not about its evaluation."""


@dataclass(frozen=True, kw_only=True)
class Finalists:
    """After a sweep, the `top` runs by held-out robust accuracy are evaluated with `evaluation`."""

    top: int
    evaluation: EvaluationSettings


def read_threat(node: DictConfig) -> ThreatModel:
    """The group `threat`."""
    ThreatModel(node.norm, 0)  # an unknown norm has no usual radius: the error names the norm
    try:
        return ThreatModel(node.norm, node.eps)
    except OmegaConfBaseException:
        raise invalid("threat.eps", None, f"a radius, as this data set names none for {node.norm}") from None


def read_evaluation(node: Any) -> EvaluationSettings:
    """The group `evaluate`; each attack's YAML file is found by name."""
    settings = {key: value for key, value in plain(node, "evaluate").items() if key not in NORMALISATION_KEYS}
    lists = {"attacks": settings.pop("attacks"), "cascade": settings.pop("cascade")}
    lists["checkpoints"] = settings.pop("checkpoints", ["best"])
    weights = settings.pop("weights", None)
    lists["weights"] = [weights] if isinstance(weights, str) else weights or []
    for key, values in lists.items():
        is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
        if not is_list or len(set(values)) != len(values):
            raise invalid(f"evaluate.{key}", values, "a list of different names")
    require_integer("evaluate.seed", settings["seed"], 0)
    return EvaluationSettings(
        attacks=tuple(read_attack(name) for name in lists["attacks"]),
        cascade=tuple(read_attack(name, "cascade") for name in lists["cascade"]),
        checkpoints=tuple(lists["checkpoints"]),
        weights=None if weights is None else tuple(lists["weights"]),
        **settings,
    )


def evaluation_keys(settings: EvaluationSettings) -> dict[str, Any]:
    """The values of the group `evaluate` that `read_evaluation` turns into these settings, by key like `evaluate.n`."""
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    names = {key: [named.name for named in values[key]] for key in ("attacks", "cascade")}
    return {f"evaluate.{key}": value for key, value in {**values, **names}.items()}


def read_attack(name: str, key: str = "attacks") -> NamedAttack:
    """The attack of conf/attack/<name>.yaml, for `evaluate.<key>`."""
    file = _file("attack", name, f"evaluate.{key}")
    attack = instantiate(DictConfig(yaml.safe_load(file.read_text())), f"attack/{name}")
    if not isinstance(attack, Attack):
        raise InputError(f"{file}: not an attack, but {type(attack).__name__}")
    return named_attack(name, attack, f"evaluate.{key}")


def named_attack(name: str, attack: Attack, key: str) -> NamedAttack:
    """The attack under a name that records can use; errors name `key`."""
    if name in RESERVED_NAMES:
        raise invalid(key, name, f"another name: records use {', '.join(RESERVED_NAMES)} themselves")
    require_inside(key, attack)
    return NamedAttack(name, attack, describe(attack))


def attack_names() -> list[str]:
    """The attacks that have a file."""
    return sorted(_files("attack"))


def read_dataset(name: str) -> Dataset:
    """The data set of conf/data/<name>.yaml, with its default settings."""
    content = yaml.safe_load(_file("data", name, "data").read_text())
    dataset: Dataset = built(
        DictConfig(content.get("data", content)), "data", Dataset
    )  # some files set other groups too
    return dataset


def _files(group: str) -> dict[str, Path]:
    """The YAML files of a group by name; those of --config-dir replace this package's."""
    return {file.stem: file for folder in config_folders()[::-1] for file in (folder / group).glob("*.yaml")}


def _file(group: str, name: str, key: str) -> Path:
    files = _files(group)
    if name not in files:
        raise invalid(key, name, f"some of {', '.join(sorted(files))}")
    return files[name]


def read_finalists(cfg: DictConfig) -> Finalists | None:
    """`study.finalists`, or None."""
    if cfg.study.finalists is None:
        return None
    wanted = plain(cfg.study.finalists, "study.finalists")
    allowed = {str(key) for key in cfg.evaluate} - {"checkpoints"}
    require_keys(wanted, "study.finalists", allowed | {"top"}, ("top", "attacks", "n"))
    top = wanted.pop("top")
    require_integer("study.finalists.top", top, 1)
    return Finalists(
        top=top, evaluation=read_evaluation({**plain(cfg.evaluate, "evaluate"), **wanted, "checkpoints": ["best"]})
    )


def read_normalisation(node: DictConfig) -> Request:
    """`evaluate.normalize`, `evaluate.mean` and `evaluate.std`."""
    settings = plain(node, "evaluate")
    normalize, mean, std = (settings.get(key) for key in NORMALISATION_KEYS)
    return Request(normalize, mean, std, ("evaluate.normalize", "evaluate.mean", "evaluate.std"))
