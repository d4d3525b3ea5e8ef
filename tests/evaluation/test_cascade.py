"""Cascades of attacks whose victims are planted, and of real attacks against running each on everything."""

from fractions import Fraction

import pandas as pd
import pytest
import torch
from evaluations import (
    CPU,
    FACTS,
    SUBJECT,
    THREAT,
    Flips,
    Outside,
    evaluated,
    grey_images,
    named,
    on_disk,
)
from torch import nn

from robust_arch.attacks import PGD, Clean, Margin, ThreatModel
from robust_arch.common.identity import describe
from robust_arch.common.statistics import wilson_interval
from robust_arch.data import ImageSet
from robust_arch.errors import InputError
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, NamedAttack, extend, select_examples
from robust_arch.runs import COLUMNS, StudyFolder, load_study

N = 12
CLEAN = set(range(10))  # the last two are of class 1
FIRST, SECOND, THIRD = {0, 1, 6, 11}, {1, 2, 8}, {3, 0}
NAME = "cascade-first-second-third"


@pytest.fixture
def planted(linear):
    return grey_images(linear, 10, 2)


class Second(Flips):
    implementation = "planted 2"


def planted_cascade():
    return named("first", Flips(FIRST)), named("second", Second(SECOND)), named("third", Flips(THIRD))


def seen(cascade):
    return [member.attack.seen for member in cascade]


def flags(standing):
    return [i in standing for i in range(N)]


@pytest.mark.parametrize("batch_size", [250, 3])
def test_each_attack_sees_exactly_what_survived_those_before_it(batch_size, planted, tmp_path):
    cascade = planted_cascade()
    content, arrays = on_disk(evaluated(tmp_path, *planted, cascade=cascade, batch_size=batch_size, seed=5))
    # by hand: clean 0..9; the first takes 0, 1, 6; the second, of what is left, 2 and 8; the third 3
    assert seen(cascade) == [[*range(10)], [2, 3, 4, 5, 7, 8, 9], [3, 4, 5, 7, 9]]
    assert max(len(call) for member in cascade for call in member.attack.calls) == min(batch_size, 10)
    assert arrays[NAME] == flags({4, 5, 7, 9})
    assert sorted(arrays) == [NAME, "clean", "index", "label"]  # nothing on all examples for a member that saw a part
    assert list(content["attacks"]) == [NAME]
    found = content["attacks"][NAME]
    stages = [(stage["attack"], stage["attacked"], stage["standing"]) for stage in found["stages"]]
    assert stages == [("first", 10, 7), ("second", 7, 5), ("third", 5, 4)]
    assert not any("recorded_on_all" in stage for stage in found["stages"])
    # each stage's time is rounded to a millisecond, and so is their sum
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]), abs=5e-4)
    assert found["implementation"] == "planted 1, planted 2"
    assert found["settings"] == [{"attack": "first"}, {"attack": "second"}, {"attack": "third"}]
    assert (found["seed"], found["problems"], found["warnings"]) == (5, [], [])
    expected = {"count": 4, "n": N, "percent": 100 * 4 / N, "interval": [100 * b for b in wilson_interval(4, N)]}
    assert {key: found[key] for key in expected} == expected
    assert (content["worst_case"]["count"], content["worst_case"]["attacks"]) == (4, [NAME])


def test_examples_of_a_part_keep_their_positions_in_the_whole_set(planted, tmp_path):
    index = select_examples(planted[1], 6).index.tolist()
    assert index != list(range(6))  # otherwise nothing is tested
    cascade = planted_cascade()
    record = evaluated(tmp_path, *planted, cascade=cascade, n=6)
    standing = CLEAN & set(index)
    for member, victims in zip(cascade, (FIRST, SECOND, THIRD), strict=True):
        assert member.attack.seen == sorted(standing)
        standing -= victims
    assert record.arrays[NAME].tolist() == [i in standing for i in index]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_cascade_of_gradient_attacks_is_the_worst_case_of_running_each_on_everything(norm, tmp_path):
    threat = ThreatModel(norm, "0.1" if norm == "linf" else "0.3")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 5))
    with torch.no_grad():
        net[1].weight.mul_(4)
    pixels = torch.randint(0, 129, (80, 1, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    x, index = pixels.float() / 128, torch.arange(80)
    labels = net(x).argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 5
    attacks = {
        "fgsm": PGD(steps=1, rel_step_size=0.5, start=Clean()),
        "pgd20": PGD(steps=20, rel_step_size=0.1),
        "cw40": PGD(steps=40, rel_step_size=0.1, loss=Margin()),
    }
    # by hand, without the evaluation: each attack on all eighty
    expected = net(x).argmax(dim=1) == labels
    for attack in attacks.values():
        expected &= net(attack(net, x, labels, threat, seed=3, index=index)).argmax(dim=1) == labels
    record = EvaluationRecord(tmp_path, SUBJECT, select_examples(ImageSet(pixels, labels, 5, max_value=128), None))
    cascade = tuple(NamedAttack(name, attack, describe(attack)) for name, attack in attacks.items())
    extend(record, net, EvaluationSettings(attacks=(), cascade=cascade, seed=3, batch_size=32), threat, CPU, {})
    (found,) = record.content["attacks"].values()
    assert record.arrays["cascade-fgsm-pgd20-cw40"].tolist() == expected.tolist()
    assert record.content["worst_case"]["count"] == found["count"] == int(expected.sum())
    left = [64, *(stage["standing"] for stage in found["stages"])]
    assert left[0] > left[1] > left[2] > left[3] > 0  # every stage has something to do, or this compares nothing


def test_a_member_recorded_on_every_example_is_not_run_again(planted, tmp_path):
    first, second, third = planted_cascade()
    evaluated(tmp_path, *planted, second)
    assert second.attack.seen == sorted(CLEAN)
    again = named("second", Flips(set()))
    content, arrays = on_disk(evaluated(tmp_path, *planted, cascade=(first, again, third)))
    assert seen((first, again, third)) == [sorted(CLEAN), [], [3, 4, 5, 7, 9]]
    stages = content["attacks"][NAME]["stages"]
    assert [stage.get("recorded_on_all", False) for stage in stages] == [False, True, False]
    assert [(stage["attacked"], stage["standing"]) for stage in stages] == [(10, 7), (7, 5), (5, 4)]
    assert stages[1]["seconds"] == 0
    assert (arrays[NAME], arrays["second"]) == (flags({4, 5, 7, 9}), flags(CLEAN - SECOND))
    assert content["worst_case"]["attacks"] == [NAME, "second"]


def test_an_attack_requested_on_its_own_and_in_the_cascade_runs_once(planted, tmp_path):
    first, second, third = planted_cascade()
    content, _ = on_disk(evaluated(tmp_path, *planted, third, cascade=(first, second, third)))
    assert (third.attack.seen, second.attack.seen) == (sorted(CLEAN), [2, 3, 4, 5, 7, 8, 9])
    assert content["attacks"]["third"]["count"] == 8  # the ten without 0 and 3
    assert content["attacks"][NAME]["count"] == content["worst_case"]["count"] == 4


@pytest.mark.parametrize("change", ["settings", "seed"])
def test_a_member_recorded_with_other_settings_is_run_in_the_cascade(change, planted, tmp_path):
    first, second, third = planted_cascade()
    recorded = named("second", Flips(set()), **({"steps": 1} if change == "settings" else {}))
    evaluated(tmp_path, *planted, recorded, seed=0)
    record = evaluated(tmp_path, *planted, cascade=(first, second, third), seed=int(change == "seed"))
    assert second.attack.seen == [2, 3, 4, 5, 7, 8, 9]
    assert record.arrays[NAME].tolist() == flags({4, 5, 7, 9})


def test_an_attack_added_later_keeps_the_cascade(planted, tmp_path):
    before, arrays_before = on_disk(evaluated(tmp_path, *planted, cascade=planted_cascade()))
    again, later = planted_cascade(), named("later", Flips({4, 8}))
    after, arrays = on_disk(evaluated(tmp_path, *planted, later, cascade=again))
    assert [*seen(again), later.attack.seen] == [[], [], [], sorted(CLEAN)]
    assert after["attacks"][NAME] == before["attacks"][NAME]  # to the second it took
    assert arrays[NAME] == arrays_before[NAME]
    assert (after["worst_case"]["attacks"], after["worst_case"]["count"]) == ([NAME, "later"], 3)  # 5, 7, 9


@pytest.mark.parametrize("change", ["settings", "seed", "order"])
def test_a_cascade_of_other_members_is_run_anew(change, planted, tmp_path):
    evaluated(tmp_path, *planted, cascade=planted_cascade())
    first, second, third = planted_cascade()
    if change == "settings":
        third = named("third", Flips({5}), steps=2)
    again = (third, second, first) if change == "order" else (first, second, third)
    record = evaluated(tmp_path, *planted, cascade=again, seed=int(change == "seed"))
    # from the first stage on, as only the survivors of the whole are recorded; in the other order 0 and 3 fall first
    assert [len(calls) for calls in seen(again)] == [10, 8 if change == "order" else 7, 5]
    name = "cascade-third-second-first" if change == "order" else NAME
    assert record.arrays[name].tolist() == flags({3, 4, 7, 9} if change == "settings" else {4, 5, 7, 9})
    assert sorted(record.content["attacks"]) == sorted({NAME, name})


def test_where_nothing_survives_no_further_attack_is_run(planted, tmp_path):
    cascade = named("first", Flips(CLEAN)), named("second", Flips(SECOND)), named("third", Flips(THIRD))
    content, arrays = on_disk(evaluated(tmp_path, *planted, cascade=cascade))
    assert [len(member.attack.calls) for member in cascade] == [1, 0, 0]
    found = content["attacks"][NAME]
    told = {"attacked": 0, "seconds": 0.0, "problems": [], "warnings": [], "standing": 0}
    assert found["stages"][1:] == [{"attack": "second", **told}, {"attack": "third", **told}]
    assert (found["count"], found["percent"], content["worst_case"]["count"]) == (0, 0.0, 0)
    # 0 of 12: up to z^2 / (12 + z^2) = 24.25%
    assert found["interval"] == pytest.approx([0.0, 24.2494], abs=1e-3)
    assert not any(arrays[NAME])


def test_the_warning_of_an_attack_is_recorded_with_its_name(planted, tmp_path):
    cascade = named("first", Flips(FIRST)), named("second", Flips(SECOND, warning="a step of 7 was too long"))
    record = evaluated(tmp_path, *planted, cascade=cascade)
    assert record.content["warnings"] == ["cascade-first-second: second: a step of 7 was too long"]
    assert record.invalid == []


@pytest.mark.parametrize("names", [("first", "cheat"), ("cheat", "second")])
def test_a_problem_in_a_stage_makes_the_record_invalid_and_ends_it(names, planted, tmp_path):
    cascade = tuple(named(name, Outside() if name == "cheat" else Flips(FIRST)) for name in names)
    record = evaluated(tmp_path, *planted, cascade=cascade, diagnostics=4)
    (reason,) = on_disk(record)[0]["invalid"]
    assert reason.startswith(f"cascade-{'-'.join(names)}: cheat: images left linf-0.1 (distance 0.")
    assert record.summary() == f"invalid: {reason}"
    assert EvaluationRecord(tmp_path, SUBJECT, record.examples).is_complete(
        EvaluationSettings(attacks=(), cascade=cascade)
    )
    assert "diagnostics" not in record.content
    if names[0] == "cheat":
        assert cascade[1].attack.calls == []


def test_rerun_runs_a_recorded_cascade_anew(planted, tmp_path):
    evaluated(tmp_path, *planted, cascade=planted_cascade())
    again = planted_cascade()
    settings = EvaluationSettings(attacks=(), cascade=again)
    record = EvaluationRecord(tmp_path, SUBJECT, select_examples(planted[1], None))
    assert record.is_complete(settings)
    record.forget(settings)
    assert list(record.missing(settings)) == [NAME]
    extend(record, planted[0], settings, THREAT, CPU, {})
    assert [len(calls) for calls in seen(again)] == [10, 7, 5]


def test_a_row_has_a_number_for_the_cascade_and_none_for_members_that_saw_a_part(planted, tmp_path):
    study = StudyFolder(tmp_path / "planted")
    run = study.run(FACTS.run_id)
    run.write_state("completed", FACTS)
    # under names that have columns of their own; the first is recorded on all
    attacks = named("fgsm", Flips(FIRST)), named("pgd20", Flips(SECOND)), named("cw40", Flips(THIRD))
    evaluated(run.evaluations, *planted, attacks[0], cascade=attacks)
    (row,) = load_study(study.path).to_dict("records")
    assert row["cascade-fgsm-pgd20-cw40_acc"] == row["worst_case_acc"] == float(Fraction(100 * 4, N))
    assert (row["fgsm_acc"], row["clean_acc"]) == (float(Fraction(100 * 7, N)), float(Fraction(100 * 10, N)))
    # stability and Lipschitz constants are of pgd20 on every example, too
    absent = ["pgd20_acc", "cw40_acc", "autoattack_acc", "stability", "lipschitz"]
    assert all(pd.isna(row[name]) for name in absent)
    written = pd.read_csv(study.write_results(), dtype=str, keep_default_na=False)
    assert written[absent].to_numpy().tolist() == [[""] * 5]
    assert list(written.columns)[len(COLUMNS) :] == ["cascade-fgsm-pgd20-cw40_acc", "hardware", "precision", "version"]


def test_cascades_that_cannot_be_are_named():
    with pytest.raises(InputError, match=r"evaluate\.cascade = \['first'\]: .*at least two attacks"):
        EvaluationSettings(attacks=(), cascade=planted_cascade()[:1])

    class Demanding(Flips):
        min_classes = 4

    settings = EvaluationSettings(attacks=(), cascade=(named("first", Flips(FIRST)), named("demanding", Demanding({}))))
    settings.require_fits(N, 4, 0.1)
    with pytest.raises(InputError, match=r"'demanding': .*data of at least 4 classes; here 2"):
        settings.require_fits(N, 2, 0.1)
