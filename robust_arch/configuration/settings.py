"""The edge: Hydra's configuration in, checked objects out. Nothing further inside reads a config."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from robust_arch.architectures import ArchSpec
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.attacks.base import require_inside
from robust_arch.common.identity import describe, short_hash
from robust_arch.configuration.evaluation import read_evaluation, read_threat
from robust_arch.configuration.nodes import built, instantiate, known_keys, plain
from robust_arch.configuration.schema import require_known
from robust_arch.data import Dataset
from robust_arch.errors import InputError, invalid, require_flag, require_integer, require_name
from robust_arch.evaluation import EvaluationSettings
from robust_arch.objectives import Objective
from robust_arch.training.fit import require_equal_shares
from robust_arch.training.recipe import Recipe
from robust_arch.training.settings import TrainerSettings

LOGGERS = ("wandb", "csv")


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
        resolved: The configuration as plain data, for the record.
        command: The command of this run, for the record.
        launcher: The launcher of the sweep that started it, for the record.
        planned: Whether a sweeper of this package started it, which rebuilds results.csv at its end.
    """

    spec: ArchSpec
    dataset: Dataset
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
    resolved: Mapping[str, Any]
    command: str

    @property
    def study_path(self) -> Path:
        """results/<study>."""
        return self.results_dir / self.study

    def run_id(self, training_fingerprint: str) -> str:
        """Hash of what determines the training; threads, accelerator, paths, launcher and logger do not."""
        identity = partial(describe, defaults=False)
        recipe = {key: value for key, value in identity(self.recipe).items() if key != "epochs"}
        dataset = {"name": self.dataset.name, "fingerprint": training_fingerprint}
        return short_hash(
            {
                "arch": identity(self.spec),
                "data": dataset,
                "threat": identity(self.threat),
                "objective": identity(self.objective),
                "recipe": recipe,
                "selection": identity(self.selection),
                "epochs": self.trainer.max_epochs,
                "limit_train_batches": self.trainer.limit_train_batches,
                "precision": self.trainer.precision,
                "devices": self.trainer.devices,
                "seed": self.seed,
            }
        )


def read_spec(node: DictConfig) -> ArchSpec:
    """The group `arch`."""
    return ArchSpec.from_dict(plain(node, "arch"))


def read_settings(cfg: DictConfig) -> Settings:
    """Check the whole configuration and build its objects; nothing is read from disk but attack files.

    Raises:
        InputError: naming the first key whose value is not allowed.
    """
    if HydraConfig.initialized() and HydraConfig.get().job.chdir:
        raise invalid("hydra.job.chdir", True, "false: paths of a study are relative to where its command is given")
    require_known(cfg, "train")
    _refuse_study_without_sweep()
    threat = read_threat(cfg.threat)
    spec = read_spec(cfg.arch)
    resolved = plain(cfg, "configuration")
    resolved.pop("search", None)
    objective = built(cfg.objective, "objective", Objective)
    require_name("objective.name", objective.name)
    trainer = built(cfg.trainer, "trainer", TrainerSettings)
    recipe = built(cfg.recipe, "recipe", Recipe)
    require_equal_shares(recipe, trainer.devices)
    _require_optimizer(recipe)
    return Settings(
        spec=spec,
        dataset=built(cfg.data, "data", Dataset),
        threat=threat,
        objective=objective,
        recipe=recipe,
        selection=Selection(images=cfg.selection.images, attack=instantiate(cfg.selection.attack, "selection.attack")),
        trainer=trainer,
        evaluation=read_evaluation(cfg.evaluate),
        seed=read_seed(cfg),
        study=read_study_name(cfg),
        results_dir=read_results_dir(cfg),
        rerun=read_rerun(cfg),
        retries=read_retries(cfg),
        stop_on_failure=read_stop_on_failure(cfg),
        launcher=_choice("hydra/launcher"),
        planned=_choice("hydra/sweeper") in ("budget", "halving"),
        logger=read_logger(cfg.logger),
        resolved=resolved,
        command=_train_command_of_job(),
    )


def _refuse_study_without_sweep() -> None:
    """Raise InputError where a study is named without `-m`: it would train its template alone, into its folder."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.RUN:
        return
    study = HydraConfig.get().runtime.choices.get("study")
    # the recorded command of one run of a study names its architecture as well
    member = any(item.startswith(("arch.depths=", "search.allocation.")) for item in HydraConfig.get().overrides.task)
    if study not in (None, "null") and not member:
        raise InputError(
            f"study = {study!r}: a study is a sweep; run the command with -m (python -m robust_arch.train -m ...)"
        )


def _require_optimizer(recipe: Recipe) -> None:
    """Build the optimizer once for nothing: its own checks of rates and the like come before any work."""
    try:
        recipe.optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe.optimizer: {error}") from None


def study_command(hydra: DictConfig, overrides: Sequence[str]) -> str:
    """The shell command that runs the study of these overrides; hydra: the group of the sweep's configuration."""
    return shlex.join(["python", "-m", "robust_arch.train", "-m", *_config_dir(hydra), *overrides])


def _train_command_of_job() -> str:
    command = ["python", "-m", "robust_arch.train"]
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        command += [*_config_dir(hydra), *hydra.overrides.task]
    return shlex.join(command)


def evaluate_command() -> str:
    """The shell command that evaluates as this process does."""
    hydra = HydraConfig.get()
    return shlex.join(["python", "-m", "robust_arch.evaluate", *_config_dir(hydra), *hydra.overrides.task])


def _config_dir(hydra: Any) -> list[str]:
    """`--config-dir` as the command line had it, relative to where the command was given if it is inside."""
    given = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == "command-line"]
    start = Path(hydra.runtime.cwd)
    return [
        word
        for folder in given
        for word in ("--config-dir", str(folder.relative_to(start) if folder.is_relative_to(start) else folder))
    ]


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


def read_seed(cfg: DictConfig) -> int:
    """`seed`."""
    require_integer("seed", cfg.seed, 0)
    return int(cfg.seed)


def read_rerun(cfg: DictConfig) -> bool:
    """Whether what is recorded is done again."""
    require_flag("rerun", cfg.rerun)
    return bool(cfg.rerun)


def read_stop_on_failure(cfg: DictConfig) -> bool:
    """`study.stop_on_failure`."""
    require_flag("study.stop_on_failure", cfg.study.stop_on_failure)
    return bool(cfg.study.stop_on_failure)


def read_retries(cfg: DictConfig) -> int:
    """`study.retries`."""
    require_integer("study.retries", cfg.study.retries, 0)
    return int(cfg.study.retries)


def _choice(group: str) -> str | None:
    """In a sweep, what was chosen for a group of Hydra's own, like its launcher."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return str(HydraConfig.get().runtime.choices[group])


def read_logger(node: DictConfig) -> dict[str, Any]:
    """The group `logger`."""
    logger = plain(node, "logger")
    if logger.get("name") not in LOGGERS:
        raise invalid("logger.name", logger.get("name"), f"one of {', '.join(LOGGERS)}")
    keys = ("name", "mode", "project") if logger["name"] == "wandb" else ("name",)
    known_keys(logger, "logger", keys)
    if logger["name"] == "wandb":
        require_name("logger.project", logger["project"])
        if logger["mode"] not in ("offline", "online"):
            raise invalid("logger.mode", logger["mode"], "offline or online")
    return logger
