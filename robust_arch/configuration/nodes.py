"""Groups of a Hydra configuration as plain data, and the objects built from them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.schema import one_line, refused, require_accepted, require_types
from robust_arch.data import Dataset
from robust_arch.errors import InputError, invalid, require_keys


def instantiate(node: Any, key: str) -> Any:
    """Build the object that a group describes; any fault in the group is an InputError that names the key.

    The object checks its own values; types are compared with its signature.
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
    """A resolved node; InputError names a value that is missing or cannot be resolved, or a node that is no mapping."""
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
    """Move Hydra's own part of a composed configuration to HydraConfig, as in a job; changes `composed` in place."""
    HydraConfig.instance().set_config(composed)
    with read_write(composed), open_dict(composed):
        del composed["hydra"]
    return composed


def known_keys(content: Any, key: str, names: Iterable[str]) -> dict[str, Any]:
    """`content`, if it is a group with exactly these keys; InputError names an unknown or missing key."""
    if not isinstance(content, dict):
        raise invalid(key, content, "a group of keys")
    allowed = set(names)
    require_keys(content, key, allowed, allowed)
    return content


def field_names(kind: Any) -> set[str]:
    """The fields of a dataclass, which are the keys of its group."""
    return {each.name for each in fields(kind)}


def built(node: Any, key: str, kind: Any) -> Any:
    """Build the object that a group describes, which must be an instance of `kind`."""
    made = instantiate(node, key)
    if not isinstance(made, kind):
        raise invalid(f"{key}._target_", node["_target_"], f"the name of a {kind.__name__}")
    return made


def config_folders() -> list[Path]:
    """The folders of groups: --config-dir first, then this package's conf."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    return [*(Path(source.path) for source in sources if source.schema == "file" and source.path), conf_dir()]


def as_override(key: str, value: Any) -> str:
    """A Hydra override of plain data, like `arch.depths=[2,2,2]`."""
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{key}=[{','.join(map(str, value))}]"
    return f"{key}={'null' if value is None else value}"


def training_statistics(data: str, root: str | None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of a data set's training images.

    data: a choice of the group `data`. root: its folder, None for the usual one.
    """
    overrides = [f"data={data}"] if root is None else [f"data={data}", f"data.root={json.dumps(root)}"]
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra.compose("evaluate", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise refused(error) from None
    dataset: Dataset = built(cfg.data, "data", Dataset)
    return dataset.load().train.channel_statistics()
