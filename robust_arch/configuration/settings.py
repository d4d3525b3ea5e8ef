"""The edge: Hydra's configuration in, checked objects out. Nothing further inside reads a config."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from robust_arch.architectures import PRESETS, ArchSpec, ImageShape, cost
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.attacks.base import require_inside
from robust_arch.common.identity import describe, short_hash
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.schema import one_line, refused, require_accepted, require_known, require_types
from robust_arch.data import Dataset
from robust_arch.errors import InputError, invalid, require_flag, require_integer, require_keys, require_name
from robust_arch.evaluation import EvaluationSettings, NamedAttack
from robust_arch.evaluation.record import RESERVED_NAMES
from robust_arch.interop.normalisation import Request
from robust_arch.objectives import Objective
from robust_arch.search import Budget, Sample, Space, Tie, Vary
from robust_arch.training.fit import require_equal_shares
from robust_arch.training.recipe import Recipe
from robust_arch.training.settings import TrainerSettings

LOGGERS = ("wandb", "csv")
NORMALISATION_KEYS = ("normalize", "mean", "std")
"""Keys of `evaluate` that are of a checkpoint from elsewhere, and not of what is done with it."""


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
class Finalists:
    """After a sweep, the `top` runs by held-out robust accuracy are evaluated as `evaluation` says.

    overrides: what says the same on the command line.
    """

    top: int
    evaluation: EvaluationSettings
    overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything one run needs, as checked objects.

    resolved: the configuration as plain data; command: what does this run; launcher: what a sweep started it with; all
    for the record. planned: a sweeper of this package started it, which rebuilds results.csv at its end.
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

    def with_member(self, spec: ArchSpec, seed: int) -> "Settings":
        """The same question for another architecture and seed."""
        return replace(self, spec=spec, seed=seed)

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


def instantiate(node: Any, key: str) -> Any:
    """What a group names, built with its keys; whatever is wrong with it is one InputError that names the key.

    What is built checks its values; types are compared with the signature's where it does not.
    """
    content = plain(node, key)
    if "_target_" not in content:
        raise invalid(key, content, "a group of keys with a _target_")
    require_accepted(content, key)
    try:
        made = hydra.utils.instantiate(node, _convert_="all")
    except (InstantiationException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__cause__
        require_types(content, key)
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{key}: cannot be built from this configuration: {reason}") from error
    require_types(content, key)
    return made


def plain(node: Any, key: str) -> dict[str, Any]:
    """A resolved node; what is no mapping, and a missing or broken value, is an InputError that names it."""
    content = node
    if OmegaConf.is_config(node):
        try:
            content = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{getattr(error, 'full_key', None) or key}: {reason}") from None
    if not isinstance(content, dict):
        raise invalid(key, content, "a group of keys")
    return {str(name): value for name, value in content.items()}


def of_a_job(composed: DictConfig) -> DictConfig:
    """What a job gets of a composed configuration, changed in place; Hydra's own part is where jobs look for it."""
    HydraConfig.instance().set_config(composed)
    with read_write(composed), open_dict(composed):
        del composed["hydra"]
    return composed


def known_keys(content: Any, key: str, names: Iterable[str]) -> dict[str, Any]:
    """Plain data of the group `key`, whose keys must be these `names`; another one, and a missing one, is named."""
    if not isinstance(content, dict):
        raise invalid(key, content, "a group of keys")
    allowed = set(names)
    require_keys(content, key, allowed, allowed)
    return content


def search_group(cfg: DictConfig, name: str, names: Iterable[str]) -> dict[str, Any]:
    """The group `search.<name>` as plain data, with these keys."""
    return known_keys(plain(cfg.search[name], f"search.{name}"), f"search.{name}", names)


def field_names(kind: Any) -> set[str]:
    """The fields of a dataclass, which are the keys of the group that it is read from."""
    return {each.name for each in fields(kind)}


def read_spec(node: DictConfig) -> ArchSpec:
    """The group `arch`."""
    return ArchSpec.from_dict(plain(node, "arch"))


def read_threat(node: DictConfig) -> ThreatModel:
    """The group `threat`."""
    ThreatModel(node.norm, 0)  # an unknown norm has no usual radius: complain of the norm
    try:
        return ThreatModel(node.norm, node.eps)
    except OmegaConfBaseException:
        raise invalid("threat.eps", None, f"a radius, as this data set names none for {node.norm}") from None


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
    objective = _built(cfg.objective, "objective", Objective)
    require_name("objective.name", objective.name)
    trainer = _built(cfg.trainer, "trainer", TrainerSettings)
    recipe = _built(cfg.recipe, "recipe", Recipe)
    require_equal_shares(recipe, trainer.devices)
    _require_optimizer(recipe)
    return Settings(
        spec=spec,
        dataset=_built(cfg.data, "data", Dataset),
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
    if study not in (None, "null"):
        raise InputError(
            f"study = {study!r}: a study is a sweep; run the command with -m (python -m robust_arch.train -m ...)"
        )


def _built(node: Any, key: str, kind: Any) -> Any:
    """What a group names, which must be of one kind."""
    made = instantiate(node, key)
    if not isinstance(made, kind):
        raise invalid(f"{key}._target_", node["_target_"], f"the name of a {kind.__name__}")
    return made


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


def read_evaluation(node: Any) -> EvaluationSettings:
    """The group `evaluate`; each attack's YAML is looked up by name."""
    settings = plain(node, "evaluate")
    for key in NORMALISATION_KEYS:
        settings.pop(key, None)
    names, cascade = settings.pop("attacks"), settings.pop("cascade")
    checkpoints = settings.pop("checkpoints", ["best"])
    for key, values in (("attacks", names), ("cascade", cascade), ("checkpoints", checkpoints)):
        is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
        if not is_list or len(set(values)) != len(values):
            raise invalid(f"evaluate.{key}", values, "a list of different names")
    require_integer("evaluate.seed", settings["seed"], 0)
    return EvaluationSettings(
        attacks=tuple(read_attack(name) for name in names),
        cascade=tuple(read_attack(name, "cascade") for name in cascade),
        checkpoints=tuple(checkpoints),
        **settings,
    )


def read_normalisation(node: DictConfig) -> Request:
    """`evaluate.normalize`, `evaluate.mean` and `evaluate.std`."""
    settings = plain(node, "evaluate")
    normalize, mean, std = (settings.get(key) for key in NORMALISATION_KEYS)
    return Request(normalize, mean, std, ("evaluate.normalize", "evaluate.mean", "evaluate.std"))


def config_folders() -> list[Path]:
    """Where groups are looked up: --config-dir first, then this package's conf."""
    folders = []
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file" and source.path]
    return [*folders, conf_dir()]


def read_attack(name: str, key: str = "attacks") -> NamedAttack:
    """The attack of conf/attack/<name>.yaml, for `evaluate.<key>`."""
    files = {file.stem: file for folder in config_folders()[::-1] for file in (folder / "attack").glob("*.yaml")}
    if name not in files:
        raise invalid(f"evaluate.{key}", name, f"some of {', '.join(sorted(files))}")
    if name in RESERVED_NAMES:
        raise invalid(f"evaluate.{key}", name, f"another name: records use {', '.join(RESERVED_NAMES)} themselves")
    attack = instantiate(DictConfig(yaml.safe_load(files[name].read_text())), f"attack/{name}")
    if not isinstance(attack, Attack):
        raise InputError(f"{files[name]}: not an attack, but {type(attack).__name__}")
    require_inside(f"evaluate.{key}", attack)
    return NamedAttack(name, attack, describe(attack))


def read_budget(cfg: DictConfig, num_classes: int, image_shape: ImageShape) -> Budget:
    """The group `search.budget`; the word arch, or a preset's name, is what that network costs on this task."""
    budget = search_group(cfg, "budget", field_names(Budget))
    for resource in ("params", "macs"):
        named = budget[resource]
        if named == "arch" or (isinstance(named, str) and named in PRESETS):
            spec = read_spec(cfg.arch) if named == "arch" else PRESETS[named]
            budget[resource] = getattr(cost(spec, num_classes, image_shape), resource)
    return Budget(**budget)


def read_space(cfg: DictConfig) -> Space:
    """The group `search.space`, with `arch` as the template of everything but depths and widths.

    A space that says nothing is the one point `arch`, so that architectures can be swept over by name.
    """
    space = search_group(cfg, "space", field_names(Space) - {"template"})
    spec = read_spec(cfg.arch)
    tie, vary = (
        _optional(space.pop(name), f"search.space.{name}", kind) for name, kind in (("tie", Tie), ("vary", Vary))
    )
    if any(value not in (None, False) for value in vary.values()):
        return Space(template=spec, tie=Tie(**tie), vary=Vary(**vary), **space)
    if all(space[key] is None for key in ("depths", "widths", "shares")):
        depths, widths = (tuple((value,) for value in values) for values in (spec.depths, spec.widths))
        space |= {"depths": depths, "widths": widths}
    return Space(template=spec, tie=Tie(**tie), **space)


def _optional(content: Any, key: str, kind: Any) -> dict[str, Any]:
    """The keys of a group inside a group, which may be null."""
    return {} if content is None else known_keys(content, key, field_names(kind))


def read_sample(cfg: DictConfig) -> Sample:
    """`search.sample` and `search.sample_seed`."""
    return Sample(cfg.search.sample, cfg.search.sample_seed)


def read_seeds(cfg: DictConfig) -> tuple[int, ...]:
    """The axis `search.seeds`; without one, the key `seed`."""
    seeds = cfg.search.seeds
    if seeds is None:
        return (read_seed(cfg),)
    listed = OmegaConf.to_container(seeds) if OmegaConf.is_list(seeds) else None
    if not isinstance(listed, list) or not listed or len({str(seed) for seed in listed}) != len(listed):
        raise invalid("search.seeds", listed or seeds, "a list of different integers, like [0,1,2]")
    for seed in listed:
        require_integer("search.seeds", seed, 0)
    return tuple(listed)


def read_finalists(cfg: DictConfig) -> Finalists | None:
    """`study.finalists`, or None."""
    if cfg.study.finalists is None:
        return None
    wanted = plain(cfg.study.finalists, "study.finalists")
    allowed = {str(key) for key in cfg.evaluate} - {"checkpoints"}
    require_keys(wanted, "study.finalists", allowed | {"top"}, ("top", "attacks", "n"))
    top = wanted.pop("top")
    require_integer("study.finalists.top", top, 1)
    evaluation = {**wanted, "checkpoints": ["best"]}
    return Finalists(
        top=top,
        evaluation=read_evaluation({**plain(cfg.evaluate, "evaluate"), **evaluation}),
        overrides=tuple(as_override(f"evaluate.{key}", value) for key, value in evaluation.items()),
    )


def as_override(key: str, value: Any) -> str:
    """A Hydra override of plain data, like `arch.depths=[2,2,2]`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{key}=[{','.join(map(str, value))}]"
    return f"{key}={'null' if value is None else value}"


def training_statistics(data: str, root: str | None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of the training images of a data set.

    data: a choice of the group `data`. root: its folder, None for the usual one.
    """
    overrides = [f"data={data}"] if root is None else [f"data={data}", f"data.root={json.dumps(root)}"]
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra.compose("evaluate", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise refused(error) from None
    dataset: Dataset = instantiate(cfg.data, "data")
    return dataset.load().train.channel_statistics()
