"""An evaluation that is cut off goes on from the blocks it finished, and ends like an undisturbed one."""

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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Attack, ThreatModel
from robust_arch.data import ImageSet
from robust_arch.data.digits import Digits
from robust_arch.evaluation import (
    EvaluationRecord,
    EvaluationSettings,
    NamedAttack,
    Subject,
    extend,
    saved_batches,
    select_examples,
    suite,
)
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.interop.checkpoint import LoadedCheckpoint, save_checkpoint

CPU = torch.device("cpu")
THREAT = ThreatModel("linf", "0.1")
SUBJECT = Subject("0123456789ab", "best", "raw", THREAT, "planted")
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


def labelled(net, wrong_every=4, seed=0):
    """Random images, labelled as the network says but for each `wrong_every`-th."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 129, (N, 1, 4, 4), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = net(pixels.float() / 128).argmax(dim=1)
    if wrong_every:
        labels[::wrong_every] = (labels[::wrong_every] + 1) % 5
    return ImageSet(pixels, labels, 5, max_value=128)


def named(attack, name="pgd20", **settings):
    """Under this name stability, Lipschitz constants and FOSC are computed too, and have to survive a resumption."""
    return NamedAttack(name, attack, settings)


def evaluated(folder, net, images, attack=None, subject=SUBJECT, n=None, **settings):
    """The record after one evaluation, as a new process finds and extends it."""
    record = EvaluationRecord(folder, subject, select_examples(images, n))
    asked = EvaluationSettings(attacks=(attack,) if attack else (), n=n, **settings)
    extend(record, net, asked, subject.threat, CPU, {"command": "planted"})
    return record


def on_disk(record):
    """What the files say, without times."""
    content = json.loads(record.json_path.read_text())
    for attack in content["attacks"].values():
        del attack["seconds"]
        for stage in attack.get("stages", []):
            del stage["seconds"]
    with np.load(record.arrays_path, allow_pickle=False) as arrays:
        return content, {name: arrays[name].tolist() for name in arrays.files}


def block_files(folder):
    """Finished blocks, by their first example."""
    return {int(path.stem): path for path in folder.glob(".*-*/*.npz")}


def cut_off(folder, net, images, attack, **settings):
    with pytest.raises(attack.attack.error, match="cut off"):
        evaluated(folder, net, images, attack, **settings)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("done", [0, 1, 4, 6])
def test_finished_blocks_are_not_attacked_again_and_the_numbers_are_those_of_an_undisturbed_run(
    done, error, net, tmp_path
):
    images, whole = labelled(net), InBlocks()
    expected = on_disk(evaluated(tmp_path / "whole", net, images, named(whole)))
    assert whole.seen == ALL
    cut_off(tmp_path, net, images, named(InBlocks(done, error)))
    assert sorted(block_files(tmp_path)) == [BLOCK * block for block in range(done)]
    again = InBlocks()
    found = on_disk(evaluated(tmp_path, net, images, named(again)))
    assert again.calls == whole.calls[done:]
    assert found == expected
    assert {"stability", "lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc"} <= set(found[0])
    assert 0 < sum(found[1]["pgd20"]) < sum(found[1]["clean"])  # the attack does something, and not everything


def test_an_evaluation_may_be_cut_off_again_and_again(net, tmp_path):
    images = labelled(net)
    expected = on_disk(evaluated(tmp_path / "whole", net, images, named(InBlocks())))
    for _ in range(6):
        cut_off(tmp_path, net, images, named(InBlocks(fails_at=1)))  # one block each time
    last = InBlocks(fails_at=1)
    assert on_disk(evaluated(tmp_path, net, images, named(last))) == expected


def test_nothing_of_the_blocks_is_left_at_the_end(net, tmp_path):
    images = labelled(net)
    cut_off(tmp_path, net, images, named(InBlocks(2)))
    (folder,) = tmp_path.glob(".*-*")
    (folder / ".6.npz.0123456789ab.tmp").write_bytes(b"what a kill leaves of a file being written")
    record = evaluated(tmp_path, net, images, named(InBlocks()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{record.eval_id}.json", f"{record.eval_id}.npz"]


TORN = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "all but a byte": lambda content: content[:-1],
    "zeros inside": lambda content: content[:60] + bytes(40) + content[100:],
    "something else": lambda content: b"not an archive",
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_torn_block_is_attacked_again(tear, net, tmp_path):
    images = labelled(net)
    expected = on_disk(evaluated(tmp_path / "whole", net, images, named(InBlocks())))
    cut_off(tmp_path, net, images, named(InBlocks(4)))
    path = block_files(tmp_path)[BLOCK]
    path.write_bytes(tear(path.read_bytes()))
    again = InBlocks()
    assert on_disk(evaluated(tmp_path, net, images, named(again))) == expected
    assert again.calls == [[3, 4, 5], *([*range(start, min(start + 3, N))] for start in range(12, N, 3))]


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


CHANGES = {
    "name": lambda images: {"attack": named(InBlocks(), "pgd50")},
    "settings": lambda images: {"attack": named(InBlocks(), steps=4)},
    "implementation": lambda images: {"attack": named(InBlocks(implementation="planted 2"))},
    "size of blocks": lambda images: {"attack": named(InBlocks(block_size=4))},
    "seed": lambda images: {"seed": 1},
    "part of the test set": lambda images: {"n": 15},
    "label": lambda images: {"images": other_label(images)},
    "pixel": lambda images: {"images": other_pixel(images)},
    "images kept": lambda images: {"save_images": True},
    **{name: lambda images, subject=subject: {"subject": subject} for name, subject in OTHER_SUBJECTS.items()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_blocks_of_another_question_are_never_used(change, net, tmp_path):
    images = labelled(net)
    cut_off(tmp_path, net, images, named(InBlocks(6)))
    for path in block_files(tmp_path).values():  # whoever reads one of these shows it
        with np.load(path) as part:
            content = dict(part)
        np.savez(path, **{**content, "predicted": (content["predicted"] + 1) % 5})
    results = []
    for folder in (tmp_path, tmp_path / "fresh"):
        asked = {"images": images, "attack": named(InBlocks()), **change(images)}
        results.append(on_disk(evaluated(folder, net, **asked)))
        assert len(asked["attack"].attack.seen) == results[-1][0]["n_test"]
    assert results[0] == results[1]


def test_the_same_question_does_use_them(net, tmp_path):
    # the poison of the test above works
    images = labelled(net)
    expected = on_disk(evaluated(tmp_path / "fresh", net, images, named(InBlocks())))
    cut_off(tmp_path, net, images, named(InBlocks(6)))
    for path in block_files(tmp_path).values():
        with np.load(path) as part:
            content = dict(part)
        np.savez(path, **{**content, "predicted": (content["predicted"] + 1) % 5})
    assert on_disk(evaluated(tmp_path, net, images, named(InBlocks()))) != expected


@pytest.mark.parametrize(("patience", "kept"), [(0.0, [0, 6]), (math.inf, [])], ids=["at once", "never"])
def test_an_attack_without_blocks_keeps_its_batches_once_there_is_work_to_lose(
    patience, kept, net, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_batches, "_PATIENCE", patience)
    images = labelled(net)
    expected = on_disk(evaluated(tmp_path / "whole", net, images, named(InBlocks(block_size=None)), batch_size=6))
    cut_off(tmp_path, net, images, named(InBlocks(2, block_size=None)), batch_size=6)
    assert sorted(block_files(tmp_path)) == kept
    again = InBlocks(block_size=None)
    assert on_disk(evaluated(tmp_path, net, images, named(again), batch_size=6)) == expected
    assert again.seen == ALL[6 * len(kept) :]
    assert list(tmp_path.glob(".*")) == []


def test_another_batch_size_does_not_use_batches(net, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_batches, "_PATIENCE", 0.0)
    images, again = labelled(net), InBlocks(block_size=None)
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


def test_a_cascade_goes_on_in_the_stage_where_it_was_cut_off(net, tmp_path):
    images = labelled(net, wrong_every=10)

    def cascade(fails_at=None):
        return named(InBlocks(), "first"), named(InBlocks(fails_at), "second")

    whole = cascade()
    expected = on_disk(evaluated(tmp_path / "whole", net, images, cascade=whole, seed=1))
    assert [len(member.attack.calls) for member in whole] == [6, 3]  # of 18 images, and of those that stand
    with pytest.raises(RuntimeError, match="cut off"):
        evaluated(tmp_path, net, images, cascade=cascade(2), seed=1)
    again = cascade()
    found = on_disk(evaluated(tmp_path, net, images, cascade=again, seed=1))
    assert again[0].attack.calls == []
    assert again[1].attack.calls == whole[1].attack.calls[2:]
    assert found == expected
    assert list(tmp_path.glob(".*")) == []


def test_blocks_of_a_cascade_do_not_cost_an_attack_its_measures(net, tmp_path):
    images = labelled(net, wrong_every=0)  # all right: the first stage sees what an attack on everything sees
    cascade = named(InBlocks()), named(InBlocks(0), "second")
    with pytest.raises(RuntimeError, match="cut off"):
        evaluated(tmp_path, net, images, cascade=cascade)
    record = evaluated(tmp_path, net, images, named(InBlocks()))
    assert record.content["lipschitz"]["n"] == N


# --- attacked images that are kept


def images_file(record, name="pgd20"):
    return record.folder / f"{record.eval_id}.{name}.safetensors"


@pytest.mark.parametrize("n", [None, 12])
def test_saved_images_are_the_attacked_ones_and_score_as_recorded(n, net, tmp_path):
    images = labelled(net)
    record = evaluated(tmp_path, net, images, named(InBlocks()), n=n, seed=2, save_images=True)
    saved = load_file(images_file(record))
    assert sorted(saved) == ["index", "x_adv"]
    index = select_examples(images, n).index
    assert torch.equal(saved["index"], index)
    x, y = images.images[index].float() / 128, images.labels[index]
    by_hand = torch.cat(
        [
            InBlocks()(net, x[where], y[where], THREAT, seed=2, index=index[where])
            for where in torch.arange(len(index)).split(BLOCK)
        ]
    )
    assert torch.equal(saved["x_adv"], by_hand)
    with torch.no_grad():
        right = (net(saved["x_adv"]).argmax(dim=1) == y) & (net(x).argmax(dim=1) == y)
    assert right.tolist() == record.arrays["pgd20"].tolist()
    assert float((saved["x_adv"] - x).abs().max()) > 0.05  # of a radius of 0.1: they are not the clean ones
    with safe_open(images_file(record), "pt") as file:
        assert file.metadata() == {"attack": "pgd20", "threat": "linf-0.1", "seed": "2"}
    assert record.invalid == []


def test_an_evaluation_that_keeps_images_and_is_cut_off_keeps_all_of_them(net, tmp_path):
    images = labelled(net)
    whole = evaluated(tmp_path / "whole", net, images, named(InBlocks()), save_images=True)
    cut_off(tmp_path, net, images, named(InBlocks(3)), save_images=True)
    assert not list(tmp_path.glob("*.safetensors"))
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    saved, expected = load_file(images_file(record)), load_file(images_file(whole))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    assert on_disk(record) == on_disk(whole)


def test_images_are_kept_nowhere_unless_asked_for(net, tmp_path):
    images = labelled(net)
    cut_off(tmp_path, net, images, named(InBlocks(3)))
    assert len(block_files(tmp_path)) == 3
    for path in block_files(tmp_path).values():
        with np.load(path) as part:
            assert "x_adv" not in part.files
            # nothing of the size of the images under another name: 48 pixels a block, one number an example
            assert max(part[name].size for name in part.files) == BLOCK
    record = evaluated(tmp_path, net, images, named(InBlocks()))
    assert not list(tmp_path.glob("*.safetensors"))
    scene = Scene(net=net, threat=THREAT, device=CPU, batch_size=250, seed=0)
    logits = clean_logits(net, record.examples, CPU, 250)
    assert run_attack(scene, record.examples, named(InBlocks()), logits).x_adv is None
    assert run_attack(scene, record.examples, named(InBlocks()), logits, keep_images=True).x_adv is not None


def test_images_asked_for_later_are_computed_with_the_same_numbers(net, tmp_path):
    images, again = labelled(net), InBlocks()
    before = on_disk(evaluated(tmp_path, net, images, named(InBlocks())))
    record = evaluated(tmp_path, net, images, named(again), save_images=True)
    assert again.seen == ALL
    after = on_disk(record)
    assert [part.pop("images") for content, _ in (before, after) for part in content["attacks"].values()] == [
        False,
        True,
    ]
    assert after == before
    once_more = InBlocks()
    evaluated(tmp_path, net, images, named(once_more), save_images=True)
    assert once_more.calls == []


def test_a_file_whose_images_score_otherwise_makes_the_record_invalid(net, tmp_path, monkeypatch):
    images = labelled(net)
    x = images.images.float() / 128

    def spoil(tensors, path, metadata):
        save_file({**tensors, "x_adv": x}, path, metadata)

    attacked = load_file(images_file(evaluated(tmp_path / "whole", net, images, named(InBlocks()), save_images=True)))
    with torch.no_grad():
        different = int((net(x).argmax(dim=1) != net(attacked["x_adv"]).argmax(dim=1)).sum())
    assert 0 < different < N
    monkeypatch.setattr(suite, "save_file", spoil)
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    reason = f"pgd20: {different} of the saved images are classified otherwise than the attacked ones were"
    assert record.invalid == [reason]


def test_a_file_that_cannot_be_written_is_not_there(net, tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half of a file")
        raise OSError("no space left on device")

    images = labelled(net)
    monkeypatch.setattr(suite, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        evaluated(tmp_path, net, images, named(InBlocks()), save_images=True)
    assert not [path for path in tmp_path.iterdir() if "safetensors" in path.name]
    monkeypatch.undo()
    again = InBlocks()
    evaluated(tmp_path, net, images, named(again), save_images=True)
    assert again.calls == []  # all its blocks were there


def test_images_of_another_seed_do_not_stand_for_these(net, tmp_path):
    images = labelled(net)
    evaluated(tmp_path, net, images, named(InBlocks()), save_images=True, seed=0)
    evaluated(tmp_path, net, images, named(InBlocks()), seed=1)
    record = evaluated(tmp_path, net, images, named(InBlocks()), save_images=True, seed=1)
    fresh = evaluated(tmp_path / "fresh", net, images, named(InBlocks()), save_images=True, seed=1)
    assert torch.equal(load_file(images_file(record))["x_adv"], load_file(images_file(fresh))["x_adv"])


def test_saved_images_are_scored_in_the_batches_in_which_they_were_attacked(net, tmp_path, monkeypatch):
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.sizes = net, []

        def forward(self, x):
            self.sizes.append(len(x))
            return self.net(x)

    watched, images = Watched(), labelled(net)

    def forget(tensors, path, metadata):
        save_file(tensors, path, metadata)
        watched.sizes.clear()

    monkeypatch.setattr(suite, "save_file", forget)
    evaluated(tmp_path, watched, images, named(InBlocks()), save_images=True)
    assert watched.sizes == [3, 3, 3, 3, 3, 3, 2]


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
