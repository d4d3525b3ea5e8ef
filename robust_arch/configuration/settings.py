"""The settings of one run: Hydra's configuration in, checked objects out."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from robust_arch.architectures import AnyArch, ArchSpec, CustomArch
from robust_arch.architectures.custom import TARGET
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.attacks.base import require_inside
from robust_arch.common.identity import describe, short_hash
from robust_arch.configuration.evaluation import read_evaluation, read_threat
from robust_arch.configuration.nodes import built, instantiate, plain
from robust_arch.configuration.schema import require_accepted, require_known, require_types
from robust_arch.data import Dataset
from robust_arch.data.extra import ExtraData
from robust_arch.errors import (
    InputError,
    invalid,
    require_choice,
    require_flag,
    require_integer,
    require_keys,
    require_name,
)  # fmt: skip
from robust_arch.evaluation import EvaluationSettings
from robust_arch.objectives import Objective
from robust_arch.training.recipe import Recipe, require_equal_shares
from robust_arch.training.settings import TrainerSettings


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the best epoch is found: robust accuracy under `attack` on at most `images` held-out images."""

    images: int
    attack: Attack

    def __post_init__(self) -> None:
        require_integer("selection.images", self.images, 1)
        if not isinstance(self.attack, Attack):
            raise invalid("selection.attack", self.attack, "an attack")
        require_inside("selection.attack", self.attack)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything one run needs, as checked objects.

    Attributes:
        extra: Images that are mixed into the training batches, if any.
        logger: Names and settings of metrics.csv and wandb.
        loggers: Lightning loggers by name, each a group with a `_target_` that is built when the run starts.
        launcher: The launcher of the sweep that started it, for the record.
        planned: Whether a sweeper of this package started it, which rebuilds results.csv at its end.
        resolved: The configuration as plain data, for the record.
        command: The command of this run, for the record.
    """

    spec: AnyArch
    dataset: Dataset
    extra: ExtraData | None
    threat: ThreatModel
    objective: Objective
    recipe: Recipe
    selection: Selection
    trainer: TrainerSettings
    evaluation: EvaluationSettings
    seed: int
    study: str
    results_dir: Path
    rerun: bool
    retries: int
    stop_on_failure: bool
    launcher: str | None
    planned: bool
    logger: Mapping[str, Any]
    loggers: Mapping[str, Any]
    resolved: Mapping[str, Any]
    command: str

    @property
    def study_path(self) -> Path:
        """results/<study>."""
        return self.results_dir / self.study

    @property
    def recipe_label(self) -> str:
        """The recipe's label and, with extra data, that and its share of each batch: `huang2021+gen@0.5`."""
        extra = self.extra
        return self.recipe.label if extra is None else f"{self.recipe.label}+{extra.label}@{extra.fraction:g}"

    def run_id(self, training_fingerprint: str) -> str:
        """Hash of what determines the training; threads, accelerator, paths, launcher and loggers do not."""
        names = ("threat", "objective", "recipe", "selection")
        parts = {"arch": self.spec, **{name: getattr(self, name) for name in names}}
        identity = {key: describe(part, defaults=False) for key, part in parts.items()}
        del identity["recipe"]["epochs"]  # a default of trainer.max_epochs
        for key in ("limit_train_batches", "precision", "devices"):
            identity[key] = getattr(self.trainer, key)
        data: dict[str, Any] = {"name": self.dataset.name, "fingerprint": training_fingerprint}
        if self.extra is not None:  # its fingerprint is a part of the training fingerprint
            data["extra"] = {"name": self.extra.name, "fraction": self.extra.fraction}
        if callbacks := self.resolved["trainer"].get("callbacks"):  # any of them may change the training
            identity["callbacks"] = list(callbacks.values() if isinstance(callbacks, Mapping) else callbacks)
        return short_hash({**identity, "data": data, "epochs": self.trainer.max_epochs, "seed": self.seed})


def read_settings(cfg: DictConfig) -> Settings:
    """Check the whole configuration and build its objects; nothing is read from disk but attack files.

    Raises:
        InputError: naming the first key whose value is not allowed.
    """
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and hydra.job.chdir:
        raise invalid("hydra.job.chdir", True, "false: paths of a study are relative to where its command is given")
    require_known(cfg, "train")
    if hydra and hydra.mode == RunMode.RUN:
        _refuse_study_without_sweep(hydra)
    choices = hydra.runtime.choices if hydra and hydra.mode == RunMode.MULTIRUN else {}
    threat, spec = read_threat(cfg.threat), read_spec(cfg.arch)
    resolved = plain(cfg, "configuration")
    resolved.pop("search", None)
    logger, loggers = _read_loggers(cfg.logger)
    resolved["logger"] = {**logger, **loggers}
    objective = built(cfg.objective, "objective", Objective)
    require_name("objective.name", objective.name)
    trainer = built(cfg.trainer, "trainer", TrainerSettings)
    recipe, evaluation = built(cfg.recipe, "recipe", Recipe), read_evaluation(cfg.evaluate)
    if logger.get("images") and not evaluation.save_images:
        raise invalid("logger.images", logger["images"], "null, or evaluate.save_images=true beside it")
    require_equal_shares(recipe, trainer.devices)
    recipe.require_fits(objective.for_network(spec), trainer.max_epochs)
    try:  # the optimizer's own checks, of rates and the like, come before any work
        recipe.optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe.optimizer: {error}") from None
    return Settings(
        spec=spec,
        dataset=built(cfg.data, "data", Dataset),
        extra=None if cfg.extra is None else built(cfg.extra, "extra", ExtraData),
        threat=threat,
        objective=objective,
        recipe=recipe,
        selection=Selection(images=cfg.selection.images, attack=instantiate(cfg.selection.attack, "selection.attack")),
        trainer=trainer,
        evaluation=evaluation,
        seed=read_integer(cfg, "seed"),
        study=read_study_name(cfg),
        results_dir=read_results_dir(cfg),
        rerun=read_flag(cfg, "rerun"),
        retries=read_integer(cfg, "study.retries"),
        stop_on_failure=read_flag(cfg, "study.stop_on_failure"),
        launcher=choices.get("hydra/launcher"),
        planned=choices.get("hydra/sweeper") in ("budget", "halving"),
        logger=logger,
        loggers=loggers,
        resolved=resolved,
        command=job_command("robust_arch.train"),
    )


def _refuse_study_without_sweep(hydra: Any) -> None:
    """Raise InputError if a study is named without `-m`: it would train its template alone, into its folder."""
    study = hydra.runtime.choices.get("study")
    # the recorded command of one run of a study names its architecture as well
    member = any(
        item.startswith(("arch.depths=", "arch._target_=", "search.allocation.")) for item in hydra.overrides.task
    )
    if study not in (None, "null") and not member:
        raise InputError(
            f"study = {study!r}: a study is a sweep; run the command with -m (python -m robust_arch.train -m ...)"
        )


def study_command(hydra: DictConfig, overrides: Sequence[str]) -> str:
    """The shell command that runs the study of these overrides; hydra: the group of the sweep's configuration."""
    return shlex.join(["python", "-m", "robust_arch.train", "-m", *_config_dir(hydra), *overrides])


def job_command(module: str) -> str:
    """The shell command that runs this process's Hydra job again; module: the command's module."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    return shlex.join(["python", "-m", module, *([*_config_dir(hydra), *hydra.overrides.task] if hydra else [])])


def _config_dir(hydra: Any) -> list[str]:
    """`--config-dir` of the command line, relative to where the command was given if it is inside."""
    start, words = Path(hydra.runtime.cwd), []
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            folder = Path(source.path)
            words += ["--config-dir", str(folder.relative_to(start) if folder.is_relative_to(start) else folder)]
    return words


def read_spec(node: DictConfig) -> AnyArch:
    """The group `arch`; null stands for the default of a field of `ArchSpec` that has one."""
    content = plain(node, "arch")
    if TARGET in content:
        return read_custom(content)
    optional = {each.name for each in fields(ArchSpec) if each.default is not MISSING}
    return ArchSpec.from_dict(
        {key: value for key, value in content.items() if value is not None or key not in optional}
    )


def read_custom(content: Mapping[str, Any]) -> CustomArch:
    """The network of the user's own in the group `arch`; its module is imported.

    Null values of fields of `ArchSpec` are left out: they are in `conf`.
    """
    names = {each.name for each in fields(ArchSpec)}
    values = {key: value for key, value in content.items() if value is not None or key not in names}
    require_accepted(values, "arch")
    require_types(values, "arch")
    return CustomArch.from_dict(values)


def custom_from(words: Sequence[str]) -> CustomArch:
    """The network of the user's own that overrides like `arch._target_=my_package.MyNet` name, and nothing else."""
    content = plain(OmegaConf.from_dotlist(list(words)), "arch")
    if set(content) != {"arch"} or not isinstance(content["arch"], dict) or TARGET not in content["arch"]:
        raise invalid(
            "arch", " ".join(words), "a network of your own, like arch._target_=my_package.MyNet arch.width=32"
        )
    return read_custom(content["arch"])


def read_study_name(cfg: DictConfig) -> str:
    """The study's folder name."""
    require_name("study.name", cfg.study.name)
    name = str(cfg.study.name)
    if "/" in name or "\\" in name or name.startswith("."):
        raise invalid("study.name", name, "the name of a folder inside results_dir, without a slash or a leading dot")
    return name


def read_results_dir(cfg: DictConfig) -> Path:
    """`results_dir`."""
    folder = cfg.results_dir
    if not isinstance(folder, str) or not folder.strip() or not folder.isprintable():
        raise invalid("results_dir", folder, "the path of a folder")
    return Path(folder).expanduser()


def read_integer(cfg: DictConfig, key: str) -> int:
    """A key whose value is an integer of at least 0."""
    value: Any = OmegaConf.select(cfg, key)
    require_integer(key, value, 0)
    return int(value)


def read_flag(cfg: DictConfig, key: str) -> bool:
    """A key whose value is true or false."""
    value = OmegaConf.select(cfg, key)
    require_flag(key, value)
    return bool(value)


def _read_loggers(node: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group `logger`: the settings of metrics.csv and wandb, and Lightning loggers by name, not built yet.

    Hydra merges the files of `logger=[csv,tensorboard]`, each of which has keys of its own.
    """
    content = plain(node, "logger")
    loggers = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    for key, group in loggers.items():
        if TARGET not in group:
            raise invalid(f"logger.{key}", group, "a group of keys with a _target_")
    require_accepted(loggers, "logger")
    require_types(loggers, "logger")
    logger = {key: value for key, value in content.items() if key not in loggers}
    if loggers and not logger:
        logger = {"name": "csv"}
    if logger.get("name") == "csv" and logger.keys() >= {"mode", "project"}:  # logger=[wandb,csv]
        logger["name"] = "wandb"
    require_choice("logger.name", logger.get("name"), ("wandb", "csv"))
    required = ("name", "mode", "project") if logger["name"] == "wandb" else ("name",)
    optional = ("images",) if logger["name"] == "wandb" else ()
    require_keys(logger, "logger", (*required, *optional), required)
    if logger["name"] == "wandb":
        require_name("logger.project", logger["project"])
        require_choice("logger.mode", logger["mode"], ("offline", "online"))
        require_integer("logger.images", logger.get("images"), 1, optional=True)
    return logger, loggers
