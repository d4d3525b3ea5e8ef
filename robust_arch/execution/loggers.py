"""The Lightning loggers of a run, built when it starts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robust_arch.configuration.nodes import instantiate
from robust_arch.errors import invalid
from robust_arch.execution.run import Run
from robust_arch.tracking.columns import run_name

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


def build_loggers(run: Run) -> dict[str, "Logger"]:
    """The loggers by name; `{run_dir}`, `{run_id}`, `{run_name}` and `{study}` in their settings are filled in.

    Raises:
        InputError: for one that cannot be built, for example because its package is missing.
    """
    groups = run.settings.loggers
    if not groups:
        return {}
    from pytorch_lightning.loggers import Logger  # imported here because it takes seconds

    values = {
        "{run_dir}": str(run.folder.path),
        "{run_id}": run.run_id,
        "{run_name}": run_name(run.facts),
        "{study}": run.settings.study,
    }
    found = {name: instantiate(_filled(group, values), f"logger.{name}") for name, group in groups.items()}
    for name, logger in found.items():
        if not isinstance(logger, Logger):
            raise invalid(f"logger.{name}._target_", groups[name]["_target_"], "a logger of pytorch_lightning")
    return found


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, str):
        for key, text in values.items():
            value = value.replace(key, text)
    return value
