"""What `robust-arch merge` did, on the screen."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from robust_arch.study.merge import MergeOutcome


def merge_tables(outcome: MergeOutcome, target: Path) -> Iterator[Table | str]:
    """What was left out, skipped and in conflict, then a summary."""
    for what, why in outcome.left_out.items():
        yield f"left out: {what}: {why}"
    for run_id, source, why in outcome.skipped:
        yield f"skipped: run {run_id} of {source}: {why}"
    if outcome.conflicts:
        table = Table(title="conflicts, left as they are: two completed records with different numbers")
        for column in ("run", "source", "file", "in the target, against the source"):
            table.add_column(column, overflow="fold")
        for conflict in outcome.conflicts:
            table.add_row(conflict.run_id, str(conflict.source), conflict.file, Text(conflict.what))
        yield table
    conflicting = len({conflict.run_id for conflict in outcome.conflicts})
    yield (
        f"merged into {target}: {len(outcome.added)} added, {len(outcome.replaced)} replaced by one that got further, "
        f"{len(outcome.united)} with more evaluations, {len(outcome.same)} there already, {len(outcome.skipped)} "
        f"skipped, {conflicting} in conflict"
    )
