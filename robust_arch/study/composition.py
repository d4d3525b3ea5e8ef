"""How a study's configuration is composed: once as the command gives it, then once per combination of swept values."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from robust_arch.configuration.nodes import of_a_job


def sweep_configuration(overrides: Sequence[str]) -> tuple[DictConfig, ConfigLoader, list[str]]:
    """What Hydra hands to the sweeper of `python -m robust_arch.train -m <overrides>`: what `configurations` takes.

    Hydra must be initialised, as by `hydra.initialize_config_dir`.
    """
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration("train", [*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN, from_shell=False)
    arguments: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # each job resolves its own
    return config, loader, arguments


def configurations(
    config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]
) -> Iterator[tuple[DictConfig, list[str]]]:
    """One composed configuration of a job, with its overrides, per combination of swept values.

    `hydra.sweeper.params` holds the study's own overrides, as for Hydra's sweeper; an argument of the same key replaces
    its value.
    """
    own = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    for combination in combinations([*own, *arguments], loader):
        yield of_a_job(loader.load_sweep_config(config, combination)), combination


def combinations(arguments: Sequence[str], loader: ConfigLoader) -> list[list[str]]:
    """The overrides per combination of the values that the arguments sweep over, in the order of Hydra's sweeper."""
    values: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        key = override.get_key_element()
        swept = override.is_sweep_override()
        texts = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        values[key] = [f"{key}={text}" for text in texts]
    return [list(combination) for combination in itertools.product(*values.values())]
