"""Spaces, budgets and allocations of a family with another number of stages than three."""

import itertools
import math

import pytest

from robust_arch.architectures import PRESETS, ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, Space, allocate

TASK = (10, (3, 16, 16))
TEMPLATE = ArchSpec("resnet", (1, 1, 1, 1), (1, 1, 1, 1), stem_width=8)


def test_a_grid_has_the_points_inside_the_budget():
    depths, widths = [[1, 2], [1], [1], [1, 2]], [[8, 16], [16, 32], [16, 32], [16, 64]]
    budget = Budget(params=60_000, tolerance=0.25)
    every = [ArchSpec("resnet", point[:4], point[4:], stem_width=8) for point in itertools.product(*depths, *widths)]
    inside = [spec for spec in every if abs(cost(spec, *TASK).params / 60_000 - 1) <= 0.25]
    assert 0 < len(inside) < len(every)
    members = Space(template=TEMPLATE, depths=depths, widths=widths).members(budget, *TASK)
    assert list(members.specs) == inside
    assert (members.considered, members.rejected_count) == (len(every), len(every) - len(inside))


@pytest.mark.parametrize("resource", ["params", "macs"])
@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)], ids=str)
def test_an_allocation_is_the_best_of_all_widths(resource, shares):
    target, pixels = {"params": (30_000, (1, 1, 1, 1)), "macs": (1_200_000, (256, 64, 16, 4))}[resource]
    budget = Budget(**{resource: target}, tolerance=0.1)
    # beyond these the second convolution of a stage alone, of width to width, uses up the budget
    widest = [math.isqrt(int(1.1 * target / (9 * count))) for count in pixels]
    grid = itertools.product(*[range(8, limit + 1, 8) for limit in widest])
    specs = [ArchSpec("resnet", (1, 1, 1, 1), widths, stem_width=8) for widths in grid]

    def deviation(spec):
        found = cost(spec, *TASK).shares(resource)
        return max(abs(part - share) for part, share in zip(found, shares, strict=True))

    inside = [spec for spec in specs if abs(getattr(cost(spec, *TASK), resource) / target - 1) <= 0.1]
    best = min(deviation(spec) for spec in inside)
    task = {"family": "resnet", "stem_width": 8, "num_classes": 10, "image_shape": (3, 16, 16)}
    found = allocate(budget, shares, (1, 1, 1, 1), 8, **task)
    assert found in inside
    assert deviation(found) == pytest.approx(best, abs=1e-12)


def test_the_shares_of_resnet18_lead_back_to_it():
    spec = PRESETS["resnet18"]
    exact = cost(spec)
    budget = Budget(params=exact.params, tolerance=0.01)
    assert allocate(budget, exact.shares(), spec.depths, 32, family="resnet", stem_width=64) == spec


def test_three_shares_for_four_stages_are_named():
    with pytest.raises(InputError, match=r"shares = .*4 numbers"):
        allocate(Budget(params=30_000), (0.2, 0.3, 0.5), (1, 1, 1, 1), family="resnet")
