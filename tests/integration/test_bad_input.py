"""Whatever the user gets wrong is one clear error that names key, value and what is allowed, before any work."""

import pytest
from commands import SMALL, command

from robust_arch.configuration.evaluation import read_finalists
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.study.plan import plan_study

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
    ("logger.mode=live", ["logger.mode", "'live'", "offline or online"]),
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
    logger = ["logger=wandb"] if override.startswith("logger.") else []
    with pytest.raises(InputError) as error:
        Run.load(read_settings(composed(*logger, override)))
    assert [part for part in parts if part not in str(error.value)] == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("overrides", "parts"), STUDY_CASES, ids=[str(case[0]) for case in STUDY_CASES])
def test_a_study_is_refused(composed, tmp_path, overrides, parts):
    with pytest.raises(InputError) as error:
        plan_study(composed(*overrides), [])
    assert [part for part in parts if part not in str(error.value)] == []
    assert not (tmp_path / "results").exists()


def test_unequal_shares_of_devices_are_refused(composed):
    with pytest.raises(InputError, match=r"recipe\.drop_last = False: true where trainer\.devices > 1"):
        read_settings(composed("trainer.devices=2", "recipe.drop_last=false"))


def test_what_would_only_fail_after_the_sweep_is_refused_before(composed):
    with pytest.raises(InputError, match=r"recipe\.optimizer: .*-1"):
        read_settings(composed("recipe.optimizer.lr=-1"))
    with pytest.raises(InputError, match=r"study\.finalists"):
        read_finalists(composed("study.finalists={top: 1, attacks: [fgsm]}"))
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'none'"):
        read_finalists(composed("study.finalists={top: 1, attacks: [none], n: 5}"))
    with pytest.raises(InputError, match=r"threat\.eps = 8: at most 1 under linf"):
        read_settings(composed("threat.eps=8"))


FLAGS = (
    "rerun",
    "recipe.drop_last",
    "recipe.decay_all",
    "recipe.augment.flip",
    "evaluate.save_images",
    "trainer.progress_bar",
)


@pytest.mark.parametrize("key", FLAGS)
@pytest.mark.parametrize("value", ["no", "1", "nonsense"])
def test_what_is_neither_true_nor_false_is_refused(composed, key, value):
    # any such word would count as true: rerun=no would clear what is recorded
    with pytest.raises(InputError, match=rf"{key} = .*: true or false"):
        read_settings(composed(f"{key}={value}"))


@pytest.mark.parametrize("value", ["nonsense", "-1", "true", "1.5"])
def test_a_split_seed_that_is_no_seed_is_refused(composed, value):
    with pytest.raises(InputError, match=r"data\.split_seed = .*: an integer of at least 0"):
        read_settings(composed(f"data.split_seed={value}"))


@pytest.mark.parametrize("key", ["std", "rel_std"])
@pytest.mark.parametrize("value", ["nonsense", "-1", "true"])
def test_a_start_that_cannot_be_is_refused(composed, key, value):
    start = f"+objective.attack.start={{_target_: robust_arch.attacks.Gaussian, {key}: {value}}}"
    with pytest.raises(InputError, match=rf"attack\.start\.{key} = "):
        read_settings(composed(start))


def test_a_folder_that_is_not_there_is_named(composed):
    with pytest.raises(InputError, match=r"data\.root = '/nowhere/at/all'.*train/<class>"):
        Run.load(read_settings(composed("data=image_folder", "data.root=/nowhere/at/all")))
    with pytest.raises(InputError, match=r"data\.root = None.*the folder"):
        read_settings(composed("data=image_folder"))


def test_the_command_says_it_in_one_line_and_fails(tmp_path):
    done = command("robust_arch.train", *SMALL, "arch.depths=[0,1,1]", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: arch.depths = [0, 1, 1]: each stage needs an integer of at least 1"]
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
