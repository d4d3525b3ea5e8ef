"""The mistakes that other code of this field makes: for each a whole run, or the command itself, that would show it.

The order is that of the project's list of them. Unit tests beside the modules look closer at many of these; here each
claim is made once from the YAML files to the records, so that no path around those modules goes unnoticed.
"""

import contextlib
import functools
import hashlib
import json
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyautoattack
import pytest
import torch
import yaml
from commands import SMALL, call
from composition import configuration
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from safetensors.torch import load_file
from typer.testing import CliRunner
from weights import same_weights, weights

from robust_arch.analysis.groups import only_group
from robust_arch.architectures import Classifier
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.attacks.base import Attack
from robust_arch.cli import app
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.evaluation import read_attack
from robust_arch.configuration.nodes import instantiate
from robust_arch.configuration.settings import read_settings
from robust_arch.data import ImageSet
from robust_arch.data.digits import Digits
from robust_arch.engine.frozen import FrozenNetwork
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.execution import execute as runner
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.interop import export_checkpoint, load_checkpoint
from robust_arch.runs import RunFolder, StudyFolder, load_study, metrics
from robust_arch.study.plan import plan_study
from robust_arch.training import fit as fit_module
from robust_arch.training.datamodule import StudyData
from robust_arch.training.module import AdversarialTraining

EPOCHS = 10
STEPS = 8
EPS = 0.1
# enough for a network that is right on most images and robust on some, in two seconds
LONGER = (*SMALL, f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={STEPS}", f"threat.eps={EPS}",
          "objective.attack.steps=2", "recipe.batch_size=64")  # fmt: skip
SPEC = ("arch.depths=[1,1,1]", "arch.widths=[4,8,8]")
# two steps an epoch, where a run is needed and not its numbers
TINY = (
    *(override for override in SMALL if not override.startswith(("trainer.max_epochs", "evaluate."))),
    "objective=natural",
    "recipe.epochs=2",
    "trainer.limit_train_batches=2",
    "evaluate.attacks=[]",
    "evaluate.n=10",
    "evaluate.checkpoints=[last]",
)


def loaded(cfg):
    return Run.load(read_settings(cfg))


def executed(cfg):
    run = loaded(cfg)
    assert execute(run) == "completed", run.folder.status.error
    return run


def evaluated(folder, path, *overrides):
    """The record that the command of evaluation leaves."""
    return evaluate(configuration(folder, f"checkpoint={path}", "evaluate.n=40", *overrides, config="evaluate"))


def digests(*folders):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for each in folders for path in each.rglob("*.*")}


def state_of(net):
    """Everything of a network that an attack could leave changed."""
    return {
        "modes": [module.training for module in net.modules()],
        "requires_grad": [parameter.requires_grad for parameter in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "buffers": [buffer.clone() for buffer in net.buffers()],
        "weights": [parameter.detach().clone() for parameter in net.parameters()],
    }


def is_same(one, other):
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one is other if one is None or other is None else one == other


@contextlib.contextmanager
def every_attack():
    """Every call of an attack inside: its images, and what of the network it left otherwise than it found it."""
    calls = []
    real = Attack.__call__

    def call(attack, net, x, y, threat, **settings):
        training, before = net.training, state_of(net)
        x_adv = real(attack, net, x, y, threat, **settings)
        after = state_of(net)
        changed = [name for name in before if not is_same(before[name], after[name])]
        kept = {"net": net, "training": training, "changed": changed, "threat": threat, **settings}
        calls.append(SimpleNamespace(x=x.clone(), x_adv=x_adv.clone(), y=y, **kept))
        return x_adv

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attack, "__call__", call)
        yield calls


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run; every attack on its way; the learning rate of every step; the checkpoints as training left them.

    Nobody may write to its folder.
    """
    rates, saved = [], {}
    real, real_fit = AdversarialTraining.training_step, fit_module.fit

    def fitted(module, data, settings, *, folder, **others):
        real_fit(module, data, settings, folder=folder, **others)
        saved.update(digests(folder))

    def step(module, *args):
        rates.append((module.current_epoch, module.trainer.optimizers[0].param_groups[0]["lr"]))
        return real(module, *args)

    with every_attack() as calls, pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialTraining, "training_step", step)
        patch.setattr(fit_module, "fit", fitted)
        run = executed(configuration(tmp_path_factory.mktemp("trained"), *LONGER))
    return SimpleNamespace(run=run, calls=calls, rates=rates, saved=saved, root=run.folder.path.parents[3])


@pytest.fixture
def copy_of(trained, tmp_path):
    """A function that copies the study of the finished run; returns the copy's results folder's parent and the run."""

    def make(name="copy"):
        shutil.copytree(trained.root / "results", tmp_path / name / "results")
        return tmp_path / name, RunFolder(tmp_path / name / trained.run.folder.path.relative_to(trained.root))

    return make


def rows_without_time(folder):
    clock = ("seconds", "time")
    return [{name: value for name, value in row.items() if name not in clock} for row in metrics.read_rows(folder)]


def records_of(folder):
    return {record.checkpoint: record.plain() for record in folder.evaluation_records()}


# --- model selection on the test set


def test_the_labels_of_the_test_set_play_no_part_in_training_and_selection(trained, tmp_path, monkeypatch):
    # mistake: the epoch with the best test accuracy is called `best`
    real = Digits.read

    def permuted(dataset):
        train, test = real(dataset)
        return train, ImageSet(test.images, (test.labels + 1) % 10, test.num_classes, test.max_value)

    monkeypatch.setattr(Digits, "read", permuted)
    run, before = executed(configuration(tmp_path, *LONGER)), trained.run
    assert run.run_id == before.run_id
    assert run.folder.result.best_epoch == before.folder.result.best_epoch
    assert rows_without_time(run.folder.metrics) == rows_without_time(before.folder.metrics)
    for which in ("best", "last"):
        assert same_weights(weights(run, which), weights(before, which))
        # the other labels were there at all
        assert records_of(run.folder)[which]["clean"]["count"] != records_of(before.folder)[which]["clean"]["count"]


def test_what_selects_is_held_out_of_the_training_set_by_a_seed(trained, tmp_path):
    # mistake: the set that selects is a part of the test set, or of the images that the weights are fitted to
    splits = trained.run.splits
    train, test = Digits(name="digits").read()

    def bag(*sets):
        return Counter(image.numpy().tobytes() for each in sets for image in each.images)

    assert bag(splits.train, splits.val) == bag(train)
    assert bag(splits.test) == bag(test)
    other = loaded(configuration(tmp_path, *SMALL, "data.split_seed=1")).splits
    assert bag(other.val) != bag(splits.val)
    assert bag(other.train, other.val) == bag(train)
    assert bag(other.test) == bag(test)


def test_best_is_chosen_by_robust_accuracy_and_both_best_and_last_are_reported(tmp_path, monkeypatch):
    # mistake: selection by clean accuracy, or only the flattering one of two checkpoints reported
    held_out = [(50.0, 3), (20.0, 5), (60.0, 5), (90.0, 1)]  # clean accuracy, robust count: epoch 1 is the best

    def planted(module):
        clean, count = held_out[module.current_epoch]
        module.log_dict({"val_clean_acc": clean, "val_robust_acc": 5.0 * count, "val_robust_count": float(count)})

    monkeypatch.setattr(AdversarialTraining, "on_validation_epoch_end", planted)
    run = executed(configuration(tmp_path, *SMALL, "objective=natural", "trainer.max_epochs=4"))
    assert (run.folder.result.best_epoch, run.folder.result.last_epoch) == (1, 3)
    epochs = {which: torch.load(run.folder.checkpoint(which), weights_only=True)["epoch"] for which in ("best", "last")}
    assert epochs == {"best": 1, "last": 3}
    frame = load_study(tmp_path / "results" / "single")
    assert list(frame["checkpoint"].sort_values()) == ["best", "last"]
    assert frame["clean_acc"].notna().all()
    assert frame["worst_case_acc"].notna().all()


# --- attack output outside the ball or the box; scoring another iterate than the projected one

NORMS = {"linf": EPS, "l2": 0.5}
ATTACKS = {"linf": ("fgsm", "pgd20", "cw40", "gama100", "square"), "l2": ("fgsm", "pgd20")}


@pytest.fixture(scope="module")
def attacked(trained, tmp_path_factory):
    """By norm the record of an evaluation that kept its images, and every call of an attack in it."""
    found = {}
    for norm, eps in NORMS.items():
        root = tmp_path_factory.mktemp(norm)
        shutil.copytree(trained.root / "results", root / "results")
        path = root / trained.run.folder.checkpoint("best").relative_to(trained.root)
        wanted = (f"evaluate.attacks=[{','.join(ATTACKS[norm])}]", "evaluate.save_images=true")
        with every_attack() as calls:
            record = evaluated(root, path, *wanted, f"threat.norm={norm}", f"threat.eps={eps}", "rerun=true")
        found[norm] = SimpleNamespace(record=record, calls=calls, path=path)
    return found


def outside(x, x_adv, norm, eps):
    """How many images left the ball or the box, in exact float64."""
    offset = (x_adv.double() - x.double()).flatten(1)
    length = offset.abs().amax(dim=1) if norm == "linf" else offset.square().sum(dim=1).sqrt()
    box = (x_adv.flatten(1) < 0).any(dim=1) | (x_adv.flatten(1) > 1).any(dim=1)
    return int(((length > eps) | box).sum())


def test_no_attack_of_a_run_leaves_the_ball_or_the_box(trained, attacked):
    # mistake: the last step is not projected, or onto the ball alone
    calls = [*trained.calls, *(call for each in attacked.values() for call in each.calls)]
    assert sum(call.training for call in trained.calls) == STEPS * EPOCHS
    assert sum(not call.training for call in trained.calls) >= EPOCHS + 2  # every selection, and the evaluation
    assert all(any(call.threat.norm == norm for call in calls) for norm in NORMS)
    assert [outside(call.x, call.x_adv, call.threat.norm, call.threat.eps) for call in calls] == [0] * len(calls)


@pytest.mark.parametrize("norm", NORMS)
def test_the_projected_images_are_those_that_are_scored(norm, attacked):
    # mistake: the recorded score is of another iterate, for example the one before the projection
    record, eps = attacked[norm].record, NORMS[norm]
    assert record.invalid == []
    net = load_checkpoint(attacked[norm].path).net
    examples = record.examples.images
    x, y = examples.images.float() / 16, examples.labels
    with torch.no_grad():
        clean = net(x).argmax(dim=1) == y
        for name in ATTACKS[norm]:
            x_adv = load_file(record.images_path(name))["x_adv"]
            assert outside(x, x_adv, norm, eps) == 0
            robust = clean & (net(x_adv).argmax(dim=1) == y)
            assert 0 < int(robust.sum()) < int(clean.sum())  # otherwise any iterate would score the same
            np.testing.assert_array_equal(record.arrays[name], robust.numpy())
            assert record.content["attacks"][name]["count"] == int(robust.sum())


# --- a margin loss summed over the batch


@pytest.mark.parametrize("name", ["cw40", "gama100"])
def test_an_attack_on_the_margin_does_not_depend_on_the_batch_size(name, attacked, copy_of):
    # mistake: the margins of a batch are summed before a non-linearity
    root, run = copy_of()
    whole = attacked["linf"].record
    record = evaluated(
        root, run.checkpoint("best"), f"evaluate.attacks=[{name}]", "evaluate.batch_size=7",
        "evaluate.save_images=true",
    )  # fmt: skip
    images = [load_file(each.images_path(name))["x_adv"] for each in (whole, record)]
    # sums in another order may turn the sign of a gradient that is almost zero
    assert float((images[0] - images[1]).abs().gt(1e-6).float().mean()) < 0.01
    np.testing.assert_array_equal(record.arrays[name], whole.arrays[name])


# --- BatchNorm statistics moved by the attack; mode or requires_grad left changed


def test_no_attack_of_a_run_changes_anything_of_the_network(trained, attacked):
    # mistake: the attack runs in training mode and moves BatchNorm, or leaves the mode or requires_grad changed
    assert any(call.training for call in trained.calls)
    calls = [*trained.calls, *(call for each in attacked.values() for call in each.calls)]
    assert [call.changed for call in calls] == [[]] * len(calls)


# --- a missing checkpoint or a non-matching key goes unnoticed, and random weights are evaluated


def key_of(tensors, end):
    return next(key for key in tensors if key.endswith(end))


def renamed(tensors):
    key = key_of(tensors, "conv1.weight")
    return {key.replace("conv1", "conv_1") if key == each else each: value for each, value in tensors.items()}


def without_one(tensors):
    return {key: value for key, value in tensors.items() if key != key_of(tensors, "running_var")}


def with_one_more(tensors):
    key = key_of(tensors, "conv1.weight")
    return {**tensors, key.replace("conv1", "conv3"): tensors[key]}


def reshaped(tensors):
    key = key_of(tensors, "fc.weight")
    return {**tensors, key: torch.cat([tensors[key]] * 2, dim=1)}


DAMAGES = {
    "renamed key": (renamed, r"missing key .*conv1.*unknown key .*conv_1"),
    "missing key": (without_one, r"missing key .*running_var"),
    "unknown key": (with_one_more, r"unknown key .*conv3"),
    "wrong shape": (reshaped, r"fc\.weight' has shape \(10, 16\), not \(10, 8\)"),
}


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """The finished run's best checkpoint outside its folder, as this project and as others write it."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(trained.run.folder.checkpoint("best"), folder / "own.ckpt")
    export_checkpoint(folder / "own.ckpt", folder / "published.pt", "published")
    return {"state_dict": folder / "own.ckpt", "model_state_dict": folder / "published.pt"}


def damaged(source, place, damage, out):
    content = torch.load(source, weights_only=True)
    torch.save({**content, place: damage(content[place])}, out)
    return out


def evaluate_file(root, place, path):
    unrecorded = (*SPEC, "data=digits", f"threat.eps={EPS}") if place == "model_state_dict" else ()
    return evaluated(root, path, *unrecorded, "evaluate.attacks=[fgsm]")


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict"])
@pytest.mark.parametrize("damage", [*DAMAGES, "missing file"])
def test_weights_that_do_not_fit_are_an_error_and_leave_no_record(damage, place, files, tmp_path):
    # mistake: what does not load is skipped, and the random weights in its place are evaluated
    path, message = tmp_path / "network.pt", r"no such file"
    if damage in DAMAGES:
        change, message = DAMAGES[damage]
        damaged(files[place], place, change, path)
    with pytest.raises(InputError, match=message):
        evaluate_file(tmp_path, place, path)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict"])
def test_the_same_file_undamaged_gets_the_accuracy_of_its_weights(place, files, trained, tmp_path):
    # mistake: as above; this is what shows that the errors above are of the damage
    path = damaged(files[place], place, dict, tmp_path / "network.pt")
    record = evaluate_file(tmp_path, place, path)
    assert record.content["clean"] == records_of(trained.run.folder)["best"]["clean"]
    np.testing.assert_array_equal(record.arrays["fgsm"], np.load(first_arrays(trained.run.folder, "best"))["fgsm"])


def first_arrays(folder, checkpoint):
    return folder.evaluations / f"{records_of(folder)[checkpoint]['eval_id']}.npz"


def test_a_run_whose_checkpoint_does_not_fit_gets_no_number(copy_of):
    # mistake: as above, in the run that adds an attack to its own records
    root, folder = copy_of()
    before = {path.name: path.read_bytes() for path in folder.evaluations.iterdir()}
    damaged(folder.checkpoint("best"), "state_dict", renamed, folder.checkpoint("best"))
    run = loaded(configuration(root, *LONGER, "evaluate.attacks=[cw40]"))
    assert execute(run) == "failed"
    assert "conv_1" in run.folder.status.error
    assert {path.name: path.read_bytes() for path in folder.evaluations.iterdir()} == before


# --- evaluation that overwrites the training checkpoint


def test_evaluation_leaves_every_checkpoint_byte_for_byte(copy_of, files, trained, tmp_path):
    # mistake: the evaluation saves its own state over the checkpoint that it read
    assert len(trained.saved) == 2
    assert digests(trained.run.folder.checkpoints) == trained.saved
    root, folder = copy_of()
    checkpoints = [folder.checkpoints, files["state_dict"].parent]
    before = digests(*checkpoints)
    assert {path.name for path in before} == {"best.ckpt", "last.ckpt", "own.ckpt", "published.pt"}
    done = [
        evaluated(root, folder.checkpoint(which), "evaluate.attacks=[fgsm]", "evaluate.save_images=true", *extra)
        for which in ("best", "last")
        for extra in ((), ("rerun=true", "threat.eps=0.2"))
    ]
    done += [evaluate_file(root, place, path) for place, path in files.items()]
    executed(configuration(root, *LONGER, "evaluate.attacks=[cw40]"))
    assert all(record.has_clean for record in done)
    assert {record.threat for record in folder.evaluation_records()} == {"linf-0.2", "linf-0.1"}
    assert digests(*checkpoints) == before


# --- "AutoAttack" that runs a part of the suite; more target classes than the data has


@pytest.fixture
def parts_of_suite(monkeypatch):
    """Every part of the suite that ran, on how many images and target classes; none of them finds anything."""
    ran = []

    def spy(kind, describe):
        def perturb(self, x, y=None, *args, **kwargs):
            ran.append((*describe(self), len(x)))
            return x.clone()

        monkeypatch.setattr(kind, "perturb", perturb, raising=False)

    spy(APGDAttack, lambda attack: (f"apgd-{attack.loss}", None))
    spy(APGDAttack_targeted, lambda attack: ("apgd-t", attack.n_target_classes))
    spy(FABAttack_PT, lambda attack: ("fab-t" if attack.targeted else "fab", attack.n_target_classes))
    spy(SquareAttack, lambda attack: ("square", None))
    return ran


def test_autoattack_is_all_four_attacks_on_every_example(copy_of, parts_of_suite):
    # mistake: one or two of the four attacks, under the name of the suite
    root, folder = copy_of()
    record = evaluated(root, folder.checkpoint("best"), "evaluate.attacks=[autoattack]")
    assert record.invalid == []
    right = record.content["clean"]["count"]
    assert right > 10
    # on ten classes; what the network gets wrong without an attack needs none
    assert parts_of_suite == [("apgd-ce", None, right), ("apgd-t", 9, right), ("fab-t", 9, right),
                              ("square", None, right)]  # fmt: skip
    assert record.content["attacks"]["autoattack"]["n"] == 40
    assert record.content["attacks"]["autoattack"]["count"] == right


def test_only_the_whole_standard_suite_is_called_autoattack():
    # mistake: a part of the suite under the name of the whole
    versions = {
        path.stem: version
        for path in (conf_dir() / "attack").glob("*.yaml")
        if (version := getattr(read_attack(path.stem).attack, "version", None))
    }
    assert versions == {"autoattack": "standard", "autoattack_plus": "plus", "autoattack_rand": "rand"}
    assert not isinstance(read_attack("aa_screen").attack, AutoAttack)
    suite = pyautoattack.AutoAttack(torch.nn.Identity(), version="standard")
    assert suite.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of images in folders, 6 to train and 2 to test on in each."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("ant", "bee", "cat"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return root


def test_autoattack_on_three_classes_is_refused_before_any_work(images, tmp_path):
    # mistake: a DLR loss that is undefined, and says so after days of training or never
    data = ("data=image_folder", f"data.root={images}", f"data.cache={images}/cache", "data.name=insects",
            "recipe.batch_size=4", "evaluate.n=null")  # fmt: skip
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'autoattack': expected data of at least 4 classes"):
        loaded(configuration(tmp_path, *SMALL, *data, "evaluate.attacks=[autoattack]"))
    assert not (tmp_path / "results").exists()


# --- duplicated test examples from a padded distributed sampler


def test_every_test_example_counts_once(trained, copy_of):
    # mistake: the last batch is filled up with examples that were counted before
    root, folder = copy_of()
    with every_attack() as calls:
        record = evaluated(
            root, folder.checkpoint("best"), "evaluate.attacks=[fgsm]", "evaluate.n=null", "evaluate.batch_size=77"
        )  # 360 is no multiple of 77
    right = torch.from_numpy(record.arrays["clean"]).nonzero()[:, 0]  # what is wrong already is not attacked
    assert torch.cat([call.index for call in calls]).tolist() == right.tolist()
    assert record.arrays["index"].tolist() == list(range(360))
    assert {len(values) for values in record.arrays.values()} == {360}
    frame = load_study(folder.path.parents[1])
    assert 360 in set(frame["n_test"])
    net, test = load_checkpoint(folder.checkpoint("best")).net, trained.run.splits.test
    with torch.no_grad():
        right = int((net(test.images.float() / 16).argmax(dim=1) == test.labels).sum())
    assert record.content["clean"]["count"] == right


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_every_held_out_example_is_on_one_device_alone(devices, trained):
    # mistake: as above, in the accuracy that selects
    data = StudyData(trained.run.splits, batch_size=32, drop_last=True, val_images=101, seed=0)
    seen = []
    for rank in range(devices):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=devices, strategy=strategy)
        seen += [index for _, _, positions in data.val_dataloader() for index in positions.tolist()]
    assert sorted(seen) == list(range(101))


@pytest.mark.slow  # processes start slowly
def test_two_processes_count_an_odd_number_of_examples_once(tmp_path):
    # mistake: as above, by the sampler that Lightning puts in the place of ours
    # under so small a radius images stay right, so that count and accuracy tell how many there were
    run = executed(
        configuration(
            tmp_path, *TINY, "threat.eps=0.0001", "recipe.batch_size=8", "trainer.limit_train_batches=40",
            "trainer.max_epochs=1", "selection.images=21", "trainer.devices=2",
        )
    )  # fmt: skip
    (row,) = metrics.read_rows(run.folder.metrics)
    assert row["val_robust_count"] > 0
    assert 100 * row["val_robust_count"] / row["val_robust_acc"] == pytest.approx(21)
    assert {record.n_test for record in run.folder.evaluation_records()} == {10}


# --- config keys that nobody reads

# Keys whose effect on training no other test shows: another value gives different weights or rows of metrics.csv.
# After the value: the overrides without which the key does not matter. tests/integration/test_keys.py shows that every
# key is read at all
SAT, TRADES, MART = ((f"objective={name}", "objective.attack.steps=2") for name in ("sat", "trades", "mart"))
EMA, SWA = "recipe/averaging=ema", "recipe/averaging=swa"
SELECTION = ("trainer.limit_train_batches=8", "selection.images=200")
TRAINING = {
    "threat.norm": ("l2", *SAT, "threat.eps=0.2"),
    "threat.eps": (0.1, *SAT),
    "data.eps.linf": (0.1, *SAT),
    "recipe.batch_size": (16,),
    # of 1,197 images the second batch is not whole
    "recipe.drop_last": (False, "recipe.batch_size=1000"),
    "recipe.gradient_clip": (0.01,),
    "recipe.normalize": ("dataset",),
    "recipe.decay_all": (False,),
    "recipe.optimizer.lr": (0.05,),
    "recipe.optimizer.momentum": (0.5,),
    "recipe.optimizer.weight_decay": (0.1,),
    "recipe.optimizer.nesterov": (True, "recipe=huang2021_500k", "recipe.batch_size=32"),
    "recipe.schedule.milestones": ([0.5],),
    "recipe.schedule.factor": (0.5, "recipe.schedule.milestones=[0.5]"),
    "recipe.schedule.by_epochs": (False, "recipe=huang2021_500k", "recipe.batch_size=32"),
    "recipe.schedule.lag": (0, "recipe=huang2021_500k", "recipe.batch_size=32"),
    "recipe.schedule.peak": (0.6, "recipe=short"),
    "recipe.augment.padding": (1,),
    "recipe.augment.flip": (True,),
    "recipe.augment.cutout": (4,),
    "recipe.averaging.decay": (0.5, EMA, "recipe.averaging.warmup=false"),
    "recipe.averaging.warmup": (False, EMA),
    "recipe.averaging.select": ("raw", EMA),
    "recipe.averaging.batch_norm": ("recompute", EMA),
    "recipe.averaging.start": (0.0, SWA),
    "recipe.averaging.every": ("step", SWA, "recipe.averaging.start=0"),
    "recipe.awp.gamma": (0.1,),
    "recipe.awp.warmup_epochs": (1, "recipe.awp.gamma=0.1"),
    "objective.beta": (1.0, *TRADES),
    "objective.attack.steps": (1, *SAT),
    "objective.attack.rel_step_size": (0.1, *SAT),
    "objective.attack.rel_noise": (0.5, "objective=n_fgsm"),
    "objective.attack.start.std": (0.1, *TRADES),
    "objective.attack.start.rel_std": (0.5, *MART),
    "selection.images": (100, *SELECTION),
    "selection.attack.steps": (1, *SELECTION),
    "selection.attack.rel_step_size": (0.01, *SELECTION),
}
# what decides the evaluation: another value gives other records, other files or other batches
EVALUATION = {
    "evaluate.attacks": ["pgd20", "fgsm"],
    "evaluate.cascade": ["fgsm", "pgd20"],
    "evaluate.n": 30,
    "evaluate.batch_size": 7,
    "evaluate.save_images": True,
    "evaluate.diagnostics": 8,
    "evaluate.smoothness": 8,
    "evaluate.seed": 1,
}
# what decides the plan of a study, on top of the grid or the shares
GRID = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4,8],[8],[8,16]]")
SHARES = (GRID[0], "search.space.shares=[[0.2,0.3,0.5]]", "search.budget.params=20000", "search.budget.tolerance=0.1")
VARY = "search.space.vary.widths=[2]"
PLAN = {
    "search.space.depths": ([[1], [1, 2], [1]], *GRID),
    "search.space.widths": ([[4], [8], [8, 16]], *GRID),
    "search.space.shares": ([[0.5, 0.3, 0.2]], *SHARES),
    "search.space.width_step": (4, *SHARES),
    "search.budget.params": (3242, *GRID),
    "search.budget.macs": (90_000, *GRID, "search.budget.tolerance=0.2"),
    "search.budget.tolerance": (0.5, *GRID, "search.budget.params=3242"),
    "search.seeds": ([0, 1], *GRID),
    "search.space.tie.depths": ([[1, 3]], "search.space.depths=[[1,2],[1],[1,2]]", GRID[1]),
    "search.space.tie.widths": ([[1, 3]], *GRID),
    "search.space.last_share": ([0.0, 0.6], *GRID),
    "search.space.vary.widths": ([2],),
    "search.space.vary.depths": ([2],),
    "search.space.vary.stages": (["last"], VARY),
    "search.space.vary.together": (True, VARY),
    "search.space.vary.refill": (True, VARY, "search.budget.params=arch", "search.budget.tolerance=0.9"),
    "search.sample": (2, *GRID),
    "search.sample_seed": (1, GRID[0], "search.space.widths=[[4,8,12],[4,8,12],[4,8,12]]", "search.sample=5"),
}


def leaves(node, prefix=""):
    """The keys of a configuration that hold a value and no further keys."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def choices(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def changed(cfg, key, value):
    """The configuration as it would be composed with one key set otherwise."""
    other = cfg.copy()
    OmegaConf.update(other, key, value)
    assert OmegaConf.select(other, key) == value
    return other


@pytest.fixture(scope="module")
def training_outcome(tmp_path_factory):
    """A function from overrides and changed key to weights and rows of metrics.csv."""

    @functools.cache
    def outcome(context, key=None):
        cfg = configuration(tmp_path_factory.mktemp("keys"), *TINY, *context)
        if key is not None:
            cfg = changed(cfg, key, TRAINING[key][0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "_evaluate", lambda run, folder: None)
            folder = executed(cfg).folder
        return list(weights(folder, "last").values()), rows_without_time(folder.metrics)

    return outcome


@pytest.mark.parametrize("key", TRAINING)
def test_a_key_of_training_changes_the_training(key, training_outcome):
    context = TRAINING[key][1:]
    tensors, rows = training_outcome(context)
    other_tensors, other_rows = training_outcome(context, key)
    assert not (is_same(tensors, other_tensors) and rows == other_rows)


@pytest.fixture(scope="module")
def evaluation_of(trained, tmp_path_factory):
    """A function from changed key to all that an evaluation of `best` leaves, without times, and its batches."""

    @functools.cache
    def outcome(key=None):
        place = tmp_path_factory.mktemp("evaluation")
        shutil.copytree(trained.root / "results", place / "results")
        folder = RunFolder(place / trained.run.folder.path.relative_to(trained.root))
        shutil.rmtree(folder.evaluations)
        own = (f"checkpoint={folder.checkpoint('best')}", "evaluate.attacks=[pgd20]", "evaluate.n=40")
        cfg = configuration(place, *own, config="evaluate")
        with every_attack() as calls:
            record = evaluate(cfg if key is None else changed(cfg, key, EVALUATION[key]))
        content = record.content
        numbers = {name: content.get(name) for name in ("lipschitz", "n_test", "worst_case")}
        parts = {name for name in ("diagnostics", "smoothness") if name in content}
        files = {path.suffix for path in folder.evaluations.iterdir()}
        arrays = {name: array.tolist() for name, array in record.arrays.items()}
        return numbers, arrays, parts, files, [len(call.x) for call in calls]

    return outcome


@pytest.mark.parametrize("key", EVALUATION)
def test_a_key_of_evaluation_changes_the_records(key, evaluation_of):
    assert evaluation_of(key) != evaluation_of()


@pytest.mark.parametrize("key", PLAN)
def test_a_key_of_a_study_changes_its_plan(key, tmp_path):
    value, *context = PLAN[key]
    cfg = configuration(tmp_path, *SMALL, *context)
    rows = [[planned.row() for planned in plan_study(each, []).runs] for each in (cfg, changed(cfg, key, value))]
    assert rows[0]
    assert rows[1]
    assert rows[0] != rows[1]


@pytest.mark.parametrize("name", choices("attack"))
def test_every_key_of_an_attack_is_checked(name):
    content = yaml.safe_load((conf_dir() / "attack" / f"{name}.yaml").read_text())
    instantiate(DictConfig(content), name)
    for key in leaves(content):
        with pytest.raises(InputError):
            instantiate(changed(DictConfig(content), key, "nonsense"), name)


def test_the_checkpoints_that_are_asked_for_are_evaluated(copy_of):
    for wanted in (["best"], ["last"], ["best", "last"]):
        root, folder = copy_of("-".join(wanted))
        shutil.rmtree(folder.evaluations)
        executed(configuration(root, *LONGER, "evaluate.attacks=[]", f"evaluate.checkpoints=[{','.join(wanted)}]"))
        assert set(records_of(folder)) == set(wanted)


def test_threads_progress_bar_and_project_reach_whom_they_are_for(tmp_path, monkeypatch, capfd):
    made = []

    class Quiet(runner.Tracker):
        def __init__(self, *args, **kwargs):
            made.append(kwargs["project"])

    monkeypatch.setattr(runner, "WandbTracker", Quiet)
    for threads, bar in ((3, True), (4, False)):
        asked = []
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        cfg = configuration(tmp_path, *TINY, "logger=wandb", f"logger.project=own{threads}")
        for key, value in (("threads", threads), ("progress_bar", bar)):
            cfg = changed(cfg, f"trainer.{key}", value)
        executed(changed(cfg, "study.name", f"threads{threads}"))
        assert set(asked) == {threads}
        assert ("epoch 2 of 2" in "".join(capfd.readouterr())) == bar
    assert made == ["own3", "own4"]


def test_the_switches_of_the_engine_reach_what_they_switch(tmp_path, monkeypatch):
    given, kept = [], []

    def fit_nothing(module, data, settings, **_):
        given.append((module, data))
        raise RuntimeError("nothing is trained here")

    monkeypatch.setattr(fit_module, "fit", fit_nothing)
    monkeypatch.setattr("robust_arch.training.settings.keep_freed_memory", lambda: kept.append(True))
    switched = (
        {},
        {"fold": False},
        {"channels_last": False},
        {"data": "stream"},
        {"keep_memory": False},
        {"compile": True},
        {"compile": "step"},
    )
    for number, changes in enumerate(switched):
        cfg = configuration(tmp_path, *TINY, f"study.name=s{number}")
        for key, value in changes.items():
            cfg = changed(cfg, f"trainer.{key}", value)
        run = loaded(cfg)
        assert execute(run) == "failed"
        compiled = changes.get("compile", False)
        assert yaml.safe_load(run.folder.config.read_text())["trainer"]["compile"] == compiled
        module, data = given[-1]
        net = module.attacked_net
        assert isinstance(net, Classifier) == (changes == {"fold": False})
        assert getattr(net, "compiled", False) == bool(compiled)
        assert module.compiled == (compiled == "step")
        stem = module.net.network.stages[0][0].conv1.weight
        assert stem.is_contiguous(memory_format=torch.channels_last) == (changes != {"channels_last": False})
        assert data.place == changes.get("data", "auto")
    assert len(kept) == len(switched) - 1


def test_evaluation_attacks_the_form_that_the_key_says(files, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("robust_arch.training.settings.keep_freed_memory", lambda: kept.append(True))
    for number, (fold, keep) in enumerate(((True, True), (False, False))):
        with every_attack() as calls:
            evaluated(
                tmp_path, files["state_dict"], "evaluate.attacks=[fgsm]", f"trainer.fold={fold}",
                f"trainer.keep_memory={keep}", f"study.name=e{number}",
            )  # fmt: skip
        assert {isinstance(call.net, Classifier) for call in calls} == {not fold}
        assert len(kept) == 1


def test_the_keys_of_the_evaluate_command_are_read(files, tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    asked = (*SPEC, "data=digits", "evaluate.attacks=[fgsm]", "evaluate.n=40", "threat.eps=0.2", "study.name=here",
             "trainer.threads=3")  # fmt: skip
    cfg = configuration(tmp_path, f"checkpoint={files['model_state_dict']}", *asked, config="evaluate")
    first = evaluate(cfg)
    assert threads == [3]
    assert first.folder.parents[2] == tmp_path / "results" / "here"
    assert evaluate(changed(cfg, "results_dir", f"{tmp_path}/other")).folder.parents[3] == tmp_path / "other"
    assert evaluate(changed(cfg, "checkpoint", str(files["state_dict"]))).folder != first.folder
    for key, value in (("threat.eps", 0.1), ("threat.norm", "l2")):
        record = evaluate(changed(cfg, key, value))
        assert record.content["threat"] != first.content["threat"]
        assert record.content["attacks"]["fgsm"]["count"] > first.content["attacks"]["fgsm"]["count"]
    stamps = []
    for rerun in (False, True):
        stamps.append(first.json_path.stat().st_mtime_ns)
        evaluate(changed(cfg, "rerun", rerun))
    stamps.append(first.json_path.stat().st_mtime_ns)
    assert stamps[0] == stamps[1] < stamps[2]
    shape = {"family": "resnet", "depths": [2, 1, 1], "widths": [4, 8, 4], "stem_width": 8}
    for field, value in {**shape, "activation": "nonsense", "dropout": 2}.items():
        with pytest.raises(InputError):
            evaluate(changed(cfg, f"arch.{field}", value))


# --- a learning-rate rule with an unreachable branch


def test_the_learning_rate_of_every_step_is_the_published_table(trained, tmp_path):
    # mistake: x 0.01 is never reached, as the condition for x 0.1 holds there too
    # lr x 0.1 from epoch e >= 0.75 E and x 0.01 from e >= 0.9 E; e counts from 0, and E is 10
    table = [0.1] * 8 + [0.01] + [0.001]
    assert trained.rates == [(epoch, pytest.approx(rate)) for epoch, rate in enumerate(table) for _ in range(STEPS)]
    rows = metrics.read_rows(trained.run.folder.metrics)
    assert [row["lr"] for row in rows] == pytest.approx(table, rel=1e-12)


# --- robust accuracy computed in half precision


@pytest.fixture
def tf32_allowed():
    """TensorFloat-32 allowed, as a user's own code may have left it."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [each.allow_tf32 for each in flags]

    def allow(*values):
        for each, value in zip(flags, values, strict=True):
            each.allow_tf32 = value

    yield lambda: allow(True, True)
    allow(*before)


def test_evaluation_is_float32_after_training_in_mixed_precision(tmp_path, monkeypatch, tf32_allowed):
    # mistake: the final evaluation runs under the precision of the training
    passes = []

    def watch(kind, weights_of):
        real = kind.forward

        def forward(net, x):
            logits = real(net, x)
            tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
            if len(x) > 1:  # one image alone only tells the number of classes
                passes.append((logits.dtype, torch.is_autocast_enabled("cpu"), tf32, weights_of(net)))
            return logits

        monkeypatch.setattr(kind, "forward", forward)

    watch(Classifier, lambda net: net.network.fc.weight.dtype)
    watch(FrozenNetwork, lambda net: net.dtype)
    run = executed(
        configuration(tmp_path, *SMALL, "trainer.precision=bf16-mixed", "objective=natural", "evaluate.attacks=[]")
    )
    assert any(dtype == torch.bfloat16 for dtype, *_ in passes)  # mixed precision was on
    for where in ("the run", "the command"):
        tf32_allowed()
        passes.clear()
        if where == "the run":
            executed(configuration(tmp_path, *SMALL, "trainer.precision=bf16-mixed", "objective=natural"))
        else:
            path = run.folder.checkpoint("best")
            evaluated(tmp_path, path, "trainer.precision=bf16-mixed", "evaluate.attacks=[cw40,gama100]")
        assert len(passes) > 20
        assert set(passes) == {(torch.float32, False, False, torch.float32)}
    record = records_of(run.folder)["best"]
    assert record["precision"] == "float32"
    assert set(record["attacks"]) == {"fgsm", "pgd20", "cw40", "gama100"}
    assert record["invalid"] == []


# --- a table that mixes runs of different recipes, eps or selection rules without naming them

# each with a seed of its own, by which a table's rows are known again
MIXTURE = (
    (),
    ("recipe=short",),
    ("threat.eps=0.1",),
    ("objective=trades", "objective.beta=0"),  # natural training under another name
    ("trainer.max_epochs=2",),
    ("evaluate.attacks=[pgd20]",),
    ("evaluate.n=30",),
    (),
)
DECIDES = ("objective", "recipe", "train_threat", "threat", "data", "epochs", "n_test", "weights", "checkpoint")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A study of runs that may not be compared, but for the first and the last."""
    root = tmp_path_factory.mktemp("mixture")
    for seed, overrides in enumerate(MIXTURE):
        executed(
            configuration(
                root, *SMALL, "objective=natural", "trainer.max_epochs=1", "trainer.limit_train_batches=15",
                "recipe.batch_size=64", "evaluate.attacks=[fgsm]", f"seed={seed}", "study.name=mixed", *overrides,
            )
        )  # fmt: skip
    return root / "results" / "mixed"


def tables_of_command(study, monkeypatch):
    """Title and seeds of each table that `robust-arch results` prints."""
    monkeypatch.setenv("COLUMNS", "400")
    printed = CliRunner().invoke(app, ["results", str(study)])
    assert printed.exit_code == 0, printed.output
    seeds = {row["run_id"]: int(row["seed"]) for row in load_study(study).to_dict("records")}
    tables = []
    for block in re.split(r"(?=^study mixed)", printed.output, flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("┏")
        tables.append((" ".join(title.split()), [seeds[run_id] for run_id in re.findall(r"\b[0-9a-f]{12}\b", body)]))
    return tables


def test_a_table_holds_only_what_may_be_compared_and_says_what_it_is(mixture, monkeypatch):
    # mistake: a table that mixes recipes, radii, attacks, test sets or selection rules
    tables = tables_of_command(mixture, monkeypatch)
    attacks = [name for name in load_study(mixture).columns if name.endswith("_acc")]
    rows = {
        (int(row["seed"]), row["checkpoint"]): tuple(
            [row[name] for name in DECIDES] + [name for name in attacks if row[name] == row[name]]
        )
        for row in load_study(mixture).to_dict("records")
    }
    assert len(rows) == 2 * len(MIXTURE)
    shown = []
    for title, seeds in tables:
        (checkpoint,) = re.findall(r"heckpoint (best|last)", title)
        kinds = {rows[seed, checkpoint] for seed in seeds}
        assert len(kinds) == 1, title
        (kind,) = kinds
        for said in (f"recipe {kind[1]}", f"trained under {kind[2]}", f"attacked under {kind[3]}", f"{kind[6]:g} test",
                     f"objective {kind[0]}", f"({kind[5]:g} epoch"):  # fmt: skip
            assert said in title
        shown += [(seed, checkpoint) for seed in seeds]
    # every evaluation in one table, and the two comparable runs in the same
    assert sorted(shown) == sorted(rows)
    assert [sorted(seeds) for _, seeds in tables if len(seeds) > 1] == [[0, len(MIXTURE) - 1]] * 2


def test_a_figure_of_what_may_not_be_compared_is_refused(mixture):
    # mistake: as above, in one picture
    frame = load_study(mixture)
    alike = frame[frame["seed"].isin((0, len(MIXTURE) - 1)) & (frame["checkpoint"] == "best")]
    assert len(only_group(alike).rows) == len(alike)
    for others in (frame[frame["seed"].isin((0, 1)) & (frame["checkpoint"] == "best")], frame[frame["seed"] == 0]):
        with pytest.raises(InputError, match=r"exactly one group"):
            only_group(others)


# --- files written by hand in the place of a study

STUDY = (
    *SMALL,
    *GRID,
    "search.budget.params=4000",
    "search.budget.tolerance=0.2",
    "study.name=grid",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=15",
    "recipe.batch_size=64",
    "objective=natural",
    "evaluate.attacks=[fgsm]",
)
# by hand: 4-8-8 has 144 + 824 + 920 + 1,248 + 106 = 3,242 parameters, 8-8-8 4,650; 4-8-16 has 5,722, 8-8-16 7,130
INSIDE = {"4-8-8": 3242, "8-8-8": 4650}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder that one command for a study leaves; the command exits with an error unless all its runs are done.

    Two of its runs were done before: one with everything right on the test set and nothing on held-out images, and
    one the other way round.
    """
    root = tmp_path_factory.mktemp("grid")
    for name, held_out in (("4-8-8", 101.0), ("8-8-8", 0.0)):
        member = f"arch.widths=[{name.replace('-', ',')}]"
        done = executed(configuration(root, *STUDY, member))
        result = json.loads((done.folder.path / "result.json").read_text())
        (done.folder.path / "result.json").write_text(json.dumps({**result, "best_val_robust_acc": held_out}))
        for path in done.folder.evaluations.glob("*.json"):
            record = json.loads(path.read_text())
            for numbers in (record["clean"], record["worst_case"], *record["attacks"].values()):
                numbers["percent"] = 100.0 - min(held_out, 100.0)
            path.write_text(json.dumps(record))
    finalists = "study.finalists={top:1,attacks:[cw40],n:20}"
    done = call("robust_arch.train", "-m", *STUDY, "hydra/sweeper=budget", "search.seeds=[0,1]", finalists, cwd=root)
    assert done.returncode == 0, done.stderr
    return root / "results" / "grid"


def test_one_command_is_a_study_from_its_grid_to_its_figures(study):
    # mistake: a YAML file for each run, and results copied together by hand
    plan = {(row["arch"].rpartition("-w")[2], int(row["params"]), int(row["seed"])) for row in read_plan(study)}
    assert plan == {(widths, params, seed) for widths, params in INSIDE.items() for seed in (0, 1)}
    frame = load_study(study)
    assert set(frame["run_id"]) == {row["run_id"] for row in read_plan(study)}
    assert set(zip(frame["widths"], frame["params"], frame["seed"], strict=True)) == plan
    assert set(frame["status"]) == {"completed"}
    assert frame["fgsm_acc"].notna().sum() == 8  # best and last of four runs
    assert len((study / "results.csv").read_text().splitlines()) == 1 + len(frame)
    assert CliRunner().invoke(app, ["report", str(study)]).exit_code == 0
    page = (study / "report" / "index.html").read_text()
    assert page.count('<div class="scroll drawing"') >= 1


def read_plan(path):
    return StudyFolder(path).read_plan()


def test_the_finalist_of_a_study_is_chosen_on_held_out_images(study):
    # mistake: model selection on the test set, among the runs of a study
    frame = load_study(study)
    finalists = frame[frame["cw40_acc"].notna()]
    assert list(zip(finalists["widths"], finalists["seed"], finalists["n_test"], strict=True)) == [("4-8-8", 0, 20)]
    assert CliRunner().invoke(app, ["report", str(study)]).exit_code == 0
    page = (study / "report" / "index.html").read_text()
    marked = re.findall(r'<tr class="selected">(.*?)</tr>', page, re.DOTALL)
    assert marked
    assert all("w4-8-8" in row for row in marked)
