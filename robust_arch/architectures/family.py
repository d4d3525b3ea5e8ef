"""What a family of architectures provides; a family is one module in `families/`, or an installed plug-in."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from robust_arch.architectures import families
from robust_arch.architectures.options import Options, option_text
from robust_arch.errors import InputError, invalid

if TYPE_CHECKING:
    from robust_arch.architectures.spec import ArchSpec

ImageShape = tuple[int, int, int]
DEFAULT_FAMILY = "wide_resnet"
"""The family of an architecture that names none."""
PLUGINS = "robust_arch.families"
"""Group of entry points by which an installed package offers its families."""
AUXILIARY_WEIGHT = 0.4
"""Factor of an auxiliary classifier's loss (Liu et al. 2019)."""


@dataclass(frozen=True)
class CostTerms:
    """Parameters and MACs of each stage and of what is outside the stages (stem and head).

    Entries are integers, or int64 arrays where the widths or depths were arrays.
    """

    stage_params: tuple[Any, ...]
    stage_macs: tuple[Any, ...]
    outside_params: Any
    outside_macs: Any

    @property
    def params(self) -> Any:
        """Parameters of the whole network."""
        return sum(self.stage_params) + self.outside_params

    @property
    def macs(self) -> Any:
        """MACs of the whole network per image."""
        return sum(self.stage_macs) + self.outside_macs

    def stages(self, resource: str) -> tuple[Any, ...]:
        """The cost of each stage in `resource`, "params" or "macs"."""
        return self.stage_params if resource == "params" else self.stage_macs

    def outside(self, resource: str) -> Any:
        """The cost of stem and head in `resource`."""
        return self.outside_params if resource == "params" else self.outside_macs

    def last_share(self, resource: str) -> Any:
        """The last stage's part of the stages' sum of `resource`."""
        parts = self.stages(resource)
        return parts[-1] / sum(parts)


@dataclass(frozen=True)
class KeyNames:
    """A layout of published checkpoints.

    Attributes:
        published: from one of our state-dict keys to its name in the layout.
        reads_spec: whether `published` takes the architecture too, as `spec`.
        unused: prefixes of keys that the layout's code also saves, although its network does not use them here.
        stem: our key of the first convolution, whose input channels are those of the images.
        as_convolutions: ends of our keys of linear layers that the layout saves as 1x1 convolutions.
        options: the values that the layout's code has of options that change the function, but no shape of a weight.
    """

    published: Callable[..., str]
    reads_spec: bool = False
    unused: tuple[str, ...] = ()
    stem: str = "stem.weight"
    as_convolutions: tuple[str, ...] = ()
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def of(self, spec: "ArchSpec") -> Callable[[str], str]:
        """From one of our keys of this architecture to its name in the layout."""
        return partial(self.published, spec=spec) if self.reads_spec else self.published

    def misfit(self, options: Options) -> InputError | None:
        """The error about an option of the architecture that the layout's code does not have, or None."""
        for key, allowed in self.options.items():
            if (value := getattr(options, key)) not in allowed:
                known = " or ".join(map(option_text, allowed))
                return invalid(f"arch.options.{key}", value, f"{known}, as files of this layout have")
        return None


class StagedNetwork(nn.Module):
    """A network that shows its stages, so that smoothness is measured stage by stage; optional for a family.

    Attributes:
        stages: the stages in order; the first one takes the stem's output.
    """

    stages: nn.Sequential


class BoundedNetwork(StagedNetwork, ABC):
    """A staged network whose Lipschitz constants have known upper bounds; optional for a family."""

    @abstractmethod
    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Upper bounds of the l2 Lipschitz constants, in evaluation mode, of "stem", "stage 1", ..., "head" alone.

        "stem" is everything before the first stage, "head" everything behind the last one. norm: the l2 operator norm
        of a layer at its input size; everything but the activations is a layer, including the pooling.
        """


class AuxiliaryNetwork(nn.Module):
    """A network with a second classifier for training; optional for a family.

    Attributes:
        auxiliary_logits: of the last forward pass in training mode, (B, K), or None without such a classifier. The
            training step adds AUXILIARY_WEIGHT times their cross-entropy to the loss.
    """

    auxiliary_logits: Tensor | None = None

    def take_auxiliary_logits(self) -> Tensor | None:
        """Return the auxiliary logits and forget them."""
        logits, self.auxiliary_logits = self.auxiliary_logits, None
        return logits


class Family(ABC):
    """A family of architectures: `validate`, `cost_terms` and `build` are required, everything else has a default.

    Its module in `families/` holds an instance as `FAMILY`; that of another package is an entry point of the group
    `robust_arch.families`, so that a file that names a family imports only what is installed. A command that needs a
    missing optional member reports that this is not available for the family.

    Attributes:
        published_keys: layouts of published checkpoints by name, the usual one first, for the keys of `build`'s state
            dict; by default none. Reading a published file takes the number of classes from the last linear layer `fc`.
        options: the settings that only this family has; by default none.
        template: the architecture whose settings other than depths and widths `cost_terms` counts; None for the
            defaults of all settings. `family_of` sets it.
    """

    published_keys: Mapping[str, KeyNames] = MappingProxyType({})
    options: type[Options] = Options
    template: "ArchSpec | None" = None

    @abstractmethod
    def validate(self, spec: "ArchSpec") -> None:
        """Raise InputError if no network of the family has this spec."""

    @abstractmethod
    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Closed-form cost; depths and widths may be int64 arrays, for many architectures at once."""

    @abstractmethod
    def build(self, spec: "ArchSpec", num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised network from normalised images (B, channels, H, W) to logits (B, num_classes).

        It draws from torch's global random state. Smoothness by stage needs a `StagedNetwork`, its bounds a
        `BoundedNetwork`.
        """

    def check_image(self, spec: "ArchSpec", image_shape: ImageShape) -> None:  # noqa: ARG002
        """Raise InputError for images (C, H, W) that are too small for the network's strides; by default none are."""
        return

    def template_settings(self) -> tuple[Any, str]:
        """Options and activation of the template."""
        spec = self.template
        return self.options.read(spec.options if spec else ()), spec.activation if spec else "relu"

    def kept_activations(self, spec: "ArchSpec", image_shape: ImageShape) -> int | None:  # noqa: ARG002
        """Numbers per image that one forward pass in training mode keeps for the backward pass to the weights.

        None, the default, where they are not available. Every distinct tensor with an entry per image that autograd
        saves counts, from the normalised image to the pooled features; parameters, statistics of BatchNorm and the
        loss do not. Dropout counts as on a CPU, where its mask consists of numbers.
        """
        return None


class StagedFamily(Family):
    """A family with a fixed number of stages.

    Attributes:
        strides: factors by which the stages divide the height and width of the feature map, rounded up.
        has_dropout: whether its networks read `arch.dropout`.
    """

    strides: tuple[int, ...]
    has_dropout: bool = False

    def validate(self, spec: "ArchSpec") -> None:
        """Any depths and widths of at least 1 are legal, for exactly as many stages as there are strides."""
        if len(spec.depths) != len(self.strides):
            raise invalid("arch.depths", spec.depths, f"{len(self.strides)} stages, as family {spec.family} has")
        if spec.dropout and not self.has_dropout:
            raise invalid("arch.dropout", spec.dropout, f"0, as family {spec.family} has no dropout")


def family_names() -> list[str]:
    """All families: the modules of `robust_arch.architectures.families`, and those of installed plug-ins."""
    return sorted({*_own_names(), *_plugins()})


def _own_names() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(families.__path__)}


def _plugins() -> dict[str, EntryPoint]:
    """Entry points of the group by family name; names of architectures in the records need letters, digits and _."""
    return {each.name: each for each in entry_points(group=PLUGINS) if each.name.isidentifier()}


def get_family(name: str) -> Family:
    """The family of that name; an unknown one raises InputError."""
    if not isinstance(name, str):
        raise invalid("arch.family", name, f"one of {', '.join(family_names())}")
    return _family(name)


def family_of(spec: "ArchSpec") -> Family:
    """The family of `spec`, whose `cost_terms` counts architectures with the activation and options of `spec`."""
    family = copy(get_family(spec.family))
    family.template = spec
    return family


@cache  # called for every spec, of which a plan has many thousands
def _family(name: str) -> Family:
    if name in _own_names():
        family = getattr(importlib.import_module(f"{families.__name__}.{name}"), "FAMILY", None)
        where = f"a module of {families.__name__} whose FAMILY is"
    elif plugin := _plugins().get(name):
        try:
            family = plugin.load()
        except Exception as error:  # the plug-in's own code can raise anything
            raise InputError(f"arch.family: the plug-in {plugin.value} cannot be imported ({error})") from error
        where = f"an entry point of the group {PLUGINS}, here {plugin.value}, that is"
    else:
        raise invalid("arch.family", name, f"one of {', '.join(family_names())}")
    if not isinstance(family, Family):
        raise invalid("arch.family", name, f"{where} a Family")
    return family
