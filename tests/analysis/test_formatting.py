"""Numbers as a reader sees them."""

import math

from robust_arch.analysis.formatting import accuracy, counted, decimal_prefix, number, operations


def test_counts_and_costs() -> None:
    counts = {0: "0 runs", 1: "1 run", 2: "2 runs", 1000: "1,000 runs", 55_611: "55,611 runs"}
    assert {count: counted(count, "run") for count in counts} == counts
    costs = {19_132_765_184: "19.13 G", 2_450_000: "2.45 M", 1000: "1.00 k", 999: "999", math.nan: "-"}
    assert {macs: operations(macs) for macs in costs} == costs


def test_accuracies_have_the_decimals_that_their_images_fill() -> None:
    assert (accuracy(52.25, 360), accuracy(52.25, 10_000), accuracy(math.nan, 360)) == ("52.2", "52.25", "-")
    assert (number(1234567, 0), number(None, 2)) == ("1,234,567", "-")


def test_a_prefix_is_the_largest_that_is_filled() -> None:
    assert [decimal_prefix(count)[1] for count in (999, 1e3, 1e6, 1e9, 2e12)] == ["", "k", "M", "G", "T"]
