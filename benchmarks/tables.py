"""Write the tables of README.md from results/*.json: `python benchmarks/tables.py`.

Each table stands between `<!-- table: <part> -->` and `<!-- end -->` and is repeated for each machine with that part;
everything else in the page stays as it is.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from machine import RESULTS, title

from robust_arch.common.files import read_json, write_text

PAGE = Path(__file__).with_name("README.md")
_REGION = re.compile(r"(?<=<!-- table: )(?P<name>\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)

Rows = list[list[Any]]


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def spread(ratio: dict[str, float]) -> str:
    """A median with its range."""
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


def throughput(part: dict[str, Any]) -> str:
    """Training by network."""
    rows = []
    for row in part["throughput"]:
        rates, memory = row["images_per_second"], row["peak_mib"]
        share = f"{row['share_of_matmul']:.0%}"
        times = f"{spread(row['times_faster'])}, {row['pairs']} pair{'s' * (row['pairs'] > 1)}"
        held = f"{memory['reference']:,} / {memory['engine']:,} MiB"
        rows.append([row["network"], row["batch_size"], rates["reference"], rates["engine"], times, share, held])
    columns = ["network", "batch", "reference, images/s", "engine, images/s", "times faster (range)"]
    return table([*columns, "share of the bfloat16 matrix product", "memory, reference / engine"], rows)


def objectives(part: dict[str, Any]) -> str:
    """Training by network and objective."""
    rows = [
        [row["network"], row["objective"], *row["images_per_second"].values(), f"{spread(row['times_faster'])}"]
        for row in part["objectives"]
    ]
    return table(["network", "objective", "reference, images/s", "engine, images/s", "times faster (range)"], rows)


def switches(part: dict[str, Any]) -> str:
    """The switches, each in addition to those before."""
    return table(["switched on", "images/s"], part["switches"]["images_per_second"].items())


def training_parts(part: dict[str, Any]) -> str:
    """The remaining parts of training.py."""
    rows: Rows = [
        [f"{name}, float32, n = {part['evaluation']['n']}", f"{spread(part['evaluation'][name]['times_faster'])} times"]
        for name in ("pgd20", "cw40")
    ]
    loading = part["loading"]["images_per_second"]
    rows += [
        ["cutting and augmenting", f"{loading['engine']:,} images/s; the reference {loading['reference']:,}"],
        ["each further run in a sweep, beyond its training", f"{part['overhead']['seconds_a_further_run']} s"],
    ]
    sizes = part["batch_sizes"]["images_per_second"]
    rows.append([f"batch sizes {', '.join(sizes)}", f"{', '.join(map(str, sizes.values()))} images/s"])
    processes = part["two_processes"]["images_per_second"]
    rows.append([" / ".join(processes), f"{' / '.join(f'{rate:,}' for rate in processes.values())} images/s"])
    return table(["what", "result"], rows)


def step(part: dict[str, Any]) -> str:
    """The parts of a training step, one column per network and objective."""
    runs = part["steps"]
    header = [f"ms, {runs[0]['time']}", *(f"{run['network']} {run['objective']}" for run in runs)]
    rows: Rows = [[name, *(f"{run['parts_ms'][name]:.1f}" for run in runs)] for name in runs[0]["parts_ms"]]
    rows.append(["**step**", *(f"**{run['step_ms']:.1f}**" for run in runs)])
    kinds = [kind for kind in runs[0]["operators"] if kind != "other"] + ["other"]
    rows += [[f"share of operators: {kind}", *(f"{run['operators'][kind]:.0%}" for run in runs)] for kind in kinds]
    return table(header, rows)


def accuracy(part: dict[str, Any]) -> str:
    """Arms by task."""
    rows = []
    for task in ("digits", "cifar"):
        for name, arm in part.get(task, {}).get("compared", {}).items():
            low, high = arm["interval_95"]
            first = name == "engine"
            difference = "" if first else f"{arm['pgd20_points_more_than_engine']:.1f} ({low:.1f} to {high:.1f})"
            accuracies = [f"{arm[f'mean_{kind}_acc']:.1f}%" for kind in ("clean", "pgd20")]
            time = arm["times_the_engine's_training_time"]
            rows.append([task, name, *accuracies, difference, f"{time:.2f}"])
    return table(["task", "trained by", "clean", "PGD-20", "difference", "training time"], rows)


def evaluation(part: dict[str, Any]) -> str:
    """The parts of evaluation.py."""
    adapter, cascade = part["autoattack_adapter_against_direct_call"], part["cascade_against_everything"]
    blocks, peaks = part["autoattack_in_blocks_against_one_call"], part["memory"]["peak_mib"]
    seconds = [f"{cascade[name]['seconds']:.1f} s" for name in ("cascade", "everything")]
    percents = [f"{cascade[name]['worst_case_percent']}%" for name in ("cascade", "everything")]
    ratios = f"{adapter['ratio']:.2f} ({min(adapter['ratios']):.2f} to {max(adapter['ratios']):.2f})"
    return table(
        ["what", "result"],
        [
            [f"AutoAttack through the adapter over a direct call, n = {adapter['n']}", f"median ratio {ratios}"],
            [
                f"the cascade {', '.join(cascade['attacks'])}, and each on every image, n = {cascade['n']}",
                f"{' and '.join(seconds)}; worst case {' and '.join(percents)}",
            ],
            [
                f"AutoAttack in blocks of {blocks['block_size']}, and in one call, n = {blocks['n']}",
                f"{blocks['points_apart']} points apart",
            ],
            [
                f"peak memory of evaluating {', '.join(f'{int(n):,}' for n in peaks)} images",
                f"{', '.join(f'{mib:,}' for mib in peaks.values())} MiB",
            ],
        ],
    )


def records(part: dict[str, Any]) -> str:
    """Seconds by command."""
    kinds = ("load_study", "write_results", "status", "results", "merge", "merge_again", "report")
    rows = [[name, part[name]["seconds"]] for name in kinds]
    merged = part["merged_run"]
    size = f"{merged['content_kb']} KB of content, {merged['on_disk_kb']} KB on disk"
    return table([f"{part['runs']:,} runs", "seconds"], [*rows, ["size of a merged run", size]])


def search(part: dict[str, Any]) -> str:
    """Searches with the mean over all seeds, and with one seed per architecture."""
    rows = []
    for kind in ("all_seeds", "one_seed"):
        for name, found in part[kind].items():
            needed = f"{found['share_needed']:.2f} ({found['standard_deviation']:.2f})"
            shares = [f"{found['within_noise_at_share']['0.4']:.0%}", f"{found['within_noise_at_its_end']:.0%}"]
            rows.append([kind.replace("_", " "), name, needed, *shares, f"{found['share_at_its_end']:.2f}"])
    columns = ["seeds", "search", "share needed (sd)", "within the noise at 0.4", "at its end", "share at its end"]
    return table(columns, rows)


def gpu(part: dict[str, Any]) -> str:
    """The parts of gpu.py, with failures; training also in units of the reference's speed."""
    rates = {name: found.get("shown", {}).get("images/s") for name, found in part["parts"].items()}
    rows = []
    for name, found in part["parts"].items():
        shown = [f"{key} {value}".strip() for key, value in found.get("shown", {}).items()]
        reference = rates.get(f"{name.split(': ')[0]}: reference")
        if rates[name] and reference and not name.endswith("reference"):
            shown.insert(0, f"**{rates[name] / reference:.2f} times faster**")
        failed = [f"**FAILED: {found['error']}**"] if "error" in found else []
        rows.append([name, "; ".join(failed + shown)])
    return table(["part", "result"], rows)


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {  # name: part, its key if it may lack, table
    "throughput": ("training", "throughput", throughput),
    "objectives": ("training", "objectives", objectives),
    "switches": ("training", "switches", switches),
    "training_parts": ("training", "two_processes", training_parts),
    "step": ("profile", "steps", step),
    "accuracy": ("accuracy", "digits", accuracy),
    "evaluation": ("evaluation", "memory", evaluation),
    "records": ("records", "report", records),
    "search": ("search", "grid", search),
    "gpu": ("gpu", "parts", gpu),
}


def written(page: str, machines: list[dict[str, Any]]) -> str:
    """The page with its tables replaced by those of these results."""

    def region(match: re.Match[str]) -> str:
        part, key, of = TABLES[match["name"]]
        parts = [(results["machine"], results[part]) for results in machines if key in results.get(part, {})]
        texts = [f"{title(facts, _provenance(found, key))}\n\n{of(found)}\n\n" for facts, found in parts]
        return match["name"] + match[2] + "\n" + ("".join(texts) or "No figures yet.\n\n")

    return _REGION.sub(region, page)


def _provenance(found: dict[str, Any], key: str) -> dict[str, Any]:
    """Of a part of the results; what was measured again alone has a commit of its own."""
    provenance: dict[str, Any] = found["provenance"]
    return provenance | {"commit": found.get("commits", {}).get(key, provenance["commit"])}


def main() -> None:
    """The command."""
    machines = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    write_text(PAGE, written(PAGE.read_text(encoding="utf-8"), [results for results in machines if results]))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
