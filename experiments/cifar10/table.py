"""Networks of growing capacity on CIFAR-10 (JPEG) at the best and at the last epoch, by parameters."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.cifar10.figure import at_best_and_last
from robust_arch.analysis.formatting import accuracy, number, operations
from robust_arch.analysis.plots.pooled import Measurement, pooled
from robust_arch.analysis.text_table import Heading, TextTable

STUDIES = ("cifar10_capacity",)
CAPTION = (
    "Networks of growing capacity, trained on 1,000 images of CIFAR-10 (JPEG): means over seeds in percent of 2,000 "
    "test images at the epoch that is best on held-out images and at the last one; 95% intervals in brackets, from one "
    "standard deviation between seeds for all networks."
)
HEAD = (
    Heading("depths", numeric=False),
    Heading("widths", numeric=False),
    Heading("params"),
    Heading("MACs"),
    Heading("seeds"),
    Heading("clean, best (%)"),
    Heading("clean, last (%)"),
    Heading("robust, best (%)"),
    Heading("robust, last (%)"),
)


def tabulate(results: Sequence[Path]) -> TextTable:
    both = at_best_and_last(results)
    columns = [
        {each.network.arch: each for each in pooled(group, column)}
        for column in ("clean_acc", "worst_case_acc")
        for group in both
    ]
    n = both[0].n_test
    by_size = sorted(columns[-1], key=lambda arch: columns[-1][arch].network.params)
    return TextTable(HEAD, [list(_row([column[arch] for column in columns], n)) for arch in by_size])


def _row(measured: Sequence[Measurement], n: int) -> Iterator[str]:
    network = measured[-1].network
    yield network.spec.depths_text
    yield network.spec.widths_text
    yield number(network.params, 0)
    yield operations(network.macs)
    yield str(len(measured[-1].runs))
    for each in measured:
        yield f"{accuracy(each.mean, n)} [{accuracy(each.low, n)}, {accuracy(each.high, n)}]"
