"""data.train_images in whole runs and studies: the images that are trained on, and no others, are fewer."""

import json

import pytest
import torch

from robust_arch.errors import InputError
from robust_arch.execution.execute import _module, execute
from robust_arch.study.plan_table import plans_from_command

SPACE = ("data=digits", "search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[8],[8,16]]",
         "recipe.batch_size=32", "trainer.precision=32")  # fmt: skip


def test_the_record_says_how_many_images_were_trained_on(run):
    done = run("data.train_images=70", "trainer.limit_train_batches=null", "evaluate.attacks=[fgsm]")
    assert execute(done) == "completed"
    result = json.loads((done.folder.path / "result.json").read_text())
    assert {key: result["data"][key] for key in ("train", "val", "test")} == {"train": 70, "val": 240, "test": 360}
    assert result["data"]["fingerprint"] == done.training_fingerprint
    assert done.steps_per_epoch == 2  # whole batches of 32 in 70


def test_channel_statistics_are_those_of_the_images_that_are_trained_on(run):
    done = run("data.train_images=70", "recipe.normalize=dataset")
    pixels = done.splits.train.images.double() / 16
    assert len(pixels) == 70
    buffers = {name: value.double() for name, value in _module(done).named_buffers() if value.numel() == 1}
    mean, std = (next(value for name, value in buffers.items() if name.endswith(end)) for end in ("mean", "std"))
    assert mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)


def test_every_size_is_a_run_of_its_own_and_null_is_no_other_question(run):
    sizes = ("null", "1197", "1000", "100")
    whole, all_of_them, *parts = [run(f"data.train_images={size}").run_id for size in sizes]
    assert whole == all_of_them == run().run_id
    assert len({whole, *parts}) == 3


def test_a_sweep_over_sizes_plans_each(tmp_path):
    plans = plans_from_command([*SPACE, "-m", "data.train_images=100,200", f"results_dir={tmp_path}"])
    assert [len(planned.run.splits.train) for plan in plans for planned in plan.runs] == [100, 100, 200, 200]
    assert len({planned.run.run_id for plan in plans for planned in plan.runs}) == 4
    first, second = (plan.runs[0].run.splits for plan in plans)
    assert torch.equal(first.val.images, second.val.images)


def test_sizes_are_labelled_apart_as_the_docs_say(tmp_path):
    label = "data.name=digits-${data.train_images}"
    plans = plans_from_command([*SPACE, "-m", "data.train_images=100,200", label, f"results_dir={tmp_path}"])
    assert [plan.runs[0].run.facts.data for plan in plans] == ["digits-100", "digits-200"]


def test_a_batch_that_does_not_fit_the_part_is_refused(run):
    with pytest.raises(InputError, match=r"recipe\.batch_size = 32: expected at most the 20 training images"):
        run("data.train_images=20")
