"""Copies what is small of a finished study into experiments/studies/<study>, so that its numbers can be checked.

python -m experiments.record results/capacity      with --epochs also a metrics.csv of all its runs

results.csv, plan.csv and study.json as they are, and runs.json: hardware, versions, commands and held-out accuracies of
every run, and the outcome of every test image. No absolute path is copied.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.recorded import STUDIES
from robust_arch.analysis.epochs import read_epochs
from robust_arch.common.files import read_json, write_json, write_text
from robust_arch.errors import InputError
from robust_arch.runs import open_study
from robust_arch.runs.archive import archive_of, without_paths


def record(path: Path, studies: Path = STUDIES, *, epochs: bool = False) -> Path:
    """Record the study in the folder `path`, and return where.

    Raises:
        InputError: if there is no study, or the accuracies in an evaluation record are not those of its outcomes.
    """
    study = open_study(path)
    archive = archive_of([run.read() for run in study.runs()])
    into = studies / study.name
    into.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(study.write_results(), into / "results.csv")
    if study.plan_path.is_file():
        shutil.copyfile(study.plan_path, into / "plan.csv")
    if (about := read_json(study.about_path)) is not None:
        write_json(into / study.about_path.name, without_paths(about))
    write_text(into / study.archive_path.name, "".join(_lines(archive)))
    if epochs:
        write_text(into / "metrics.csv", read_epochs(path).to_csv(index=False, float_format="%.6g"))
    return into


def _lines(archive: Mapping[str, Any]) -> Iterator[str]:
    """The archive as JSON with one line per run."""
    dump = json.dumps
    runs = ",\n".join(f"{dump(run_id)}: {dump(content)}" for run_id, content in archive["runs"].items())
    others = "".join(f"{dump(name)}: {dump(value)},\n" for name, value in archive.items() if name != "runs")
    yield f'{{{others}"runs": {{\n{runs}\n}}}}\n'


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
