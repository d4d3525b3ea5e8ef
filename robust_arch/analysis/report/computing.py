"""How much computing time the runs took, and on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from robust_arch.analysis.formatting import ABSENT, counted

_HEAD = ("hardware", "device", "threads", "precision", "torch", "runs", "training (h)", "attacks (h)")
_NOT_RECORDED = (ABSENT, "not recorded")


@dataclass(frozen=True)
class Usage:
    """The computing time of one run, or of several on the same hardware.

    Attributes:
        site: hardware, device, threads per run, precision and version of torch, as text.
        train_seconds: of training; None where that is not recorded.
        attack_seconds: of the attacks of all its evaluations; None where that is not recorded.
        runs: number of runs.
    """

    site: tuple[str, str, str, str, str]
    train_seconds: float | None
    attack_seconds: float | None
    runs: int = 1


def summed(usage: Iterable[Usage]) -> list[Usage]:
    """One per site, the longest training first."""
    sites: dict[tuple[str, ...], list[Usage]] = {}
    for each in usage:
        sites.setdefault(each.site, []).append(each)
    found = [
        Usage(
            members[0].site,
            # failed runs of a results.csv have no times
            _sum([each.train_seconds for each in members if each.train_seconds is not None] or [None]),
            _sum([each.attack_seconds for each in members]),
            sum(each.runs for each in members),
        )
        for members in sites.values()
    ]
    return sorted(found, key=lambda each: -(each.train_seconds or 0))


def _sum(seconds: Sequence[float | None]) -> float | None:
    """None if one of them is not recorded."""
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def section(usages: Iterable[Usage]) -> dict[str, Any]:
    """The time of all runs in a sentence, and a table of what it was spent on, without what is not recorded."""
    usage = summed(usages)
    lines = [
        (
            *each.site,
            f"{each.runs:,}",
            *(ABSENT if seconds is None else hours(seconds) for seconds in (each.train_seconds, each.attack_seconds)),
        )
        for each in usage
    ]
    columns = [column for column in zip(_HEAD, *lines, strict=True) if not set(column[1:]) <= set(_NOT_RECORDED)]
    known = bool(columns) and columns[0][0] == _HEAD[0]
    head, *rows = zip(*columns, strict=True) if known else ((),)
    return {"sentence": _sentence(usage), "head": head, "rows": rows}


def _sentence(usage: Sequence[Usage]) -> str:
    """The time of all runs, by device; empty where none is recorded."""
    devices: dict[str, float] = {}
    for each in usage:
        devices[each.site[1]] = devices.get(each.site[1], 0) + (each.train_seconds or 0)
    if not any(devices.values()):
        return ""
    times = " and ".join(f"{_duration(seconds)}{_on(device)}" for device, seconds in devices.items() if seconds)
    runs = sum(each.runs for each in usage)
    return f"Training took {times}" + (f", added up over {runs:,} runs, however many ran at once." if runs > 1 else ".")


def hours(seconds: float) -> str:
    """Hours with two significant digits below ten."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    return f"{hours(seconds)} hours" if seconds >= 3600 else counted(round(seconds / 60), "minute")


def _on(device: str) -> str:
    return {"cpu": " of CPU", "cuda": " of GPU", ABSENT: ""}.get(device, f" on {device}")
