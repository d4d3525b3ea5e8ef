"""The results of each kind of machine, one file per machine: results/<slug>.json."""

import re
from pathlib import Path
from typing import Any

from robust_arch.common.files import read_json, write_json
from robust_arch.engine.precision import processor_has
from robust_arch.errors import invalid
from robust_arch.runs.provenance import hardware

RESULTS = Path(__file__).with_name("results")
FEATURES = ("avx512_bf16", "amx_bf16")  # units that multiply bfloat16, by torch's names


def machine() -> dict[str, Any]:
    """What figures depend on: processor, cores, GPUs, and the units of the processor that multiply bfloat16."""
    here = hardware()
    features = [name for name in FEATURES if processor_has(name)]
    return {"processor": here["processor"], "cores": here["cores"], "gpus": here["gpus"], "features": features}


def slug(facts: dict[str, Any]) -> str:
    """A machine as a file name: lower-case letters, digits, `-` and `_`."""
    gpus = facts["gpus"]
    parts = [facts["processor"], f"{facts['cores']} cores", *facts["features"]]
    parts += [f"{len(gpus)}x {gpus[0]}"] if gpus else []
    return re.sub(r"[^a-z0-9_]+", "-", " ".join(parts).lower()).strip("-")


def result_file() -> Path:
    """The file of this machine."""
    return RESULTS / f"{slug(machine())}.json"


def read_results(path: Path) -> dict[str, Any]:
    """All results in a file, none where there is no file.

    Raises:
        InputError: for a damaged file, which writing would replace.
    """
    found = read_json(path)
    if found is None and path.exists():
        raise invalid("results", str(path), "a JSON object; restore the file or remove it")
    return found or {}


def read_part(name: str) -> dict[str, Any] | None:
    """One benchmark's results on this machine, None before it has run."""
    part: dict[str, Any] | None = read_results(result_file()).get(name)
    return part


def write_part(name: str, found: dict[str, Any], path: Path | None = None) -> Path:
    """Replace one benchmark's results on this machine, or in `path`; the others stay."""
    path = path or result_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**read_results(path), "machine": machine(), name: found})
    return path


def title(facts: dict[str, Any], provenance: dict[str, Any]) -> str:
    """One line: the machine, the version of torch, and the commit that was measured."""
    gpus = [f"{len(facts['gpus'])}x {facts['gpus'][0]}"] if facts["gpus"] else []
    parts = [facts["processor"], f"{facts['cores']} cores", *(facts["features"] or ["no bfloat16 units"]), *gpus]
    commit, _, dirty = (provenance["commit"] or "unknown").partition("-")
    changed = " with changes" if dirty else ""
    return f"**{', '.join(parts)}** (torch {provenance['versions']['torch']}, commit {commit[:7]}{changed}):"
