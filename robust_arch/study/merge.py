"""Merging the records of studies that were run on several machines."""

import filecmp
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.analysis.report.card import write_card
from robust_arch.common.files import read_arrays
from robust_arch.errors import InputError, invalid
from robust_arch.evaluation.record import ExtensibleEvaluation, write_pair
from robust_arch.runs import RecordedRun, RunFolder, StudyFolder, lock, open_study
from robust_arch.runs.archive import NAME as ARCHIVE
from robust_arch.runs.records import ELSEWHERE, PlanFacts, Status

_FILES = ("config.yaml", "result.json", "metrics.csv", "train.log")  # status.json is written anew
_RANKS = {"completed": 3, "diverged": 2, "failed": 1}
# what two machines may record differently for the same result: times, hosts, versions and paths
_CIRCUMSTANCES = frozenset(
    {
        "about", "command", "commit", "device", "finished", "hardware", "images", "implementation", "package_version",
        "precision", "seconds", "torch_version", "train_seconds", "versions",
    }
)  # fmt: skip
_DERIVED = frozenset({"worst_case", "invalid", "warnings"})  # from the rest of an evaluation
_SHOWN = 3  # differences of a file

Pair = tuple[dict[str, Any], Mapping[str, np.ndarray]]  # an evaluation record: its JSON and its arrays


@dataclass(frozen=True)
class Conflict:
    """Two completed records of one run with different numbers.

    Attributes:
        run_id: of the run.
        source: the study's folder.
        file: in the run's folder.
        what: the differences, the target's number first.
    """

    run_id: str
    source: Path
    file: str
    what: str


@dataclass
class MergeOutcome:
    """What a merge did.

    Attributes:
        added: runs that the target did not have.
        replaced: runs that got further in a source.
        united: runs with more evaluations than before.
        same: runs that the target had already.
        skipped: run, source and why.
        conflicts: runs that were left unchanged because numbers differ.
        left_out: files, and rows of plan.csv, that do not fit, to the reason.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    united: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    skipped: list[tuple[str, Path, str]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.added or self.replaced or self.united)


class _SkippedError(RuntimeError):
    """Why a run is skipped."""


def merge_studies(sources: Sequence[Path], target: Path) -> MergeOutcome:
    """Copy the records of the studies into `target`, which need not exist; no checkpoints, and no source is changed.

    Raises:
        InputError: for a source that is no study, a target that is, holds or lies in a source, or one that is being
            merged into.
    """
    studies = [open_study(source) for source in sources]
    for study in (*studies, StudyFolder(target)):
        if study.is_archived:
            raise invalid("study", str(study.path), f"a study's folder with runs/ inside, and not only {ARCHIVE}")
    if target.exists() and not target.is_dir():
        raise invalid("--into", str(target), "a study's folder, which need not exist")
    for source in sources:
        _require_apart(source, target)
    with lock.held(target / ".merge.lock") as mine:
        if not mine:
            raise InputError(f"--into = {str(target)!r}: another process is merging into it")
        return _merge(studies, StudyFolder(target))


def _require_apart(source: Path, target: Path) -> None:
    """Raise InputError where what is written into the target would be written into the source."""
    for one in (source.resolve(), (source / "runs").resolve()):
        for other in (target.resolve(), (target / "runs").resolve()):
            if one.is_relative_to(other) or other.is_relative_to(one):
                allowed = f"another folder than the sources, neither inside one nor around it, as with {source}"
                raise invalid("--into", str(target), allowed)


def _merge(studies: Sequence[StudyFolder], target: StudyFolder) -> MergeOutcome:
    outcome = MergeOutcome()
    (target.path / "runs").mkdir(exist_ok=True)
    for left in target.path.glob(".merging-*"):  # by a merge that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".merging-", dir=target.path) as scratch:
        for study in studies:
            for run in study.runs():
                _merge_run(run, study, target, Path(scratch), outcome)
    _merge_plans(studies, target)
    if outcome.changed or not target.results_path.is_file():
        target.write_results()
    for study in (*studies, target):
        outcome.left_out |= {str(study.path / what): why for what, why in study.left_out.items()}
    return outcome


def _merge_run(run: RunFolder, study: StudyFolder, target: StudyFolder, scratch: Path, outcome: MergeOutcome) -> None:
    own, recorded = target.run(run.run_id), run.read()
    try:
        if run.is_locked:
            raise _SkippedError(f"a process works on it in {study.path}")
        if recorded.status:
            _merge_recorded(recorded, recorded.status, own, scratch, study.path, outcome)
        elif any(path.name != ".lock" for path in run.path.iterdir()):
            raise _SkippedError("its status.json cannot be read")
    except _SkippedError as error:
        outcome.skipped.append((run.run_id, study.path, str(error)))


def _merge_recorded(
    run: RecordedRun, status: Status, own: RunFolder, scratch: Path, source: Path, outcome: MergeOutcome
) -> None:
    ours = own.read()
    recorded = ours.status is not None
    state, own_state = _state(run), _state(ours)
    if recorded and state == own_state == "completed":
        _unite(run, ours, source, outcome)
    elif recorded and _RANKS.get(state, 0) <= _RANKS.get(own_state, 0):
        outcome.same.append(run.run_id)
    else:
        _copy_in(run, status, own, scratch)
        (outcome.replaced if recorded else outcome.added).append(run.run_id)


def _state(run: RecordedRun) -> str:
    """The run's state; a training that is recorded as completed without a readable result has to be done again."""
    # a checkpoint from elsewhere was only evaluated: it has no objective, and no result
    trained = run.facts is not None and run.facts.objective is not None
    return "planned" if run.state == "completed" and trained and run.result is None else run.state


def _copy_in(run: RecordedRun, status: Status, own: RunFolder, scratch: Path) -> None:
    """Put a complete copy of the run's records where `own` is."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    copied = RunFolder(place / run.run_id)
    _copy(run, status, copied)
    if run.folder.is_locked or run.folder.status != status:
        raise _SkippedError("a process has begun to work on it")
    if not own.path.exists():
        copied.path.rename(own.path)
        return
    with own.lock() as mine:
        if not mine:
            raise _SkippedError(f"a process works on it in {own.path.parents[1]}")
        if any(own.checkpoints.glob("*.ckpt")) or any(own.evaluations.glob("*.json")):
            raise _SkippedError(f"{own.path} holds its checkpoints or evaluations; move that folder away to replace it")
        own.path.rename(place / "replaced")
        copied.path.rename(own.path)


def _copy(run: RecordedRun, status: Status, copied: RunFolder) -> None:
    copied.evaluations.mkdir(parents=True)
    folder = run.folder
    whole = {eval_id for eval_id in folder.evaluation_ids() if folder.evaluation(eval_id)}
    for name in _FILES:
        if (folder.path / name).is_file() and (name != "result.json" or run.result):
            shutil.copyfile(folder.path / name, copied.path / name)
    if folder.evaluations.is_dir():
        for path in folder.evaluations.iterdir():
            kept = path.name == "card.md" or (path.suffix in (".json", ".npz") and path.stem in whole)
            if kept and path.is_file():
                shutil.copyfile(path, copied.evaluations / path.name)
    # a run that has to be done again is done from its start, so only a completed one needs weights
    mark = {"weights": ELSEWHERE} if run.state == "completed" and run.result else {}
    content = {**status.plain(), **mark}
    (copied.path / "status.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _unite(theirs_run: RecordedRun, own_run: RecordedRun, source: Path, outcome: MergeOutcome) -> None:
    """Add the evaluations that the target lacks, if both completed records agree in every number they share."""
    run, own = theirs_run.folder, own_run.folder
    results = [_without(each.result.plain()) if each.result else {} for each in (theirs_run, own_run)]
    found = list(_different(*results))
    conflicts = [Conflict(run.run_id, source, "result.json", _told(found))] if found else []
    additions = []
    for path in sorted(run.evaluations.glob("*.json")):
        mine = own.evaluations / path.name
        if _same_files(path, mine) or (theirs := _pair(path, run)) is None:
            continue
        if (ours := _pair(mine, own)) is None:
            additions.append((mine, theirs))
        elif found := list(_disagreements(theirs, ours)):
            conflicts.append(Conflict(run.run_id, source, f"evaluations/{path.name}", _told(found)))
        elif (united := _united(theirs, ours)) is not None:
            additions.append((mine, united))
    if conflicts:
        outcome.conflicts.extend(conflicts)
    elif additions:
        _add_evaluations(own, additions)
        outcome.united.append(run.run_id)
    else:
        outcome.same.append(run.run_id)


def _add_evaluations(own: RunFolder, additions: Sequence[tuple[Path, Pair]]) -> None:
    with own.lock() as mine:
        if not mine:
            raise _SkippedError(f"a process works on it in {own.path.parents[1]}")
        for path, (content, arrays) in additions:
            write_pair(path, content, arrays)
        if own.config.is_file():
            write_card(own)


def _same_files(path: Path, other: Path) -> bool:
    """Whether both records are the same to the byte, which spares reading them."""
    pairs = ((path, other), (path.with_suffix(".npz"), other.with_suffix(".npz")))
    return all(one.is_file() and two.is_file() and filecmp.cmp(one, two, shallow=False) for one, two in pairs)


def _pair(path: Path, run: RunFolder) -> Pair | None:
    """An evaluation record of a run, or None if one of its files is missing or does not fit."""
    record, arrays = run.evaluation(path.stem, ExtensibleEvaluation), read_arrays(path.with_suffix(".npz"))
    return (record.plain(), arrays) if record and arrays and record.is_whole_with(arrays) else None


def _disagreements(theirs: Pair, ours: Pair) -> Iterator[str]:
    """Shared numbers of two evaluations that are not the same."""
    for key in sorted((set(theirs[0]) & set(ours[0])) - _DERIVED - {"attacks"}):
        yield from _different(_without(theirs[0][key]), _without(ours[0][key]), key)
    attacks, own = theirs[0]["attacks"], ours[0]["attacks"]
    for name in sorted(set(attacks) & set(own)):
        yield from _different(_without(attacks[name]), _without(own[name]), f"attacks.{name}")
    for name in sorted(set(theirs[1]) & set(ours[1])):
        if not np.array_equal(theirs[1][name], ours[1][name]):
            yield f"{name}: other examples in the .npz"


def _united(theirs: Pair, ours: Pair) -> Pair | None:
    """Both evaluations in one, or None if the second holds the first."""
    attacks = {**theirs[0]["attacks"], **ours[0]["attacks"]}
    content = {**theirs[0], **ours[0], "attacks": attacks}
    if set(attacks) == set(ours[0]["attacks"]) and set(content) == set(ours[0]):
        return None
    return content, {**theirs[1], **ours[1]}


def _without(node: Any) -> Any:
    """What is recorded, without the circumstances under which it was."""
    if isinstance(node, dict):
        return {key: _without(value) for key, value in node.items() if key not in _CIRCUMSTANCES}
    return [_without(value) for value in node] if isinstance(node, list) else node


def _different(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """Each place in which two records differ, like `clean.count: 41 against 43`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _different(theirs.get(key), ours.get(key), f"{where}.{key}" if where else key)
    elif theirs != ours:
        yield f"{where}: {ours} against {theirs}"


def _told(found: Sequence[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _merge_plans(studies: Sequence[StudyFolder], target: StudyFolder) -> None:
    """plan.csv is the union in order of first appearance; study.json keeps what each plan rests on."""
    planned: dict[str, dict[str, str]] = {}
    parts: list[PlanFacts] = []
    for study in (target, *studies):
        for row in study.read_plan():
            planned.setdefault(row["run_id"], row)
        about = study.about
        for part in about.merged or ([PlanFacts.read(about.plain())] if about.plain() else []):
            if part not in parts:
                parts.append(part)
    facts = _about(parts)
    if planned and (list(planned.values()) != target.read_plan() or facts != target.about.plain()):
        target.write_plan(list(planned.values()), facts)


def _about(parts: Sequence[PlanFacts]) -> dict[str, Any]:
    """study.json of several plans; of one its own."""
    if len(parts) < 2:
        return parts[0].plain() if parts else {}
    return {
        "command": "\n".join(dict.fromkeys(part.command for part in parts if part.command)),
        "budgets": sorted({budget for part in parts for budget in part.budgets}),
        "considered": sum(part.considered for part in parts),
        "rejected": sum(part.rejected for part in parts),
        "merged": [part.plain() for part in parts],
    }
