"""Records: planted counts, numbers computed again by hand, and what is kept, extended, refused or done again."""

import json

import numpy as np
import pyautoattack
import pytest
import torch
from evaluations import (
    SUBJECT,
    THREAT,
    Flips,
    Forbidden,
    Outside,
    evaluated,
    grey_images,
    named,
    on_disk,
    random_images,
    shorten_square,
    without_times,
)
from torch import nn

from robust_arch.attacks import PGD, Clean, Margin, ThreatModel
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.common.identity import describe
from robust_arch.common.statistics import wilson_interval
from robust_arch.data import ImageSet
from robust_arch.errors import InputError
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, NamedAttack, Subject, select_examples

N = 20


@pytest.fixture
def net(linear):
    """A linear network of five classes."""
    return linear(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def test_set(net):
    """Clean accuracy 75%."""
    return random_images(net, N)


@pytest.fixture
def planted(linear):
    return grey_images(linear, 8, 2)


def described(name, attack):
    return NamedAttack(name, attack, describe(attack))


FGSM = described("fgsm", PGD(steps=1, rel_step_size=1.0, start=Clean()))
PGD20 = described("pgd20", PGD(steps=20, rel_step_size=0.1))
CW = described("cw40", PGD(steps=40, rel_step_size=0.1, loss=Margin()))
FIRST, SECOND = {0, 1, 6, 9}, {1, 2, 8}


def forbidden(like):
    """The same name and settings, so that nothing but the record can answer."""
    return NamedAttack(like.name, Forbidden(), like.settings)


def reopened(folder, images, subject=SUBJECT, n=None):
    return EvaluationRecord(folder, subject, select_examples(images, n))


def test_counts_of_a_planted_evaluation(planted, tmp_path):
    record = evaluated(tmp_path, *planted, named("first", Flips(FIRST)), named("pgd20", Flips(SECOND)))
    content, arrays = on_disk(record)
    # an image that was wrong at x is not robust, whatever the attack makes of it: 8 and 9
    assert arrays["clean"] == [i < 8 for i in range(10)]
    assert arrays["first"] == [i < 8 and i not in FIRST for i in range(10)]
    assert arrays["pgd20"] == [i < 8 and i not in SECOND for i in range(10)]
    # robust only under both: images 3, 4, 5, 7. Stable: the prediction stays, right or wrong; SECOND moves 3 of 10
    counts = {"clean": 8, "worst_case": 4, "stability": 7, "first": 5, "pgd20": 6}
    shares = {**{name: content[name] for name in ("clean", "worst_case", "stability")}, **content["attacks"]}
    for name, count in counts.items():
        interval = [100 * bound for bound in wilson_interval(count, 10)]
        expected = {"count": count, "n": 10, "percent": 10.0 * count, "interval": interval}
        assert {key: shares[name][key] for key in expected} == expected
    # 8 of 10: (0.8 + z^2/20 +- z sqrt(0.16/10 + z^2/400)) / (1 + z^2/10) with z = 1.959964
    assert content["clean"]["interval"] == pytest.approx([49.0162, 94.3318], abs=1e-3)
    assert content["worst_case"]["attacks"] == ["first", "pgd20"]
    # a moved image's logits change by 16 * 0.0625 over a distance of 0.0625; the 7 others have no quotient
    assert content["lipschitz"] == {"mean": pytest.approx(16.0), "n": 3, "left_out": 7}
    assert record.summary() == "clean 80.0%, first 50.0%, pgd20 60.0%, worst case 40.0% (n=10)"


def test_an_attack_that_moves_nothing_has_no_lipschitz_constant(planted, tmp_path):
    content, _ = on_disk(evaluated(tmp_path, *planted, named("pgd20", Flips(()))))
    assert content["lipschitz"] == {"mean": None, "n": 0, "left_out": 10}
    assert content["stability"]["percent"] == 100.0


def test_numbers_equal_a_recomputation_by_hand(net, test_set, tmp_path):
    content, arrays = on_disk(evaluated(tmp_path, net, test_set, FGSM, PGD20, CW, seed=3))
    x, y = test_set.images.float() / 128, test_set.labels
    clean = net(x).argmax(dim=1)
    assert arrays["clean"] == (clean == y).tolist()
    assert content["clean"]["percent"] == 75.0
    together = clean == y
    for attack in (FGSM, PGD20, CW):
        x_adv = attack.attack(net, x, y, THREAT, seed=3, index=torch.arange(N))
        after = net(x_adv).argmax(dim=1)
        robust = (clean == y) & (after == y)
        assert arrays[attack.name] == robust.tolist()
        assert content["attacks"][attack.name]["count"] == int(robust.sum())
        together &= robust
        if attack is PGD20:
            assert content["stability"]["count"] == int((after == clean).sum())
    assert 0 < int(together.sum()) < 15  # otherwise nothing was compared
    assert content["worst_case"]["count"] == int(together.sum())


def test_the_record_says_what_was_evaluated(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20, n=10, seed=4)
    content, arrays = on_disk(record)
    told = {"run_id": "0123456789ab", "checkpoint": "best", "weights": "raw", "threat": "linf-0.1", "eps": "1/10"}
    told |= {"data": "planted", "n_test": 10, "precision": "float32"}
    assert {key: content[key] for key in told} == told
    fgsm = content["attacks"]["fgsm"]
    assert (fgsm["seed"], fgsm["settings"]) == (4, FGSM.settings)
    assert fgsm["implementation"].startswith("robust_arch ")
    assert sorted(arrays) == ["clean", "fgsm", "index", "label", "pgd20"]
    assert {record.arrays[name].dtype.name for name in ("clean", "fgsm", "pgd20")} == {"bool"}
    assert arrays["index"] == select_examples(test_set, 10).index.tolist()
    assert arrays["label"] == select_examples(test_set, 10).images.labels.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{record.eval_id}.json", f"{record.eval_id}.npz"]


def test_the_batch_size_changes_nothing(net, test_set, tmp_path):
    (one, arrays), *others = (
        without_times(evaluated(tmp_path / str(size), net, test_set, FGSM, PGD20, CW, batch_size=size))
        for size in (100, 1, 7)
    )
    measured = ("lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc")
    expected = [one[name].pop("mean") for name in measured]
    for content, values in others:
        # the linear layer adds up its 16 products in an order that may depend on the batch
        assert [content[name].pop("mean") for name in measured] == pytest.approx(expected, rel=1e-4)
        assert (content, values) == (one, arrays)


def test_an_attack_added_later_keeps_what_is_recorded(net, test_set, tmp_path):
    before, arrays_before = on_disk(evaluated(tmp_path, net, test_set, FGSM, PGD20))
    after, arrays = on_disk(evaluated(tmp_path, net, test_set, forbidden(PGD20), CW))  # fgsm is not requested any more
    for name in ("fgsm", "pgd20"):
        assert after["attacks"][name] == before["attacks"][name]  # to the second it took
        assert arrays[name] == arrays_before[name]
    assert all(after[key] == before[key] for key in ("clean", "stability", "lipschitz"))
    assert after["worst_case"]["attacks"] == ["cw40", "fgsm", "pgd20"]
    together = np.logical_and.reduce([arrays[name] for name in ("fgsm", "pgd20", "cw40")])
    assert after["worst_case"]["count"] == int(together.sum())


def test_adding_in_two_steps_gives_what_one_step_gives(net, test_set, tmp_path):
    evaluated(tmp_path / "steps", net, test_set, CW)
    two = without_times(evaluated(tmp_path / "steps", net, test_set, PGD20, FGSM))
    assert two == without_times(evaluated(tmp_path / "once", net, test_set, FGSM, PGD20, CW))


class Untouchable(nn.Module):
    def forward(self, x):
        raise AssertionError("the network was run")


def test_what_is_recorded_costs_nothing_and_changes_no_file(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again = evaluated(tmp_path, Untouchable(), test_set, forbidden(PGD20), forbidden(FGSM))
    assert again.content == record.content
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("change", [{"steps": 2}, {"seed": 1}], ids=str)
def test_changed_settings_or_seeds_are_computed_again(change, planted, tmp_path):
    steps, seed = change.get("steps", 1), change.get("seed", 0)
    evaluated(tmp_path, *planted, named("first", Flips(()), steps=1), named("second", Flips(SECOND), steps=1))
    changed = named("first", Flips(range(10)), steps=steps)
    content, arrays = on_disk(evaluated(tmp_path, *planted, changed, seed=seed))
    first = content["attacks"]["first"]
    assert (first["settings"], first["seed"], first["count"]) == ({"steps": steps}, seed, 0)
    assert (content["worst_case"]["count"], content["attacks"]["second"]["count"]) == (0, 6)
    assert not any(arrays["first"])


def test_clean_accuracy_alone_is_a_record(planted, tmp_path):
    assert not reopened(tmp_path, planted[1]).has_clean
    content, arrays = on_disk(evaluated(tmp_path, *planted))
    assert content["clean"]["count"] == 8
    assert "worst_case" not in content
    assert sorted(arrays) == ["clean", "index", "label"]
    assert reopened(tmp_path, planted[1]).has_clean


def test_an_attack_that_fails_leaves_those_before_it_recorded(net, test_set, tmp_path):
    with pytest.raises(AssertionError, match="was run"):
        evaluated(tmp_path, net, test_set, FGSM, forbidden(CW))
    content, _ = on_disk(evaluated(tmp_path, net, test_set, forbidden(FGSM)))
    assert sorted(content["attacks"]) == ["fgsm"]


def test_an_attack_that_leaves_the_ball_makes_the_record_invalid(net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, named("cheat", Outside()), forbidden(PGD20))
    (reason,) = on_disk(record)[0]["invalid"]
    assert reason.startswith("cheat: images left linf-0.1 (distance 0.2")
    assert record.summary() == f"invalid: {reason}"


def without_booleans(path):
    with np.load(path) as arrays:
        np.savez_compressed(path, **{name: arrays[name] for name in arrays.files if name != "fgsm"})


def with_damaged_bytes(path):
    content = bytearray(path.read_bytes())
    start = content.index(b"clean.npy") + len(b"clean.npy")
    content[start + 30 : start + 60] = bytes(30)
    path.write_bytes(content)


def cut_to(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def with_schema_99(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


DAMAGES = {
    **{f"{part} at {share}": (part, cut_to(share)) for part in ("json", "npz") for share in (0, 0.1, 0.9)},
    **{f"no {part}": (part, lambda path: path.unlink()) for part in ("json", "npz")},
    "no booleans of an attack": ("npz", without_booleans),
    "damaged bytes": ("npz", with_damaged_bytes),
    "another schema": ("json", with_schema_99),
}


@pytest.mark.parametrize(("part", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_pair_counts_as_nothing_recorded(part, damage, net, test_set, tmp_path):
    record = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    before = without_times(record)
    damage(record.json_path.with_suffix(f".{part}"))
    again = reopened(tmp_path, test_set)
    assert not again.has_clean
    assert list(again.missing(EvaluationSettings(attacks=(FGSM, PGD20)))) == ["fgsm", "pgd20"]
    # and it can be done again, with the same result
    assert without_times(evaluated(tmp_path, net, test_set, FGSM, PGD20)) == before


def test_records_of_different_questions_are_different_and_of_one_question_one(test_set, tmp_path):
    other_labels = ImageSet(test_set.images, (test_set.labels + 1) % 5, 5, max_value=128)
    copy = ImageSet(test_set.images.clone(), test_set.labels.clone(), 5, max_value=128)
    records = [
        reopened(tmp_path, images, subject, n)
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
    same = Subject("0123456789ab", "best", "raw", ThreatModel("linf", "1/10"), "planted")
    assert reopened(tmp_path, copy, same, N).eval_id == records[0].eval_id
    assert list(tmp_path.iterdir()) == []  # asking writes nothing


def test_the_numbers_of_the_same_weights_are_taken_over(net, test_set, tmp_path):
    best = evaluated(tmp_path, net, test_set, FGSM, PGD20)
    last = Subject("0123456789ab", "last", "raw", THREAT, "planted")
    reopened(tmp_path, test_set, last).take_over(best)
    content, arrays = on_disk(
        evaluated(tmp_path, Untouchable(), test_set, forbidden(FGSM), forbidden(PGD20), subject=last)
    )
    expected, expected_arrays = on_disk(best)
    assert content == {**expected, "checkpoint": "last", "eval_id": content["eval_id"]}
    assert content["eval_id"] != expected["eval_id"]
    assert arrays == expected_arrays


def test_the_network_is_left_in_evaluation_mode_in_float32_with_its_weights(test_set, tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5)).train()
    net[3].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluated(tmp_path, net, test_set, FGSM, PGD20, batch_size=6)
    assert not any(module.training for module in net.modules())
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, True, True, False]
    assert all(parameter.grad is None for parameter in net.parameters())
    after = net.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )


def test_autoattack_equals_a_direct_call_of_the_library(tmp_path, monkeypatch):
    shorten_square(monkeypatch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)).eval()
    with torch.no_grad():
        net[1].weight.mul_(2)
    images = torch.randint(0, 129, (12, 1, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    x = images.float() / 128
    y = net(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 5
    suite = pyautoattack.AutoAttack(net, norm="Linf", eps=0.1, version="standard", seed=9)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
    x_adv, _ = suite.run_standard_evaluation(x, y, batch_size=250)
    direct = net(x_adv).argmax(dim=1) == y
    # batches of five images in the evaluation, all twelve in one call of the library
    test = ImageSet(images, y, 5, max_value=128)
    record = evaluated(tmp_path, net, test, described("autoattack", AutoAttack()), seed=9, batch_size=5)
    content, arrays = on_disk(record)
    assert 0 < int(direct.sum()) < 11
    assert arrays["autoattack"] == direct.tolist()
    assert content["attacks"]["autoattack"]["count"] == int(direct.sum())
    assert content["attacks"]["autoattack"]["implementation"].startswith("pyautoattack ")


def test_a_part_of_the_test_set_keeps_the_proportions_of_the_classes(net):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[order]
    images = ImageSet(random_images(net, 100).images, labels, 3, max_value=128)
    found = select_examples(images, 10)
    assert torch.bincount(found.images.labels).tolist() == [5, 3, 2]
    assert torch.equal(found.index, found.index.unique())  # ascending, and none twice
    assert torch.equal(found.images.images, images.images[found.index])
    assert torch.equal(found.images.labels, labels[found.index])


def test_a_part_is_the_same_each_time_and_the_whole_is_in_order(net):
    images, state = random_images(net, 100), torch.get_rng_state()
    first = select_examples(images, 30).index
    torch.manual_seed(1)
    assert torch.equal(select_examples(images, 30).index, first)
    torch.set_rng_state(state)
    assert not torch.equal(first, torch.arange(30))
    assert len(first) == 30
    for n in (None, 100):
        whole = select_examples(images, n)
        assert torch.equal(whole.index, torch.arange(100))
        assert torch.equal(whole.images.images, images.images)


BAD_SETTINGS = {
    "n": [0, -1, 1.5, True],
    "batch_size": [0, None],
    "checkpoints": [(), ("best", "worst")],
}


@pytest.mark.parametrize("key", BAD_SETTINGS)
def test_bad_settings_are_named(key):
    for value in BAD_SETTINGS[key]:
        with pytest.raises(InputError, match=rf"evaluate\.{key} = "):
            EvaluationSettings(attacks=(), **{key: value})


def test_what_data_do_not_allow_is_named():
    settings = EvaluationSettings(attacks=(FGSM, described("autoattack", AutoAttack())), n=21)
    settings.require_fits(21, 4, 0.1)
    with pytest.raises(InputError, match=r"evaluate\.n = 21: .*at most the 20 test examples"):
        settings.require_fits(20, 4, 0.1)
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'autoattack': .*data of at least 4 classes; here 3"):
        settings.require_fits(21, 3, 0.1)
