"""Named architectures: conf/arch holds them, this module reads them."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import yaml

from robust_arch.architectures.custom import TARGET, AnyArch, CustomArch
from robust_arch.architectures.layers import ACTIVATIONS
from robust_arch.architectures.options import option_text, option_value
from robust_arch.architectures.spec import ArchSpec, numbers_of
from robust_arch.common.paths import conf_dir
from robust_arch.errors import invalid


class Presets(Mapping[str, ArchSpec]):
    """The presets by name, read from conf/arch when first asked for."""

    @cached_property
    def _specs(self) -> dict[str, ArchSpec]:
        files = sorted((conf_dir() / "arch").glob("*.yaml"))
        found = {file.stem: yaml.safe_load(file.read_text()) for file in files}
        return {name: ArchSpec.from_dict(values) for name, values in found.items() if TARGET not in values}

    def __getitem__(self, name: str) -> ArchSpec:
        if name not in self._specs:
            raise invalid("arch", name, f"one of {', '.join(self._specs)}")
        return self._specs[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The preset, or `default`."""
        return self._specs.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


PRESETS = Presets()
_COUNT = r"\d{1,18}"
_NAME = re.compile(
    rf"(?P<family>\w+)-d(?P<depths>{_COUNT}(?:-{_COUNT})*)-w(?P<widths>{_COUNT}(?:-{_COUNT})*)"
    rf"(?:-stem(?P<stem_width>{_COUNT}))?(?:-(?P<activation>{'|'.join(ACTIVATIONS)}))?"
    r"(?:-drop(?P<dropout>\d(?:\.\d+)?(?:e-\d+)?))?"
    r"(?:-init_(?P<initialisation>[a-z]+))?(?P<options>(?:-\w+=[^=]+)*)"
)
_OPTION = re.compile(r"-(?=\w+=)")


def arch_name(spec: AnyArch) -> str:
    """The preset's name if the spec equals one, else like `wide_resnet-d2-2-2-w16-32-64`.

    Fields that differ from their defaults are appended, so that two specs never share a name. A network of the user's
    own has its full name and its arguments, like `my_package.MyNet-width=32`.
    """
    if isinstance(spec, CustomArch):
        return spec.name
    for name, preset in PRESETS.items():
        if preset == spec:
            return name
    name = f"{spec.family}-d{spec.depths_text}-w{spec.widths_text}"
    if spec.stem_width != 16:
        name += f"-stem{spec.stem_width}"
    if spec.activation != "relu":
        name += f"-{spec.activation}"
    if spec.dropout:
        name += f"-drop{spec.dropout}"
    if spec.initialisation != "published":
        name += f"-init_{spec.initialisation}"
    return name + "".join(f"-{key}={option_text(value)}" for key, value in spec.options)


def _options_of(text: str) -> dict[str, Any]:
    """The options at the end of an architecture's name."""
    pairs = (part.split("=") for part in _OPTION.split(text)[1:])
    return {key: option_value(value) for key, value in pairs}


def named_spec(name: str) -> ArchSpec:
    """The architecture of which `arch_name` gives `name`: a preset's, or a spelt-out one.

    Raises:
        InputError: for a name that is neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    found = _NAME.fullmatch(name)
    if found is None:
        raise invalid("arch", name, "a preset's name, or one like wide_resnet-d2-2-2-w16-32-64")
    kinds: dict[str, Any] = {"depths": numbers_of, "widths": numbers_of, "stem_width": int, "dropout": float}
    kinds["options"] = _options_of
    given = {key: text for key, text in found.groupdict().items() if text is not None}
    return ArchSpec(**{key: kinds.get(key, str)(text) for key, text in given.items()})
