"""From the settings that a file holds of its data set to the data set; nothing that the file says is executed."""

import inspect
import pkgutil
import types
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Union, get_args, get_origin, get_type_hints

from robust_arch import data
from robust_arch.common.plain import is_plain, shown
from robust_arch.data.dataset import Dataset
from robust_arch.errors import InputError

PLUGINS = "robust_arch.data"
"""Group of entry points by which an installed package offers its data sets to files that name them."""


def recorded_dataset(node: object) -> Dataset:
    """The data set that a checkpoint was trained on, from the group `data` of its configuration.

    node: plain data. `_target_` must be the full name of a data set in `robust_arch.data`, or of an entry point of the
    group `robust_arch.data`; no module is imported because a file names it. The other keys must be parameters of that
    class, with plain values of their types. Nothing is resolved, and nothing that the file names is created or
    written (`Dataset.as_recorded`).

    Raises:
        InputError: for anything else.
    """
    if not isinstance(node, Mapping):
        raise _refused(node, "it is no group of keys")
    values = dict(node)
    kind = _dataset_class(values.pop("_target_", None))
    if kind is None:
        raise _refused(node, "its _target_ is no data set of this package or of an installed plug-in")
    hints = _parameters(kind)
    for key, value in values.items():
        if key not in hints:
            raise _refused(node, f"{shown(key)} is no setting of {kind.__name__}")
        label = key == "name" and _fits(value, int)  # YAML reads the label 2024 as a number
        if not label and not _fits(value, hints[key]):
            raise _refused(node, f"{key} is no plain value of the type that {kind.__name__} takes")
    try:
        return kind(**values).as_recorded()
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # a setting is missing, or a plug-in refuses one
        raise _refused(node, str(error)) from None


def _refused(node: object, why: str) -> InputError:
    return InputError(
        f"data = {shown(node)}: a data set of this package with plain settings, or one said on the command "
        f"line, like data=digits; the checkpoint names this one, but {why}"
    )


def _dataset_class(target: object) -> type[Dataset] | None:
    """The concrete data set of exactly that name, if there is one."""
    if not isinstance(target, str):
        return None
    for module in pkgutil.iter_modules(data.__path__, f"{data.__name__}."):
        if target.rpartition(".")[0] == module.name:
            found = vars(import_module(module.name)).get(target.rpartition(".")[2])
            own = getattr(found, "__module__", None) == module.name
            return found if own and _is_dataset(found) else None
    for plugin in entry_points(group=PLUGINS):
        if plugin.value.replace(":", ".") == target:
            found = _loaded(plugin)
            return found if _is_dataset(found) else None
    return None


def _loaded(plugin: EntryPoint) -> Any:
    try:
        return plugin.load()
    except Exception as error:  # whatever happens in the plug-in's own code
        raise InputError(f"data: the plug-in {plugin.value} cannot be imported ({error})") from error


def _is_dataset(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Dataset) and not inspect.isabstract(found)


def _parameters(kind: type[Dataset]) -> dict[str, Any]:
    """The keyword parameters of the class with their types; those without a type are none that a file may set."""
    hints = get_type_hints(kind.__init__)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(kind).parameters.items()
    return {name: hints[name] for name, each in parameters if each.kind in named and name in hints}


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of a file is plain and of the type `hint`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict) or not parts:
            return False
        return all(_fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(any(_fits(item, part) for part in parts) for item in value)
    return is_plain(value) and (type(value) is hint or (hint is float and type(value) is int))
