"""Draws figures and writes tables from recorded results.

python -m experiments figures | tables       all of them, from what is recorded in experiments/studies
python -m experiments capacity               one item, into its folder
python -m experiments capacity results/mine  the same of another study (a folder, a results.csv, or a name in results/),
                                             into figures/ beside its results
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from experiments.recorded import STUDIES, given, recorded, shown
from robust_arch.analysis.plots.style import save
from robust_arch.analysis.text_table import latex, markdown
from robust_arch.common.files import write_text
from robust_arch.errors import InputError, invalid

HERE = Path(__file__).parent
KINDS = {"figures": "figure", "tables": "table"}


def items(kind: str) -> list[str]:
    """Names of the folders that hold a script of that kind ("figure" or "table")."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{kind}.py"))


def write_item(item: str, kind: str, results: Sequence[Path], folder: Path, stem: str) -> list[Path]:
    """Draw the item's figure, or write its table, into `folder`."""
    module = import_module(f"experiments.{item}.{kind}")
    if kind == "figure":
        return save(module.draw(results), folder, stem)
    grid = module.tabulate(results)
    texts = {".md": markdown(grid) + "\n", ".tex": latex(grid, module.CAPTION, f"tab:{item}")}
    paths = [folder / f"{stem}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def write_recorded(item: str, kind: str, studies: Path, into: Path) -> list[Path]:
    """The item as it is recorded in `studies`, into its folder inside `into`.

    Raises:
        InputError: if the study that it shows is not recorded.
    """
    names = import_module(f"experiments.{item}.{kind}").STUDIES
    return write_item(item, kind, recorded(names, studies), into / item, kind)


def write_all(kind: str, studies: Path = STUDIES, into: Path = HERE) -> None:
    """Every item of a kind; one line each, also for those whose study is not recorded yet."""
    for item in items(kind):
        try:
            recorded(import_module(f"experiments.{item}.{kind}").STUDIES, studies)
        except InputError as missing:
            print(f"{item}: skipped, {missing}")
            continue
        _tell(item, write_recorded(item, kind, studies, into))


def write_one(item: str, study: str | None) -> None:
    """One item from the record, or from the study that is given.

    Raises:
        InputError: for a name of no item, or a study that is not there.
    """
    kinds = [kind for kind in KINDS.values() if item in items(kind)]
    if not kinds:
        raise invalid("item", item, f"one of {', '.join(items('figure') + items('table'))}")
    for kind in kinds:
        if study is None:
            _tell(item, write_recorded(item, kind, STUDIES, HERE))
            continue
        path = given(study)
        folder = path.parent if path.is_file() else path
        _tell(item, write_item(item, kind, [path], folder / "figures", item))


def _tell(item: str, paths: Sequence[Path]) -> None:
    print(f"{item}: {', '.join(str(shown(path)) for path in paths)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments", usage=__doc__)
    parser.add_argument("what")
    parser.add_argument("study", nargs="?")
    arguments = parser.parse_args()
    try:
        if arguments.what in KINDS:
            if arguments.study is not None:
                raise invalid("study", arguments.study, f"none with {arguments.what}; with one item it is drawn alone")
            write_all(KINDS[arguments.what])
        else:
            write_one(arguments.what, arguments.study)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
