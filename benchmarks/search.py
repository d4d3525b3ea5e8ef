"""How much of a full grid's compute a search needs to find its best architecture, replayed on recorded runs.

Rests on search/records.csv: every architecture of a small grid, trained for each number of epochs with each seed
(search/record.sh trained them; `--collect FOLDER` writes the records of that study). Compute is epochs times MACs, as
a share of the grid's. A search sees held-out robust accuracy; what it chose is judged by robust accuracy on the test
set, mean over all seeds at the most epochs. It has found the best once that is within the noise of the grid's best,
and stays so until the search ends: noise is one standard error of a difference of two such means, s * sqrt(2 / seeds),
s the standard deviation over seeds pooled over architectures. Repetitions that end outside it count with the whole
grid. As no search knows when it has found the best, the share of repetitions that are there at a given compute is told
too: halving has no choice before its end, where it stops; the others could be stopped anywhere. A repetition draws an
order and one seed for each architecture, or takes the mean over all seeds. Writes the part `search` of this
machine's results.

--table FILE replays searches on a published table instead (table_replay.py): evaluations, or epochs where the table has
curves, until within the noise of the best, and rank correlations of cheaper measurements.
"""

import argparse
import csv
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import write_part
from table_replay import Table, correlations, read_table, replay, rungs_compared
from table_searches import SEARCHES

from robust_arch.architectures import ArchSpec, cost, numbers_of, numbers_text
from robust_arch.common.files import write_json, write_text
from robust_arch.errors import InputError, invalid
from robust_arch.runs import StudyFolder, load_study
from robust_arch.runs.provenance import provenance
from robust_arch.search.allocation import stick_breaking
from robust_arch.search.halving import kept, ranking, tied

RECORDS = Path(__file__).with_name("search") / "records.csv"
COLUMNS = (
    "run_id", "arch", "depths", "widths", "seed", "epochs", "held_out_robust_acc", "test_robust_acc", "macs",
    "train_seconds",
)  # fmt: skip
SAMPLERS = ("TPESampler", "NSGAIISampler", "RandomSampler")
SHARES = (0.25, 0.4, 0.5, 0.75, 1.0)  # of the grid's compute, at which searches are compared
TRIALS = 60  # suggestions an optimiser makes at most; those that are recorded already cost nothing

Choices = Iterator[tuple[float, int]]  # compute so far and the position of the architecture chosen then


@dataclass(frozen=True)
class Replay:
    """Recorded numbers. held_out: epochs to (A, S) percent. test: (A, S) percent at the most epochs. macs: (A,)."""

    depths: tuple[tuple[int, ...], ...]
    shares: np.ndarray
    macs: np.ndarray
    held_out: dict[int, np.ndarray]
    test: np.ndarray

    @property
    def epochs(self) -> int:
        """Of a full run."""
        return max(self.held_out)

    @property
    def compute(self) -> float:
        """Of one full run of every architecture."""
        return float(self.epochs * self.macs.sum())

    @property
    def noise(self) -> float:
        """One standard error of the difference of two architectures' means over seeds, in points."""
        return float(np.sqrt(self.test.var(axis=1, ddof=1).mean() * 2 / self.test.shape[1]))

    @property
    def regret(self) -> np.ndarray:
        """Points of test accuracy that each architecture lies below the best one."""
        means = self.test.mean(axis=1)
        return np.asarray(means.max() - means)


@dataclass(frozen=True)
class Draw:
    """What one repetition sees: held_out, epochs to (A,) percent; all_seeds, the same over every seed; its order."""

    held_out: dict[int, np.ndarray]
    all_seeds: dict[int, np.ndarray]
    order: np.ndarray
    seed: int


def collect(folder: Path) -> str:
    """The records of a study as CSV text."""
    frame = load_study(folder).set_index("run_id")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS)
    writer.writeheader()
    rows = []
    for run in StudyFolder(folder).runs():
        if (result := run.result) is None or run.run_id not in frame.index or run.state != "completed":
            continue
        row = frame.loc[run.run_id]
        robust = row.get("pgd20_acc")
        facts = {key: row[key] for key in ("arch", "depths", "widths", "seed", "epochs", "macs", "train_seconds")}
        test = "" if pd.isna(robust) else round(float(robust), 4)
        accuracies = {"held_out_robust_acc": round(result.best_val_robust_acc, 4), "test_robust_acc": test}
        rows.append({"run_id": run.run_id, **facts, **accuracies})
    writer.writerows(sorted(rows, key=lambda row: (row["arch"], row["epochs"], row["seed"])))
    return text.getvalue()


def read_grid(frame: pd.DataFrame) -> Replay:
    """The architectures of which every run is recorded."""
    table = frame.pivot_table(index="arch", columns=["epochs", "seed"], values="held_out_robust_acc").dropna()
    most = int(frame["epochs"].max())
    test = frame[frame["epochs"] == most].pivot_table(index="arch", columns="seed", values="test_robust_acc")
    first = frame.drop_duplicates("arch").set_index("arch").loc[table.index]
    depths, widths = ([numbers_of(text) for text in first[key]] for key in ("depths", "widths"))
    specs = [ArchSpec("wide_resnet", *pair) for pair in zip(depths, widths, strict=True)]
    return Replay(
        depths=tuple(depths),
        shares=np.array([cost(spec, 10, (1, 8, 8)).shares("params") for spec in specs]),
        macs=first["macs"].to_numpy(dtype=float),
        held_out={int(epochs): table[epochs].to_numpy() for epochs in table.columns.levels[0]},
        test=test.loc[table.index].to_numpy(),
    )


def synthetic() -> pd.DataFrame:
    """A tiny recorded study with made-up numbers, to try the replay on."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        spec = ArchSpec("wide_resnet", (1 + number % 2, 1, 1), (4 + number, 8, 8))
        for epochs in (1, 2, 4):
            for seed in (0, 1, 2):
                value = 20 + 5 * epochs + number + rng.normal()
                facts = {"arch": f"net{number}", "epochs": epochs, "seed": seed, "macs": cost(spec, 10, (1, 8, 8)).macs}
                shape = {"depths": spec.depths_text, "widths": spec.widths_text}
                numbers = {"held_out_robust_acc": value, "test_robust_acc": value + rng.normal()}
                rows.append({**facts, **shape, **numbers})
    return pd.DataFrame(rows)


def draw(grid: Replay, seed: int, *, single: bool) -> Draw:
    """One repetition: a random order, and for each architecture one random seed or the mean over all."""
    rng = np.random.default_rng(seed)
    count, seeds = grid.test.shape
    picked = rng.integers(0, seeds, count)
    everything = {epochs: values.mean(axis=1) for epochs, values in grid.held_out.items()}
    one = {epochs: values[np.arange(count), picked] for epochs, values in grid.held_out.items()}
    return Draw(one if single else everything, everything, rng.permutation(count), seed)


def in_turn(grid: Replay, seen: Draw, positions: Iterator[int]) -> Choices:
    """Full runs of these architectures, each once; the choice is the best held-out one so far."""
    full = seen.held_out[grid.epochs]
    trained: list[int] = []
    for position in positions:
        if position not in trained:
            trained.append(position)
            yield float(grid.epochs * grid.macs[trained].sum()), max(trained, key=lambda i: full[i])


def random_search(grid: Replay, seen: Draw) -> Choices:
    """Full runs in random order."""
    return in_turn(grid, seen, iter(seen.order.tolist()))


def halving(grid: Replay, seen: Draw, rungs: tuple[int, ...], eta: int, tie_points: float | None = None) -> Choices:
    """Successive halving as hydra/sweeper=halving decides; tie_points: ties get every seed that there is."""
    remaining, spent = seen.order.tolist(), 0.0
    for epochs in rungs[:-1]:
        values = [float(seen.held_out[epochs][i]) for i in remaining]
        spent += epochs * grid.macs[remaining].sum()
        keep = kept(len(remaining), eta)
        with_ties: dict[int, float | None] = {}
        if tie_points is not None:
            positions = tied(values, keep, tie_points)
            further = grid.test.shape[1] - 1
            spent += further * epochs * sum(grid.macs[remaining[i]] for i in positions)
            with_ties = {i: float(seen.all_seeds[epochs][remaining[i]]) for i in positions}
        order = ranking(values, keep, tie_points or 0.0, with_ties)[:keep]
        remaining = [remaining[i] for i in sorted(order)]
    spent += rungs[-1] * grid.macs[remaining].sum()
    yield spent, max(remaining, key=lambda i: seen.held_out[rungs[-1]][i])


def suggested(grid: Replay, seen: Draw, sampler: str) -> Choices:
    """Full runs of the recorded allocations nearest to what an Optuna sampler suggests and is told of."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=getattr(optuna.samplers, sampler)(seed=seen.seed))
    kinds = sorted(set(grid.depths))
    stages = grid.shares.shape[1]

    def positions() -> Iterator[int]:
        for _ in range(TRIALS):
            trial = study.ask()
            cuts = [trial.suggest_float(f"cut{i}", 0.001, 0.999) for i in range(stages - 1)]
            kind = kinds[trial.suggest_categorical("depths", list(range(len(kinds))))]
            distance = np.abs(grid.shares - np.array(stick_breaking(cuts))).max(axis=1)
            distance[[depths != kind for depths in grid.depths]] = np.inf
            position = int(distance.argmin())
            study.tell(trial, float(seen.held_out[grid.epochs][position]))
            yield position

    return in_turn(grid, seen, positions())


def needed(grid: Replay, choices: list[tuple[float, int]]) -> float | None:
    """Share of the grid's compute from which on the choice is within the noise of the best; None if it never is."""
    regret, found = grid.regret, None
    for spent, chosen in reversed(choices):
        if regret[chosen] > grid.noise:
            break
        found = spent / grid.compute
    return found


def there_at(grid: Replay, choices: list[tuple[float, int]], share: float) -> bool:
    """Whether the choice at this share of the grid's compute is within the noise of the best."""
    made = [chosen for spent, chosen in choices if spent <= share * grid.compute * (1 + 1e-9)]
    return bool(made) and bool(grid.regret[made[-1]] <= grid.noise)


def replayed(
    grid: Replay, search: Callable[[Replay, Draw], Choices], repetitions: int, *, single: bool
) -> dict[str, Any]:
    """Mean and spread over repetitions."""
    runs = [list(search(grid, draw(grid, seed, single=single))) for seed in range(repetitions)]
    shares = [needed(grid, choices) for choices in runs]
    spent = np.array([1.0 if share is None else share for share in shares])
    regrets = np.array([grid.regret[choices[-1][1]] for choices in runs])
    return {
        "share_needed": round(float(spent.mean()), 3),
        "standard_deviation": round(float(spent.std(ddof=1)), 3),
        "from_5_to_95_percent": [round(float(value), 3) for value in np.quantile(spent, [0.05, 0.95])],
        "share_at_its_end": round(float(np.mean([choices[-1][0] for choices in runs])) / grid.compute, 3),
        "within_noise_at_its_end": round(float(np.mean(regrets <= grid.noise)), 3),
        "points_below_best_at_its_end": round(float(regrets.mean()), 2),
        "within_noise_at_share": {
            str(share): round(float(np.mean([there_at(grid, choices, share) for choices in runs])), 3)
            for share in SHARES
        },
    }


def searches(grid: Replay, *, single: bool) -> dict[str, Callable[[Replay, Draw], Choices]]:
    """Every search by name; single: there are further seeds to break ties with."""
    found: dict[str, Callable[[Replay, Draw], Choices]] = {"random_search": random_search}
    low, middle, high = sorted(grid.held_out)
    for rungs in ((low, high), (middle, high), (low, middle, high)):
        for eta in (2, 3, 4):
            name = f"halving_{numbers_text(rungs)}_eta{eta}"
            found[name] = partial(halving, rungs=rungs, eta=eta)
            if single and len(rungs) == 3:
                found[f"{name}_ties"] = partial(halving, rungs=rungs, eta=eta, tie_points=3.0)
    try:
        import optuna  # noqa: F401
    except ImportError:
        print("optuna is not installed (pip install -e '.[optuna]'): its samplers are left out")
        return found
    return found | {f"optuna_{name}": partial(suggested, sampler=name) for name in SAMPLERS}


def facts(grid: Replay) -> dict[str, Any]:
    """What the grid is like: how many runs, the noise, how well short runs rank architectures."""
    means = {epochs: pd.Series(values.mean(axis=1)) for epochs, values in grid.held_out.items()}
    test = pd.Series(grid.test.mean(axis=1))
    return {
        "architectures": len(test),
        "seeds": grid.test.shape[1],
        "noise_points": round(grid.noise, 2),
        "within_noise_of_best": int((grid.regret <= grid.noise).sum()),
        "test_robust_acc_from_to": [round(float(test.min()), 2), round(float(test.max()), 2)],
        "macs_from_to": [int(grid.macs.min()), int(grid.macs.max())],
        "rank_correlation_of_held_out_with_test": {
            str(epochs): round(float(values.rank().corr(test.rank())), 3) for epochs, values in means.items()
        },
    }


def on_a_table(arguments: argparse.Namespace) -> None:
    """Print, and write where asked to, what searches need on a published table."""
    table = read_table(
        arguments.table, arguments.columns, arguments.features, arguments.evaluation, arguments.curve, arguments.noise
    )
    names = arguments.searches or available(table)
    if table.features.empty and set(names) != {"random"}:
        raise invalid("--searches", names, "random, since no --features tell the architectures apart")
    found: dict[str, Any] = {
        "table": arguments.table.name,
        "architectures": len(table.names),
        "within_noise_of_best": int(table.good.sum()),
        "best": round(float(table.target.max()), 2),
        "noise_points": round(table.noise, 3),
        "noise_from": table.deviation[1],
        "features": list(table.features),
        "repetitions": arguments.repetitions,
    }
    for name, value in found.items():
        print(f"{name}: {value}")
    found["correlations"] = correlations(table)
    for name, value in found["correlations"].items():
        print(f"{name} with robust accuracy: {json.dumps(value)}", flush=True)
    found["searches"] = {}
    for name in names:
        found["searches"] |= replay(table, [name], arguments.evaluations, arguments.repetitions)
        print(f"{name}: {json.dumps(found['searches'][name])}", flush=True)
    if table.curves is not None:
        found["rungs"] = rungs_compared(table, arguments.plan, arguments.eta, arguments.least, arguments.repetitions)
        for name, value in found["rungs"].items():
            print(f"{name}: {json.dumps(value)}")
    if arguments.out:
        write_json(arguments.out, found)
        print(f"written: {arguments.out}")


def available(table: Table) -> list[str]:
    """The searches that can run: all but random need features, and tpe needs Optuna."""
    if table.features.empty:
        return ["random"]
    if importlib.util.find_spec("optuna") is None:
        print("optuna is not installed (pip install -e '.[optuna]'): tpe is left out")
        return [name for name in SEARCHES if name != "tpe"]
    return list(SEARCHES)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100, help="random orders and seeds")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="write the records from this study, and end")
    parser.add_argument("--smoke", action="store_true", help="three repetitions on made-up records; writes nothing")
    table = parser.add_argument_group("on a published table")
    table.add_argument("--table", type=Path, metavar="FILE", help="a CSV file, or a results.csv")
    table.add_argument("--columns", metavar="MAPPING", help="what its columns mean: a mapping's name or a YAML file")
    table.add_argument(
        "--features", nargs="+", default=[], metavar="COLUMN", help="that describe an architecture, or `ops*`"
    )
    table.add_argument("--evaluation", type=int, default=0, help="which one of the mapping, from 0")
    table.add_argument("--searches", nargs="+", choices=sorted(SEARCHES), help="by default all that can run")
    table.add_argument("--evaluations", type=int, default=200, help="budget of a search; random search has no limit")
    table.add_argument("--noise", type=float, metavar="POINTS", help="standard deviation of a run; else estimated")
    table.add_argument("--curve", metavar="COLUMN", help="per epoch, by which halving and ASHA decide")
    table.add_argument("--plan", type=int, default=81, help="architectures of a plan of halving and ASHA")
    table.add_argument("--eta", type=int, default=3, help="of n runs of a rung n / eta go on")
    table.add_argument("--least", type=int, default=3, help="epochs of the first rung, at least")
    table.add_argument("--out", type=Path, metavar="FILE.json", help="write every number")
    arguments = parser.parse_args()
    if arguments.table:
        try:
            on_a_table(arguments)
        except InputError as error:
            sys.exit(f"error: {error}")
        return
    if arguments.collect:
        write_text(RECORDS, collect(arguments.collect))
        print(f"written: {RECORDS}")
        return
    grid = read_grid(synthetic() if arguments.smoke else pd.read_csv(RECORDS))
    repetitions = 3 if arguments.smoke else arguments.repetitions
    found: dict[str, Any] = {"provenance": provenance(), "repetitions": repetitions, "grid": facts(grid)}
    print("grid", json.dumps(found["grid"]), flush=True)
    for label, single in (("one_seed", True), ("all_seeds", False)):
        found[label] = {}
        for name, search in searches(grid, single=single).items():
            found[label][name] = replayed(grid, search, repetitions, single=single)
            print(name, label, json.dumps(found[label][name]), flush=True)
    if not arguments.smoke:
        print(f"written: {write_part('search', found)}")


if __name__ == "__main__":
    main()
