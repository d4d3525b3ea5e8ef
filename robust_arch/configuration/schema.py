"""Which keys a configuration may have, and of what type their values are: read from signatures and from `conf`.

Hydra accepts any key that a YAML or a `+` on the command line adds, and passes values of any type on.
"""

import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from robust_arch.common.annotations import fits, is_plain_of
from robust_arch.common.paths import conf_dir
from robust_arch.errors import InputError, invalid, require_flag, require_keys

_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


def require_accepted(node: Any, key: str) -> None:
    """Check the keys of a group that Hydra will build, and of those inside, against the signature of its `_target_`.

    node: plain data.

    Raises:
        InputError: for a target that cannot be found, and for a key that it does not take or lacks.
    """
    for place, group in _groups(node, key):
        parameters = inspect.signature(_target(group, place)).parameters
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            continue
        positional = bool(group.get("_partial_")) or "_args_" in group
        required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
        require_keys(_own(group), place, parameters, () if positional else required)


def require_types(node: Any, key: str) -> None:
    """Raise InputError for a value in a group, or one inside, of another type than in the signature.

    node: plain data, whose keys are accepted.
    """
    for place, group in _groups(node, key):
        hints = _hints(_target(group, place))
        for name, value in _own(group).items():
            is_label = name == "name" and is_plain_of(value, int)  # YAML reads the label 2024 as a number
            if name in hints and not is_label and not fits(value, hints[name], _fits_one):
                raise invalid(f"{place}.{name}", value, _described(hints[name]))


def _own(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _HYDRA_KEYS}


def _groups(value: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every group with a `_target_` in `value`, with its key; the innermost first, so that its fault is named."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _groups(inner, f"{key}.{name}")
        if "_target_" in value:
            yield key, value
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _groups(inner, f"{key}[{position}]")


def _target(node: Mapping[str, Any], key: str) -> Any:
    """The class or function that a group names."""
    for flag in ("_partial_", "_recursive_"):
        require_flag(f"{key}.{flag}", node.get(flag, False))
    try:
        target = hydra.utils.get_object(node["_target_"])
        inspect.signature(target)
    except Exception as error:  # importing what a user names may raise anything
        raise invalid(f"{key}._target_", node["_target_"], f"a class or function ({one_line(error)})") from None
    return target


def _hints(target: Any) -> dict[str, Any]:
    """Types of the parameters, as far as they are annotated with what can be found."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # an annotation names what is not there when the program runs
        return {}


def _fits_one(value: Any, annotation: Any) -> bool:
    """Whether a value fits an annotation that is no collection or union."""
    if isinstance(value, Mapping) and "_target_" in value:  # checked by itself; its type is known once it is built
        return annotation not in _PLAIN
    if annotation in (str, Path):
        return isinstance(value, str)
    if annotation in _PLAIN:
        return is_plain_of(value, annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    # plain data is no object of any other class
    return not inspect.isclass(origin or annotation) or annotation is object


_PLAIN: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text, like a name",
    Path: "a path",
    type(None): "null",
}


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_described, arguments)))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"a group of keys, each {_described(arguments[1])}" if arguments else "a group of keys"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a list, each {_described(arguments[0])}" if arguments else "a list"
    return "a group of keys with a _target_"


@cache
def _of_file(name: str) -> dict[str, Any]:
    """The content of a file of `conf`."""
    content: dict[str, Any] = yaml.safe_load((conf_dir() / name).read_text(encoding="utf-8"))
    return content


@cache
def _known(config: str) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """The keys of conf/<config>.yaml, each with the keys of its group, and those of them that must be there.

    Groups with a `_target_` have no keys here, as `require_accepted` checks them; `arch` and `logger` are checked where
    they are read.
    """
    content = dict(_of_file(f"{config}.yaml"))
    chosen = {name: choice for each in content["defaults"] if isinstance(each, dict) for name, choice in each.items()}
    names = {name for name in {*content, *chosen} if " " not in name} - {"defaults", "hydra", "scale"}
    groups = {name: frozenset(content[name]) for name in names - {"arch"} if isinstance(content.get(name), dict)}
    for name in {"evaluate", "search"} & names:
        groups[name] = groups.get(name, frozenset()) | frozenset(_of_file(f"{name}/{chosen[name]}.yaml"))
    required = frozenset(name for name in names if name in content or chosen[name] is not None)
    return {name: groups.get(name, frozenset()) for name in names}, required


def require_known(cfg: DictConfig, config: str) -> None:
    """Raise InputError for a key that conf/<config>.yaml does not have, or lacks, at the top or in its groups."""
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    known, required = _known(config)
    require_keys(content, "", known, required)
    for name, keys in known.items():
        if keys:
            if not isinstance(content[name], dict):
                raise invalid(name, content[name], "a group of keys")
            require_keys(content[name], name, keys, keys)


def refused(error: Exception) -> InputError:
    """What Hydra or OmegaConf does not accept, as one line that names the key and what is allowed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
            place, _, name = str(cause.full_key).rpartition(".")
            try:
                require_keys([name], place, map(str, cause.parent_node))
            except InputError as found:
                return found
        cause = cause.__cause__
    return InputError(one_line(error).partition(" Config search path:")[0])


def one_line(error: BaseException) -> str:
    """The text of an error that is not ours, without line breaks and control characters."""
    return "".join(each for each in " ".join(str(error).split()) if each.isprintable())
