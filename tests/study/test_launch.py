"""Runs that fail, are killed with their worker, or stop the study: who is launched when, against hand-made scripts."""

import logging

import pytest
from hydra.core.utils import JobReturn, JobStatus

from robust_arch.architectures import ArchSpec
from robust_arch.common.identity import describe
from robust_arch.configuration.evaluation import read_attack
from robust_arch.configuration.settings import read_settings
from robust_arch.evaluation import EvaluationSettings
from robust_arch.execution.run import Run
from robust_arch.runs.folder import RunFolder
from robust_arch.study.launch import launch_until_settled
from robust_arch.study.plan import PlannedRun, plan_study


class Launcher:
    """Runs nothing: each run ends as the script of its seed says next; a killed one takes the others with it."""

    def __init__(self, runs, **scripts):
        self.runs = {planned.run.settings.seed: planned.run for planned in runs}
        self.scripts = {seed: list(scripts.get(f"seed{seed}", ["completed"])) for seed in self.runs}
        self.batches = []

    def launch(self, job_overrides, initial_job_idx):
        seeds = [int(next(item for item in job[::-1] if item.startswith("seed="))[5:]) for job in job_overrides]
        self.batches.append(seeds)
        return [self.do(seed) for seed in seeds]

    def do(self, seed):
        run, end = self.runs[seed], self.scripts[seed].pop(0)
        if run.settings.stop_on_failure and run.study.is_stopped:
            end = "not begun"
        elif end == "killed":
            run.folder.write_state("running", run.facts, attempt=True)
            raise RuntimeError("a worker was killed")
        else:
            run.folder.write_state(end, run.facts, attempt=True, end=end)
        if end == "failed" and run.settings.stop_on_failure:
            run.study.stop()
        returned = JobReturn()
        returned.status = JobStatus.COMPLETED if end == "completed" else JobStatus.FAILED
        returned.return_value = ValueError(end)
        return returned


@pytest.fixture
def plan(composed, monkeypatch):
    """A function from overrides to the planned runs of seeds 0 to 3."""
    monkeypatch.setattr(Run, "is_done", lambda run: run.folder.state == "completed")
    return lambda *overrides: list(plan_study(composed("search.seeds=[0,1,2,3]", *overrides), []).runs)


def settled(runs, **scripts):
    launcher = Launcher(runs, **scripts)
    launch_until_settled(launcher, runs)
    return launcher.batches


def states(runs):
    return [planned.run.folder.state for planned in runs]


def test_what_is_done_is_not_launched(plan):
    runs = plan()
    runs[1].run.folder.write_state("completed", runs[1].run.facts)
    assert settled(runs) == [[0, 2, 3]]
    assert settled(runs) == []


def test_the_log_tells_what_is_trained_and_lacks_an_evaluation_alone(plan, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="robust_arch.study.launch")
    runs = plan()
    monkeypatch.setattr(RunFolder, "trained", property(lambda folder: folder.state == "completed"))
    monkeypatch.setattr(Run, "is_done", lambda run: run.settings.seed == 0 and run.folder.trained)
    settled(runs)
    settled(runs)
    launch_until_settled(Launcher(runs), runs[1:2], "finalists")
    assert [line for line in caplog.messages if "already" in line] == [
        "0 of 4 runs are done already",
        "1 of 4 runs are done already; trained, still to be evaluated: 3",
        "0 of 1 finalists are done already; trained, still to be evaluated: 1",
    ]


def test_a_failed_run_is_tried_once_more_by_default(plan):
    runs = plan()
    assert settled(runs, seed1=["failed", "completed"]) == [[0, 1, 2, 3], [1]]
    assert states(runs) == ["completed"] * 4


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_attempts_have_a_limit(plan, retries):
    runs = plan(f"study.retries={retries}")
    assert settled(runs, seed2=["failed"] * 9) == [[0, 1, 2, 3], *[[2]] * retries]
    assert states(runs) == ["completed", "completed", "failed", "completed"]
    assert runs[2].run.folder.status.attempts == retries + 1


def test_a_diverged_run_is_not_tried_again(plan):
    runs = plan("study.retries=5")
    assert settled(runs, seed0=["diverged"]) == [[0, 1, 2, 3]]
    assert settled(runs) == []


def test_a_run_that_kills_its_worker_goes_alone_after_the_others(plan):
    runs = plan("study.retries=2")
    assert settled(runs, seed1=["killed"] * 9) == [[0, 1, 2, 3], [2, 3], [1], [1]]
    assert states(runs) == ["completed", "planned", "completed", "completed"]
    assert runs[1].run.folder.end == "killed"
    assert [planned.run.folder.status.attempts for planned in runs] == [1, 3, 1, 1]


def test_two_that_kill_their_worker_take_nobody_with_them(plan):
    runs = plan()
    assert settled(runs, seed0=["killed"] * 9, seed1=["killed"] * 9) == [[0, 1, 2, 3], [1, 2, 3], [0], [2, 3], [1]]
    assert states(runs) == ["planned", "planned", "completed", "completed"]


def test_a_launcher_that_begins_nothing_is_not_asked_for_ever(plan):
    class Broken:
        asked = 0

        def launch(self, job_overrides, initial_job_idx):
            self.asked += 1
            raise RuntimeError("no such partition")

    broken = Broken()
    launch_until_settled(broken, plan())
    assert broken.asked == 1


def test_stopped_on_failure_nothing_further_begins_and_nothing_is_tried_again(plan):
    runs = plan("study.stop_on_failure=true", "study.retries=5")
    assert settled(runs, seed1=["failed"] * 9) == [[0, 1, 2, 3]]
    assert states(runs) == ["completed", "failed", "planned", "planned"]


def test_rerun_does_each_again_once(plan):
    runs = plan("rerun=true")
    for planned in runs:
        planned.run.folder.write_state("completed", planned.run.facts)
    assert settled(runs, seed3=["failed", "completed"]) == [[0, 1, 2, 3], [3]]


CHANGES = {
    "seed": {"seed": 3},
    "architecture": {"spec": ArchSpec("wide_resnet", (2, 1, 1), (8, 4, 8))},
    "once more from where it is": {"rerun": False},
    "finalist": {
        "rerun": False,
        "evaluation": EvaluationSettings(
            attacks=(read_attack("cw40"),), n=None, save_images=True, diagnostics=7, batch_size=9, checkpoints=("best",)
        ),
    },
    "no attack": {"evaluation": EvaluationSettings(attacks=(), seed=5)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_job_composes_the_settings_of_the_changed_run(composed, name):
    given = ("rerun=true", "evaluate.n=20", "evaluate.attacks=[fgsm,pgd20]")
    planned = PlannedRun.composed(Run.load(read_settings(composed(*given))), given)
    changed = planned.changed(seed=1).changed(**CHANGES[name])
    job = read_settings(composed(*changed.overrides))
    expected = {"spec": planned.run.settings.spec, "seed": 1, "rerun": True} | CHANGES[name]
    assert {key: getattr(job, key) for key in expected if key != "evaluation"} == {
        key: value for key, value in expected.items() if key != "evaluation"
    }
    evaluation = expected.get("evaluation", planned.run.settings.evaluation)
    assert describe(job.evaluation) == describe(evaluation) == describe(changed.run.settings.evaluation)
    assert job.run_id(planned.run.training_fingerprint) == changed.run.run_id


def test_a_change_that_no_job_would_get_is_refused(composed):
    planned = PlannedRun.composed(Run.load(read_settings(composed())), ())
    with pytest.raises(KeyError, match="retries"):
        planned.changed(retries=3)
