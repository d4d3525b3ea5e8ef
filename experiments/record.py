"""Copies what is small of a finished study into experiments/studies/<study>: results.csv and plan.csv.

python -m experiments.record results/capacity      with --epochs also a metrics.csv of all its runs
"""

import argparse
import shutil
import sys
from pathlib import Path

from experiments.recorded import STUDIES
from robust_arch.analysis.epochs import read_epochs
from robust_arch.common.files import write_text
from robust_arch.errors import InputError
from robust_arch.runs import open_study


def record(path: Path, studies: Path = STUDIES, *, epochs: bool = False) -> Path:
    """Record the study in the folder `path`, and return where.

    Raises:
        InputError: if there is no study.
    """
    study = open_study(path)
    into = studies / study.name
    into.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(study.write_results(), into / "results.csv")
    if study.plan_path.is_file():
        shutil.copyfile(study.plan_path, into / "plan.csv")
    if epochs:
        write_text(into / "metrics.csv", read_epochs(path).to_csv(index=False, float_format="%.6g"))
    return into


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.record", description=__doc__)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--epochs", action="store_true", help="record each epoch of each run as well")
    arguments = parser.parse_args()
    try:
        print(record(arguments.study, epochs=arguments.epochs))
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
