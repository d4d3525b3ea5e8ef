"""From the settings that a file records of its data set to the data set; nothing in the file is executed."""

import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from robust_arch import data
from robust_arch.common.annotations import fits
from robust_arch.common.plain import shown
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
    hints = get_type_hints(kind.__init__)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    settings = {name for name, each in inspect.signature(kind).parameters.items() if each.kind in named} & set(hints)
    for key, value in values.items():
        if key not in settings:
            raise _refused(node, f"{shown(key)} is no setting of {kind.__name__}")
        label = key == "name" and fits(value, int)  # YAML reads the label 2024 as a number
        if not label and not fits(value, hints[key]):
            raise _refused(node, f"{key} is no plain value of the type that {kind.__name__} takes")
    try:
        return kind(**values).as_recorded()
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # a setting is missing, or a plug-in refuses one
        raise _refused(node, str(error)) from None


def _refused(node: object, why: str) -> InputError:
    return InputError(
        f"data = {shown(node)}: expected a data set of this package with plain settings, or one set on the command "
        f"line, like data=digits; the checkpoint names this one, but {why}"
    )


def _dataset_class(target: object) -> type[Dataset] | None:
    """The concrete data set of exactly that name, if there is one."""
    if not isinstance(target, str):
        return None
    found: Any = None
    module, _, name = target.rpartition(".")
    if module in {each.name for each in pkgutil.iter_modules(data.__path__, f"{data.__name__}.")}:
        found = vars(import_module(module)).get(name)
        found = found if getattr(found, "__module__", None) == module else None  # not what the module imports
    elif plugin := next((each for each in entry_points(group=PLUGINS) if each.value.replace(":", ".") == target), None):
        try:
            found = plugin.load()
        except Exception as error:  # the plug-in's own code can raise anything
            raise InputError(f"data: the plug-in {plugin.value} cannot be imported ({error})") from error
    return found if isinstance(found, type) and issubclass(found, Dataset) and not inspect.isabstract(found) else None
