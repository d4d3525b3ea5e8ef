"""The group `search`: space, budget, sample and seeds of a study."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robust_arch.architectures import PRESETS, ArchSpec, ImageShape, cost
from robust_arch.architectures.custom import TARGET
from robust_arch.configuration.nodes import field_names, known_keys, plain
from robust_arch.configuration.settings import read_integer, read_spec
from robust_arch.errors import invalid, require_integer
from robust_arch.search import Budget, Sample, Scaling, Space, Tie, Variants


def refuse_search_of_own(cfg: DictConfig) -> None:
    """Raise InputError if depths, widths or a budget are searched for a network of the user's own."""
    target = OmegaConf.select(cfg, f"arch.{TARGET}")
    for group in ("space", "scaling", "budget", "allocation") if target is not None else ():
        for key, value in _set_values(plain(cfg.search[group], f"search.{group}"), f"search.{group}"):
            raise invalid(
                key,
                value,
                f"null, as arch._target_ = {target!r} is a network of your own: the planner knows neither its stages "
                "nor what another size would cost; sweep over its arguments instead, like -m arch.width=16,32",
            )


def _set_values(group: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """Key and value of what is set in a group and the groups inside it, without steps and tolerances."""
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _set_values(value, f"{key}.{name}")
        elif value not in (None, False) and name not in ("width_step", "tolerance"):
            yield f"{key}.{name}", value


def read_template(cfg: DictConfig) -> ArchSpec:
    """The group `arch` of a search.

    Raises:
        InputError: for a network of the user's own.
    """
    spec = read_spec(cfg.arch)
    if not isinstance(spec, ArchSpec):
        raise invalid("arch._target_", spec.target, "null in a search, which needs a family with depths and widths")
    return spec


def search_group(cfg: DictConfig, name: str, names: Iterable[str]) -> dict[str, Any]:
    """The group `search.<name>` as plain data, with these keys."""
    return known_keys(plain(cfg.search[name], f"search.{name}"), f"search.{name}", names)


def read_budget(cfg: DictConfig, num_classes: int, image_shape: ImageShape) -> Budget:
    """The group `search.budget`; `arch` or a preset's name means that network's cost on this task."""
    budget = search_group(cfg, "budget", field_names(Budget))
    for resource in ("params", "macs"):
        named = budget[resource]
        if named == "arch" or (isinstance(named, str) and named in PRESETS):
            spec = read_template(cfg) if named == "arch" else PRESETS[named]
            budget[resource] = getattr(cost(spec, num_classes, image_shape), resource)
    return Budget(**budget)


def read_space(cfg: DictConfig) -> Space:
    """The group `search.space`, with `arch` as the template of everything but depths and widths.

    A space without any key set is the one point `arch`, so that architectures can be swept over by name.
    """
    space = search_group(cfg, "space", field_names(Space) - {"template"})
    spec = read_template(cfg)
    inner: dict[str, dict[str, Any]] = {}
    for name, kind in (("tie", Tie), ("vary", Variants)):
        content = space.pop(name)
        inner[name] = {} if content is None else known_keys(content, f"search.space.{name}", field_names(kind))
    tie = Tie(**inner["tie"])
    if any(value not in (None, False) for value in inner["vary"].values()):
        return Space(template=spec, tie=tie, vary=Variants(**inner["vary"]), **space)
    if all(space[key] is None for key in ("depths", "widths", "shares", "architectures")):
        depths, widths = (tuple((value,) for value in values) for values in (spec.depths, spec.widths))
        space |= {"depths": depths, "widths": widths}
    return Space(template=spec, tie=tie, **space)


def read_scaled(cfg: DictConfig, budget: Budget, num_classes: int, image_shape: ImageShape) -> Space | None:
    """The group `search.scaling` as a space of the one network that its rule finds; None without a rule.

    Raises:
        InputError: if a space is set too, or no network of the rule meets the budget.
    """
    scaling = search_group(cfg, "scaling", field_names(Scaling))
    if scaling["rule"] is None:
        if scaling["blocks"] is not None:
            raise invalid("search.scaling.blocks", scaling["blocks"], "null where search.scaling.rule is null")
        return None
    space = search_group(cfg, "space", field_names(Space) - {"template"})
    for key, value in _set_values(space, "search.space"):
        raise invalid(key, value, "null where search.scaling.rule sets the network")
    spec = Scaling(**scaling).network(budget, read_template(cfg), space["width_step"], num_classes, image_shape)
    depths, widths = (tuple((value,) for value in values) for values in (spec.depths, spec.widths))
    return Space(template=spec, depths=depths, widths=widths)


def read_sample(cfg: DictConfig) -> Sample:
    """`search.sample` and `search.sample_seed`."""
    return Sample(cfg.search.sample, cfg.search.sample_seed)


def read_seeds(cfg: DictConfig) -> tuple[int, ...]:
    """`search.seeds`, or `seed` where that is null."""
    seeds = cfg.search.seeds
    if seeds is None:
        return (read_integer(cfg, "seed"),)
    listed = OmegaConf.to_container(seeds) if OmegaConf.is_list(seeds) else None
    if not isinstance(listed, list) or not listed or len({str(seed) for seed in listed}) != len(listed):
        raise invalid("search.seeds", listed or seeds, "a list of different integers, like [0,1,2]")
    for seed in listed:
        require_integer("search.seeds", seed, 0)
    return tuple(listed)
