"""Whatever the user gets wrong is one clear error that names key, value and what is allowed, before any work."""

import pytest
from commands import SMALL, call

from robust_arch.configuration.evaluation import read_finalists
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.study.plan import checked_finalists, plan_study

GRID = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[8],[8]]")

RUN_CASES = [
    ("arch.depths=[0,1,1]", ["arch.depths", "[0, 1, 1]", "at least 1"]),
    ("arch.depths=[1,1]", ["arch.widths", "(4, 8, 8)", "arch.depths = (1, 1)"]),
    ("arch.family=resnext", ["arch.family", "'resnext'", "wide_resnet"]),
    ("arch.activation=sine", ["arch.activation", "'sine'", "relu"]),
    ("threat.eps=-8/255", ["threat.eps", "-8/255", "at least 0"]),
    ("threat.eps=big", ["threat.eps", "'big'", "8/255"]),
    ("threat.norm=l7", ["threat.norm", "'l7'", "linf"]),
    ("seed=-1", ["seed", "-1", "at least 0"]),
    ("recipe.batch_size=5000", ["recipe.batch_size", "5000", "1197 training images"]),
    ("recipe.batch_size=0", ["recipe.batch_size", "0", "at least 1"]),
    ("recipe.normalize=minmax", ["recipe.normalize", "'minmax'", "identity or dataset"]),
    ("recipe.gradient_clip=-1", ["recipe.gradient_clip", "-1", "greater than 0"]),
    ("recipe.schedule.milestones=[2]", ["recipe.schedule.milestones", "2", "(0, 1)"]),
    ("trainer.max_epochs=0", ["trainer.max_epochs", "0", "at least 1"]),
    ("trainer.devices=3", ["recipe.batch_size", "32", "multiple of trainer.devices = 3"]),
    ("trainer.accelerator=tpu", ["trainer.accelerator", "'tpu'", "auto, cpu or gpu"]),
    ("trainer.precision=16", ["trainer.precision", "16", "bf16-mixed"]),
    ("evaluate.attacks=[pgd21]", ["evaluate.attacks", "'pgd21'", "pgd20"]),
    ("evaluate.attacks=[fgsm,fgsm]", ["evaluate.attacks", "different names"]),
    ("evaluate.n=361", ["evaluate.n", "361", "360 test examples"]),
    ("evaluate.n=0", ["evaluate.n", "0", "at least 1"]),
    ("evaluate.checkpoints=[newest]", ["evaluate.checkpoints", "newest", "best, last"]),
    ("objective.attack.steps=0", ["attack.steps", "0", "at least 1"]),
    ("objective.attack.rel_step_size=0", ["attack.rel_step_size", "0", "greater than 0"]),
    ("data.val_fraction=1.5", ["data.val_fraction", "1.5", "between 0 and 1"]),
    ("selection.images=0", ["selection.images", "0", "at least 1"]),
    ("study.name=a/b", ["study.name", "'a/b'", "without a slash"]),
    ("logger=wandb logger.mode=live", ["logger.mode", "'live'", "offline or online"]),
    # any such word would count as true: rerun=no would clear what is recorded
    ("rerun=no", ["rerun", "'no'", "true or false"]),
    ("trainer.progress_bar=1", ["trainer.progress_bar", "1", "true or false"]),
    ("trainer.devices=2 recipe.drop_last=false", ["recipe.drop_last", "False", "true where trainer.devices > 1"]),
    ("trainer.compile=maybe", ["trainer.compile", "'maybe'", "auto, true, false or step"]),
    ("trainer.compile=true trainer.fold=false", ["trainer.compile", "True", "false where trainer.fold=false"]),
    ("trainer.data=disk", ["trainer.data", "'disk'", "auto, device or stream"]),
    ("data.split_seed=1.5", ["data.split_seed", "1.5", "at least 0"]),
    ("data.train_images=1e3", ["data.train_images", "1000.0", "an integer of at least 1"]),
    ("data=image_folder", ["data.root", "None", "the folder"]),
    ("data=image_folder data.root=/nowhere/at/all", ["data.root", "'/nowhere/at/all'", "train/<class>"]),
    ("recipe.optimizer.lr=-1", ["recipe.optimizer", "-1"]),
    ("threat.eps=8", ["threat.eps", "8", "at most 1 under linf"]),
]

STUDY_CASES = [
    ((GRID[1],), ["search.space.depths", "None", "[[1,2],[1,2],[1]]"]),
    ((GRID[0],), ["search.space", "widths", "shares"]),
    ((*GRID, "search.budget.params=100"), ["100 parameters", "none of the 1 points", "params"]),
    ((*GRID, "search.budget.params=-5"), ["search.budget.params", "-5", "at least 1"]),
    ((*GRID, "search.budget.tolerance=2"), ["search.budget.tolerance", "2", "below 1"]),
    ((*GRID, "search.seeds=[0,0]"), ["search.seeds", "different integers"]),
    ((*GRID, "search.seeds=[-1]"), ["search.seeds", "-1", "at least 0"]),
    (("search.space.depths=[[1],[1],[0]]", GRID[1]), ["search.space.depths", "0", "at least 1"]),
    ((GRID[0], "search.space.shares=[[0.5,0.5,0.5]]", "search.budget.params=9000"), ["shares", "0.5", "sum 1"]),
    (("search.space.shares=[]", "search.budget.params=9000"), ["search.space.shares", "[]", "a list of divisions"]),
    ((*GRID, "search.space.tie.widths=[[]]"), ["search.space.tie.widths", "[[]]", "groups of stages"]),
    ((*GRID, "+search.space.foo=1"), ["search.space.foo: unknown key", "width_step"]),
    ((*GRID, "+search.space.tie.foo=1"), ["search.space.tie.foo: unknown key", "widths"]),
    (("+search.space.vary.foo=1",), ["search.space.vary.foo: unknown key", "refill"]),
    ((*GRID, "+search.budget.foo=1"), ["search.budget.foo: unknown key", "tolerance"]),
    ((*GRID, "+search.allocation.foo=1"), ["search.allocation.foo: unknown key", "cuts"]),
    ((*GRID, "~search.space.width_step"), ["search.space.width_step: missing"]),
    *(
        ((f"search.{name}={value}",), [f"search.{name} = {shown}", "a group of keys"])
        for name in ("space", "budget", "allocation", "space.tie", "space.vary")
        for value, shown in (("5", "5"), ("null", "None"))
        if "." not in name or shown != "None"  # a group inside a group may be null
    ),
    ((GRID[0], "search.space.shares=[[0.2,0.3,0.5]]"), ["search.budget", "no budget", "params or macs"]),
]


@pytest.mark.parametrize(("override", "parts"), RUN_CASES, ids=[case[0] for case in RUN_CASES])
def test_a_run_is_refused(composed, tmp_path, override, parts):
    with pytest.raises(InputError) as error:
        Run.load(read_settings(composed(*override.split())))
    assert [part for part in parts if part not in str(error.value)] == []
    assert not (tmp_path / "results").exists()


def test_nothing_is_written_into_a_recorded_study(composed, tmp_path):
    archive = tmp_path / "shown" / "runs.json"
    archive.parent.mkdir()
    archive.write_text("{}")
    with pytest.raises(
        InputError, match=r"study\.name = 'shown': expected another name: .*shown holds a recorded study"
    ):
        Run.load(read_settings(composed(*SMALL, "study.name=shown", f"results_dir={tmp_path}")))
    assert [path.name for path in archive.parent.iterdir()] == ["runs.json"]


@pytest.mark.parametrize(("overrides", "parts"), STUDY_CASES, ids=[str(case[0]) for case in STUDY_CASES])
def test_a_study_is_refused(composed, tmp_path, overrides, parts):
    with pytest.raises(InputError) as error:
        plan_study(composed(*overrides), [])
    assert [part for part in parts if part not in str(error.value)] == []
    assert not (tmp_path / "results").exists()


def test_finalists_are_checked_before_the_sweep(composed):
    with pytest.raises(InputError, match=r"study\.finalists"):
        read_finalists(composed("study.finalists={top: 1, attacks: [fgsm]}"))
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'none'"):
        read_finalists(composed("study.finalists={top: 1, attacks: [none], n: 5}"))


@pytest.mark.parametrize(
    ("attacks", "n", "warned"),
    [("[aa_screen,autoattack]", 40, True), ("[aa_screen]", 40, False), ("[cw40]", 20, False)],
)
def test_finalists_that_no_other_run_can_be_compared_with_are_warned_of(attacks, n, warned, composed, caplog):
    cfg = composed("evaluate.attacks=[aa_screen]", f"study.finalists={{top: 1, attacks: {attacks}, n: {n}}}")
    finalists = checked_finalists(cfg, Run.load(read_settings(cfg)))
    assert finalists.evaluation.n == n
    assert [text.startswith("study.finalists.n = 40: ") for text in caplog.messages] == [True] * warned
    assert all("have autoattack in" in text for text in caplog.messages)


@pytest.mark.parametrize("key", ["std", "rel_std"])
@pytest.mark.parametrize("value", ["nonsense", "-1"])
def test_a_start_that_cannot_be_is_refused(composed, key, value):
    start = f"+objective.attack.start={{_target_: robust_arch.attacks.Gaussian, {key}: {value}}}"
    with pytest.raises(InputError, match=rf"attack\.start\.{key} = "):
        read_settings(composed(start))


def test_the_command_reports_it_in_one_line_and_fails(tmp_path):
    done = call("robust_arch.train", *SMALL, "arch.depths=[0,1,1]", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: arch.depths = [0, 1, 1]: expected an integer of at least 1 for each stage"
    ]
    assert not (tmp_path / "results").exists()


def test_an_unknown_preset_and_an_unknown_key_are_named(train_command, tmp_path):
    preset = train_command("arch=wrn_99_9")
    assert preset.returncode == 1
    assert "wrn_99_9" in preset.stderr
    assert "wrn_34_10" in preset.stderr
    key = train_command("recipe.bathc_size=1")
    assert key.returncode == 1
    assert "bathc_size" in key.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("wrong", "told"), [("seed=0,-1", "seed = -1: expected"), ("recipe.optimizer.lr=1.0e+30", "diverged")]
)
def test_a_sweep_of_hydra_itself_ends_without_a_traceback_of_its_own(tmp_path, wrong, told):
    words = (*SMALL, "data=digits", "recipe=digits", f"results_dir={tmp_path}")
    ended = call("robust_arch.train", "-m", *words, wrong, cwd=tmp_path)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr.split("Error executing job")[-1]
