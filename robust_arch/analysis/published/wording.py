"""An import as text of at most 80 columns, the answer first."""

from __future__ import annotations

from robust_arch.analysis.formatting import counted, in_columns
from robust_arch.analysis.published.imported import Imported

_MOST = 10  # kinds of reasons


def told(done: Imported) -> str:
    """What was written, what was left out and why, and where the numbers are from."""
    lines = [
        f"written: {done.path}",
        f"{counted(done.rows, 'row')} of {counted(done.architectures, 'architecture')}, from "
        f"{counted(done.provenance.rows, 'line')} of {done.provenance.file}",
    ]
    if done.filtered:
        lines.append(f"not selected by the mapping: {counted(done.filtered, 'line')}")
    lines += [f"warning: {warning}" for warning in done.warnings]
    lines += [f"costs: {cost}" for cost in done.costs]
    if done.left_out:
        lines.append(f"left out: {counted(done.provenance.left_out, 'line')}")
        lines += [f"  {reason}" for reason in done.left_out[:_MOST]]
        if len(done.left_out) > _MOST:
            lines.append(f"  and {len(done.left_out) - _MOST} more kinds of reasons")
    return f"{in_columns(lines, indent=4)}\n{done.provenance.text()}"
