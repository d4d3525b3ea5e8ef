"""The divisions of one budget in each family, most robust first."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from experiments.recorded import comparable
from robust_arch.analysis.formatting import accuracy, number, operations
from robust_arch.analysis.networks import Estimate, Network, by_rank, networks
from robust_arch.analysis.text_table import Heading, TextTable

STUDIES = ("families",)
CAPTION = (
    "Divisions of one budget of parameters in each family, most robust first: means over seeds with 95% t intervals in "
    "brackets (Wilson intervals for a single seed); accuracies in percent of the test images."
)
HEAD = (
    Heading("family", numeric=False),
    Heading("depths", numeric=False),
    Heading("widths", numeric=False),
    Heading("shares of stages (%)", numeric=False),
    Heading("params"),
    Heading("MACs"),
    Heading("seeds"),
    Heading("clean (%)"),
    Heading("robust (%)"),
)


def tabulate(results: Sequence[Path]) -> TextTable:
    group = comparable(results)
    found = networks(group, ("worst_case_acc", "clean_acc"))
    families = [by_rank([n for n in found if n.spec.family == name]) for name in sorted(_families(found))]
    rows = [list(_row(network, group.n_test)) for family in families for network in family]
    return TextTable(HEAD, rows, frozenset(accumulate(len(family) for family in families[:-1])))


def _families(found: Sequence[Network]) -> set[str]:
    return {network.spec.family for network in found}


def _row(network: Network, n: int) -> Iterator[str]:
    yield network.spec.family
    yield network.spec.depths_text
    yield network.spec.widths_text
    yield " / ".join(f"{100 * share:.0f}" for share in network.shares)
    yield number(network.params, 0)
    yield operations(network.macs)
    yield str(network.robust.runs)
    yield _cell(network.numbers["clean_acc"], n)
    yield _cell(network.robust, n)


def _cell(value: Estimate, n: int) -> str:
    return f"{accuracy(value.mean, n)} [{accuracy(value.low, n)}, {accuracy(value.high, n)}]"
