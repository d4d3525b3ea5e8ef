"""An evaluation that is cut off resumes from the blocks it finished, and ends like an undisturbed one."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluations import CPU, SUBJECT, THREAT, evaluated, random_images, without_times
from evaluations import named as with_name
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Attack, ThreatModel
from robust_arch.data.digits import Digits
from robust_arch.evaluation import saved_batches, select_examples, suite
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.interop.checkpoint import LoadedCheckpoint, save_checkpoint

N, BLOCK = 20, 3  # seven blocks, the last of two images
ALL = list(range(N))


class InBlocks(Attack):
    """A randomised gradient attack that is called on blocks, counts its calls and fails at one of them."""

    def __init__(self, fails_at=None, error=RuntimeError, block_size=BLOCK, implementation="planted 1"):
        self.fails_at, self.error, self.block_size, self.own = fails_at, error, block_size, implementation
        self.calls = []

    @property
    def implementation(self):
        return self.own

    @property
    def seen(self):
        return [i for call in self.calls for i in call]

    def run(self, net, x, y, threat, seed, index):
        if len(self.calls) == self.fails_at:
            raise self.error("cut off")
        self.calls.append(index.tolist())
        return PGD(steps=3, rel_step_size=0.4).run(net, x, y, threat, seed, index)


@pytest.fixture
def net(linear):
    """A linear network of five classes."""
    return linear(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def images(net):
    return random_images(net, N)


@pytest.fixture
def undisturbed(net, images, tmp_path_factory):
    """The record of an evaluation that nothing cut off."""
    return without_times(evaluated(tmp_path_factory.mktemp("whole"), net, images, named(InBlocks())))


def named(attack, name="pgd20", **settings):
    """Under this name stability, Lipschitz constants and FOSC are computed too, and have to survive a resumption."""
    return with_name(name, attack, **settings)


def block_files(folder):
    """Finished blocks, by their first example."""
    return {int(path.stem): path for path in folder.glob(".*-*/*.npz")}


def cut_off(folder, net, images, attack, **settings):
    with pytest.raises(attack.attack.error, match="cut off"):
        evaluated(folder, net, images, attack, **settings)


@pytest.mark.parametrize(("done", "error"), [(0, RuntimeError), (4, KeyboardInterrupt), (6, RuntimeError)])
def test_finished_blocks_are_not_attacked_again_and_the_numbers_are_those_of_an_undisturbed_run(
    done, error, net, images, undisturbed, tmp_path
):
    cut_off(tmp_path, net, images, named(InBlocks(done, error)))
    assert sorted(block_files(tmp_path)) == [BLOCK * block for block in range(done)]
    again = InBlocks()
    found = without_times(evaluated(tmp_path, net, images, named(again)))
    assert again.calls == [ALL[start : start + BLOCK] for start in range(0, N, BLOCK)][done:]
    assert found == undisturbed
    assert {"stability", "lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc"} <= set(found[0])
    assert 0 < sum(found[1]["pgd20"]) < sum(found[1]["clean"])  # the attack does something, and not everything


def test_an_evaluation_may_be_cut_off_again_and_again(net, images, undisturbed, tmp_path):
    for _ in range(6):
        cut_off(tmp_path, net, images, named(InBlocks(fails_at=1)))  # one block each time
    (folder,) = tmp_path.glob(".*-*")
    (folder / ".6.npz.0123456789ab.tmp").write_bytes(b"what a kill leaves of a file being written")
    record = evaluated(tmp_path, net, images, named(InBlocks(fails_at=1)))
    assert without_times(record) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{record.eval_id}.json", f"{record.eval_id}.npz"]


TORN = {
    "empty": lambda content: b"",
    "all but a byte": lambda content: content[:-1],
    "zeros inside": lambda content: content[:60] + bytes(40) + content[100:],
    "something else": lambda content: b"not an archive",
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_torn_block_is_attacked_again(tear, net, images, undisturbed, tmp_path):
    cut_off(tmp_path, net, images, named(InBlocks(4)))
    path = block_files(tmp_path)[BLOCK]
    path.write_bytes(tear(path.read_bytes()))
    again = InBlocks()
    assert without_times(evaluated(tmp_path, net, images, named(again))) == undisturbed
    assert again.calls == [ALL[start : start + BLOCK] for start in (3, 12, 15, 18)]


OTHER_SUBJECTS = {
    "run": replace(SUBJECT, run_id="ba9876543210"),
    "checkpoint": replace(SUBJECT, checkpoint="last"),
    "weights": replace(SUBJECT, weights="ema"),
    "eps": replace(SUBJECT, threat=ThreatModel("linf", "0.05")),
    "norm": replace(SUBJECT, threat=ThreatModel("l2", "0.1")),
}


def other_label(images):
    return replace(images, labels=torch.where(torch.arange(N) == N - 1, 0, images.labels))


def other_pixel(images):
    pixels = images.images.clone()
    pixels[N - 1, 0, 3, 3] ^= 1
    return replace(images, images=pixels)


# what is changed: the attack, the images, the settings
CHANGES = {
    "name": (named(InBlocks(), "pgd50"), None, {}),
    "settings": (named(InBlocks(), steps=4), None, {}),
    "implementation": (named(InBlocks(implementation="planted 2")), None, {}),
    "size of blocks": (named(InBlocks(block_size=4)), None, {}),
    "label": (None, other_label, {}),
    "pixel": (None, other_pixel, {}),
    "seed": (None, None, {"seed": 1}),
    "part of the test set": (None, None, {"n": 15}),
    "images kept": (None, None, {"save_images": True}),
    **{name: (None, None, {"subject": subject}) for name, subject in OTHER_SUBJECTS.items()},
}


def poison(folder):
    """Whoever reads one of these blocks shows it."""
    for path in block_files(folder).values():
        with np.load(path) as part:
            content = dict(part)
        np.savez(path, **{**content, "predicted": (content["predicted"] + 1) % 5})


@pytest.mark.parametrize(("attack", "change", "settings"), CHANGES.values(), ids=CHANGES)
def test_blocks_of_another_question_are_never_used(attack, change, settings, net, images, tmp_path):
    cut_off(tmp_path, net, images, named(InBlocks(6)))
    poison(tmp_path)
    attack, asked = attack or named(InBlocks()), change(images) if change else images
    results = []
    for folder in (tmp_path, tmp_path / "fresh"):
        attack.attack.calls.clear()
        results.append(without_times(evaluated(folder, net, asked, attack, **settings)))
        assert len(attack.attack.seen) == results[-1][0]["n_test"]
    assert results[0] == results[1]


def test_the_same_question_does_use_them(net, images, undisturbed, tmp_path):
    # the poison of the test above works
    cut_off(tmp_path, net, images, named(InBlocks(6)))
    poison(tmp_path)
    assert without_times(evaluated(tmp_path, net, images, named(InBlocks()))) != undisturbed


@pytest.mark.parametrize(("patience", "kept"), [(0.0, [0, 6]), (math.inf, [])], ids=["at once", "never"])
def test_an_attack_without_blocks_keeps_its_batches_once_there_is_work_to_lose(
    patience, kept, net, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_batches, "_PATIENCE", patience)
    whole = evaluated(tmp_path / "whole", net, images, named(InBlocks(block_size=None)), batch_size=6)
    cut_off(tmp_path, net, images, named(InBlocks(2, block_size=None)), batch_size=6)
    assert sorted(block_files(tmp_path)) == kept
    again = InBlocks(block_size=None)
    assert without_times(evaluated(tmp_path, net, images, named(again), batch_size=6)) == without_times(whole)
    assert again.seen == ALL[6 * len(kept) :]
    assert list(tmp_path.glob(".*")) == []


def test_another_batch_size_does_not_use_batches(net, images, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_batches, "_PATIENCE", 0.0)
    again = InBlocks(block_size=None)
    cut_off(tmp_path, net, images, named(InBlocks(2, block_size=None)), batch_size=6)
    evaluated(tmp_path, net, images, named(again), batch_size=7)
    assert again.seen == ALL


def test_batches_are_written_together_once_ten_seconds_have_passed(tmp_path, monkeypatch):
    clock = iter([0.0, 4.0, 9.9, 10.0, 10.0, 19.9, 20.0, 20.0])
    monkeypatch.setattr(saved_batches.time, "monotonic", lambda: next(clock))
    kept = saved_batches.Blocks(tmp_path, "eval", {"attack": "planted"})
    written = []
    for start in range(5):
        kept.add(start, {"predicted": np.arange(start)}, at_once=False)
        written.append(sorted(block_files(tmp_path)))
    assert written == [[], [], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert kept.read(2)["predicted"].tolist() == [0, 1]
    assert kept.read(5) is None
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_cascade_resumes_in_the_stage_where_it_was_cut_off(net, tmp_path):
    images = random_images(net, N, wrong_every=10)

    def cascade(fails_at=None):
        return named(InBlocks(), "first"), named(InBlocks(fails_at), "second")

    whole, again = cascade(), cascade()
    expected = without_times(evaluated(tmp_path / "whole", net, images, cascade=whole, seed=1))
    assert [len(member.attack.calls) for member in whole] == [6, 3]  # of 18 images, and of the survivors
    with pytest.raises(RuntimeError, match="cut off"):
        evaluated(tmp_path, net, images, cascade=cascade(2), seed=1)
    assert without_times(evaluated(tmp_path, net, images, cascade=again, seed=1)) == expected
    assert again[0].attack.calls == []
    assert again[1].attack.calls == whole[1].attack.calls[2:]
    assert list(tmp_path.glob(".*")) == []


def test_blocks_of_a_cascade_do_not_cost_an_attack_its_measures(net, tmp_path):
    images = random_images(net, N, wrong_every=0)  # the first stage sees what an attack on everything sees
    with pytest.raises(RuntimeError, match="cut off"):
        evaluated(tmp_path, net, images, cascade=(named(InBlocks()), named(InBlocks(0), "second")))
    record = evaluated(tmp_path, net, images, named(InBlocks()))
    assert record.content["lipschitz"]["n"] == N


# --- attacked images that are kept


def saved_images(record):
    return load_file(record.images_path("pgd20"))


@pytest.mark.parametrize("n", [None, 12])
def test_saved_images_are_the_attacked_ones_and_score_as_recorded(n, net, images, tmp_path):
    record = evaluated(tmp_path, net, images, named(InBlocks()), n=n, seed=2, save_images=True)
    saved = saved_images(record)
    assert sorted(saved) == ["index", "label", "predicted", "x", "x_adv"]
    index = select_examples(images, n).index
    assert torch.equal(saved["index"], index)
    x, y = images.images[index].float() / 128, images.labels[index]
    by_hand = [
        InBlocks()(net, x[where], y[where], THREAT, seed=2, index=index[where])
        for where in torch.arange(len(index)).split(BLOCK)
    ]
    assert torch.equal(saved["x_adv"], torch.cat(by_hand))
    with torch.no_grad():
        right = (net(saved["x_adv"]).argmax(dim=1) == y) & (net(x).argmax(dim=1) == y)
    assert right.tolist() == record.arrays["pgd20"].tolist()
    assert torch.equal(saved["x"], images.images[index])
    assert torch.equal(saved["label"], y)
    assert torch.equal(saved["predicted"], net(saved["x_adv"]).argmax(dim=1))
    assert record.arrays["label"].tolist() == y.tolist()
    assert float((saved["x_adv"] - x).abs().max()) > 0.05  # of a radius of 0.1: they are not the clean ones
    with safe_open(record.images_path("pgd20"), "pt") as file:
        assert file.metadata() == {"attack": "pgd20", "threat": "linf-0.1", "seed": "2", "max_value": "128"}
    assert record.invalid == []


def test_an_evaluation_that_keeps_images_and_is_cut_off_keeps_all_of_them(net, images, tmp_path):
    whole = evaluated(tmp_path / "whole", net, images, named(InBlocks()), save_images=True)
    cut_off(tmp_path, net, images, named(InBlocks(3)), save_images=True)
    assert not list(tmp_path.glob("*.safetensors"))
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    saved, expected = saved_images(record), saved_images(whole)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    assert without_times(record) == without_times(whole)


def test_images_are_kept_nowhere_unless_requested(net, images, tmp_path):
    cut_off(tmp_path, net, images, named(InBlocks(3)))
    assert len(block_files(tmp_path)) == 3
    for path in block_files(tmp_path).values():
        with np.load(path) as part:
            # nothing of the size of the images: 48 pixels per block, but one number per example
            assert max(part[name].size for name in part.files) == BLOCK
    record = evaluated(tmp_path, net, images, named(InBlocks()))
    assert not list(tmp_path.glob("*.safetensors"))
    scene = Scene(net=net, threat=THREAT, device=CPU, batch_size=250, seed=0)
    logits = clean_logits(net, record.examples, CPU, 250)
    for keep in (False, True):
        outcome = run_attack(scene, record.examples, named(InBlocks()), logits, keep_images=keep)
        assert (outcome.x_adv is not None) is keep


def test_images_requested_later_are_computed_with_the_same_numbers(net, images, undisturbed, tmp_path):
    evaluated(tmp_path, net, images, named(InBlocks()))
    again, once_more = InBlocks(), InBlocks()
    content, arrays = without_times(evaluated(tmp_path, net, images, named(again), save_images=True))
    assert again.seen == ALL
    assert content["attacks"]["pgd20"]["images"] is True
    content["attacks"]["pgd20"]["images"] = False
    assert (content, arrays) == undisturbed
    evaluated(tmp_path, net, images, named(once_more), save_images=True)
    assert once_more.calls == []


def test_a_file_whose_images_are_classified_differently_makes_the_record_invalid(net, images, tmp_path, monkeypatch):
    x = images.images.float() / 128

    def spoil(tensors, path, metadata):
        save_file({**tensors, "x_adv": x}, path, metadata)

    attacked = saved_images(evaluated(tmp_path / "whole", net, images, named(InBlocks()), save_images=True))
    with torch.no_grad():
        different = int((net(x).argmax(dim=1) != net(attacked["x_adv"]).argmax(dim=1)).sum())
    assert 0 < different < N
    monkeypatch.setattr(suite, "save_file", spoil)
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    reason = f"pgd20: {different} of the saved images are classified differently from the attacked ones"
    assert record.invalid == [reason]


def test_a_file_that_cannot_be_written_is_not_there(net, images, tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half of a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(suite, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    assert not [path for path in tmp_path.iterdir() if "safetensors" in path.name]
    monkeypatch.undo()
    again = InBlocks()
    evaluated(tmp_path, net, images, named(again), save_images=True)
    assert again.calls == []  # all its blocks were there


def test_images_of_another_seed_are_not_taken_for_these(net, images, tmp_path):
    evaluated(tmp_path, net, images, named(InBlocks()), save_images=True, seed=0)
    evaluated(tmp_path, net, images, named(InBlocks()), seed=1)
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True, seed=1)
    fresh = evaluated(tmp_path / "fresh", net, images, named(InBlocks()), save_images=True, seed=1)
    assert torch.equal(saved_images(record)["x_adv"], saved_images(fresh)["x_adv"])


def test_saved_images_are_scored_in_the_batches_in_which_they_were_attacked(net, images, tmp_path, monkeypatch):
    sizes = []
    net.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    def forget(tensors, path, metadata):
        save_file(tensors, path, metadata)
        sizes.clear()

    monkeypatch.setattr(suite, "save_file", forget)
    evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    assert sizes == [3, 3, 3, 3, 3, 3, 2]


# --- a real process


def trained_checkpoint(path):
    """A small network that has learnt the digits on clean images for some seconds."""
    spec = ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 8))
    train = Digits(name="digits").load().train
    net = build(spec, 10, (1, 8, 8), seed=0).train()
    x, velocity = train.images.float() / 16, [torch.zeros_like(weight) for weight in net.parameters()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(net(x[batch]), train.labels[batch])
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for weight, moved, gradient in zip(net.parameters(), velocity, gradients, strict=True):
                    moved.mul_(0.9).add_(gradient)
                    weight -= 0.05 * moved
    card = {"schema": 1, "arch": spec.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8]}
    save_checkpoint(LoadedCheckpoint(net.eval(), spec, card), path)


@pytest.mark.slow
def test_a_killed_autoattack_goes_on_and_ends_like_an_undisturbed_one(tmp_path):
    size, n = 5, 15
    trained_checkpoint(tmp_path / "net.ckpt")
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    (tmp_path / "conf" / "attack" / "small_blocks.yaml").write_text(
        f"_target_: robust_arch.attacks.autoattack.AutoAttack\nblock_size: {size}\n"
    )
    command = [
        *(sys.executable, "-m", "robust_arch.evaluate", "--config-dir", str(tmp_path / "conf")),
        *(f"checkpoint={tmp_path}/net.ckpt", "data=digits", "threat.eps=0.1", "evaluate.attacks=[small_blocks]"),
        *(f"evaluate.n={n}", "trainer.accelerator=cpu"),
    ]
    limits = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name):
        (tmp_path / name).mkdir(exist_ok=True)
        log = (tmp_path / f"{name}.log").open("w")
        return subprocess.Popen(command, cwd=tmp_path / name, env=limits, stderr=log, stdout=log)

    def recorded(name):
        (path,) = (tmp_path / name).glob("results/external/runs/*/evaluations/*.json")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            content = json.loads(path.read_text())
            return content, {key: arrays[key].tolist() for key in arrays.files}

    def files(name):
        return list((tmp_path / name).glob("results/external/runs/*/evaluations/.*-*/[0-9]*.npz"))

    assert start("whole").wait(timeout=900) == 0, (tmp_path / "whole.log").read_text()
    process = start("killed")
    while not files("killed"):
        assert process.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    kept = len(files("killed"))
    assert 1 <= kept < n / size
    assert recorded("killed")[0]["attacks"] == {}
    assert start("killed").wait(timeout=900) == 0, (tmp_path / "killed.log").read_text()
    # a line after each block that was computed but the last: none of the kept ones is
    told = [
        int(count) for count in re.findall(rf"small_blocks: (\d+) of {n} images", (tmp_path / "killed.log").read_text())
    ]
    assert told == list(range(size * (kept + 1), n, size))
    (content, arrays), (whole, whole_arrays) = recorded("killed"), recorded("whole")
    assert arrays == whole_arrays
    assert 0 < sum(arrays["small_blocks"]) < sum(arrays["clean"])
    for part in (content, whole):
        del part["attacks"]["small_blocks"]["seconds"]
    assert content == whole
    assert files("killed") == []
