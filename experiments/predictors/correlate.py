"""How much numbers of untrained networks tell of robust accuracy: correlations.csv, and the tables of the README.

Usage: python -m experiments.predictors.correlate
It reads results.csv and predictors.csv of the recorded studies; `robust-arch predictors` wrote the latter.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from experiments.recorded import STUDIES, read
from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.predictors.correlations import Correlations, correlations
from robust_arch.analysis.predictors.reading import with_predictors
from robust_arch.analysis.predictors.wording import cell
from robust_arch.analysis.text_table import Heading, TextTable, markdown
from robust_arch.common.files import write_rows, write_text
from robust_arch.errors import InputError

FOLDER = Path(__file__).parent
SOURCES = {
    "wide_resnet": ("budget", "capacity", "last_stage", "stage_width", "stage_depth", "families"),
    "resnet": ("families",),
}
"""By family the studies with runs of it; across families a predictor mostly tells one family from another."""
NAMES = ("grad_norm", "ntk_condition", "operator_bound", "local_lipschitz")
HEAD = (
    Heading("", numeric=False),
    Heading("n"),
    Heading("Spearman"),
    Heading("Kendall"),
    Heading("Spearman at equal parameters and MACs"),
    Heading("Kendall, most robust tenth"),
)
COLUMNS = ("family", "predictor", "statistic", "n", "value", "low", "high")
_MARK = "<!-- written by python -m experiments.predictors.correlate -->\n"


def correlated(family: str, studies: Sequence[str]) -> tuple[Group, list[Correlations]]:
    """The largest comparable group of one family in recorded studies, and the correlations in it.

    Raises:
        InputError: if no run has a worst case at best.
    """
    paths = [STUDIES / name for name in studies]
    frame = with_predictors(read(paths), paths, NAMES)
    group = main_group(frame[frame["family"] == family])
    if group is None:
        raise InputError(f"studies = {', '.join(studies)}: expected a run with a worst case at best")
    return group, correlations(group.rows, NAMES)


def grid(found: Sequence[Correlations]) -> TextTable:
    """A line per predictor."""
    return TextTable(
        HEAD,
        [
            [each.name, str(each.n), cell(each.spearman), cell(each.kendall), cell(each.beyond_costs),
             f"{cell(each.top)} (n = {each.top_n})"]
            for each in found
        ],
        frozenset(),
    )  # fmt: skip


def rows(family: str, found: Sequence[Correlations]) -> Iterator[dict[str, Any]]:
    """Every number as a row of correlations.csv."""
    for each in found:
        named: dict[str, tuple[int, Bounded | None]] = {
            "spearman": (each.n, each.spearman),
            "kendall": (each.n, each.kendall),
            "spearman at equal params and macs": (each.n, each.beyond_costs),
            "kendall, most robust tenth": (each.top_n, each.top),
        }
        for statistic, (n, value) in named.items():
            numbers = {key: f"{number:.4f}" for key, number in vars(value).items()} if value else {}
            yield {"family": family, "predictor": each.name, "statistic": statistic, "n": n, **numbers}


def main() -> None:
    """The command."""
    numbers: list[dict[str, Any]] = []
    sections = []
    for family, studies in SOURCES.items():
        group, found = correlated(family, studies)
        numbers += rows(family, found)
        count = f"{group.rows['arch'].nunique()} architectures, {len(group.rows)} runs"
        title = fill(f"**Family {family}**, {count}: {group}.", 120)
        sections.append(f"{title}\n\n{markdown(grid(found))}")
    write_rows(FOLDER / "correlations.csv", COLUMNS, numbers)
    readme = FOLDER / "README.md"
    before, _, after = readme.read_text(encoding="utf-8").split(_MARK)
    write_text(readme, _MARK.join([before, "\n" + "\n\n".join(sections) + "\n\n", after]))


if __name__ == "__main__":
    main()
