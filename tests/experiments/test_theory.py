"""The theory's pieces: errors counted by hand, random matrices, records of a planted study, an untrained network."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from experiments.theory import collect, convolutions, correlate, figure, measure
from robust_arch.analysis.decomposition import decomposition
from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import ThreatModel
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluation import select_examples
from robust_arch.evaluation.operator_norms import conv_norm
from robust_arch.runs import RunFacts, RunFolder

FOLDER = Path(__file__).parents[2] / "experiments" / "theory"

# --- the decomposition ---


def row(labels, predicted, attacked):
    """The columns of results.csv that these classes give, counted one example after the other."""
    n = len(labels)
    clean = sum(p == y for y, p in zip(labels, predicted, strict=True))
    robust = sum(p == y and a == y for y, p, a in zip(labels, predicted, attacked, strict=True))
    stable = sum(p == a for p, a in zip(predicted, attacked, strict=True))
    counts = {"clean_acc": clean, "pgd20_acc": robust, "stability": stable}
    return pd.DataFrame([{"run_id": "a"} | {name: 100 * count / n for name, count in counts.items()}])


def test_the_decomposition_of_ten_examples_by_hand():
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    #         stand    fall        wrong and stay, wrong and leave for a third class, wrong and turn right
    predicted = [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    attacked_ = [0, 0, 0, 1, 2, 1, 0, 2, 1, 1]
    found = decomposition(row(labels, predicted, attacked_)).iloc[0]
    assert found.to_dict() == {
        "natural_error": pytest.approx(40),
        "instability": pytest.approx(50),
        "robust_error": pytest.approx(60),
        "fallen": pytest.approx(20),
        "counted_twice": pytest.approx(30),
    }


classes = st.integers(0, 3)


@given(st.lists(st.tuples(classes, classes, classes), min_size=1, max_size=40))
def test_the_bound_exceeds_robust_error_by_who_is_wrong_and_unstable(examples):
    labels, predicted, attacked = map(list, zip(*examples, strict=True))
    found = decomposition(row(labels, predicted, attacked)).iloc[0]
    twice = sum(p not in (y, a) for y, p, a in examples)
    fallen = sum(p == y != a for y, p, a in examples)
    assert found["counted_twice"] == pytest.approx(100 * twice / len(examples), abs=1e-9)
    assert found["fallen"] == pytest.approx(100 * fallen / len(examples), abs=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"pgd20_acc": 91.0},  # more robust than right
        {"stability": 95.0},  # 20% fall, 5% are unstable
        {"stability": 60.0},  # 20% are unstable and wrong, 10% are wrong
    ],
)
def test_numbers_of_different_examples_are_refused(changes):
    rows = pd.DataFrame([{"run_id": "mixed", "clean_acc": 90.0, "pgd20_acc": 70.0, "stability": 75.0} | changes])
    with pytest.raises(InputError, match="run_id = 'mixed'"):
        decomposition(rows)


def test_a_row_without_stability_is_left_open():
    rows = pd.DataFrame([{"run_id": "a", "clean_acc": 90.0, "pgd20_acc": 70.0, "stability": math.nan}])
    found = decomposition(rows).iloc[0]
    assert found["fallen"] == pytest.approx(20)
    assert math.isnan(found["instability"])
    assert math.isnan(found["counted_twice"])


# --- random convolutions ---


@pytest.mark.parametrize("c_in", [4, 32, 128])
def test_a_1x1_convolution_is_its_matrix(c_in):
    conv = convolutions.random_convolution(c_in, 32, 1, seed=0)
    singular = np.linalg.svd(conv.weight.detach().double().numpy()[:, :, 0, 0], compute_uv=False)[0]
    assert conv_norm(conv, (c_in, 3, 3), tolerance=1e-11, max_steps=20_000)[0] == pytest.approx(singular, rel=1e-8)
    assert convolutions.unbounded_norm(conv) == pytest.approx(singular, rel=1e-10)


@pytest.mark.parametrize("c_in", [16, 256])
def test_a_large_random_matrix_has_the_norm_of_theory(c_in):
    # entries of variance 2 / c_out: sqrt(2) (1 + sqrt(c_in / c_out)), and the mean is not above (Davidson, Szarek 2001)
    norms = []
    for seed in range(5):
        conv = convolutions.random_convolution(c_in, 256, 1, seed)
        norms.append(conv_norm(conv, (c_in, 1, 1))[0] / convolutions.scale(c_in, 256))
    assert np.mean(norms) == pytest.approx(math.sqrt(2), rel=0.03)
    assert max(norms) < math.sqrt(2) * (1 + 3 * math.sqrt(1 / 256))  # exceeded with probability e^-4.5 at most


def test_the_norm_without_border_of_kernels_known_in_closed_form():
    conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    # nine ones sum up at frequency 0; [-1, 1, 0] in one direction doubles the highest frequency
    torch.nn.init.ones_(conv.weight)
    assert convolutions.unbounded_norm(conv) == pytest.approx(9)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[0, 0, 0], [-1.0, 1.0, 0], [0, 0, 0]])[None, None])
    assert convolutions.unbounded_norm(conv) == pytest.approx(2)


def test_a_border_only_lowers_the_norm_and_less_so_on_large_images():
    conv = convolutions.random_convolution(3, 4, 3, seed=0)
    norms = [conv_norm(conv, (3, side, side), tolerance=1e-9)[0] for side in (1, 2, 4, 8, 16)]
    assert norms == sorted(norms)
    assert norms[-1] < convolutions.unbounded_norm(conv) < 1.05 * norms[-1]


# --- the collector ---


def smoothness(bound):
    """As an evaluation records it, of a network of three stages; `bound` is the last stage's."""
    names = ("stem", "stage 1", "stage 2", "stage 3", "logits")
    stages = [
        {"name": name, "from_input": 1.0, "alone": i / 8, "alone_max": 1.0, "bound": float(i)}
        for i, name in enumerate(names)
    ]
    stages[3]["bound"] = bound
    layers = [{"name": f"network.stages.{stage}.0.conv1", "norm": 10.0 + stage} for stage in range(3)]
    return {"n": 198, "stages": stages, "bounds": {"network": 1e6, "layers": layers}}


def share(percent):
    return {"count": round(2 * percent), "n": 200, "percent": float(percent), "interval": [0.0, 100.0]}


def plant(study, run_id, seed, *, checkpoint="best", **record):
    """One evaluated run; record: further parts of its evaluation."""
    facts = {"study": study.name, "arch": "net", "family": "wide_resnet", "depths": "1-1-1", "widths": "8-8-8"}
    facts |= {"params": 1000, "macs": 9000, "objective": "sat", "recipe": "digits", "train_threat": "linf-0.2"}
    folder = RunFolder(study / "runs" / run_id)
    folder.write_state("completed", RunFacts(run_id=run_id, seed=seed, epochs=10, data="digits", **facts))
    content = {"eval_id": checkpoint, "run_id": run_id, "checkpoint": checkpoint, "weights": "raw"}
    content |= {"threat": "linf-0.2", "data": "digits", "n_test": 200, "clean": share(90), "invalid": []}
    content |= {"attacks": {"pgd20": share(60)}, "worst_case": share(60), "stability": share(65)}
    means = {"lipschitz": 40.0, "lipschitz_kl": 2.0, "lipschitz_l2": None}
    content |= {name: {"mean": mean, "n": 200} for name, mean in means.items()}
    folder.evaluations.mkdir(parents=True, exist_ok=True)
    (folder.evaluations / f"{checkpoint}.json").write_text(json.dumps(content | record))


def test_the_collector_reads_what_there_is_of_a_study(tmp_path):
    study = tmp_path / "half"
    plant(study, "a", 0, smoothness=smoothness(7.0))
    plant(study, "a", 0, checkpoint="last", smoothness=smoothness(70.0))
    plant(study, "b", 1, stability=share(70))
    (study / "runs" / "c").mkdir()
    found = collect.collected(study).set_index("run_id")
    assert list(found.index) == ["a", "b"]
    assert found.loc["a", ["natural_error", "instability", "robust_error"]].tolist() == [10, 35, 40]
    assert found["counted_twice"].to_dict() == {"a": 5, "b": 0}
    assert found["bound_stage_3"].to_dict() == {"a": 7.0, "b": pytest.approx(math.nan, nan_ok=True)}
    assert found.loc["a", ["alone_stem", "alone_head", "norm_conv1", "smoothness_n"]].tolist() == [0, 0.5, 12.0, 198]
    assert found.loc["a", "lipschitz"] == 40
    assert pd.isna(found.loc["a", "lipschitz_l2"])
    assert found.loc["a", "seed"] == 0


def test_the_collector_asks_for_a_study_that_was_evaluated(tmp_path):
    with pytest.raises(InputError, match="a study's folder"):
        collect.collected(tmp_path / "none")
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    with pytest.raises(InputError, match="evaluated at its best checkpoint"):
        collect.collected(tmp_path / "empty")


# --- a network, measured ---


def test_a_measured_network_agrees_with_its_own_stages():
    examples = select_examples(Digits(name="digits").read()[1], 40)
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 6), stem_width=4), 10, (1, 8, 8), seed=0).eval()
    found = measure.measured(net, examples, ThreatModel("linf", 0.2))
    # ||.||_1 <= sqrt(K) ||.||_2 of 10 logits, ||.||_2 <= sqrt(D) ||.||_inf of 64 pixels
    assert found["lipschitz"] <= math.sqrt(10 * 64) * found["bound_network"]
    assert found["lipschitz_l2"] < found["bound_network"]
    parts = ("stem", "stage_1", "stage_2", "stage_3", "head")
    assert found["bound_network"] == pytest.approx(math.prod(found[f"bound_{part}"] for part in parts))
    assert all(found[f"alone_{part}"] <= found[f"bound_{part}"] for part in parts)
    first = net.network.stages[2][0]
    assert found["norm_conv2"] == pytest.approx(conv_norm(first.conv2, (6, 2, 2))[0])
    logits = net(examples.images.to_unit(examples.images.images)).detach().double()
    ordered = np.sort(logits.numpy(), axis=1)
    assert found["margin"] == pytest.approx((ordered[:, -1] - ordered[:, -2]).mean(), rel=1e-6)


# --- correlations and series ---


def runs_of(*rows):
    """Rows of arch, robust error in percent of 360 and lipschitz, without the other quantities."""
    runs = pd.DataFrame(rows, columns=["arch", "robust_error", "lipschitz"]).assign(n_test=360)
    return runs.reindex(columns=[*runs.columns, *set(correlate.QUANTITIES) - {"lipschitz"}])


def test_correlations_are_of_means_over_seeds():
    # the means rise together, so robust accuracy falls; single runs would give another tau
    rows = [("a", 10.0, 1.0), ("a", 30.0, 9.0), ("b", 22.5, 6.0), ("b", 25.0, 6.0), ("c", 40.0, 7.0), ("c", 40.0, 7.0)]
    found = {row["quantity"]: row for row in correlate.correlations(runs_of(*rows))}
    assert found["lipschitz"]["tau"] == pytest.approx(-1)
    assert (found["lipschitz"]["architectures"], found["lipschitz"]["runs"]) == (3, 6)
    assert found["bound_network"]["tau"] is None


def test_equal_errors_are_tied_though_percentages_are_rounded():
    # a and b fail on 109 images a seed, which 29.4444, 31.1111 and 30.2778 percent do not add up to exactly
    rows = [("a", 29.4444, 1.0), ("a", 31.1111, 1.0), ("a", 30.2778, 1.0), ("b", 30.2778, 2.0), ("c", 50.0, 3.0)]
    found = {row["quantity"]: row for row in correlate.correlations(runs_of(*rows))}
    # of three pairs one is tied on the side of the errors: -2 / sqrt(2 x 3)
    assert found["lipschitz"]["tau"] == pytest.approx(-2 / math.sqrt(6))


def test_the_recorded_series_move_one_thing_at_a_time():
    measured = pd.read_csv(FOLDER / "measured.csv")
    width, depth = (figure.series(measured)[name] for name in ("last_width", "last_depth"))
    assert width["last_depth"].nunique() == depth["last_width"].nunique() == 1
    assert len(width) + len(depth) - len(measured) == 6  # the network in both series: three seeds, two states


def test_the_recorded_numbers_are_of_the_same_examples():
    measured = pd.read_csv(FOLDER / "measured.csv")
    # whole counts of the test images, and the bound holds on each row: else a value would be refused
    assert np.allclose(decomposition(measured)["counted_twice"], measured["counted_twice"], atol=1e-3)
    counts = measured[["natural_error", "instability", "robust_error"]].to_numpy() / 100 * 360
    assert np.allclose(counts, counts.round(), atol=1e-3)


def test_random_matrices_of_numpy_have_the_recorded_constants():
    recorded = pd.read_csv(FOLDER / "convolutions.csv")
    ones = recorded[(recorded["kernel"] == 1) & (recorded["c_in"] == 16) & (recorded["side"] == "1")]
    norms = [np.linalg.norm(default_rng(seed).normal(0, math.sqrt(2 / 32), (32, 16)), 2) for seed in range(200)]
    # three draws against the distribution of two hundred
    assert ones["norm"].mean() == pytest.approx(np.mean(norms), abs=3 * np.std(norms) / math.sqrt(3))
