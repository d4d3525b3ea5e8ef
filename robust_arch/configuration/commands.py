"""What the two Hydra commands share: composition, and one line for what Hydra does not accept."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.schema import refused
from robust_arch.errors import InputError, RunNotCompletedError, invalid

_TAKE_A_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
FLAGS = {"--stop-on-failure": "study.stop_on_failure=true"}
"""Flags of the command, and the overrides that they abbreviate."""


def require_one_study(words: Sequence[str]) -> None:
    """Raise InputError if a command sweeps over studies: each has its own sweeper, plan and folder."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in ("study", "study.name") and OverridesParser.create().parse_override(word).is_sweep_override():
            raise invalid(key, value, "one study per command")


def with_own_network(words: Sequence[str]) -> list[str]:
    """The words of a command; with `arch._target_=...` they select `arch=custom`, and any `arch.<key>` is accepted."""
    target = "arch._target_="
    if not any(word.startswith(target) for word in words):
        return list(words)
    group = [] if any(word.startswith("arch=") for word in words) else ["arch=custom"]
    arguments = {word for word in words if word.startswith("arch.") and not word.startswith(target)}
    return [*group, *(f"++{word}" if word in arguments else word for word in words)]


def overrides_last(words: Sequence[str]) -> list[str]:
    """The words of a command with its overrides after its options, as Hydra's parser needs them."""

    def is_override(position: int) -> bool:
        word, before = words[position], words[position - 1] if position else ""
        return not word.startswith("-") and ("=" in word or word.startswith("~")) and before not in _TAKE_A_VALUE

    return [words[position] for position in sorted(range(len(words)), key=is_override)]


def run_job(job: Callable[[DictConfig], Any], config: str) -> None:
    """Compose conf/<config>.yaml with the command line's overrides, and run `job`, or with `-m` the sweep, on it.

    Raises:
        SystemExit: with status 1 and one line for what Hydra, or a job of its own sweepers, does not accept.
    """
    sys.argv[1:] = overrides_last(with_own_network(sys.argv[1:]))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing a traceback of its own
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {refused(error)}")
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    except RunNotCompletedError:
        sys.exit(1)
