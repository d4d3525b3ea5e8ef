"""Optuna over divisions of a budget: every suggestion is inside it, what is trained counts once, the front is right."""

import pytest
import yaml
from commands import SMALL, call

from robust_arch.architectures import ArchSpec, cost
from robust_arch.runs import StudyFolder, load_study

pytestmark = pytest.mark.slow

ARGUMENTS = (
    "robust_arch.train", "-m", "study=optuna", "study.name=tiny", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1",
    "search.budget.params=5000", "search.space.width_step=1",
    *(item for item in SMALL if not item.startswith("arch.")), "evaluate.attacks=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder after four trials, the times of its checkpoints then, and the folder's study after four more."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    folder = tmp_path_factory.mktemp("optuna")
    first = call(*ARGUMENTS, cwd=folder)
    assert first.returncode == 0, first.stderr
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    again = call(*ARGUMENTS, cwd=folder)
    assert again.returncode == 0, again.stderr
    return folder / "results" / "tiny", written


def trials(path):
    import optuna

    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{path}/optuna.db").trials


def test_every_suggestion_is_inside_the_budget(searched):
    frame = load_study(searched[0])
    assert len(frame) >= 4
    for row in frame.itertuples():
        depths, widths = ([int(part) for part in text.split("-")] for text in (row.depths, row.widths))
        costs = cost(ArchSpec("wide_resnet", depths, widths), 10, (1, 8, 8))
        assert abs(costs.params / 5000 - 1) <= 0.02


def test_the_study_goes_on_and_trains_nothing_twice(searched):
    path, written = searched
    assert len(trials(path)) == 8
    assert len(written) >= 4
    assert written == {file: file.stat().st_mtime_ns for file in written}


def test_trials_hold_what_the_records_say(searched):
    recorded = {
        (run.result.best_val_robust_acc, float(run.result.cost.macs)) for run in StudyFolder(searched[0]).runs()
    }
    assert {tuple(trial.values) for trial in trials(searched[0])} == recorded


def test_the_front_is_what_no_trial_beats_in_both(searched):
    values = {tuple(trial.values) for trial in trials(searched[0])}
    best = {
        (robust, macs)
        for robust, macs in values
        if not any(r >= robust and m <= macs and (r, m) != (robust, macs) for r, m in values)
    }
    front = yaml.safe_load((searched[0] / "optimization_results.yaml").read_text())["solutions"]
    assert {tuple(solution["values"]) for solution in front} == best


def test_what_is_not_allowed_is_refused_before_any_trial(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    for override, message in (
        ("search.budget.params=10", "error: search.budget = "),
        ("study.objectives=[macs]", "error: study.objectives = ['macs']: expected one per entry of"),
    ):
        process = call(*ARGUMENTS, override, cwd=tmp_path)
        assert process.returncode == 1
        assert message in process.stderr
        assert not (tmp_path / "results").exists()
