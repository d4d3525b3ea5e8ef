import json

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from robust_arch.attacks import PGD, Attack, Clean, Margin, ThreatModel
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.common.identity import describe
from robust_arch.common.statistics import wilson_interval
from robust_arch.data import ImageSet
from robust_arch.errors import InputError
from robust_arch.evaluation import (
    EvaluationRecord,
    EvaluationSettings,
    NamedAttack,
    Subject,
    extend,
    select_examples,
)

CPU = torch.device("cpu")
THREAT = ThreatModel("linf", "0.1")
SUBJECT = Subject("0123456789ab", "best", "raw", THREAT, "planted")
ABOUT = {"command": "python -m robust_arch.evaluate checkpoint=planted", "torch_version": "0"}
N = 20


def image_set(n=N, num_classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 129, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (n,), generator=generator)
    return ImageSet(pixels, labels, num_classes, max_value=128)


@pytest.fixture
def net(linear):
    """A linear network of five classes."""
    return linear(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def test_set(net):
    """Labels are what the network says, but for every fourth image: clean accuracy 75%."""
    images = image_set()
    labels = net(images.images.float() / 128).argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 5
    return ImageSet(images.images, labels, 5, max_value=128)


def named(name, attack, **changes):
    return NamedAttack(name, attack, {**describe(attack), **changes})


FGSM = named("fgsm", PGD(steps=1, rel_step_size=1.0, start=Clean()))
PGD20 = named("pgd20", PGD(steps=20, rel_step_size=0.1))
CW = named("cw40", PGD(steps=40, rel_step_size=0.1, loss=Margin()))


def evaluated(folder, net, images, *attacks, n=None, subject=SUBJECT, seed=0, batch_size=250):
    """The record after one evaluation, as a new process finds and extends it."""
    record = EvaluationRecord(folder, subject, select_examples(images, n))
    settings = EvaluationSettings(attacks=attacks, n=n, seed=seed, batch_size=batch_size)
    extend(record, net, settings, THREAT, CPU, ABOUT)
    return record


def on_disk(record):
    """What the files say."""
    content = json.loads(record.json_path.read_text())
    with np.load(record.arrays_path, allow_pickle=False) as arrays:
        return content, {name: arrays[name] for name in arrays.files}


def without_times(content):
    attacks = {name: {k: v for k, v in part.items() if k != "seconds"} for name, part in content["attacks"].items()}
    return {**content, "attacks": attacks}


class Forbidden(Attack):
    """Must not run."""

    def run(self, net, x, y, threat, seed, index):
        raise AssertionError("this attack was run")


def forbidden(like):
    """The same name and settings, so that nothing but the record can answer."""
    return NamedAttack(like.name, Forbidden(), like.settings)


class Flips(Attack):
    """Moves the planted images only: the network below then says another class."""

    def __init__(self, planted):
        self.planted = torch.tensor(planted)

    def run(self, net, x, y, threat, seed, index):
        return torch.where(self.planted[index].view(-1, 1, 1, 1), x + 0.0625, x)


@pytest.fixture
def planted(linear):
    """Ten equal grey images, the last two of class 1; the network says class 0, or 1 as soon as one is brighter."""
    net = linear([[0.0] * 16, [1.0] * 16], [0.0, -16 * 0.53])
    labels = torch.tensor([0] * 8 + [1] * 2)
    return net, ImageSet(torch.full((10, 1, 4, 4), 64, dtype=torch.uint8), labels, 2, max_value=128)


FIRST = [True, True, False, False, False, False, True, False, False, True]
SECOND = [False, True, True, False, False, False, False, False, True, False]


def test_counts_of_a_planted_evaluation(planted, tmp_path):
    attacks = named("first", Flips(FIRST), planted=1), named("pgd20", Flips(SECOND), planted=2)
    content, arrays = on_disk(evaluated(tmp_path, *planted, *attacks))
    correct = np.array([True] * 8 + [False] * 2)
    assert arrays["clean"].tolist() == correct.tolist()
    # an image that was wrong at x is not robust, whatever the attack makes of it: the ninth and tenth of SECOND, FIRST
    assert arrays["first"].tolist() == (correct & ~np.array(FIRST)).tolist()
    assert arrays["pgd20"].tolist() == (correct & ~np.array(SECOND)).tolist()
    assert {name: part["count"] for name, part in content["attacks"].items()} == {"first": 5, "pgd20": 6}
    assert content["clean"]["count"] == 8
    # robust only under both: images 3, 4, 5, 7
    assert content["worst_case"]["count"] == 4 == int(np.sum(arrays["first"] & arrays["pgd20"]))
    assert content["worst_case"]["attacks"] == ["first", "pgd20"]
    # stable: the prediction stays, right or wrong; SECOND moves 3 of 10
    assert content["stability"]["count"] == 7
    # a moved image's logits change by 16 * 0.0625 over a distance of 0.0625; the 7 others have no quotient
    assert content["lipschitz"] == {"mean": pytest.approx(16.0), "n": 3, "left_out": 7}


def test_every_share_has_its_count_percent_and_interval(planted, tmp_path):
    content, _ = on_disk(evaluated(tmp_path, *planted, named("pgd20", Flips(SECOND))))
    counts = {"clean": 8, "worst_case": 6, "stability": 7}
    shares = {**{name: content[name] for name in counts}, "pgd20": content["attacks"]["pgd20"]}
    for name, count in {**counts, "pgd20": 6}.items():
        low, high = wilson_interval(count, 10)
        assert {key: shares[name][key] for key in ("count", "n", "percent", "interval")} == {
            "count": count,
            "n": 10,
            "percent": 10.0 * count,
            "interval": [100 * low, 100 * high],
        }
    # 8 of 10: (0.8 + z^2/20 +- z sqrt(0.16/10 + z^2/400)) / (1 + z^2/10) with z = 1.959964
    assert content["clean"]["interval"] == pytest.approx([49.0162, 94.3318], abs=1e-3)


def test_an_attack_that_moves_nothing_has_no_lipschitz_constant(planted, tmp_path):
    content, _ = on_disk(evaluated(tmp_path, *planted, named("pgd20", Flips([False] * 10))))
    assert content["lipschitz"] == {"mean": None, "n": 0, "left_out": 10}
    assert content["stability"]["percent"] == 100.0


def test_numbers_equal_a_recomputation_by_hand(net, test_set, tmp_path):
    content, arrays = on_disk(evaluated(tmp_path, net, test_set, FGSM, PGD20, CW, seed=3))
    x, y = test_set.images.float() / 128, test_set.labels
    clean = net(x).argmax(dim=1)
    assert arrays["clean"].tolist() == (clean == y).tolist()
    assert content["clean"]["percent"] == 75.0
    together = clean == y
    for attack in (FGSM, PGD20, CW):
        x_adv = attack.attack(net, x, y, THREAT, seed=3, index=torch.arange(N))
        after = net(x_adv).argmax(dim=1)
        robust = (clean == y) & (after == y)
        assert arrays[attack.name].tolist() == robust.tolist()
        assert content["attacks"][attack.name]["count"] == int(robust.sum())
        together &= robust
        if attack is PGD20:
            assert content["stability"]["count"] == int((after == clean).sum())
    assert 0 < int(together.sum()) < 15  # otherwise nothing was compared
    assert content["worst_case"]["count"] == int(together.sum())


def test_the_record_says_what_was_evaluated(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20, n=10, seed=4)
    content, arrays = on_disk(record)
    told = {
        key: content[key] for key in ("run_id", "checkpoint", "weights", "threat", "eps", "data", "n_test", "precision")
    }
    assert told == {
        "run_id": "0123456789ab",
        "checkpoint": "best",
        "weights": "raw",
        "threat": "linf-0.1",
        "eps": "1/10",
        "data": "planted",
        "n_test": 10,
        "precision": "float32",
    }
    assert content["attacks"]["fgsm"]["seed"] == 4
    assert content["attacks"]["fgsm"]["settings"] == FGSM.settings
    assert content["attacks"]["fgsm"]["implementation"].startswith("robust_arch ")
    assert sorted(arrays) == ["clean", "fgsm", "index", "pgd20"]
    assert [arrays[name].dtype.name for name in ("clean", "fgsm", "pgd20")] == ["bool"] * 3
    np.testing.assert_array_equal(arrays["index"], select_examples(test_set, 10).index.numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{record.eval_id}.json", f"{record.eval_id}.npz"]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_nothing(batch_size, net, test_set, tmp_path):
    results = [
        on_disk(evaluated(tmp_path / str(size), net, test_set, FGSM, PGD20, CW, batch_size=size))
        for size in (batch_size, 100)
    ]
    contents = [without_times(content) for content, _ in results]
    measured = ("lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc")
    means = [[content[name].pop("mean") for name in measured] for content in contents]
    assert contents[0] == contents[1]
    # the linear layer adds up its 16 products in an order that may depend on the batch
    assert means[0] == pytest.approx(means[1], rel=1e-4)
    for name, values in results[0][1].items():
        np.testing.assert_array_equal(values, results[1][1][name])


def test_an_attack_added_later_keeps_what_is_recorded(net, test_set, tmp_path):
    before, arrays_before = on_disk(evaluated(tmp_path, net, test_set, FGSM, PGD20))
    after, arrays_after = on_disk(evaluated(tmp_path, net, test_set, forbidden(FGSM), forbidden(PGD20), CW))
    for name in ("fgsm", "pgd20"):
        assert after["attacks"][name] == before["attacks"][name]  # to the second it took
        np.testing.assert_array_equal(arrays_after[name], arrays_before[name])
    assert {key: after[key] for key in ("clean", "stability", "lipschitz")} == {
        key: before[key] for key in ("clean", "stability", "lipschitz")
    }
    assert after["worst_case"]["attacks"] == ["cw40", "fgsm", "pgd20"]
    together = arrays_after["fgsm"] & arrays_after["pgd20"] & arrays_after["cw40"]
    assert after["worst_case"]["count"] == int(together.sum())


def test_adding_in_two_steps_gives_what_one_step_gives(net, test_set, tmp_path):
    evaluated(tmp_path / "steps", net, test_set, CW)
    two = on_disk(evaluated(tmp_path / "steps", net, test_set, PGD20, FGSM))
    one = on_disk(evaluated(tmp_path / "once", net, test_set, FGSM, PGD20, CW))
    assert without_times(two[0]) == without_times(one[0])
    assert {name: values.tolist() for name, values in two[1].items()} == {
        name: values.tolist() for name, values in one[1].items()
    }


def test_an_attack_that_is_not_asked_for_any_more_still_counts(net, test_set, tmp_path):
    evaluated(tmp_path, net, test_set, FGSM, PGD20)
    content, _ = on_disk(evaluated(tmp_path, net, test_set, CW))
    assert sorted(content["attacks"]) == ["cw40", "fgsm", "pgd20"]


class Untouchable(nn.Module):
    def forward(self, x):
        raise AssertionError("the network was run")


def test_what_is_recorded_costs_nothing_and_changes_no_file(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again = evaluated(tmp_path, Untouchable(), test_set, forbidden(PGD20), forbidden(FGSM))
    assert again.content == record.content
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == files


def test_changed_settings_are_computed_again(planted, tmp_path):
    # one name, now with another setting: all images are attacked
    evaluated(tmp_path, *planted, named("first", Flips(FIRST), steps=1), named("second", Flips(SECOND), steps=1))
    changed = named("first", Flips([True] * 10), steps=2)
    content, arrays = on_disk(evaluated(tmp_path, *planted, changed))
    assert content["attacks"]["first"]["settings"]["steps"] == 2
    assert content["attacks"]["first"]["count"] == content["worst_case"]["count"] == 0
    assert content["attacks"]["second"]["count"] == 6
    assert not arrays["first"].any()


def test_another_seed_is_computed_again(planted, tmp_path):
    evaluated(tmp_path, *planted, named("first", Flips([False] * 10), steps=1), seed=0)
    content, _ = on_disk(evaluated(tmp_path, *planted, named("first", Flips(FIRST), steps=1), seed=1))
    assert (content["attacks"]["first"]["seed"], content["attacks"]["first"]["count"]) == (1, 5)


def test_clean_accuracy_alone_is_a_record(planted, tmp_path):
    record = EvaluationRecord(tmp_path, SUBJECT, select_examples(planted[1], None))
    assert not record.has_clean
    content, arrays = on_disk(evaluated(tmp_path, *planted))
    assert content["clean"]["count"] == 8
    assert "worst_case" not in content
    assert sorted(arrays) == ["clean", "index"]
    assert EvaluationRecord(tmp_path, SUBJECT, select_examples(planted[1], None)).has_clean


def test_an_attack_that_fails_leaves_those_before_it_recorded(net, test_set, tmp_path):
    with pytest.raises(AssertionError, match="was run"):
        evaluated(tmp_path, net, test_set, FGSM, forbidden(CW))
    content, _ = on_disk(evaluated(tmp_path, net, test_set, forbidden(FGSM)))
    assert sorted(content["attacks"]) == ["fgsm"]


class Outside:
    """Returns images outside the ball, without the wrapper that would project them."""

    block_size, min_classes, implementation = None, 2, "planted"

    def __call__(self, net, x, y, threat, *, seed, index):
        return (x + 0.2).clamp(max=1)


def test_an_attack_that_leaves_the_ball_makes_the_record_invalid(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, NamedAttack("cheat", Outside(), {}), PGD20)
    (reason,) = on_disk(record)[0]["invalid"]
    assert reason.startswith("cheat: images left linf-0.1 (distance 0.2")
    assert "pgd20" not in record.content["attacks"]  # nothing is computed any more
    assert record.summary() == f"invalid: {reason}"


@pytest.mark.parametrize("part", ["json", "npz"])
@pytest.mark.parametrize(
    "kept", [0.0, 0.1, 0.5, 0.9, None], ids=lambda kept: "missing" if kept is None else f"{kept:.0%}"
)
def test_a_torn_pair_counts_as_nothing_recorded(part, kept, net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    path = {"json": record.json_path, "npz": record.arrays_path}[part]
    before = on_disk(record)
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[: int(kept * len(content))])
    again = EvaluationRecord(tmp_path, SUBJECT, select_examples(test_set, None))
    assert not again.has_clean
    assert list(again.missing(EvaluationSettings(attacks=(FGSM, PGD20)))) == ["fgsm", "pgd20"]
    # and it can be done again, with the same result
    after = on_disk(evaluated(tmp_path, net, test_set, FGSM, PGD20))
    assert without_times(after[0]) == without_times(before[0])


def test_booleans_that_are_missing_for_an_attack_make_the_record_nothing(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    _, arrays = on_disk(record)
    del arrays["fgsm"]
    np.savez_compressed(record.arrays_path, **arrays)
    again = EvaluationRecord(tmp_path, SUBJECT, select_examples(test_set, None))
    assert list(again.missing(EvaluationSettings(attacks=(FGSM, PGD20)))) == ["fgsm", "pgd20"]


def test_damaged_bytes_make_the_record_nothing(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM)
    content = bytearray(record.arrays_path.read_bytes())
    start = content.index(b"clean.npy") + len(b"clean.npy")
    content[start + 30 : start + 60] = bytes(30)
    record.arrays_path.write_bytes(content)
    assert not EvaluationRecord(tmp_path, SUBJECT, select_examples(test_set, None)).has_clean


def test_a_record_of_another_schema_is_not_taken_over(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM)
    content, _ = on_disk(record)
    record.json_path.write_text(json.dumps({**content, "schema": 99}))
    assert not EvaluationRecord(tmp_path, SUBJECT, select_examples(test_set, None)).has_clean


def test_records_of_different_questions_stand_apart(test_set, tmp_path):
    other_labels = ImageSet(test_set.images, (test_set.labels + 1) % 5, 5, max_value=128)
    records = [
        EvaluationRecord(tmp_path, subject, select_examples(images, n))
        for subject, images, n in [
            (SUBJECT, test_set, None),
            (Subject("ba9876543210", "best", "raw", THREAT, "planted"), test_set, None),
            (Subject("0123456789ab", "last", "raw", THREAT, "planted"), test_set, None),
            (Subject("0123456789ab", "best", "ema", THREAT, "planted"), test_set, None),
            (Subject("0123456789ab", "best", "raw", ThreatModel("linf", "0.2"), "planted"), test_set, None),
            (SUBJECT, test_set, 10),
            (SUBJECT, other_labels, None),
        ]
    ]
    assert len({record.eval_id for record in records}) == len(records)


def test_one_question_is_one_record(test_set, tmp_path):
    same = Subject("0123456789ab", "best", "raw", ThreatModel("linf", "1/10"), "planted")
    copy = ImageSet(test_set.images.clone(), test_set.labels.clone(), 5, max_value=128)
    first = EvaluationRecord(tmp_path, SUBJECT, select_examples(test_set, None))
    assert EvaluationRecord(tmp_path, same, select_examples(copy, N)).eval_id == first.eval_id
    assert list(tmp_path.iterdir()) == []  # asking writes nothing


def test_the_numbers_of_the_same_weights_are_taken_over(net, test_set, tmp_path):
    best = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    last = Subject("0123456789ab", "last", "raw", THREAT, "planted")
    EvaluationRecord(tmp_path, last, select_examples(test_set, None)).take_over(best)
    taken = on_disk(evaluated(tmp_path, Untouchable(), test_set, forbidden(FGSM), forbidden(PGD20), subject=last))
    expected = on_disk(best)
    assert taken[0] == {**expected[0], "checkpoint": "last", "eval_id": taken[0]["eval_id"]}
    assert taken[0]["eval_id"] != expected[0]["eval_id"]
    assert {name: values.tolist() for name, values in taken[1].items()} == {
        name: values.tolist() for name, values in expected[1].items()
    }


def test_a_summary_names_every_number(planted, tmp_path):
    attacks = named("first", Flips(FIRST), planted=1), named("pgd20", Flips(SECOND), planted=2)
    summary = evaluated(tmp_path, *planted, *attacks).summary()
    assert summary == "clean 80.0%, first 50.0%, pgd20 60.0%, worst case 40.0% (n=10)"


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_the_network_is_left_in_evaluation_mode_in_float32_with_its_weights(mode, test_set, tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5)).train(mode)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluated(tmp_path, net, test_set, FGSM, PGD20, batch_size=6)
    assert not any(module.training for module in net.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    after = net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_autoattack_equals_a_direct_call_of_the_library(tmp_path):
    generator = torch.Generator().manual_seed(2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)).eval()
    with torch.no_grad():
        net[1].weight.mul_(2)
    images = torch.randint(0, 129, (12, 1, 4, 4), generator=generator, dtype=torch.uint8)
    x = images.float() / 128
    y = net(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 5
    suite = pyautoattack.AutoAttack(net, norm="Linf", eps=0.1, version="standard", seed=9)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
    x_adv, _ = suite.run_standard_evaluation(x, y, batch_size=250)
    direct = net(x_adv).argmax(dim=1) == y
    # batches of five images in the evaluation, all twelve in one call of the library
    attack, test = named("autoattack", AutoAttack()), ImageSet(images, y, 5, max_value=128)
    content, arrays = on_disk(evaluated(tmp_path, net, test, attack, seed=9, batch_size=5))
    assert 0 < int(direct.sum()) < 11
    assert arrays["autoattack"].tolist() == direct.tolist()
    assert content["attacks"]["autoattack"]["count"] == int(direct.sum())
    assert content["attacks"]["autoattack"]["implementation"].startswith("pyautoattack ")


def test_a_part_of_the_test_set_keeps_the_proportions_of_the_classes():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[
        torch.randperm(100, generator=torch.Generator().manual_seed(0))
    ]
    images = ImageSet(image_set(100).images, labels, 3, max_value=128)
    found = select_examples(images, 10)
    assert torch.bincount(found.images.labels).tolist() == [5, 3, 2]
    assert torch.equal(found.index, found.index.unique())  # ascending, and none twice
    assert torch.equal(found.images.images, images.images[found.index])
    assert torch.equal(found.images.labels, labels[found.index])


def test_a_part_is_the_same_each_time_and_leaves_the_random_state():
    images, state = image_set(100), torch.get_rng_state()
    first = select_examples(images, 30).index
    torch.manual_seed(1)
    assert torch.equal(select_examples(images, 30).index, first)
    torch.set_rng_state(state)
    assert not torch.equal(first, torch.arange(30))
    assert len(first) == 30


@pytest.mark.parametrize("n", [None, 100])
def test_the_whole_test_set_is_taken_in_its_order(n):
    images = image_set(100)
    found = select_examples(images, n)
    assert torch.equal(found.index, torch.arange(100))
    assert torch.equal(found.images.images, images.images)


BAD_SETTINGS = [
    ("n", 0),
    ("n", -1),
    ("n", 1.5),
    ("n", True),
    ("batch_size", 0),
    ("batch_size", None),
    ("checkpoints", ()),
]


@pytest.mark.parametrize(("key", "value"), [*BAD_SETTINGS, ("checkpoints", ("best", "worst"))], ids=str)
def test_bad_settings_are_named(key, value):
    with pytest.raises(InputError, match=rf"evaluate\.{key} = "):
        EvaluationSettings(attacks=(), **{key: value})


def test_more_examples_than_there_are_is_named():
    settings = EvaluationSettings(attacks=(FGSM,), n=21)
    settings.require_fits(21, 2, 0.1)
    with pytest.raises(InputError, match=r"evaluate\.n = 21: at most the 20 test examples"):
        settings.require_fits(20, 2, 0.1)


def test_an_attack_that_needs_more_classes_is_named():
    settings = EvaluationSettings(attacks=(FGSM, named("autoattack", AutoAttack())))
    settings.require_fits(20, 4, 0.1)
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'autoattack': data of at least 4 classes; here 3"):
        settings.require_fits(20, 3, 0.1)
