"""An evaluation as RobustBench lists one."""

from pathlib import Path
from typing import Any

from robust_arch.common.files import read_json, write_json
from robust_arch.errors import InputError, invalid
from robust_arch.interop.reading import require_free
from robust_arch.runs import Evaluation, RunFolder
from robust_arch.runs.fields import MisfitError

_ATTACK = "autoattack"


def export_robustbench(source: Path, out: Path, *, force: bool = False) -> None:
    """Write the evaluation record `source` as an entry of RobustBench's model_info/<dataset>/<Linf or L2>/.

    The fields are those of `ModelInfo` in utils.py of RobustBench 1.1.1 and of its published entries (Croce et al.
    2021, https://github.com/RobustBench/robustbench). Accuracies are text, in percent; null stands for what a record
    does not know, like authors and venue.

    Raises:
        InputError: for a file that is no evaluation record, is invalid or has no autoattack, or an `out` that exists.
    """
    require_free(out, source, force=force)
    content = read_json(source)
    try:
        record = Evaluation.read(content or {})
    except MisfitError as misfit:
        raise InputError(f"{source}: expected an evaluation record, evaluations/<eval_id>.json ({misfit})") from None
    if record.invalid:
        raise invalid("record", str(source), f"a valid evaluation; this one is not: {'; '.join(record.invalid)}")
    if _ATTACK not in record.attacks:
        raise invalid("attacks", ", ".join(record.attacks), f"{_ATTACK} among them")
    write_json(out, _entry(record, RunFolder(source.resolve().parents[1]), (content or {}).get("model")))


def _entry(record: Evaluation, run: RunFolder, model: str | None) -> dict[str, Any]:
    attack, result, status = record.attacks[_ATTACK], run.result, run.status
    is_of_run = status is not None and status.run.run_id == record.run_id
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": result.data.extra is not None if is_of_run and result and result.data else None,
        "number_forward_passes": 1 if is_of_run else None,
        "dataset": record.data,
        "venue": None,
        "architecture": status.run.arch if is_of_run and status else model,
        "eps": record.threat.partition("-")[2],
        "clean_acc": f"{record.clean.percent:.2f}",
        "reported": None,
        "autoattack_acc": f"{attack.percent:.2f}",
        "footnote": f"{record.n_test:,} test images, {record.weights} weights, {attack.implementation}",
        "unreliable": bool(attack.warnings),
    }
