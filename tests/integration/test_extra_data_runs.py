"""Runs with extra images in each batch: their identity, their record, and that they resume bit for bit."""

import json
import pickle
import signal
from contextlib import suppress

import numpy as np
import pytest
import torch
from composition import configuration
from PIL import Image
from stopping import stopped_at

from robust_arch.analysis.groups import groups
from robust_arch.analysis.scaling.points import recorded_images
from robust_arch.common.process import exit_now
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.evaluate_checkpoint import evaluate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import load_study
from robust_arch.training.module import AdversarialTraining


def pixels(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of 8x8 images, 10 to train and 3 to test on each, and extra images in both formats."""
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", 10), ("test", 3)):
        for number, name in enumerate(("ant", "bee", "cat")):
            (root / part / name).mkdir(parents=True)
            for position, image in enumerate(pixels(count, seed=number)):
                Image.fromarray(image).save(root / part / name / f"{position}.png")
    np.savez(root / "gen.npz", image=pixels(50, seed=9), label=np.arange(50) % 3)
    content = {"data": pixels(50, seed=9), "extrapolated_targets": np.arange(50) % 3}
    (root / "ti.pickle").write_bytes(pickle.dumps(content, 2))
    return root


def configured(folder, results, *overrides):
    """A run of two epochs of four batches of 8."""
    cfg = configuration(
        results, "arch.depths=[1,1,1]", "arch.widths=[4,8,8]", "logger=csv", "data=image_folder",
        f"data.root={folder}", f"data.cache={folder}/cache", "data.name=insects", "data.val_fraction=0.2",
        "recipe.batch_size=8", "recipe.steps_per_epoch=4", "objective=natural", "trainer.accelerator=cpu",
        "trainer.precision=32", "trainer.threads=1", "trainer.max_epochs=2", "evaluate.attacks=[fgsm]",
        "evaluate.n=null", *overrides,
    )  # fmt: skip
    return Run.load(read_settings(cfg))


@pytest.fixture(scope="module")
def whole(folder):
    """A finished run with extra images, and the batches that it trained on."""
    run = configured(folder, folder, "extra=npz", f"extra.path={folder}/gen.npz")
    seen = []
    take = AdversarialTraining.training_step

    def spied(self, batch, batch_idx):
        seen.append(batch)
        return take(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialTraining, "training_step", spied)
        assert execute(run) == "completed"
    return run, seen


@pytest.fixture
def loaded(folder, tmp_path):
    """A function from overrides to a loaded run, with a folder of results of its own."""
    return lambda *overrides: configured(folder, tmp_path, *overrides)


@pytest.fixture
def npz(folder):
    return ("extra=npz", f"extra.path={folder}/gen.npz")


def weights(run):
    return torch.load(run.folder.checkpoint("last"), weights_only=True)["state_dict"]


def is_same(run, other):
    one, two = weights(run), weights(other)
    return all(torch.equal(one[key], two[key]) for key in one)


def test_the_record_says_what_was_mixed_in(whole):
    run, _ = whole
    recorded = json.loads((run.folder.path / "result.json").read_text())["data"]
    assert (recorded["name"], recorded["train"], recorded["val"], recorded["test"]) == ("insects", 24, 6, 9)
    expected = {"name": "gen", "file": "gen.npz", "images": 50, "fraction": 0.5, "per_batch": 4}
    assert recorded["extra"] == {**expected, "fingerprint": run.splits.extra.fingerprint()}
    assert recorded["images_per_epoch"] == 4 * 8
    study = run.folder.path.parents[1]
    assert recorded_images(study) == recorded_images(study / "results.csv") == {run.run_id: 32}
    assert recorded["fingerprint"].endswith(run.splits.extra.fingerprint())
    assert run.folder.result.data.extra.images == 50
    assert "gen, 50 images, 4 of each batch" in (run.folder.evaluations / "card.md").read_text()


def test_every_batch_has_both_kinds_with_their_own_labels_and_positions(whole):
    run, seen = whole
    train, extra = run.splits.train, pixels(50, seed=9).transpose(0, 3, 1, 2)
    assert len(seen) == 2 * 4
    for images, labels, index in seen:
        assert [position < 24 for position in index.tolist()] == [True] * 4 + [False] * 4
        assert torch.equal(images[:4], train.images[index[:4]])
        assert torch.equal(labels[:4], train.labels[index[:4]])
        np.testing.assert_array_equal(images[4:], extra[index[4:] - 24])
        assert labels[4:].tolist() == [(position - 24) % 3 for position in index[4:].tolist()]
    # held out and tested on are images of the folder alone
    assert (len(run.splits.val), len(run.splits.test)) == (6, 9)


def test_extra_data_and_steps_are_part_of_the_identity_and_places_are_not(loaded, npz, folder, tmp_path):
    np.savez(tmp_path / "other.npz", image=pixels(50, seed=9) ^ 1, label=np.arange(50) % 3)
    np.savez(tmp_path / "moved.npz", image=pixels(50, seed=9), label=np.arange(50) % 3)
    variants = [
        (), ("recipe.steps_per_epoch=5",), npz, (*npz, "extra.fraction=0.25"), (*npz, "extra.name=generated"),
        ("extra=npz", f"extra.path={tmp_path}/other.npz"),
    ]  # fmt: skip
    identities = [loaded(*variant).run_id for variant in variants]
    assert len(set(identities)) == len(variants)
    # neither the place nor the name of a file, nor its format
    pickled = ("extra=pseudo_labels", "extra.name=null", f"extra.path={folder}/ti.pickle")
    for same in (("extra=npz", f"extra.path={tmp_path}/moved.npz"), (*npz, f"extra.cache={tmp_path}"), pickled):
        assert loaded(*same).run_id == identities[2]


def test_the_other_format_trains_the_same_network(loaded, whole, folder):
    run = loaded("extra=pseudo_labels", f"extra.path={folder}/ti.pickle")
    assert execute(run) == "completed"
    assert is_same(run, whole[0])


def test_rows_with_and_without_extra_data_are_never_one_group(loaded, npz, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    without, mixed = loaded(), loaded(*npz, "extra.fraction=0.25")
    for run in (without, mixed):
        assert execute(run) == "completed"
    # what another command adds belongs to the same run
    evaluate(
        configuration(
            tmp_path, f"checkpoint={mixed.folder.checkpoint('best')}", "evaluate.n=6", "evaluate.attacks=[fgsm]",
            "trainer.accelerator=cpu", config="evaluate",
        )
    )  # fmt: skip
    frame = load_study(mixed.folder.path.parents[1])
    assert set(frame["data"]) == {"insects"}
    name = "huang2021+steps_per_epoch4"
    labels = [(name, 9), (f"{name}+gen@0.25", 6), (f"{name}+gen@0.25", 9)]
    assert sorted(set(zip(frame["recipe"], frame["n_test"], strict=True))) == labels
    assert {frozenset(group.rows["recipe"]) for group in groups(frame)} == {
        frozenset({name}), frozenset({f"{name}+gen@0.25"})
    }  # fmt: skip


def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_bits(loaded, npz, whole, monkeypatch):
    cut, step = loaded(*npz), 5  # of the second epoch the second
    stopped_at(monkeypatch, step)
    before = signal.signal(signal.SIGTERM, exit_now)
    try:
        with suppress(SystemExit):
            execute(cut)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cut.folder.state == "planned"
    assert torch.load(cut.folder.checkpoint("interrupted"), weights_only=True)["global_step"] == step + 1
    assert execute(cut) == "completed"
    assert is_same(cut, whole[0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("extra=npz",), r"^extra\.path = None: expected the path of a file"),
        (("extra=pseudo_labels", "extra.path=/nowhere"), r"^extra\.path = '/nowhere': expected a file"),
        (("extra=npz", "extra.path=x", "extra.fraction=1.5"), r"^extra\.fraction = 1\.5: expected a number between"),
        (("extra=npz", "extra.path=x", "+extra.frac=0.5"), r"^extra\.frac: unknown key; did you mean fraction"),
        (("recipe.steps_per_epoch=0",), r"^recipe\.steps_per_epoch = 0: expected an integer of at least 1, or null"),
        (("recipe.steps_per_epoch=null", "recipe.batch_size=25"), r"^recipe\.batch_size = 25: expected at most the 24"),
    ],
)
def test_bad_settings_are_named_before_any_work(loaded, tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        loaded(*overrides)
    assert not (tmp_path / "results").exists()


def test_shares_that_the_training_set_cannot_fill_are_named(loaded, npz):
    small = (*npz, "recipe.steps_per_epoch=null", "extra.fraction=0.25")
    allowed = "at most the 24 training images in the 27 places that extra images leave"
    with pytest.raises(InputError, match=rf"^recipe\.batch_size = 36: expected {allowed}"):
        loaded(*small, "recipe.batch_size=36")
    assert loaded(*small, "recipe.batch_size=32").steps_per_epoch == 1  # 24 of the 24 images
    with pytest.raises(InputError, match=r"^extra\.fraction = 0\.01: expected a share of recipe\.batch_size = 8"):
        loaded(*npz, "extra.fraction=0.01")


def test_another_shape_is_named(loaded, tmp_path):
    np.savez(tmp_path / "wide.npz", image=np.zeros((4, 8, 9, 3), np.uint8), label=np.zeros(4, int))
    with pytest.raises(InputError, match=r"^extra\.path = .*expected images of shape \(8, 8, 3\).*these are \(8, 9, 3"):
        loaded("extra=npz", f"extra.path={tmp_path}/wide.npz")
