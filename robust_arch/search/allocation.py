"""From shares of a budget to widths, and from independent numbers to shares, which any optimiser can suggest."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, ImageShape
from robust_arch.architectures.cost import cost_terms
from robust_arch.architectures.family import DEFAULT_FAMILY, CostTerms
from robust_arch.errors import InputError, invalid
from robust_arch.search.budget import Budget
from robust_arch.search.grid import MAX_VALUE, check_value, is_number

Terms = Callable[[Sequence[Any]], CostTerms]
_SPREADS = (0.002, 0.01, 0.05, 0.2, 1.0)  # how far a share may deviate, tried in turn: most searches end at the first


def check_shares(shares: Sequence[float], stages: int, key: str = "shares") -> tuple[float, ...]:
    """Shares as floats; raises InputError for `key` unless there is one per stage, all above 0, with sum 1."""
    allowed = f"{stages} numbers greater than 0 with sum 1"
    try:
        values = tuple(float(share) for share in shares)
    except (TypeError, ValueError):
        raise invalid(key, shares, allowed) from None
    if len(values) != stages or not all(share > 0 for share in values) or not abs(sum(values) - 1) <= 1e-6:
        raise invalid(key, shares, allowed)
    return values


def check_cuts(cuts: Any, stages: int) -> tuple[float, ...]:
    """Cuts as floats; raises InputError unless there is one per stage except the last, all strictly between 0 and 1."""
    is_list = isinstance(cuts, list | tuple) and len(cuts) == stages - 1
    if not is_list or not all(is_number(cut) and 0 < cut < 1 for cut in cuts):
        raise invalid("search.allocation.cuts", cuts, f"{stages - 1} numbers strictly between 0 and 1")
    return tuple(float(cut) for cut in cuts)


def stick_breaking(cuts: Sequence[float]) -> tuple[float, ...]:
    """Shares of S = len(cuts) + 1 stages, uniform on the simplex if the cuts are independent and uniform on (0, 1).

    Stage i takes the part v_i = 1 - (1 - cut_i)^(1 / (S - i)) of what the stages before it left, the last one the rest:
    v_i has the distribution Beta(1, S - i), which makes the shares Dirichlet(1, ..., 1) (Connor and Mosimann 1969;
    Devroye 1986, section XI.4). Every share is monotone in its own cut.
    """
    shares, left = [], 1.0
    for number, cut in enumerate(check_cuts(cuts, len(cuts) + 1), start=1):
        log_rest = math.log1p(-cut) / (len(cuts) + 1 - number)  # of 1 - v, so that a small v keeps its digits
        shares.append(-math.expm1(log_rest) * left)
        left *= math.exp(log_rest)
    return (*shares, left)


def allocate(
    budget: Budget,
    shares: Sequence[float],
    depths: Sequence[int],
    width_step: int = 8,
    *,
    family: str = DEFAULT_FAMILY,
    stem_width: int = 16,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
    template: ArchSpec | None = None,
) -> ArchSpec:
    """The architecture inside the budget whose stages divide it most nearly in the proportions `shares`.

    Share i is the cost of stage i, its shortcut included, over the sum of the stages; stem and head are left out.
    Cost is parameters if the budget sets them, else MACs. Widths are multiples of `width_step`. Among all such
    widths inside the budget the largest deviation of a share is smallest; ties go to the nearer total.
    template: the architecture whose settings, except depths and widths, replace family and stem_width.

    Raises:
        InputError: if no such widths meet the budget.
    """
    if not budget.resources:
        raise invalid("search.budget", str(budget), "params or macs")
    check_value("search.space.width_step", width_step)
    depths = tuple(depths)
    ones = (1,) * len(depths)
    if template is None:
        template = ArchSpec(family, depths, ones, stem_width=stem_width)
    template = replace(template, depths=depths, widths=ones)
    for key, values in (("depths", template.depths), ("arch.stem_width", (template.stem_width,))):
        check_value(key, max(values))
    shares = check_shares(shares, len(template.depths))

    def terms(widths: Sequence[Any]) -> CostTerms:
        return cost_terms(template, template.depths, widths, num_classes, image_shape)

    for spread in _SPREADS:
        widths = _nearest(terms, _candidates(terms, shares, budget, width_step, spread), shares, budget, spread)
        if widths is not None:
            return replace(template, widths=widths)
    raise InputError(
        f"search.budget = {budget}: no widths in steps of {width_step} at depths {template.depths} meet it "
        f"with shares {shares}; a smaller step or a larger tolerance may"
    )


def _candidates(terms: Terms, shares: Sequence[float], budget: Budget, step: int, spread: float) -> list[np.ndarray]:
    """Grid widths, one array per stage, among them all inside the budget whose shares deviate by at most `spread`.

    Built stage by stage: the cost of a stage follows from its width and the one before, and must lie between
    (share - spread) of the least and (share + spread) of the most that all stages may cost together.
    """
    resource, stages = budget.resources[0], len(shares)
    low, high = budget.bounds(resource)

    def axis(stage: int) -> np.ndarray:
        """The grid widths of a stage up to the first at which it alone costs more than the budget."""
        top = step
        while terms([step] * stage + [top] * (stages - stage)).stages(resource)[stage] <= high:
            top *= 2
            if top > MAX_VALUE:
                raise InputError(f"search.budget: a cost of {high:,} needs a stage wider than {MAX_VALUE:,}")
        return np.arange(step, top + 1, step, dtype=np.int64)

    axes = [axis(stage) for stage in range(stages)]
    least = max(0, low - terms([int(axes[-1][-1])] * stages).outside(resource))
    most = high - terms([step] * stages).outside(resource)
    widths: list[np.ndarray] = []
    for stage, (choices, share) in enumerate(zip(axes, shares, strict=True)):
        points = [width[:, None] for width in widths] + [choices[None, :]] * (stages - stage)
        part = terms(points).stages(resource)[stage]
        part = np.broadcast_to(part, (len(widths[0]) if widths else 1, len(choices)))
        kept = np.nonzero((part >= (share - spread) * least - 1) & (part <= (share + spread) * most + 1))
        widths = [*(width[kept[0]] for width in widths), choices[kept[1]]]
    return widths


def _nearest(
    terms: Terms, widths: list[np.ndarray], shares: Sequence[float], budget: Budget, spread: float
) -> tuple[int, ...] | None:
    """Of the widths inside the budget those nearest to the shares; None if even they deviate by more than `spread`."""
    resource, found = budget.resources[0], terms(widths)
    inside = np.flatnonzero(np.broadcast_to(budget.contains(found.params, found.macs), found.params.shape))
    if not len(inside):
        return None
    parts = np.stack(found.stages(resource))[:, inside]
    deviation = np.abs(parts / parts.sum(axis=0) - np.asarray(shares)[:, None]).max(axis=0)
    distance = np.abs(getattr(found, resource)[inside] / getattr(budget, resource) - 1)
    first = np.lexsort((distance, deviation))[0]
    return tuple(int(axis[inside[first]]) for axis in widths) if deviation[first] <= spread else None
