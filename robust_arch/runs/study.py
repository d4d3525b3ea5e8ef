"""A study on disk: its plan, its runs and their results as one table."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_arch.common.files import read_json, write_json, write_rows, write_text
from robust_arch.errors import InputError, invalid
from robust_arch.runs import archive, lock
from robust_arch.runs.fields import MisfitError
from robust_arch.runs.folder import NO_OBJECT, RecordedRun, RunFolder
from robust_arch.runs.records import Evaluation, RunFacts, StudyFacts
from robust_arch.runs.rows import PlanRow, plan_row, read_table

if TYPE_CHECKING:
    import pandas as pd  # imported where it is used, as `robust-arch status` does without

log = logging.getLogger(__name__)

COLUMNS = (
    "run_id", "study", "arch", "family", "depths", "widths", "params", "macs", "objective", "recipe", "train_threat",
    "data", "seed", "epochs", "checkpoint", "weights", "threat", "n_test", "clean_acc", "fgsm_acc", "pgd20_acc",
    "cw40_acc", "autoattack_acc", "worst_case_acc", "stability", "lipschitz", "train_seconds", "status",
)  # fmt: skip
SITE_COLUMNS = ("hardware", "precision", "version")
"""On what a run was trained: machine, precision and version of torch; after all other columns of results.csv."""
TEXT_COLUMNS = frozenset(
    {
        *SITE_COLUMNS,
        "run_id", "study", "arch", "family", "depths", "widths", "objective", "recipe", "train_threat", "data",
        "checkpoint", "weights", "threat", "status",
    }
)  # fmt: skip
_REBUILD_SHARE = 20  # jobs spend at most one part in 20 of the time on rebuilding results.csv
PLAN_COLUMNS = tuple(PlanRow.model_fields)


class StudyFolder:
    """results/<study>.

    Attributes:
        path: the folder.
        left_out: files, and rows of plan.csv, that were read and do not fit, to the reason, like
            `runs/<run_id>/result.json` to `best_epoch = None: expected an integer of at least 0`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: dict[str, str] = {}
        self.plan_path = path / "plan.csv"
        self.about_path = path / "study.json"
        self.archive_path = path / archive.NAME
        self.results_path = path / "results.csv"
        self._stop, self._sweep = path / ".stop", path / ".sweep.lock"
        self.report_path = path / "report" / "index.html"
        self._rebuilt_path = path / ".rebuilt.json"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run, which need not exist."""
        archived = self._archived.get(run_id) if self.is_archived else None
        return archived or RunFolder(self.path / "runs" / run_id, self.left_out)

    @cached_property
    def _archived(self) -> dict[str, archive.ArchivedRun]:
        """The runs of an archive, which never changes."""
        return {run.run_id: run for run in archive.read_runs(self.archive_path, self.left_out)}

    def runs(self) -> Iterator[RunFolder]:
        """Every run that has a folder, by run_id; of a recorded study every run in its archive."""
        runs = self.path / "runs"
        try:
            with os.scandir(runs) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            yield from self._archived.values()
            return
        for name in names:
            yield RunFolder(runs / name, self.left_out)

    def sweeping(self) -> AbstractContextManager[None]:
        """Mark the study, while the block runs, as one that a command is at work on; several may be."""
        return lock.shared(self._sweep)

    @property
    def is_swept(self) -> bool:
        """Whether a command is at work on the study as a whole."""
        return lock.is_shared(self._sweep)

    @property
    def is_stopped(self) -> bool:
        """Whether a run failed in a study with `study.stop_on_failure`: no further run starts."""
        return self._stop.is_file()

    def stop(self) -> None:
        """Start no further run until the next sweep."""
        self._stop.touch()

    def go_on(self) -> None:
        """Undo `stop`."""
        if self.is_stopped:
            self._stop.unlink()

    def write_plan(self, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        """Replace plan.csv and study.json."""
        write_rows(self.plan_path, PLAN_COLUMNS, rows)
        write_json(self.about_path, about)

    @property
    def about(self) -> StudyFacts:
        """study.json; without one, its defaults."""
        content = read_json(self.about_path)
        if content is None and os.path.lexists(self.about_path):
            self.left_out[self.about_path.name] = NO_OBJECT
        try:
            return StudyFacts.read(content or {})
        except MisfitError as misfit:
            self.left_out[self.about_path.name] = str(misfit)
            return StudyFacts()

    def read_plan(self) -> list[dict[str, str]]:
        """The rows of plan.csv that fit; none without a plan."""
        if not self.plan_path.is_file():
            return []
        rows = []
        try:
            for line, row in read_table(self.plan_path, PLAN_COLUMNS, plan_row):
                if isinstance(row, MisfitError):
                    self.left_out[f"{self.plan_path.name} line {line}"] = str(row)
                else:
                    rows.append(row)
        except MisfitError as misfit:
            self.left_out[self.plan_path.name] = str(misfit)
        return rows

    def tell_left_out(self) -> None:
        """Log the files and rows that were read and do not fit."""
        for what, why in self.left_out.items():
            log.warning("left out: %s: %s", what, why)

    @property
    def is_archived(self) -> bool:
        """Whether the records of its runs are in one file, which is read and never written to."""
        return self.archive_path.is_file() and not (self.path / "runs").is_dir()

    @property
    def is_only_a_table(self) -> bool:
        """Whether results.csv exists without the records that it was made from."""
        return self.results_path.is_file() and not (self.path / "runs").is_dir() and not self.is_archived

    def rows(self) -> list[dict[str, Any]]:
        """One row per evaluation record, and one without numbers per failed or diverged run."""
        return [row for run in self.runs() for row in run_rows(run.read())]

    def write_results(self, frame: "pd.DataFrame | None" = None) -> Path:
        """Rebuild results.csv from the records, or from the `frame` that they were just read into.

        Without records, and beside an archive, an existing results.csv is left unchanged.
        """
        if self.results_path.is_file() and (self.is_only_a_table or self.is_archived):
            return self.results_path
        started = time.perf_counter()
        whole_study = frame is None
        if frame is None:
            frame = to_frame(self.rows())
        whole = dict.fromkeys(("params", "macs", "seed", "epochs", "n_test"), "Int64")
        write_text(self.results_path, frame.astype(whole).to_csv(index=False))
        if whole_study:
            write_json(self._rebuilt_path, {"seconds": time.perf_counter() - started})
        return self.results_path

    def refresh_results(self) -> None:
        """Rebuild results.csv, unless the last rebuild took more than a twentieth of the time since then.

        Called by each of many jobs; whoever launched them calls `write_results` at the end.
        """
        try:
            passed = time.time() - self._rebuilt_path.stat().st_mtime
            recent = 0 <= passed < _REBUILD_SHARE * float((read_json(self._rebuilt_path) or {})["seconds"])
        except (OSError, KeyError, TypeError, ValueError):
            recent = False
        if not (recent and self.results_path.is_file()):
            self.write_results()


def run_rows(run: RecordedRun) -> list[dict[str, Any]]:
    """The rows of results.csv that one run gives; none for a run without facts."""
    if run.facts is None:
        return []
    facts = run.facts.model_dump(include=set(RunFacts.model_fields))
    result = run.result
    shared = {**facts, "train_seconds": result.train_seconds if result else None, "status": run.state}
    shared |= result.site if result else {}
    if run.state in ("failed", "diverged"):
        return [shared]
    return [{**shared, **_numbers(record)} for record in run.evaluations]


def _numbers(record: Evaluation) -> dict[str, Any]:
    """An evaluation record as columns, without numbers that were not computed or that a failed check voids."""
    columns = {name: getattr(record, name) for name in ("checkpoint", "weights", "threat", "data", "n_test")}
    if record.invalid:
        return {**columns, "status": "invalid"}
    columns["clean_acc"] = record.clean.percent
    columns |= {f"{name}_acc": attack.percent for name, attack in record.attacks.items()}
    if record.worst_case:
        columns["worst_case_acc"] = record.worst_case.percent
    if record.stability:
        columns["stability"] = record.stability.percent
    if record.lipschitz:
        columns["lipschitz"] = record.lipschitz.mean
    return columns


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """The contract's columns in order, then any further <attack>_acc by name, then SITE_COLUMNS."""
    import pandas as pd

    further = sorted({key for row in rows for key in row}.difference(COLUMNS, SITE_COLUMNS))
    frame = pd.DataFrame(list(rows), columns=[*COLUMNS, *further, *SITE_COLUMNS])
    numbers = [name for name in frame.columns if name not in TEXT_COLUMNS]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)  # missing numbers are NaN, also in an empty column
    return frame


def load_study(path: str | Path) -> "pd.DataFrame":
    """The results of the study in the folder `path`, read from its records.

    Raises:
        InputError: if there is no such folder.
    """
    study = open_study(path)
    rows = study.rows()
    study.tell_left_out()
    return to_frame(rows)


def open_study(path: str | Path) -> StudyFolder:
    """The study in the folder `path`, which must be one.

    Raises:
        InputError: if there is no such folder, or only its results.csv.
    """
    folder, study = Path(path), StudyFolder(Path(path))
    if study.is_only_a_table:
        raise InputError(
            f"study = {str(path)!r}: expected a study's folder with runs/ inside; this one has only "
            f"{study.results_path.name}, which `robust-arch results`, `report` and `claims` can read"
        )
    if not (folder / "runs").is_dir() and not study.plan_path.is_file() and not study.is_archived:
        found = sorted(path.parent.name for path in folder.parent.glob("*/runs") if path.is_dir())
        raise invalid(
            "study", str(path), f"a study's folder with runs/ inside; {folder.parent} has {', '.join(found) or 'none'}"
        )
    return study
