"""The keys that a configuration may have and the types of their values, read from signatures and from `conf`.

Hydra itself accepts any key that a YAML file or a `+` on the command line adds, and values of any type.
"""

import inspect
import logging
import sys
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

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs each error that it also raises
_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


def require_accepted(node: Any, key: str) -> None:
    """Check the keys of a group that Hydra will build, and of groups inside it, against the signature of `_target_`.

    node: plain data.

    Raises:
        InputError: for a target that cannot be found, and for a key that it does not take or lacks.
    """
    for place, group, target in _groups(node, key):
        parameters = inspect.signature(target).parameters
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            continue
        positional = bool(group.get("_partial_")) or "_args_" in group
        required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
        require_keys(group.keys() - _HYDRA_KEYS, place, parameters, () if positional else required)


def require_types(node: Any, key: str) -> None:
    """Raise InputError for a value in a group, or in one inside it, whose type is not that of the signature.

    node: plain data with accepted keys.
    """
    for place, group, target in _groups(node, key):
        try:
            hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
        except Exception:  # an annotation may name what does not exist when the program runs
            continue
        for name, value in group.items():
            is_label = name == "name" and is_plain_of(value, int)  # YAML reads the label 2024 as a number
            if name in hints and name not in _HYDRA_KEYS and not is_label and not fits(value, hints[name], _fits_one):
                raise invalid(f"{place}.{name}", value, _described(hints[name]))


def _groups(value: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Each group with a `_target_` in `value`, with its key and target; inner groups first, so that they are blamed."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _groups(inner, f"{key}.{name}")
        if "_target_" in value:
            yield key, value, _target(value, key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _groups(inner, f"{key}[{position}]")


def _target(group: Mapping[str, Any], key: str) -> Any:
    """The class or function that a group names; its module may be in the current folder."""
    for flag in ("_partial_", "_recursive_"):
        require_flag(f"{key}.{flag}", group.get(flag, False))
    try:
        target = _found(group["_target_"])
        inspect.signature(target)
    except Exception as error:  # importing what a user names may raise anything
        raise invalid(f"{key}._target_", group["_target_"], f"a class or function ({one_line(error)})") from None
    return target


def _found(name: Any) -> Any:
    """The object of that name; only one that is not found elsewhere is looked for in the current folder.

    `python -m` has that folder on its path, an installed command has not.
    """
    try:
        return hydra.utils.get_object(name)
    except ImportError:
        here = str(Path.cwd())
        if {"", here} & set(sys.path):
            raise
        sys.path.append(here)  # and it stays, for what the module imports later
        try:
            return hydra.utils.get_object(name)
        except ImportError:
            sys.path.remove(here)
            raise


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
    return not inspect.isclass(origin or annotation) or annotation in (object, Any)


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
def _known(config: str) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """The keys of conf/<config>.yaml, each with the keys of its group, and those of them that must be there.

    Groups with a `_target_`, like `recipe`, have no keys here, as `require_accepted` checks them; `arch` and `logger`
    are checked where they are read.
    """

    def read(name: str) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
        return content

    content = read(config)
    chosen = {name: choice for each in content["defaults"] if isinstance(each, dict) for name, choice in each.items()}
    names = {name for name in {*content, *chosen} if " " not in name} - {"defaults", "hydra", "scale"}
    groups = {name for name in names - {"arch", "recipe"} if isinstance(content.get(name), dict)}
    known: dict[str, frozenset[str]] = {name: frozenset(content[name] if name in groups else ()) for name in names}
    for name in {"evaluate", "search"} & names:
        known[name] |= frozenset(read(f"{name}/{chosen[name]}"))
    return known, frozenset(name for name in names if name in content or chosen[name] is not None)


def require_known(cfg: DictConfig, config: str) -> None:
    """Raise InputError for a key too many or too few compared with conf/<config>.yaml, at the top or in a group."""
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
            if place == "arch.options":
                return InputError(f"{place}.{name}: the preset does not set it; add it as +{place}.{name}=...")
            if (place, name) == ("recipe", "averaging"):
                return InputError("recipe.averaging: not set; choose one first, with recipe/averaging=ema or swa")
            try:
                require_keys([name], place, map(str, cause.parent_node))
            except InputError as found:
                return found
        cause = cause.__cause__
    return InputError(one_line(error).partition(" Config search path:")[0])


def one_line(error: BaseException) -> str:
    """The text of an error of another package, without line breaks and control characters."""
    return "".join(each for each in " ".join(str(error).split()) if each.isprintable())
