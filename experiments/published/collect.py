"""What published tables say on the claims, effects, scaling and search; the tables are not part of the project.

python -m experiments.published.collect <external>   every number, into experiments/published
python -m experiments.published.collect              only the tables of its README, from the recorded numbers

<external> is a folder with the CSV files that the mappings of `robust-arch import-results` name. The records of
searches, search_*.json, are written by benchmarks/search.py --table.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from robust_arch.analysis.claims import Examined, examine_all
from robust_arch.analysis.effects.command import effects_of
from robust_arch.analysis.effects.estimates import AS_THEY_ARE, DRAWS, FEWEST, Effects
from robust_arch.analysis.effects.wording import table as effects_table
from robust_arch.analysis.plots.style import save
from robust_arch.analysis.published.imported import import_results
from robust_arch.analysis.reading import read_results
from robust_arch.analysis.scaling.command import scaling_of
from robust_arch.analysis.scaling.figure import law_figure
from robust_arch.analysis.scaling.wording import table as scaling_table
from robust_arch.common.files import write_text
from robust_arch.errors import InputError

FOLDER = Path(__file__).parent
FIGURES = FOLDER / "figures"
TABLES = {
    "rice_widths": "rice_widths.csv",
    "nas_robbench_201": "nas_robbench_201.csv",
    "trnas_epochs": "trnas_epochs.csv",
    "robustbench_cifar10": "robustbench_2025-03-31.csv",
    "robustbench_cifar100": "robustbench_2025-03-31.csv",
}
"""Mapping to the file that it is for."""
_LARGE, _DRAWS = 1_000, 100
"""Rows of one data set and threat above which effects have this many resamples, not the command's own number."""
_BEGIN, _END = "<!-- begin {} -->", "<!-- end {} -->"


def collect(external: Path) -> None:
    """Import every table into a temporary folder, and record what the commands find in it.

    Raises:
        InputError: for a missing table.
    """
    claims: list[dict[str, Any]] = []
    effects: list[dict[str, Any]] = []
    laws: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, file in TABLES.items():
            done = import_results(external / file, name, Path(scratch) / name)
            frame = read_results(done.path)
            print(f"{name}: {done.rows:,} rows of {done.architectures:,} architectures", flush=True)
            for examined in examine_all(frame):
                claims += [{"table": name, **row} for row in _claims(examined)]
            for each in _with_effects(frame):
                effects += [{"table": name, **row} for row in _effects(each)]
            if name == "rice_widths":
                for law in scaling_of(frame, "params", done.provenance.train_images):
                    where = {"table": name, "checkpoint": law.points.checkpoint}
                    laws += [{**where, **row} for row in scaling_table(law)]
                    save(law_figure(law), FIGURES, f"scaling-{name}-{law.points.checkpoint}")
    for what, rows in (("claims", claims), ("effects", effects), ("scaling", laws)):
        write_text(FOLDER / f"{what}.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))


def _where(examined: Examined) -> dict[str, str]:
    row = examined.group.rows.iloc[0]
    shown = {name: str(row[name]) for name in ("data", "threat", "checkpoint")}
    recipe = str(row["recipe"])
    return {**shown, "recipe": recipe[:60], "attacks": " + ".join(examined.group.attacks)}


def _claims(examined: Examined) -> Iterator[dict[str, Any]]:
    names = ("claim", "setting", "verdict", "effect", "low", "high", "p_value", "architectures", "runs")
    for finding in examined.findings:
        if finding.architectures:
            yield {**_where(examined), **{name: getattr(finding, name) for name in names}}


def _with_effects(frame: pd.DataFrame) -> Iterator[Effects]:
    """The effects on each data set and threat that has enough architectures with costs."""
    for _, rows in frame.groupby(["data", "threat"], sort=False):
        if rows["macs"].notna().sum() < FEWEST:
            continue
        try:
            yield from effects_of(rows, _DRAWS if len(rows) > _LARGE else DRAWS)
        except InputError:
            continue


def _effects(each: Effects) -> Iterator[dict[str, Any]]:
    row = each.design.group.rows.iloc[0]
    where = {name: row[name] for name in ("data", "threat", "checkpoint")}
    for found in effects_table(each):
        yield {**where, "architectures": len(each.design.names), "explained": each.explained, **found}


def describe(folder: Path = FOLDER) -> None:
    """Replace the generated tables of README.md by those of the recorded numbers."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, lines in (
        ("claims", _claims_lines(folder)),
        ("effects", _effects_lines(folder)),
        ("scaling", _scaling_lines(folder)),
        ("correlations", _correlation_lines(folder)),
        ("searches", _search_lines(folder)),
        ("rungs", _rung_lines(folder)),
    ):
        begin, end = _BEGIN.format(name), _END.format(name)
        block = "\n".join([begin, *lines, end])
        if begin not in text:
            raise InputError(f"{readme}: expected the line {begin}")
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, block=block: block, text, flags=re.DOTALL)  # type: ignore[misc]
    write_text(readme, text)


def _number(value: Any, digits: int = 2, sign: str = "") -> str:
    return "-" if value is None or pd.isna(value) else f"{value:{sign},.{digits}f}"


def _interval(value: Any, low: Any, high: Any, digits: int = 2, sign: str = "+") -> str:
    if value is None or pd.isna(value):
        return "-"
    bounds = "" if low is None or pd.isna(low) else f" [{_number(low, digits, sign)}, {_number(high, digits, sign)}]"
    return f"{_number(value, digits, sign)}{bounds}"


def _claims_lines(folder: Path) -> Iterator[str]:
    frame = pd.read_csv(folder / "claims.csv")
    frame = frame[frame["setting"].str.endswith("over all")]
    yield "| table | data, threat, checkpoint | over | tau | architectures | verdict on C1 |"
    yield "|---|---|---|---|---|---|"
    for row in frame.to_dict("records"):
        if row["architectures"] < 5:
            continue
        where = f"{row['data']}, {row['threat']}, {row['checkpoint']}"
        resource = str(row["setting"]).removeprefix("more ").removesuffix(", over all")
        tau = _interval(row["effect"], row["low"], row["high"])
        yield f"| {row['table']} | {where} | {resource} | {tau} | {row['architectures']:,} | {row['verdict']} |"


def _effects_lines(folder: Path) -> Iterator[str]:
    frame = pd.read_csv(folder / "effects.csv")
    yield "| table | data, threat, checkpoint | points per doubled parameters | variance explained | architectures |"
    yield "|---|---|---|---|---|"
    shown = frame[(frame["of"] == "in all") & (frame["what"] == AS_THEY_ARE)]
    for row in shown.to_dict("records"):
        where = f"{row['data']}, {row['threat']}, {row['checkpoint']}"
        points = _interval(row["value"], row["low"], row["high"])
        explained = f"{row['explained']:.0f}%"
        yield f"| {row['table']} | {where} | {points} | {explained} | {row['architectures']:,} |"


def _scaling_lines(folder: Path) -> Iterator[str]:
    frame = pd.read_csv(folder / "scaling.csv")
    yield "| checkpoint | form | plateau E | exponent a | error at 10 times the largest | error of prediction |"
    yield "|---|---|---|---|---|---|"
    for (checkpoint, form), rows in frame.groupby(["checkpoint", "form"], sort=False):
        own = rows.set_index("what")
        names = ("E", "a", "error at 10 times the largest", "root mean square log error, left-out architectures")
        cells = []
        for name in names:
            value, low, high = own.loc[name, ["value", "low", "high"]] if name in own.index else (None, None, None)
            cells.append(_interval(value, low, high, 3, ""))
        yield f"| {checkpoint} | {form} | {' | '.join(cells)} |"


def _searches(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem.removeprefix("search_"): json.loads(path.read_text()) for path in sorted(folder.glob("search_*"))}


def _correlation_lines(folder: Path) -> Iterator[str]:
    yield "| table | cheaper measurement | all: n, rank correlation | best tenth: n, rank correlation |"
    yield "|---|---|---|---|"
    for name, found in _searches(folder).items():
        for cheap, values in found["correlations"].items():
            cells = []
            for part in ("overall", "top_tenth"):
                value = values.get(part)
                cells.append(f"{value['n']:,}: {_interval(value['value'], *value['interval'])}" if value else "-")
            yield f"| {name} | {cheap} | {' | '.join(cells)} |"


def _search_lines(folder: Path) -> Iterator[str]:
    yield "| table | search | median evaluations | 90% quantile | within budget |"
    yield "|---|---|---|---|---|"
    for name, found in _searches(folder).items():
        for search, value in found["searches"].items():
            cells = [_hits(value["median"], value["budget"]), _hits(value["quantile_90"], value["budget"])]
            low, high = value["share_interval"]
            share = f"{value['share_reached']:.0%} [{low:.0%}, {high:.0%}] of {value['budget']:,}"
            expected = (
                f" (mean {value['mean']:,}, in closed form {value['expected_mean']:,})" if "mean" in value else ""
            )
            yield f"| {name} | {search} | {cells[0]}{expected} | {cells[1]} | {share} |"


def _hits(found: dict[str, Any], budget: int) -> str:
    def text(value: float | None) -> str:
        return f"over {budget:,}" if value is None else f"{value:,.0f}"

    return f"{text(found['value'])} [{', '.join(map(text, found['interval']))}]"


def _rung_lines(folder: Path) -> Iterator[str]:
    yield "| table | workers | method | epochs spent | time to the end | full run within noise | points below best |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in _searches(folder).items():
        for key, value in found.get("rungs", {}).items():
            if not key.startswith("workers_"):
                continue
            for method in ("halving", "asha"):
                made = value[method]
                low, high = made["time_until_within_noise"]["share_interval"]
                share = f"{made['time_until_within_noise']['share_reached']:.0%} [{low:.0%}, {high:.0%}]"
                cells = []
                for what, digits in (("epochs_spent", 0), ("time_to_the_end", 0), ("points_below_best", 2)):
                    low, high = made[what]["interval"]
                    cells.append(_interval(made[what]["value"], low, high, digits, ""))
                workers = key.removeprefix("workers_")
                yield f"| {name} | {workers} | {method} | {cells[0]} | {cells[1]} | {share} | {cells[2]} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("external", type=Path, nargs="?", help="the folder of the tables")
    arguments = parser.parse_args()
    try:
        if arguments.external:
            collect(arguments.external)
        describe()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
