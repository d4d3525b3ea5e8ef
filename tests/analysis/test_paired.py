"""Paired comparisons of networks whose outcomes are planted, against other formulas and other implementations."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.paired import against, compare_records
from robust_arch.analysis.report.comparison import section
from robust_arch.analysis.report.study_report import _arrays, _outcomes
from robust_arch.common.files import write_arrays, write_json
from robust_arch.common.statistics import compare_paired
from robust_arch.errors import InputError
from robust_arch.runs import RunFacts, RunFolder, StudyFolder, load_study

Z = 1.959963984540054


def cells(both, only_first, only_second, neither):
    """Two arrays with this 2x2 table, in an order that is not sorted by cell."""
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    order = np.random.default_rng(0).permutation(len(first))
    return np.array(first)[order], np.array(second)[order]


# twice the lower tail of a fair coin, by hand
BY_HAND = [
    ((5, 0, 1), 1.0),  # 2 * 1/2
    ((5, 0, 5), 2 / 32),
    ((5, 0, 6), 2 / 64),
    ((5, 1, 7), 2 * (1 + 8) / 256),
    ((0, 2, 8), 2 * (1 + 10 + 45) / 1024),
    ((0, 8, 2), 2 * (1 + 10 + 45) / 1024),
    ((5, 3, 3), 1.0),  # the middle counts in both tails
    ((5, 0, 0), 1.0),
]


@pytest.mark.parametrize(("table", "p"), BY_HAND, ids=str)
def test_p_values_are_those_computed_by_hand(table, p):
    assert compare_paired(*cells(*table, 3)).p_value == pytest.approx(p, rel=1e-12)


def exact(b, c):
    """Twice the lower tail of a fair coin thrown b + c times, in integers, at most 1."""
    tail, term = 0, 1
    for k in range(min(b, c) + 1):
        tail, term = tail + term, term * (b + c - k) // (k + 1)
    return min(1.0, float(Fraction(2 * tail, 2 ** (b + c))))


@pytest.mark.parametrize("discordant", [1, 2, 7, 30, 201])
def test_p_values_are_those_of_exact_arithmetic(discordant):
    for only_first in range(discordant + 1):
        found = compare_paired(*cells(3, only_first, discordant - only_first, 2)).p_value
        assert found == pytest.approx(exact(only_first, discordant - only_first), rel=1e-12)


@pytest.mark.parametrize("only_first", [4_700, 4_999, 5_000])
def test_ten_thousand_discordant_examples_do_not_overflow(only_first):
    found = compare_paired(*cells(0, only_first, 10_000 - only_first, 0))
    # 2^-10000 is no floating-point number
    assert found.p_value == pytest.approx(exact(only_first, 10_000 - only_first), rel=1e-11)
    assert found.low < found.difference < found.high
    extreme = compare_paired(*cells(0, 10_000, 0, 0))
    assert (extreme.p_value, extreme.difference, extreme.high) == (0.0, 1.0, 1.0)  # 2^-9999


def test_counts_and_difference_are_those_of_the_table():
    found = compare_paired(*cells(40, 7, 12, 41))
    assert (found.n, found.only_first, found.only_second) == (100, 7, 12)
    assert found.difference == pytest.approx(-0.05)


def test_identical_networks_do_not_differ():
    first, _ = cells(30, 10, 0, 0)
    found = compare_paired(first, first.copy())
    assert (found.only_first, found.only_second, found.difference, found.p_value) == (0, 0, 0.0, 1.0)
    # 0 -+ z sqrt(1 / 42^2): the half that is added to each cell
    assert (found.low, found.high) == pytest.approx((-Z / 42, Z / 42))


@pytest.mark.parametrize("table", [(40, 7, 12, 41), (0, 0, 9, 1)], ids=str)
def test_the_two_networks_may_be_exchanged(table):
    one, other = compare_paired(*cells(*table)), compare_paired(*reversed(cells(*table)))
    assert (one.only_first, one.only_second, one.p_value) == (other.only_second, other.only_first, other.p_value)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def agresti_min(a, b, c, d, z):
    """Wald's interval of a difference of paired shares, on the table with one half in each cell more, by variances."""
    shares = [(count + 0.5) / (a + b + c + d + 2) for count in (a, b, c, d)]
    p1, p2 = shares[0] + shares[1], shares[0] + shares[2]
    covariance = shares[0] * shares[3] - shares[1] * shares[2]
    variance = (p1 * (1 - p1) + p2 * (1 - p2) - 2 * covariance) / (a + b + c + d + 2)
    return max(-1.0, p1 - p2 - z * math.sqrt(variance)), min(1.0, p1 - p2 + z * math.sqrt(variance))


@pytest.mark.parametrize(
    "table",
    [(40, 7, 12, 41), (0, 1, 0, 0), (5, 0, 0, 5), (0, 30, 0, 0), (1, 2, 40, 3), (3000, 512, 430, 6058)],
    ids=str,
)
def test_intervals_are_those_of_agresti_and_min(table):
    found = compare_paired(*cells(*table))
    assert (found.low, found.high) == pytest.approx(agresti_min(*table, Z), rel=1e-12)


@pytest.mark.parametrize("shares", [(0.5, 0.12, 0.08, 0.3), (0.3, 0.02, 0.1, 0.58)], ids=str)
def test_intervals_cover_the_true_difference_at_their_confidence(shares):
    tables = np.random.default_rng(7).multinomial(100, shares, size=2_000).tolist()
    found = [compare_paired(*cells(*table)) for table in tables]
    covered = sum(each.low <= shares[1] - shares[2] <= each.high for each in found)
    # 95% with a standard error of sqrt(0.95 * 0.05 / 2000) = 0.5 points: four of them below, and above for the
    # interval, which Agresti and Min found to be conservative by up to two points
    assert 0.93 <= covered / 2_000 <= 0.99


def test_equal_networks_differ_at_the_5_percent_level_at_most_that_often():
    draws = np.random.default_rng(3).multinomial(60, (0.4, 0.15, 0.15, 0.3), size=1_000)
    called = sum(compare_paired(*cells(*table)).p_value < 0.05 for table in draws.tolist())
    # exact, hence at most 5%: standard error 0.7 points, three of them above
    assert called / 1_000 <= 0.07


@pytest.mark.parametrize("shapes", [(3, 4), (0, 0), ((2, 2), (2, 2))], ids=["lengths", "none", "shape"])
def test_other_examples_are_refused(shapes):
    with pytest.raises(InputError, match="the same examples for both"):
        compare_paired(*(np.ones(shape, bool) for shape in shapes))


# --- Holm's correction

REFERENCE = np.array([False] * 10 + [True] * 6)


def outcome(gained, lost):
    """Right on so many of the ten that the reference is wrong on, wrong on so many of the six that it is right on."""
    found = REFERENCE.copy()
    found[:gained] = True
    found[10 : 10 + lost] = False
    return found


def test_holms_correction_is_that_computed_by_hand():
    outcomes = {
        "same": REFERENCE.copy(),
        "seven": outcome(7, 1),
        "reference": REFERENCE,
        "ten": outcome(10, 0),
        "six": outcome(0, 6),
    }
    pairs = {pair.run_id: pair for pair in against("reference", outcomes)}
    p = {"ten": 2 / 1024, "six": 2 / 64, "seven": 18 / 256, "same": 1.0}
    assert {run: pair.comparison.p_value for run, pair in pairs.items()} == pytest.approx(p)
    # the smallest of four times four, the next times three, times two, times one
    assert pairs["ten"].adjusted == pytest.approx(8 / 1024)
    assert pairs["six"].adjusted == pytest.approx(6 / 64)
    assert pairs["seven"].adjusted == pytest.approx(36 / 256)
    assert pairs["same"].adjusted == 1.0
    assert list(pairs) == ["same", "seven", "ten", "six"]  # in the order given, without the reference
    seven = pairs["seven"].comparison  # the reference is the first
    assert (seven.only_first, seven.only_second, seven.difference) == (1, 7, pytest.approx(-6 / 16))


@pytest.mark.parametrize(("other", "expected"), [(outcome(6, 0), 6 / 64), (outcome(1, 1), 1.0)], ids=["falls", "1"])
def test_holms_correction_never_falls_with_a_larger_p_and_is_at_most_1(other, expected):
    # p 6/64 = 3 * 2/64 for the first, and no less for the others, though 2 * 2/64 and 2/64 are
    pairs = against("reference", {"reference": REFERENCE, **dict.fromkeys("abc", other)})
    assert [pair.adjusted for pair in pairs] == pytest.approx([expected] * 3)


# --- the section of the report


@pytest.fixture
def group(rows):
    """Three runs of the main group on sixteen test images."""
    changes = [{"run_id": name, "arch": f"net-{name}", "seed": i, "n_test": 16} for i, name in enumerate("abc")]
    return main_group(rows(*changes))


def test_the_selected_network_is_the_reference_and_signs_are_the_readers(group):
    outcomes = {"a": outcome(10, 0), "b": REFERENCE, "c": outcome(0, 6)}
    paired = section(group.rows, group, outcomes, "b").paired
    assert paired.head[:3] == ("architecture", "seed", "difference in points")
    gain, loss = paired.rows
    # net-a is right on the ten of sixteen more, net-c on six less
    assert [gain[i] for i in (0, 1, 2, 4, 5)] == ["net-a", "0", "+62.5", "10", "0"]
    assert [loss[i] for i in (0, 1, 2, 4, 5)] == ["net-c", "2", "-37.5", "0", "6"]
    for row, table in ((gain, (6, 10, 0, 0)), (loss, (0, 0, 6, 10))):
        low, high = agresti_min(*table, Z)
        assert row[3] == f"{100 * low:+.1f} to {100 * high:+.1f}"
    assert (gain[6], gain[7]) == (f"{2 / 1024:.3g}", f"{4 / 1024:.3g}")
    assert (loss[6], loss[7]) == (f"{2 / 64:.3g}", f"{2 / 64:.3g}")
    assert "each against net-b (seed 1), which held-out images selected, on the same 16 test images" in paired.lead
    assert "in the worst case over fgsm, pgd20, cw40" in paired.lead
    assert "Of 2 networks 2 differ from it at the 5% level" in paired.lead


def test_networks_that_holm_does_not_tell_apart_are_not_counted_and_those_without_outcomes_left_out(group):
    # p = 2/64 each, below 5% alone and 4/64 together
    outcomes = {"a": outcome(6, 0), "b": REFERENCE, "c": outcome(0, 6)}
    assert "Of 2 networks 0 differ" in section(group.rows, group, outcomes, "b").paired.lead
    del outcomes["a"]
    paired = section(group.rows, group, outcomes, "b").paired
    assert [row[0] for row in paired.rows] == ["net-c"]
    assert "Of 1 network " in paired.lead


@pytest.mark.parametrize(
    ("outcomes", "selected"),
    [
        ({}, "b"),
        ({"b": REFERENCE}, "b"),
        ({"a": REFERENCE, "c": REFERENCE}, "b"),
        ({"a": REFERENCE, "b": REFERENCE}, None),
    ],
    ids=["none", "alone", "selected without outcome", "none selected"],
)
def test_without_two_outcomes_and_a_selected_run_there_is_no_table(outcomes, selected, group):
    found = section(group.rows, group, outcomes, selected)
    assert found.paired is None
    assert "needs at least two runs with recorded outcomes" in found.lead
    assert section(group.rows, None, outcomes, selected).paired is None


def test_two_runs_of_one_seed_are_no_replicates(rows):
    changes = [{"run_id": name, "arch": arch, "seed": 0} for name, arch in (("a", "one"), ("b", "one"), ("c", "two"))]
    frame = rows(*changes)
    assert "only one seed per architecture" in section(frame, main_group(frame), {}, None).lead
    unknown = [change | {"seed": float("nan")} for change in changes]  # imported runs: nobody knows the seed
    frame = rows(*unknown)
    assert "only one seed" not in section(frame, main_group(frame), {}, None).lead


# --- from records

FACTS = {
    "study": "planted", "arch": "net", "family": "wide_resnet", "depths": "1-1-1", "widths": "4-8-8", "params": 1,
    "macs": 1, "objective": "sat", "recipe": "digits", "train_threat": "linf-0.1", "data": "digits", "seed": 0,
    "epochs": 1,
}  # fmt: skip


def share(flags):
    return {"count": int(flags.sum()), "n": len(flags), "percent": 100 * float(flags.mean()), "interval": [0.0, 100.0]}


def write_record(study, run_id, seed, name="one", n=100, attacks=("fgsm", "pgd20"), **changes):
    """A record with booleans of its own; returns where it is and what is robust under all its attacks."""
    generator = np.random.default_rng(seed)
    clean = generator.random(n) < 0.9
    arrays = {attack: clean & (generator.random(n) < 0.7) for attack in attacks}
    worst = np.logical_and.reduce([*arrays.values()])
    content = {
        "eval_id": name, "run_id": run_id, "checkpoint": "best", "weights": "raw", "threat": "linf-0.1",
        "data": "digits", "examples_fingerprint": f"{n} of digits", "n_test": n, "clean": share(clean),
        "attacks": {attack: share(flags) for attack, flags in arrays.items()}, "worst_case": share(worst),
        "stability": share(clean), "lipschitz": {"mean": 1.0, "n": n, "left_out": 0}, **changes,
    }  # fmt: skip
    run = study.run(run_id)
    run.write_state("completed", RunFacts(run_id=run_id, **FACTS))
    path = run.evaluations / f"{name}.json"
    write_json(path, content)
    write_arrays(path.with_suffix(".npz"), {"index": np.arange(n), "clean": clean, **arrays})
    return path, worst


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "planted")


def outcomes_of(study):
    records = [(run, record) for run in map(RunFolder.read, study.runs()) for record in run.evaluations]
    main = main_group(load_study(study.path))
    return _outcomes(_arrays(records, main), main)


def test_outcomes_are_those_of_the_main_group_and_of_no_other_record(study):
    expected = {}
    for seed, run_id in enumerate(("run_a", "run_b", "run_c")):
        _, expected[run_id] = write_record(study, run_id, seed, "m")
        # read before and after the one above, by name
        write_record(study, run_id, 10 + seed, "a", checkpoint="last")
        write_record(study, run_id, 20 + seed, "z", checkpoint="last", weights="ema")
    for run_id, changes in (
        ("run_a", {"n": 50}),
        ("run_b", {"threat": "linf-0.2"}),
        ("run_c", {"attacks": ("fgsm", "pgd20", "autoattack")}),
        ("run_d", {"attacks": ("fgsm",)}),
        ("run_e", {"n": 50}),
    ):
        write_record(study, run_id, 30, "zz", **changes)
    found = outcomes_of(study)
    assert sorted(found) == ["run_a", "run_b", "run_c"]
    for run_id, flags in expected.items():
        assert 0 < flags.sum() < 100
        np.testing.assert_array_equal(found[run_id], flags)


def test_a_record_without_its_booleans_or_with_a_failed_check_gives_no_outcome(study):
    write_record(study, "run_a", 0)
    torn, _ = write_record(study, "run_b", 1)
    torn.with_suffix(".npz").write_bytes(b"torn")
    write_record(study, "run_c", 2, invalid=["gradients: none"])
    assert sorted(outcomes_of(study)) == ["run_a"]


def test_without_a_main_group_there_are_no_outcomes(study):
    write_record(study, "run_a", 0, checkpoint="last")
    assert outcomes_of(study) == {}


def test_runs_on_other_images_are_not_compared(study):
    for seed, run_id in enumerate(("run_a", "run_b", "run_c")):
        write_record(study, run_id, seed, examples_fingerprint="other images" if seed == 2 else "images")
    assert sorted(outcomes_of(study)) == ["run_a", "run_b"]


# --- two records, on request


def test_two_records_are_compared_attack_by_attack_and_in_their_worst_case(study):
    first, _ = write_record(study, "run_a", 0, attacks=("fgsm", "cw40", "pgd20"))
    second, _ = write_record(study, "run_b", 1, attacks=("pgd20", "autoattack", "fgsm"))
    found = compare_records(first, second)
    assert list(found) == ["clean", "fgsm", "pgd20", "worst case of these"]
    with np.load(first.with_suffix(".npz")) as one, np.load(second.with_suffix(".npz")) as other:
        for name in ("clean", "fgsm", "pgd20"):
            assert found[name].difference == pytest.approx((int(one[name].sum()) - int(other[name].sum())) / 100)
            assert found[name].only_first == sum(a and not b for a, b in zip(one[name], other[name], strict=True))
        worst = [int((arrays["clean"] & arrays["fgsm"] & arrays["pgd20"]).sum()) for arrays in (one, other)]
    assert found["worst case of these"].difference == pytest.approx((worst[0] - worst[1]) / 100)


def test_one_common_attack_has_no_worst_case_of_its_own(study):
    first, _ = write_record(study, "run_a", 0, attacks=("fgsm",))
    second, _ = write_record(study, "run_b", 1)
    assert list(compare_records(first, second)) == ["clean", "fgsm"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"examples_fingerprint": "others"}, "examples_fingerprint is 100 of digits"),
        ({"n": 50}, "examples_fingerprint is 100 of digits"),
        ({"threat": "linf-0.2"}, "threat is linf-0.1"),
        ({"invalid": ["gradients: none"]}, "a valid evaluation; this one is not: gradients: none"),
    ],
    ids=["images", "number", "threat", "invalid"],
)
def test_records_that_may_not_be_compared_are_refused(change, told, study):
    first, _ = write_record(study, "run_a", 0)
    second, _ = write_record(study, "run_b", 1, **change)
    with pytest.raises(InputError, match=re.escape(told)):
        compare_records(first, second)


def test_what_is_no_record_is_refused(study, tmp_path):
    first, _ = write_record(study, "run_a", 0)
    second, _ = write_record(study, "run_b", 1)
    second.with_suffix(".npz").unlink()
    for path in (second, tmp_path / "none.json"):
        with pytest.raises(InputError, match=r"record = .*evaluations/<eval_id>\.json"):
            compare_records(first, path)
